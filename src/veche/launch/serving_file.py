"""What all emitted files share: a command in groups, a model's place, and comments."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from veche.core.language import Language
from veche.launch.phrases import phrase
from veche.launch.profile import Profile

GENERATED = "veche launch"
CONTAINER_MODEL_FOLDER = "/models"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A flag with its values, and what it is there for."""

    words: tuple[str, ...]
    comment: str = ""


def groups_of(command: Sequence[str], comments: Sequence[tuple[str, str]]) -> list[Group]:
    """Split arguments so that each flag stands with its values; leading words come alone."""
    why = dict(comments)
    groups: list[list[str]] = []
    for word in command:
        if word.startswith("--") or not groups or not groups[-1][0].startswith("--"):
            groups.append([word])
        else:
            groups[-1].append(word)
    return [Group(words=tuple(words), comment=why.get(words[0], "")) for words in groups]


def heading(profile: Profile, language: Language) -> list[str]:
    """Return the first comment lines of a file: what it starts, whether it fits, what to know."""
    cards = f"{profile.num_gpus} × {profile.gpu}"
    return [
        phrase("file_title", language, engine=profile.engine, cards=cards, program=GENERATED),
        profile.reason,
        *profile.notes,
    ]


def is_local(model_path: str) -> bool:
    """Whether a model is a path on this machine, rather than a name on the hub."""
    return model_path.startswith(("/", "./", "../", "~")) or Path(model_path).exists()


def with_absolute_model(profile: Profile) -> tuple[str, ...]:
    """Return the command with a local model's whole path, for whoever starts it elsewhere."""
    path = profile.case.model_path
    if not is_local(path):
        return profile.command
    absolute = str(Path(path).expanduser().resolve())
    return tuple(absolute if word == path else word for word in profile.command)


def in_container(profile: Profile) -> tuple[tuple[str, ...], str]:
    """Return the command as a container sees it, and the volume that it needs.

    A local model is mounted read-only; a name on the hub gets the user's own cache.
    """
    path = profile.case.model_path
    if not is_local(path):
        return profile.command, "${HOME}/.cache/huggingface:/root/.cache/huggingface"
    local = Path(path).expanduser().resolve()
    folder = local.parent if profile.engine == "llama.cpp" else local
    inside = f"{CONTAINER_MODEL_FOLDER}/{local.name}"
    mounted = CONTAINER_MODEL_FOLDER if folder != local else inside
    command = tuple(inside if word == path else word for word in profile.command)
    return command, f"{folder}:{mounted}:ro"

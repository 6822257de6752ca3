"""The graphics cards that veche knows: those of the package, and those of $VECHE_HOME/gpus.yaml."""

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from veche.core.errors import InputError
from veche.core.paths import home

GIB = 1 << 30
NUM_SUGGESTIONS = 3
LEAST_LIKENESS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One card.

    Attributes:
        name: what the user types.
        title: the manufacturer's name of it.
        visible_gib: lowest and highest memory that a program sees, over boards and drivers.
        bandwidth_gb_s: of its memory, 10⁹ bytes a second.
        tflops: dense (not sparse) matrix throughput by data type: bf16, fp8, int8, fp4.
        compute_capability: NVIDIA's "12.0", AMD's "gfx942".
        source: where these numbers come from.
        aliases: other names.
        has_unified_memory: whether the CPU uses the same memory.
    """

    name: str
    title: str
    visible_gib: tuple[float, float]
    bandwidth_gb_s: float
    tflops: Mapping[str, float]
    compute_capability: str
    source: str
    aliases: tuple[str, ...] = ()
    has_unified_memory: bool = False

    @property
    def visible_bytes(self) -> tuple[int, int]:
        """The memory that a program sees, lowest and highest."""
        low, high = self.visible_gib
        return round(low * GIB), round(high * GIB)

    @property
    def is_nvidia(self) -> bool:
        """Whether CUDA drives it."""
        return self.compute_capability[:1].isdigit()

    @property
    def sm(self) -> int:
        """The compute capability as one number, 120 for 12.0; 0 for other makers."""
        if not self.is_nvidia:
            return 0
        major, _, minor = self.compute_capability.partition(".")
        return 10 * int(major) + int(minor or 0)

    def as_dict(self) -> dict[str, Any]:
        """Return the card as JSON values."""
        return {**asdict(self), "visible_gib": list(self.visible_gib), "aliases": [*self.aliases]}


def catalogue() -> dict[str, Gpu]:
    """Return every known card by name; the user's file adds to the package's and overrides it.

    Raises:
        InputError: the user's file is not a list of cards.
    """
    shipped = (resources.files("veche.launch") / "gpus.json").read_text(encoding="utf-8")
    cards = {name: _gpu_from(name, entry) for name, entry in json.loads(shipped).items()}
    return cards | _user_cards(user_file())


def user_file() -> Path:
    """Return the file in which the user describes more cards, in the same keys."""
    return home() / "gpus.yaml"


def find_gpu(name: str) -> Gpu:
    """Return the card that `name` means.

    Raises:
        InputError: there is none; the nearest is named.
    """
    cards = [*catalogue().values()]
    wanted = _normal(name)
    for card in cards:
        if wanted in _names_of(card):
            return card
    near = ", ".join(repr(card.name) for card in _nearest(wanted, cards))
    raise InputError(
        f"--gpu: there is no graphics card {name!r} in the catalogue",
        hint=(f"did you mean one of {near}? " if near else "")
        + f"list them: veche gpus; add one in {user_file()}",
    )


def _nearest(wanted: str, cards: list[Gpu]) -> list[Gpu]:
    """Return up to three cards whose names look like `wanted`, in the catalogue's order."""
    likeness = {
        card.name: max(
            difflib.SequenceMatcher(None, wanted, name).ratio() for name in _names_of(card)
        )
        for card in cards
    }
    likeliest = sorted(cards, key=lambda card: -likeness[card.name])[:NUM_SUGGESTIONS]
    best = max(likeness.values(), default=0.0)
    return [
        card
        for card in cards
        if card in likeliest and likeness[card.name] >= max(LEAST_LIKENESS, best - 0.2)
    ]


def _names_of(card: Gpu) -> set[str]:
    return {_normal(name) for name in (card.name, *card.aliases)}


def _normal(name: str) -> str:
    """`NVIDIA GeForce RTX 4090` → rtx4090: hyphens and makers tell no cards apart."""
    words = re.sub(r"[-_ ]", "", name.lower())
    return words.removeprefix("nvidia").removeprefix("geforce")


def _user_cards(path: Path) -> dict[str, Gpu]:
    if not path.is_file():
        return {}
    import yaml

    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:  # ValueError: 2024-99-99
        raise InputError(
            f"{path} cannot be read as YAML: {error}", hint="correct this file, or move it away"
        ) from error
    if not isinstance(value, dict):
        raise InputError(
            f"{path} must be a mapping from a card's name to its data",
            hint="take an entry of `veche gpus --json`",
        )
    return {str(name): _checked_entry(str(name), entry, path) for name, entry in value.items()}


def _checked_entry(name: str, entry: object, path: Path) -> Gpu:
    from veche.launch.gpu_file import GpuEntry, problem_in

    problem = problem_in(entry)
    if problem:
        raise InputError(f"{path}: {name}: {problem}", hint="take an entry of `veche gpus --json`")
    return _gpu_from(name, GpuEntry.model_validate(entry).model_dump())


def _gpu_from(name: str, entry: dict[str, Any]) -> Gpu:
    low, high = entry["visible_gib"]
    return Gpu(
        **{
            **entry,
            "name": name,
            "visible_gib": (low, high),
            "aliases": tuple(entry.get("aliases", ())),
        }
    )

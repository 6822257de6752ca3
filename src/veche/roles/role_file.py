"""A role as YAML: what people write, what packages bring, what the registry keeps."""

import difflib
import re
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from veche.core.errors import RoleError
from veche.core.files import open_regular
from veche.core.language import LANGUAGES, Language, Phrase
from veche.planning.yaml_text import MAX_BYTES, read_yaml
from veche.roles.role import (
    Artefact,
    ArtefactKind,
    Role,
    RoleKind,
    RoleSampling,
    RoleSteering,
)

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_MAX_NAME = 64
_HASH = re.compile(r"[0-9a-f]{64}")
_LICENSE = re.compile(r"[A-Za-z0-9.+()-]+( [A-Za-z0-9.+()-]+)*")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_WIDTH = 100


def is_name(name: str) -> bool:
    """Whether it can be a role's: lower-case letters, digits and hyphens between them.

    Such a name is a safe folder's name too: no path leads anywhere through it.
    """
    return len(name) <= _MAX_NAME and _NAME.fullmatch(name) is not None


def require_name(name: str) -> None:
    """Refuse what is no role's name.

    Raises:
        RoleError: says what one looks like.
    """
    if not is_name(name):
        raise RoleError(
            f"{name[:80]!r} is no name of a role",
            hint=f"lower-case letters, digits, and hyphens between them, at most {_MAX_NAME}: "
            "strict-logician",
        )


def is_content_hash(text: str) -> bool:
    """Whether it is a SHA-256 in lower-case hex."""
    return _HASH.fullmatch(text) is not None


def is_license(text: str) -> bool:
    """Whether it looks like an SPDX identifier or expression."""
    return len(text) <= _MAX_NAME and _LICENSE.fullmatch(text) is not None


def parse_role(text: str, *, where: str) -> Role:
    """Parse a role's YAML.

    Raises:
        RoleError: what is wrong, with the nearest known key; `where` names the role.
    """
    value = read_yaml(text, where, error=RoleError)
    if not isinstance(value, dict):
        raise RoleError(
            f"{where} is not a mapping of keys to values",
            hint="see a shipped one: veche role show proposer",
        )
    try:
        return _RoleFile.model_validate(value).as_role()
    except ValidationError as error:
        raise RoleError(
            f"{where}: {_first_problem(error)}", hint="docs: make-a-role; veche role show proposer"
        ) from error


def read_role(path: Path) -> Role:
    """Read a role's YAML file.

    Raises:
        RoleError: it is missing, too large, no text, or no role.
    """
    try:
        with open_regular(path) as file:
            raw = file.read(MAX_BYTES * 4 + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise RoleError(
            f"{path} cannot be read: {error.strerror}", hint="check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise RoleError(f"{path} is not UTF-8 text: {error}") from error
    return parse_role(text, where=str(path))


def role_text(role: Role) -> str:
    """Return a role as YAML; what is as it would be without being said is left out."""
    written = {
        key: value for key, value in _written(role).items() if value != _LEFT_OUT.get(key, object())
    }
    return yaml.safe_dump(written, allow_unicode=True, sort_keys=False, width=_WIDTH)


def version_hash(role: Role) -> str:
    """Return what a version of a role is called by: the SHA-256 of its YAML."""
    return sha256(role_text(role).encode()).hexdigest()


def as_dict(role: Role) -> dict[str, Any]:
    """Return a role as the JSON object of `--json`: every key, with both languages."""
    return _written(role) | {"title": dict(role.title), "prompt": dict(role.prompt)}


_LEFT_OUT: dict[str, Any] = {
    "prompt": "", "sampling": {}, "invocation": "", "num_experts_per_tok": None, "adapter": None,
    "steering": None, "probe": None, "parents": [],
}  # fmt: skip


def _written(role: Role) -> dict[str, Any]:
    return {
        "name": role.name,
        "kind": role.kind,
        "title": _one_or_both(role.title),
        "prompt": _one_or_both(role.prompt),
        "sampling": {
            item.name: value
            for item in fields(RoleSampling)
            if (value := getattr(role.sampling, item.name)) != item.default
        },
        "invocation": role.invocation,
        "num_experts_per_tok": role.num_experts_per_tok,
        "adapter": _told_of(role.adapter),
        "steering": None
        if role.steering is None
        else {
            **(_told_of(role.steering.artefact) or {}),
            "strength": role.steering.strength,
            **({} if role.steering.layers is None else {"layers": list(role.steering.layers)}),
        },
        "probe": _told_of(role.probe),
        "license": role.license,
        "parents": list(role.parents),
    }


def _told_of(artefact: Artefact | None) -> dict[str, str] | None:
    if artefact is None:
        return None
    told = {"content_hash": artefact.content_hash, "base_hash": artefact.base_hash}
    told["license"] = artefact.license
    return {key: value for key, value in told.items() if value is not None}


def _one_or_both(phrase: Phrase) -> str | dict[str, str]:
    texts: dict[str, str] = {language: phrase[language] for language in LANGUAGES}
    return texts["en"] if len(set(texts.values())) == 1 else texts


# --- the boundary ---------------------------------------------------------------------------------


def _checked_name(name: str) -> str:
    if not is_name(name):
        raise ValueError(
            "must be lower-case letters, digits, and hyphens between them, at most "
            f"{_MAX_NAME} characters"
        )
    return name


def _checked_hash(text: str) -> str:
    if not is_content_hash(text):
        raise ValueError("is no SHA-256: 64 digits of lower-case hex")
    return text


def _checked_license(text: str) -> str:
    if not is_license(text):
        raise ValueError("is no SPDX identifier, such as Apache-2.0")
    return text


def _checked_text(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("holds control characters")
    return text


_Hash = Annotated[str, AfterValidator(_checked_hash)]
_License = Annotated[str, AfterValidator(_checked_license)]
_Text = Annotated[str, AfterValidator(_checked_text)]
_Texts = _Text | dict[Language, _Text]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _SamplingFile(_Strict):
    temperature: float = Field(0.0, ge=0, le=1e6)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, ge=1e-6, le=1e6)


class _ArtefactFile(_Strict):
    content_hash: _Hash
    base_hash: _Hash | None = None
    license: _License | None = None

    def as_artefact(self, kind: ArtefactKind) -> Artefact:
        return Artefact(
            kind=kind,
            content_hash=self.content_hash,
            base_hash=self.base_hash,
            license=self.license,
        )


class _SteeringFile(_ArtefactFile):
    strength: float = Field(1.0, ge=-1e4, le=1e4)
    layers: list[Annotated[int, Field(ge=0)]] | None = None


class _RoleFile(_Strict):
    name: Annotated[str, AfterValidator(_checked_name)]
    kind: RoleKind
    title: _Texts
    prompt: _Texts = ""
    sampling: _SamplingFile | None = None
    invocation: _Text = ""
    num_experts_per_tok: int | None = Field(None, ge=1)
    adapter: _ArtefactFile | None = None
    steering: _SteeringFile | None = None
    probe: _ArtefactFile | None = None
    license: _License = "Apache-2.0"
    parents: list[_Hash] = Field(default_factory=list)

    @model_validator(mode="after")
    def _has_a_title(self) -> "_RoleFile":
        if not any(text.strip() for text in _both(self.title).values()):
            raise ValueError("title: it is empty")
        return self

    def as_role(self) -> Role:
        adapter, steering, probe = self.adapter, self.steering, self.probe
        return Role(
            name=self.name,
            kind=self.kind,
            title=_both(self.title),
            prompt=_both(self.prompt),
            sampling=RoleSampling(**(self.sampling.model_dump() if self.sampling else {})),
            invocation=self.invocation,
            num_experts_per_tok=self.num_experts_per_tok,
            adapter=None if adapter is None else adapter.as_artefact("adapter"),
            steering=None
            if steering is None
            else RoleSteering(
                artefact=steering.as_artefact("steering"),
                strength=steering.strength,
                layers=None if steering.layers is None else tuple(steering.layers),
            ),
            probe=None if probe is None else probe.as_artefact("probe"),
            license=self.license,
            parents=tuple(self.parents),
        )


def _both(texts: str | dict[Language, str]) -> Phrase:
    """Return a text in both languages: one that is missing is as the other."""
    if isinstance(texts, str):
        return dict.fromkeys(LANGUAGES, texts)
    first = next(iter(texts.values()), "")
    return {language: texts.get(language, first) for language in LANGUAGES}


_MODELS: dict[str, type[BaseModel]] = {
    "sampling": _SamplingFile, "adapter": _ArtefactFile, "steering": _SteeringFile,
    "probe": _ArtefactFile,
}  # fmt: skip


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = [str(part) for part in first["loc"]]
    key = ".".join(part for part in place if not part.startswith(("function-", "dict[")))
    if first["type"] == "extra_forbidden":
        known = _MODELS.get(place[0], _RoleFile) if len(place) > 1 else _RoleFile
        near = difflib.get_close_matches(place[-1], known.model_fields, n=1, cutoff=0.5)
        return f"unknown key {key!r}" + (f" (did you mean {near[0]!r}?)" if near else "")
    if key == "kind":
        return f"kind: {str(first['input'])[:40]!r} is none of {', '.join(get_args(RoleKind))}"
    if first["type"] == "missing":
        return f"the key {key!r} is missing"
    message = str(first["msg"]).removeprefix("Value error, ")
    return f"{key}: {message[:1].lower()}{message[1:]}" if key else message

"""The model that roles are to speak with: is it the one that their adapters were made for?"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from veche.checkpoint.config import read_config, spec_of
from veche.checkpoint.identity import content_hash
from veche.core.errors import InputError, UnsupportedError
from veche.core.progress import Progress
from veche.engines.protocol import Engine, local
from veche.roles.role import Artefact, Role

_CONFIG = "config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What is known of a model's folder.

    Attributes:
        where: what the user calls it.
        content_hash: of config, tokenizer and weights; None where nobody had to know.
        layers: the numbers of its layers that route.
        num_experts: that each of them chooses from.
    """

    where: str
    content_hash: str | None
    layers: tuple[int, ...]
    num_experts: int


def host_of(model: str, roles: Iterable[Role], *, progress: Progress | None = None) -> Host | None:
    """Return what must be known of a model before `roles` speak with it.

    The weights are read, some seconds for each 10 GB, only if a role says what it was made for.

    Args:
        model: a folder; of a server or a single file nothing is known, and None is returned.
        roles: that are to speak.
        progress: told of the reading.

    Raises:
        ConfigError: config.json is not that of a known model.
    """
    folder = Path(model)
    if not (folder / _CONFIG).is_file():
        return None
    spec = spec_of(read_config(folder / _CONFIG), where=str(folder / _CONFIG))
    is_asked = any(item.base_hash is not None for role in roles for item in _acting(role))
    layers = tuple(n for n in range(spec.num_hidden_layers) if spec.is_sparse_layer(n))
    return Host(
        where=model,
        content_hash=content_hash(folder, progress=progress) if is_asked else None,
        layers=layers,
        num_experts=spec.num_experts or 0,
    )


def require_made_for(role: Role, host: Host, *, folder: Path | None = None) -> None:
    """Refuse a role whose adapter or steering was made with another model.

    Args:
        role: that is to speak.
        host: the model.
        folder: where its adapter lies, for the hint.

    Raises:
        InputError: names both models by their hashes.
    """
    for artefact in _acting(role):
        if None in (artefact.base_hash, host.content_hash):
            continue
        if artefact.base_hash != host.content_hash:
            made, found = str(artefact.base_hash)[:12], str(host.content_hash)[:12]
            raise InputError(
                f"the {artefact.kind} of role {role.name!r} was made with the model {made}…, and "
                f"{host.where} is {found}…",
                hint="use the model that it was made with; if you know that it fits this one too: "
                f"veche role import {folder or 'FOLDER'} --name {role.name} --base {host.where}",
            )


def require_trained_on(base_hash: str, engine: Engine) -> None:
    """Refuse a probe that reads another model's states.

    Args:
        base_hash: content hash of the model that the probe was trained on.
        engine: whose states it is to read.

    Raises:
        UnsupportedError: the engine runs another checkpoint, or can't tell which.
    """
    found = local(engine).base_hash
    if found != base_hash:
        raise UnsupportedError(
            f"the probe was trained on the model {base_hash[:12]}…, and {engine.name} is "
            f"{found[:12]}…: its states mean something else",
            hint="train one for this model: veche role train ROLE MODEL --data FILE --part probe",
        )


def unproven(roles: Iterable[Role], host: Host | None) -> list[tuple[str, str]]:
    """Return (role, kind) of what may have been made with another model: nobody can tell."""
    return [
        (role.name, artefact.kind)
        for role in roles
        for artefact in _acting(role)
        if artefact.base_hash is None or host is None
    ]


def _acting(role: Role) -> list[Artefact]:
    """Return what changes how the model computes; a probe only looks."""
    steering = None if role.steering is None else role.steering.artefact
    return [artefact for artefact in (role.adapter, steering) if artefact is not None]

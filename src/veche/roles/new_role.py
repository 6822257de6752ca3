"""Make a role from a few words, or from another role."""

from dataclasses import dataclass, replace
from pathlib import Path

from veche.core.errors import RoleError
from veche.core.language import LANGUAGES
from veche.roles.registry import Registry
from veche.roles.role import Role, RoleKind, RoleSteering
from veche.roles.role_file import is_license, parse_role, require_name, role_text, version_hash
from veche.roles.versions import RoleVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleWish:
    """What a new role is to be; None leaves it as in the role that it is made from.

    Attributes:
        kind: what it does in a council.
        title: how people call it, in every language.
        prompt: how it should think, in every language.
        temperature: of its sampling.
        num_experts_per_tok: active experts while it speaks.
        steering: a file that `veche steer find` wrote.
        strength: of the steering, in nats.
        license: SPDX identifier.
    """

    kind: RoleKind | None = None
    title: str | None = None
    prompt: str | None = None
    temperature: float | None = None
    num_experts_per_tok: int | None = None
    steering: Path | None = None
    strength: float | None = None
    license: str | None = None


def new_role(
    registry: Registry, name: str, wish: RoleWish, *, parent: str | None = None, note: str = ""
) -> tuple[Role, RoleVersion]:
    """Save a new role, or, with itself as parent, a new version of one.

    Raises:
        RoleError: the name is none, or taken; the parent is unknown; or nothing says what the
            role should do.
        CheckpointError: the steering is damaged.
        DiskError: the disk refuses.
    """
    require_name(name)
    if name in registry.names() and parent != name:
        raise RoleError(
            f"there is a role {name!r} already",
            hint=f"a new version of it: veche role new {name} --from {name} …",
        )
    if parent is None and wish.prompt is None:
        raise RoleError(
            f"nothing says what role {name!r} should do",
            hint=f'veche role new {name} --prompt "…", or --from ROLE',
        )
    role = _beginning(registry, name, parent)
    role = _with_words(role, wish)
    role = _with_dials(registry, role, wish)
    # What a YAML file could not say is refused here as there.
    return role, registry.save(parse_role(role_text(role), where=f"role {name!r}"), note=note)


def _beginning(registry: Registry, name: str, parent: str | None) -> Role:
    if parent is None:
        title = name.replace("-", " ").capitalize()
        texts = dict.fromkeys(LANGUAGES, "")
        return Role(name=name, kind="drafter", title=dict.fromkeys(LANGUAGES, title), prompt=texts)
    before = registry.get(parent)
    return replace(before, name=name, parents=(version_hash(before),))


def _with_words(role: Role, wish: RoleWish) -> Role:
    if wish.kind is not None:
        role = replace(role, kind=wish.kind)
    if wish.title is not None:
        role = replace(role, title=dict.fromkeys(LANGUAGES, wish.title))
    if wish.prompt is not None:
        role = replace(role, prompt=dict.fromkeys(LANGUAGES, wish.prompt))
    if wish.license is not None:
        if not is_license(wish.license):
            raise RoleError(f"{wish.license[:80]!r} is no SPDX identifier, such as Apache-2.0")
        role = replace(role, license=wish.license)
    return role


def _with_dials(registry: Registry, role: Role, wish: RoleWish) -> Role:
    if wish.temperature is not None:
        role = replace(role, sampling=replace(role.sampling, temperature=wish.temperature))
    if wish.num_experts_per_tok is not None:
        role = replace(role, num_experts_per_tok=wish.num_experts_per_tok)
    if wish.steering is not None:
        role = replace(role, steering=_steering(registry, wish.steering))
    if wish.strength is not None:
        if role.steering is None:
            raise RoleError(
                "a strength is given, and nothing to steer with", hint="--steering FILE"
            )
        role = replace(role, steering=replace(role.steering, strength=wish.strength))
    return role


def _steering(registry: Registry, file: Path) -> RoleSteering:
    from veche.experts.steering.file import load_steering

    base_hash = load_steering(file).source.identity or None
    return RoleSteering(artefact=registry.keep(file, "steering", base_hash=base_hash))

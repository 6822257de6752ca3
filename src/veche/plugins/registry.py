"""Find a plugin by name. Built-ins come the same way: through entry points of `veche` itself."""

import difflib
import os
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from veche.core.errors import FailureError, MissingExtraError, UnsupportedError, VecheError

Group = Literal["engines", "operations", "roles"]
GROUPS: tuple[Group, ...] = ("engines", "operations", "roles")
ALLOW_LIST = "VECHE_PLUGINS"
"""Environment variable: comma-separated distributions that may add plugins; empty means none."""


def names(group: Group) -> list[str]:
    """Return the names of a group's plugins. Nothing is imported."""
    return sorted(_allowed(group))


def load(group: Group, name: str) -> Any:
    """Import and return the plugin `name`.

    Raises:
        UnsupportedError: there is none; the nearest name is given.
        FailureError: it is there and broken; the package that brings it is named.
    """
    require_known(group, name)
    found = _allowed(group)
    try:
        return found[name].load()
    except VecheError:
        raise
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "?", "model") from error
    except (ImportError, AttributeError, SyntaxError) as error:
        package = _package_of(found[name])
        raise FailureError(
            f"the plugin {name!r} of package {package!r} is broken: {error}",
            hint=f"update or remove it: pip uninstall {package}",
        ) from error


def package_of(group: Group, name: str) -> str:
    """Return which package brings a plugin. Nothing is imported.

    Raises:
        UnsupportedError: there is none of that name.
    """
    require_known(group, name)
    return _package_of(_allowed(group)[name])


def require_known(group: Group, name: str) -> None:
    """Refuse a name that no installed package brings. Nothing is imported.

    Raises:
        UnsupportedError: there is none; the nearest name is given.
    """
    found = _allowed(group)
    if name not in found:
        near = difflib.get_close_matches(name, found, n=1)
        raise UnsupportedError(
            f"there is no {group.removesuffix('s')} {name!r}",
            hint=(f"did you mean {near[0]!r}? " if near else "")
            + f"installed: {', '.join(sorted(found)) or 'none'}",
        )


def _allowed(group: Group) -> dict[str, EntryPoint]:
    """Return the entry points of a group; without an allow-list every installed one counts."""
    listed = os.environ.get(ALLOW_LIST)
    allowed = None if listed is None else {name.strip() for name in listed.split(",")} | {"veche"}
    return {
        point.name: point
        for point in entry_points(group=f"veche.{group}")
        if allowed is None or _package_of(point) in allowed
    }


def _package_of(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "?"

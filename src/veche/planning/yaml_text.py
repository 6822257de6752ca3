"""Read YAML that a stranger may have written: one value, small, no key twice."""

from collections.abc import Hashable
from typing import Any

import yaml

from veche.core.errors import InputError, RecipeError

MAX_BYTES, _MAX_NODES, _MAX_DEPTH = 32_768, 10_000, 20


class _OnceLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key which stands twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return the mapping.

        Raises:
            ConstructorError: a key stands twice.
        """
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def read_yaml(text: str, what: str, *, error: type[InputError] = RecipeError) -> Any:
    """Parse YAML, and refuse what no recipe or role needs: aliases can make a text explode.

    Args:
        text: of the file.
        what: names it in errors.
        error: what is raised where it is not YAML, too large, too deep, or has a key twice.
    """
    if len(text) > MAX_BYTES:
        raise error(
            f"{what} is too large: {len(text):,} characters",
            hint=f"at most {MAX_BYTES:,} are read",
        )
    try:
        value = yaml.load(text, Loader=_OnceLoader)  # noqa: S506 - a SafeLoader
        _require_small(value, what, error)
    except (yaml.YAMLError, RecursionError, ValueError) as cause:
        raise error(f"{what} is not valid YAML: {str(cause)[:400]}") from cause
    return value


def _require_small(value: Any, what: str, error: type[InputError]) -> None:
    """Refuse many values, deep ones, and halves of surrogate pairs (a ValueError)."""
    nodes, waiting = 0, [(value, 0)]
    while waiting:
        node, depth = waiting.pop()
        nodes += 1
        if nodes > _MAX_NODES or depth > _MAX_DEPTH:
            raise error(
                f"{what} is too large: over {_MAX_NODES:,} values, or {_MAX_DEPTH} deep",
                hint="keys and their values are enough; aliases count as often as they stand",
            )
        if isinstance(node, str):
            node.encode("utf-8")
        elif isinstance(node, dict):
            waiting += [(item, depth + 1) for pair in node.items() for item in pair]
        elif isinstance(node, list | tuple | set):
            waiting += [(item, depth + 1) for item in node]

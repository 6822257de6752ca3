"""Read YAML that a stranger may have written: one value, small, no key twice."""

from collections.abc import Hashable
from typing import Any

import yaml

from veche.core.errors import RecipeError

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


def read_yaml(text: str, what: str) -> Any:
    """Parse YAML, and refuse what no recipe needs: aliases can make a text explode.

    Raises:
        RecipeError: it is not YAML, too large, too deep, or has a key twice; `what` names it.
    """
    if len(text) > MAX_BYTES:
        raise RecipeError(
            f"{what} is too large: {len(text):,} characters",
            hint=f"a recipe has at most {MAX_BYTES:,}",
        )
    try:
        value = yaml.load(text, Loader=_OnceLoader)  # noqa: S506 - a SafeLoader
        _require_small(value, what)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise RecipeError(f"{what} is not valid YAML: {str(error)[:400]}") from error
    return value


def _require_small(value: Any, what: str) -> None:
    """Refuse many values, deep ones, and halves of surrogate pairs (a ValueError)."""
    nodes, waiting = 0, [(value, 0)]
    while waiting:
        node, depth = waiting.pop()
        nodes += 1
        if nodes > _MAX_NODES or depth > _MAX_DEPTH:
            raise RecipeError(
                f"{what} is too large: over {_MAX_NODES:,} values, or {_MAX_DEPTH} deep",
                hint="a recipe names fields and their values; aliases count as often as they stand",
            )
        if isinstance(node, str):
            node.encode("utf-8")
        elif isinstance(node, dict):
            waiting += [(item, depth + 1) for pair in node.items() for item in pair]
        elif isinstance(node, list | tuple | set):
            waiting += [(item, depth + 1) for item in node]

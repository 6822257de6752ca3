"""Engines with the options that the user gave them as NAME=VALUE."""

import difflib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from veche.engines.protocol import Engine

EngineOption = Annotated[str, typer.Option(help="The engine that runs the model.")]
EngineOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--engine-option",
        metavar="NAME=VALUE",
        help="Something that only this engine takes, such as timeout_s=60. Repeatable.",
    ),
]
_ELSEWHERE = ("model", "top_k")
"""Given by the command's own arguments."""


def open_engine(
    name: str, model: str, options: Sequence[str] | None, *, top_k: int | None = None
) -> "Engine":
    """Load the engine `name` with `model`.

    Raises:
        UnsupportedError: there is no such engine.
        InputError: an option is unknown to it, or of a wrong kind.
    """
    from veche.plugins.registry import load

    create = load("engines", name)
    engine: Engine = create(model, top_k=top_k, **_values(create, name, options or ()))
    return engine


def _values(create: Callable[..., Any], engine: str, options: Sequence[str]) -> dict[str, Any]:
    from pydantic import TypeAdapter, ValidationError

    from veche.core.errors import InputError

    known = _kinds(create)
    values: dict[str, Any] = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not equals or name not in known:
            raise _unknown(engine, option if not equals else name, list(known))
        try:
            values[name] = TypeAdapter(known[name]).validate_python(text)
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"]
            raise InputError(f"--engine-option {name}={text}: {reason}") from error
    return values


def _kinds(create: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of an engine's own options, by name.

    What it returns is left alone: that name may exist for type checkers only, so that looking
    for an engine imports nothing.
    """
    from inspect import signature
    from types import SimpleNamespace
    from typing import get_type_hints

    written = {
        name: parameter.annotation
        for name, parameter in signature(create).parameters.items()
        if name not in _ELSEWHERE
    }
    hinted = SimpleNamespace(__annotations__=written)
    return get_type_hints(hinted, globalns=getattr(create, "__globals__", None))


def _unknown(engine: str, name: str, known: Sequence[str]) -> Exception:
    from veche.core.errors import InputError

    near = difflib.get_close_matches(name, known, n=1)
    return InputError(
        f"the engine {engine!r} has no option {name!r}",
        hint=(f"did you mean {near[0]}=…? " if near else "")
        + (f"it takes: {', '.join(known)}" if known else "it takes none"),
    )

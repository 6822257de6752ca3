"""`veche experts watch`: the experts of every token, while a chat runs."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from veche.cli.engine_options import EngineOption, EngineOptions, open_engine
from veche.cli.terminal import stdout

if TYPE_CHECKING:
    from veche.engines.protocol import Branch, Engine, Trunk
    from veche.experts.live import LiveRouting

_SHADES = " ·░▒▓█"
_NULL_SHADE = 2
"""The shade of a load as by chance; the darkest is thrice that."""
_VOICE = "assistant"
_LEGEND = (
    "{tokens} tokens; load over the last {window}, a mark an expert: blank is never, ░ as by "
    "chance; H is its entropy; then the last token's experts, best first"
)


def watch(
    model: Annotated[str, typer.Argument(help="A model folder.")],
    engine: EngineOption = "transformers",
    engine_option: EngineOptions = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer.")] = 128,
    window: Annotated[int, typer.Option(min=1, help="Tokens that the load is taken over.")] = 64,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the answers.")] = 0,
) -> None:
    """Chat, a line a question, and watch each layer's experts; an empty line or Ctrl-D ends it."""
    from veche.core.errors import UnsupportedError
    from veche.engines.protocol import Branch, Capability, Sampling

    opened = open_engine(engine, str(model), engine_option)
    if Capability.ROUTING not in opened.capabilities:
        raise UnsupportedError(
            f"engine {opened.name!r} reports no routing of this model",
            hint="watch a mixture-of-experts model with the transformers engine",
        )
    sampling = Sampling(max_new_tokens=max_tokens, temperature=temperature, seed=seed)
    can_keep = Capability.KEEP in opened.capabilities
    branch = Branch(voice=_VOICE, instruction="", sampling=sampling, keep=can_keep)
    _chat(opened, branch, window, *_experts_of(Path(model)))


def _experts_of(model: Path) -> tuple[int, tuple[int, ...]]:
    """Return how many experts a layer has, and the layers that have some, if a folder tells."""
    from veche.checkpoint.config import read_config, spec_of

    if not (model / "config.json").is_file():
        return 0, ()
    spec = spec_of(read_config(model / "config.json"))
    return spec.num_experts, tuple(
        layer for layer in range(spec.num_hidden_layers) if spec.is_sparse_layer(layer)
    )


def _chat(
    engine: "Engine", branch: "Branch", window: int, num_experts: int, layers: tuple[int, ...]
) -> None:
    """Answer line after line; what was said stays in the context where the engine can keep it."""
    from veche.experts.live import LiveRouting

    trunk: Trunk | None = None
    try:
        for question in _questions():
            kept = trunk
            if kept is None:
                trunk = engine.open_trunk(system="", user=question)
            else:
                engine.extend_trunk(kept, question)
            routing = LiveRouting(window_tokens=window, num_experts=num_experts)
            trunk = _answer(engine, trunk or kept, branch, routing, layers)
    finally:
        if trunk is not None:
            engine.close_trunk(trunk)


def _questions() -> Iterator[str]:
    is_asked = sys.stdin.isatty() and stdout.is_terminal
    while True:
        if is_asked:
            stdout.print("> ", style="bold", end="")
        line = sys.stdin.readline()
        if not line.strip():
            return
        yield line.strip()


def _answer(
    engine: "Engine",
    trunk: Any,
    branch: "Branch",
    routing: "LiveRouting",
    layers: tuple[int, ...],
) -> Any:
    """Decode one answer while it is shown; return the trunk that goes on behind it, if any."""
    said: list[str] = []
    with _screen(routing, said, layers) as refresh:

        def on_token(voice: str, piece: str) -> None:
            said.append(piece)
            refresh()

        def on_routing(voice: str, ids: Any, weights: Any) -> None:
            routing.add(ids, weights)
            refresh()

        (result,) = engine.decode(trunk, [branch], on_token, on_routing=on_routing)
    engine.close_trunk(trunk)
    return result.trunk


@contextmanager
def _screen(
    routing: "LiveRouting", said: list[str], layers: tuple[int, ...]
) -> Iterator[Callable[[], None]]:
    """Show a block that is drawn anew, or, without a terminal, the same lines once at the end."""
    if not stdout.is_terminal:
        yield lambda: None
        stdout.print("".join(said), soft_wrap=True)
        for line in routing_lines(routing, layers):
            stdout.print(line, soft_wrap=True)
        return
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    def view() -> Group:
        return Group(Text("".join(said)), *(Text(line) for line in routing_lines(routing, layers)))

    with Live(view(), console=stdout, refresh_per_second=10, vertical_overflow="crop") as live:
        yield lambda: live.update(view())
        live.update(view(), refresh=True)


def routing_lines(routing: "LiveRouting", layers: tuple[int, ...]) -> list[str]:
    """Return a line a layer: its load as shades, the load's entropy, the current token's experts.

    A shade stands for one expert: `░` is as often as by chance, blank is never.
    """
    if not routing.num_tokens:
        return ["no token was fed back, so none was routed"]
    lines = [_LEGEND.format(tokens=routing.num_tokens, window=routing.window_tokens)]
    rows = zip(routing.load, routing.entropy, routing.current, strict=True)
    for row, (load_E, entropy, current) in enumerate(rows):
        shades = "".join(_shade(share * len(load_E)) for share in load_E)
        number = layers[row] if row < len(layers) else row
        lines.append(f"{number:3d} |{shades}| H {entropy:.2f}  {' '.join(map(str, current))}")
    return lines


def _shade(relative_load: float) -> str:
    if relative_load == 0:
        return _SHADES[0]
    return _SHADES[min(1 + round(relative_load * (_NULL_SHADE - 1)), len(_SHADES) - 1)]

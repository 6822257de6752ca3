"""`veche experts record`: where the tokens of prompts, texts and dialogues are sent."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from veche.cli.engine_options import EngineOption, EngineOptions, open_engine
from veche.cli.terminal import JsonOption, TerminalProgress, print_json, stdout
from veche.core.progress import Progress, Silent
from veche.core.units import format_bytes

InputArgument = Annotated[
    Path,
    typer.Argument(
        metavar="INPUT", help="A prompt a line; or JSONL with messages, prompt or text, and labels."
    ),
]
KindOption = Annotated[
    Literal["prompts", "texts"],
    typer.Option("--as", help="What a plain file holds: prompts to answer, or texts to read."),
]
MaxTokensOption = Annotated[
    int, typer.Option(min=1, help="Tokens decoded for a prompt without an answer.")
]
WindowOption = Annotated[
    int, typer.Option(min=16, help="Longer texts are read in pieces of so many tokens.")
]
LogitsOption = Annotated[
    bool, typer.Option("--router-logits", help="Keep every expert's logit: 2 B an expert a token.")
]


def record(
    model: Annotated[str, typer.Argument(help="A model folder.")],
    input_file: InputArgument,
    out: Annotated[Path, typer.Option(help="Folder of the recording, new or to go on with.")],
    kind: KindOption = "prompts",
    text_field: Annotated[str, typer.Option(help="The JSONL field that is text.")] = "text",
    max_tokens: MaxTokensOption = 64,
    window: WindowOption = 512,
    limit: Annotated[
        int | None, typer.Option(min=1, help="The first so many documents only.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0, help="Of the answers; 0 is greedy.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the answers.")] = 0,
    weights: Annotated[
        bool, typer.Option("--weights", help="Keep routing weights: 2 B an expert that was chosen.")
    ] = False,
    router_logits: LogitsOption = False,
    engine: EngineOption = "transformers",
    engine_option: EngineOptions = None,
    as_json: JsonOption = False,
) -> None:
    """Record where the tokens of prompts, texts or dialogues are sent; run again to go on."""
    from veche.experts.inputs import read_items
    from veche.experts.record import RecordSettings

    items = read_items(input_file, kind=kind, text_field=text_field)[:limit]
    settings = RecordSettings(
        max_tokens=max_tokens,
        window_tokens=window,
        weights=weights,
        router_logits=router_logits,
        seed=seed,
        temperature=temperature,
        engine=engine,
    )
    progress = Silent() if as_json else TerminalProgress()
    done = _record(model, items, out, settings, progress, engine_option)
    if as_json:
        print_json({"recording": str(out), **done.as_dict()})
        return
    stdout.print(
        f"{out}: {done.num_added} documents recorded, {done.num_tokens} tokens; "
        f"{done.num_kept} were there already; {format_bytes(done.num_bytes)}",
        soft_wrap=True,
    )


def _record(
    model: str,
    items: Any,
    out: Path,
    settings: Any,
    progress: Progress,
    engine_option: list[str] | None,
) -> Any:
    """Load the model, unless it is dense, and record."""
    from veche.core.errors import UnsupportedError
    from veche.experts.identity import source_of
    from veche.experts.record import record as record_into
    from veche.experts.record import require_readable
    from veche.experts.vocabulary import vocabulary_of

    source = source_of(model, progress=progress)
    if Path(model).is_dir() and source.identity and not source.layers:
        raise UnsupportedError(
            f"{model} is a dense model: it has no experts to see",
            hint=f"carve it into experts: veche carve {model} --out carved",
        )
    opened = open_engine(settings.engine, model, engine_option)
    require_readable(opened, items)
    return record_into(
        opened,
        items,
        out,
        source=source,
        settings=settings,
        vocabulary=vocabulary_of(Path(model)),
        progress=progress,
    )

"""`veche demo`: the whole chain on a small real model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from veche.cli.terminal import (
    JsonOption,
    LanguageOption,
    TerminalProgress,
    chosen_language,
    print_json,
    stderr,
    stdout,
)

if TYPE_CHECKING:
    from veche.core.language import Language
    from veche.demo.chain import StageResult


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out/demo"),
    question: Annotated[
        str | None,
        typer.Option(help="What to ask the council.", show_default="why the sky is blue"),
    ] = None,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Grow real weights, prove it, ask their council: the whole chain on a CPU, in minutes."""
    from veche.cli.council_view import CouncilView
    from veche.core.extras import require_extra
    from veche.council.seats import default_council
    from veche.demo.chain import Chain
    from veche.demo.phrases import phrase
    from veche.demo.stages import Demo
    from veche.roles.registry import Registry

    require_extra("demo")
    language = chosen_language(lang)
    view = CouncilView(stderr if as_json else stdout, default_council(Registry()), language)
    work = Demo(
        folder=out,
        question=question or phrase("question", language),
        language=language,
        progress=TerminalProgress(),
        on_event=view.on_event,
        on_token=view.on_token,
    )
    stages, results = work.stages(), []
    chain = Chain(out)
    try:
        for number, stage in enumerate(stages, 1):
            stderr.print(f"{number}/{len(stages)} ", style="bold", end="")
            stderr.print(phrase(stage.name, language), markup=False)
            results.append(chain.run(stage))
            _say_done(results[-1], language)
    finally:
        view.stop()
    if as_json:
        print_json(_report(out, results))
    else:
        _show_results(out, language)


def _say_done(result: "StageResult", language: "Language") -> None:
    from veche.demo.phrases import phrase

    key = "unchanged" if result.was_skipped else "stage_done"
    stderr.print("    " + phrase(key, language, seconds=result.seconds), style="dim")


def _report(out: Path, results: "list[StageResult]") -> dict[str, Any]:
    from dataclasses import asdict

    from veche.core.files import read_json_object

    return {
        "folder": str(out),
        "report": str(out / "report.html"),
        "answer": read_json_object(out / "ask.json")["answer"],
        "stages": [asdict(result) for result in results],
    }


def _show_results(out: Path, language: "Language") -> None:
    from veche.core.files import read_json_object
    from veche.demo.phrases import phrase

    verified = read_json_object(out / "verify.json")
    asked = read_json_object(out / "ask.json")
    usage = asked["usage"]
    stdout.print()
    stdout.print(
        phrase(
            "summary_verify",
            language,
            kl=verified["exact"]["kl"],
            floor=verified["exact"]["floor_kl"],
            source=verified["whole"]["nll_source"],
            target=verified["whole"]["nll_target"],
        ),
        markup=False,
    )
    stdout.print(phrase("summary_answer", language, answer=asked["answer"].strip()), markup=False)
    stdout.print(
        phrase(
            "summary_bill",
            language,
            prefilled=usage["prefilled_tokens"],
            reused=usage["reused_tokens"],
            decoded=usage["decoded_tokens"],
        ),
        markup=False,
    )
    stdout.print(phrase("look", language, path=out / "report.html"), style="bold", markup=False)

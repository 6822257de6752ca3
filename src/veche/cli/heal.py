"""`veche heal`: give a changed model back what the change cost it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from veche.cli.terminal import (
    JsonOption,
    LanguageOption,
    TerminalProgress,
    chosen_language,
    print_json,
)
from veche.cli.verify import DeviceOption

if TYPE_CHECKING:
    from veche.core.language import Language
    from veche.roles.healing.lesson import Lesson
    from veche.roles.healing.report import HealPlan, HealReport
    from veche.roles.healing.settings import Part
    from veche.roles.healing.texts import HealTexts


ModelArgument = Annotated[Path, typer.Argument(help="The folder to heal; only read.")]
OutArgument = Annotated[Path, typer.Argument(help="The folder to make.")]
TeacherOption = Annotated[
    Path | None,
    typer.Option(
        help="The model to heal it towards; only read.",
        show_default="with a dial MODEL as it is, else what veche build made it from",
    ),
]
TopKOption = Annotated[
    int | None, typer.Option(help="Turn the dial top_k: active experts a token.")
]
ThetaOption = Annotated[float | None, typer.Option(help="Turn the dial rope_theta.")]
YarnOption = Annotated[float | None, typer.Option(help="Turn the dial yarn: its factor.")]
MinutesOption = Annotated[
    float | None,
    typer.Option(min=0.01, help="How long fit and training may take.", show_default="15"),
]
StepsOption = Annotated[
    int | None, typer.Option(min=0, help="Steps of training, instead of minutes.")
]
TrainOption = Annotated[
    str | None,
    typer.Option(
        help="Of routers, experts, attention, new: with commas.",
        show_default="what the change damaged",
    ),
]
OptimizerOption = Annotated[
    str, typer.Option(help="Of attention's low-rank factors: adamw or loft.")
]
RankOption = Annotated[int, typer.Option(min=1, help="Of these factors.")]
RateOption = Annotated[
    float | None,
    typer.Option(help="Their highest learning rate.", show_default="the optimiser's own"),
]
ExpertsRateOption = Annotated[
    float | None,
    typer.Option(help="The highest of experts and new units.", show_default="1e-4"),
]
TextOption = Annotated[
    list[Path] | None,
    typer.Option(
        help="Text or JSONL to learn from; may be repeated.",
        show_default="half of Python's own help texts, and sources",
    ),
]
HeldoutOption = Annotated[
    Path | None,
    typer.Option(
        help="Text or JSONL to measure on.",
        show_default="a tenth of --text, or the other half of the help texts",
    ),
]
GenerateOption = Annotated[
    int, typer.Option(min=0, help="Tokens that the teacher writes, to learn from besides.")
]
FitOption = Annotated[
    int | None,
    typer.Option(
        min=0, help="Tokens to fit layers on first; 0 leaves that out.", show_default="32768"
    ),
]
BatchOption = Annotated[
    int | None, typer.Option(min=1, help="Windows of a step.", show_default="8")
]
WindowOption = Annotated[
    int | None,
    typer.Option(min=8, help="Tokens of a window.", show_default="128; of rope dials 512"),
]
HeldoutWindowsOption = Annotated[
    int, typer.Option(min=2, help="Windows to measure on, which intervals resample.")
]
HeldoutTokensOption = Annotated[int, typer.Option(min=8, help="Tokens of each.")]
SeedOption = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of every random choice.")]
PlaceOption = Annotated[
    DeviceOption, typer.Option(help="Where the models run; auto: CUDA where there is a card.")
]
FiguresOption = Annotated[
    Path | None, typer.Option(help="Folder for heal.json and heal.png.", show_default=False)
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be trained and what it needs.")
]


def heal(
    model: ModelArgument,
    out: OutArgument,
    teacher: TeacherOption = None,
    top_k: TopKOption = None,
    rope_theta: ThetaOption = None,
    yarn: YarnOption = None,
    minutes: MinutesOption = None,
    steps: StepsOption = None,
    train: TrainOption = None,
    optimizer: OptimizerOption = "adamw",
    rank: RankOption = 16,
    learning_rate: RateOption = None,
    experts_rate: ExpertsRateOption = None,
    text: TextOption = None,
    heldout: HeldoutOption = None,
    generate: GenerateOption = 0,
    fit_tokens: FitOption = None,
    batch: BatchOption = None,
    window: WindowOption = None,
    heldout_windows: HeldoutWindowsOption = 16,
    heldout_tokens: HeldoutTokensOption = 512,
    seed: SeedOption = 0,
    device: PlaceOption = DeviceOption.AUTO,
    figures: FiguresOption = None,
    dry_run: DryRunOption = False,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Distil a changed model towards the one it was made from, into a new complete checkpoint.

    The change is a dial that is turned here (--top-k, --rope-theta, --yarn), or what veche build
    made of another model. An interrupted command goes on where it was.
    """
    language = chosen_language(lang)
    inputs = [model, *filter(None, (teacher, heldout)), *(text or [])]
    _require_possible(out, figures, inputs)
    from veche.roles.healing.lesson import lesson_of

    lesson = lesson_of(model, teacher=teacher, top_k=top_k, rope_theta=rope_theta, yarn=yarn)
    given = {
        "minutes": minutes, "steps": steps, "train": _parts(train),
        "optimizer": optimizer, "rank": rank, "learning_rate": learning_rate,
        "experts_rate": experts_rate, "generate_tokens": generate, "fit_tokens": fit_tokens,
        "batch": batch, "window_tokens": window, "heldout_windows": heldout_windows,
        "heldout_tokens": heldout_tokens, "seed": seed,
    }  # fmt: skip
    plan, texts = _planned(lesson, given, text or [], heldout)
    if dry_run or not as_json:
        _tell(plan, language, as_json=as_json)
    if dry_run:
        return
    from veche.roles.healing.heal import heal as heal_model

    report = heal_model(plan, out, texts, device=device.value, progress=TerminalProgress())
    _finish(report, figures, language, as_json=as_json)


def _require_possible(out: Path, figures: Path | None, inputs: list[Path]) -> None:
    """Refuse, before anything is read, what is not installed or would be written over."""
    from veche.core.extras import require_extra
    from veche.core.files import require_apart, require_empty

    for extra in ("model", "train", *(["plots"] if figures else [])):
        require_extra(extra)
    require_apart(out, *inputs)
    if figures is not None:
        require_apart(figures, *inputs)
    require_empty(out, advice="choose another folder, or remove this one first")


def _planned(
    lesson: "Lesson", given: dict[str, Any], paths: list[Path], heldout: Path | None
) -> "tuple[HealPlan, HealTexts]":
    """Read the texts, and plan with the settings that were given; others have their defaults."""
    from veche.roles.healing.heal import plan_healing
    from veche.roles.healing.settings import HealSettings
    from veche.roles.healing.texts import texts_of
    from veche.surgery.loading import load_tokenizer

    settings = HealSettings(**{name: value for name, value in given.items() if value is not None})
    texts = texts_of(load_tokenizer(lesson.student), paths, heldout, seed=settings.seed)
    return plan_healing(lesson, settings, texts), texts


def _tell(plan: "HealPlan", language: "Language", *, as_json: bool) -> None:
    from veche.cli.heal_view import show_plan

    if as_json:
        print_json(plan.as_dict())
    else:
        show_plan(plan, language)


def _finish(
    report: "HealReport", figures: Path | None, language: "Language", *, as_json: bool
) -> None:
    """Write the figures where asked for, and print them."""
    from veche.cli.heal_view import show_healing
    from veche.core.files import write_json

    result: dict[str, Any] = report.as_dict()
    if figures is not None:
        from veche.roles.healing.picture import plot_healing

        picture = figures / "heal.png"
        plot_healing(picture, report, language=language)
        result["picture"] = str(picture)
        write_json(figures / "heal.json", result)
    if as_json:
        print_json(result)
    else:
        show_healing(report, result.get("picture"), language)


def _parts(given: str | None) -> "tuple[Part, ...] | None":
    from veche.core.errors import InputError
    from veche.roles.healing.settings import PARTS

    if given is None:
        return None
    names = [name.strip() for name in given.split(",") if name.strip()]
    found = tuple(part for part in PARTS if part in names)
    if not found or len(found) != len(set(names)):
        raise InputError(
            f"--train {given} are no parts of a model", hint=f"parts are: {', '.join(PARTS)}"
        )
    return found

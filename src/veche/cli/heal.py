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
    from veche.roles.healing.report import HealReport
    from veche.roles.healing.settings import Part


def heal(
    model: Annotated[Path, typer.Argument(help="The folder to heal; only read.")],
    out: Annotated[Path, typer.Argument(help="The folder to make.")],
    teacher: Annotated[
        Path | None,
        typer.Option(
            help="The model to heal it towards; only read.",
            show_default="with a dial MODEL as it is, else what veche build made it from",
        ),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Turn the dial top_k: active experts a token.")
    ] = None,
    rope_theta: Annotated[float | None, typer.Option(help="Turn the dial rope_theta.")] = None,
    yarn: Annotated[float | None, typer.Option(help="Turn the dial yarn: its factor.")] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.01, help="How long fit and training may take.", show_default="15"),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=0, help="Steps of training, instead of minutes.")
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(
            help="Of routers, experts, attention, new: with commas.",
            show_default="what the change damaged",
        ),
    ] = None,
    optimizer: Annotated[
        str, typer.Option(help="Of attention's low-rank factors: adamw or loft.")
    ] = "adamw",
    rank: Annotated[int, typer.Option(min=1, help="Of these factors.")] = 16,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Their highest learning rate.", show_default="the optimiser's own"),
    ] = None,
    experts_rate: Annotated[
        float | None,
        typer.Option(help="The highest of experts and new units.", show_default="1e-4"),
    ] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            help="Text or JSONL to learn from; may be repeated.",
            show_default="half of Python's own help texts, and sources",
        ),
    ] = None,
    heldout: Annotated[
        Path | None,
        typer.Option(
            help="Text or JSONL to measure on.",
            show_default="a tenth of --text, or the other half of the help texts",
        ),
    ] = None,
    generate: Annotated[
        int, typer.Option(min=0, help="Tokens that the teacher writes, to learn from besides.")
    ] = 0,
    fit_tokens: Annotated[
        int | None,
        typer.Option(
            min=0, help="Tokens to fit layers on first; 0 leaves that out.", show_default="32768"
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Windows of a step.", show_default="8")
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(min=8, help="Tokens of a window.", show_default="128; of rope dials 512"),
    ] = None,
    heldout_windows: Annotated[
        int, typer.Option(min=2, help="Windows to measure on, which intervals resample.")
    ] = 16,
    heldout_tokens: Annotated[int, typer.Option(min=8, help="Tokens of each.")] = 512,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Seed of every random choice.")
    ] = 0,
    device: Annotated[
        DeviceOption, typer.Option(help="Where the models run; auto: CUDA where there is a card.")
    ] = DeviceOption.AUTO,
    figures: Annotated[
        Path | None, typer.Option(help="Folder for heal.json and heal.png.", show_default=False)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained and what it needs.")
    ] = False,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Distil a changed model towards the one it was made from, into a new complete checkpoint.

    The change is a dial that is turned here (--top-k, --rope-theta, --yarn), or what veche build
    made of another model. An interrupted command goes on where it was.
    """
    from veche.core.extras import require_extra
    from veche.core.files import require_apart, require_empty

    language = chosen_language(lang)
    for extra in ("model", "train", *(["plots"] if figures else [])):
        require_extra(extra)
    require_apart(out, model, *([teacher] if teacher else []), *(text or []))
    if figures is not None:
        require_apart(figures, model, *([teacher] if teacher else []))
    require_empty(out, advice="choose another folder, or remove this one first")
    from veche.roles.healing.heal import heal as heal_model
    from veche.roles.healing.heal import plan_healing
    from veche.roles.healing.lesson import lesson_of
    from veche.roles.healing.texts import texts_of
    from veche.surgery.loading import load_tokenizer

    lesson = lesson_of(model, teacher=teacher, top_k=top_k, rope_theta=rope_theta, yarn=yarn)
    settings = _settings(
        minutes=minutes,
        steps=steps,
        train=_parts(train),
        optimizer=_optimizer(optimizer),
        rank=rank,
        learning_rate=learning_rate,
        experts_rate=experts_rate,
        generate_tokens=generate,
        fit_tokens=fit_tokens,
        batch=batch,
        window_tokens=window,
        heldout_windows=heldout_windows,
        heldout_tokens=heldout_tokens,
        seed=seed,
    )
    texts = texts_of(load_tokenizer(model), text or [], heldout, seed=seed)
    plan = plan_healing(lesson, settings, texts)
    if dry_run:
        from veche.cli.heal_view import show_plan

        print_json(plan.as_dict()) if as_json else show_plan(plan, language)
        return
    if not as_json:
        from veche.cli.heal_view import show_plan

        show_plan(plan, language)
    report = heal_model(plan, out, texts, device=device.value, progress=TerminalProgress())
    _finish(report, figures, language, as_json=as_json)


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


def _settings(**given: Any) -> Any:
    """Return the settings, with their own defaults for what was not given."""
    from veche.roles.healing.settings import HealSettings

    return HealSettings(**{name: value for name, value in given.items() if value is not None})


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


def _optimizer(given: str) -> str:
    from veche.core.errors import InputError
    from veche.roles.healing.settings import OPTIMIZERS

    if given not in OPTIMIZERS:
        raise InputError(
            f"--optimizer {given} is unknown", hint=f"use one of: {', '.join(OPTIMIZERS)}"
        )
    return given

"""`veche launch`: what fits on a card, and the command that starts it."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from veche.cli.launch_log import compare_with_log
from veche.cli.terminal import JsonOption, LanguageOption, chosen_language, print_json, stdout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from veche.checkpoint.spec import ModelSpec
    from veche.core.language import Language
    from veche.launch.alternatives import Alternative
    from veche.launch.profile import Profile
    from veche.launch.wish import Wish


def launch(
    model: Annotated[
        str, typer.Argument(help="A recipe, a plan.json, a shipped base or a model folder.")
    ],
    gpu: Annotated[str, typer.Option(help="The card.")] = "rtx-pro-6000",
    gpus: Annotated[int, typer.Option(min=1, help="Cards in each machine.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    engine: Annotated[
        str, typer.Option(help="vllm, sglang, llama.cpp, transformers or all.")
    ] = "vllm",
    quant: Annotated[
        str | None, typer.Option(help="Of the weights, e.g. bf16, fp8-block, Q4_K_M.")
    ] = None,
    kv: Annotated[str | None, typer.Option(help="Of the KV cache: bf16, fp8, q8_0, q4_0.")] = None,
    context: Annotated[
        int | None, typer.Option(min=1, help="The longest sequence, in tokens.")
    ] = None,
    sessions: Annotated[int, typer.Option(min=1, help="Sequences at once.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the recommended profile's scripts, unit and Compose file here."),
    ] = None,
    parse_log: Annotated[
        Path | None,
        typer.Option(help="Compare with an engine's start-up log, and learn from it."),
    ] = None,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what fits, how fast it will be, and how to start it."""
    from veche.launch.wish import make_wish

    language = chosen_language(lang)
    spec, name = subject(model, language)
    if parse_log is not None:
        compare_with_log(spec, parse_log, gpu, quant, kv, language, as_json=as_json)
        return
    wish = make_wish(
        gpu=gpu,
        num_gpus=gpus,
        num_nodes=nodes,
        engines=[engine],
        quantizations=[quant] if quant else None,
        kv_dtypes=[kv] if kv else None,
        context_tokens=context,
        num_sessions=sessions,
        model_path=model if Path(model).is_dir() else "MODEL",
        language=language,
    )
    _answer(spec, name, wish, out, as_json=as_json)


def _answer(spec: "ModelSpec", name: str, wish: "Wish", out: Path | None, *, as_json: bool) -> None:
    """Compute the profiles, write the files that were asked for, and print."""
    from veche.launch.alternatives import alternatives
    from veche.launch.calibrations import spans
    from veche.launch.profiles import profiles_of
    from veche.launch.recommend import recommended

    wish = replace(wish, spans=spans(wish.gpu.name, wish.num_gpus * wish.num_nodes))
    profiles = profiles_of(spec, wish)
    chosen = recommended(profiles)
    nearest = [] if chosen else alternatives(spec, wish)
    files = _written(chosen, out, wish.language)
    if as_json:
        print_json(launch_report(name, profiles, nearest, files))
        return
    show_profiles(name, profiles, wish.language)
    show_alternatives(nearest, wish.language)
    for file in files:
        stdout.print(str(file), markup=False, soft_wrap=True)


def launch_report(
    name: str,
    profiles: "Sequence[Profile]",
    nearest: "Sequence[Alternative]" = (),
    files: "Sequence[Path]" = (),
) -> dict[str, Any]:
    """Return the JSON object of `veche launch --json`."""
    return {
        "model": name,
        "profiles": [profile.as_dict() for profile in profiles],
        "alternatives": [
            {"reason": each.reason, "profile": each.profile.as_dict()} for each in nearest
        ],
        "files": [str(file) for file in files],
    }


def _written(chosen: "Profile | None", out: Path | None, language: "Language") -> "list[Path]":
    from veche.core.errors import InputError
    from veche.launch.emit import write_files

    if out is None:
        return []
    if chosen is None:
        raise InputError(
            "nothing that was asked for fits, so there is nothing to write",
            hint="run it without --out to see the nearest that fits",
        )
    return write_files(chosen, out, language)


def subject(model: str, language: "Language") -> tuple["ModelSpec", str]:
    """Return the spec that is meant, and its name: the target of a recipe or plan, or a model.

    Raises:
        InputError: it is none of these.
    """
    from veche.checkpoint.config import spec_of
    from veche.cli.plan import planned
    from veche.core.errors import InputError
    from veche.planning.bases import load_base, shipped_bases
    from veche.planning.recipe import shipped_recipes

    is_config = model.endswith("config.json")
    if model in shipped_bases() or Path(model).is_dir() or is_config:
        return spec_of(load_base(model), where=model), model
    if model in shipped_recipes() or Path(model).is_file():
        return planned(model, language).target_spec, model
    raise InputError(
        f"{model!r} is neither a recipe, a plan, a shipped base nor a folder",
        hint=f"recipes: {', '.join(shipped_recipes())}; bases: {', '.join(shipped_bases())}",
    )


def show_profiles(name: str, profiles: "Sequence[Profile]", language: "Language") -> None:
    """Print the profiles as a table, and the recommended one with its command."""
    import shlex

    from rich.table import Table
    from rich.text import Text

    from veche.cli.phrases import phrase
    from veche.launch.gpus import GIB

    first = profiles[0]
    cards = first.num_gpus
    stdout.print(f"{name} · {cards} × {first.gpu}", style="bold", markup=False)
    table = Table(show_edge=False, pad_edge=False)
    for key in ("engine", "types", "fits"):
        table.add_column(phrase(f"col_{key}", language), no_wrap=key == "types")
    for key in ("weights", "kv_left", "context", "speed"):
        table.add_column(phrase(f"col_{key}", language), justify="right")
    for profile in profiles:
        low, high = profile.kv_available_bytes
        slow, fast = profile.decode_tokens_per_s
        table.add_row(
            profile.engine,
            f"{profile.quantization} / {profile.kv_dtype}",
            Text("✓", style="green") if profile.fits else Text("✗", style="red"),
            f"{profile.weight_bytes / GIB:.2f}",
            f"{max(low, 0) / GIB:.1f}–{max(high, 0) / GIB:.1f}",
            f"{profile.max_context_tokens:,}",
            f"{slow:.0f}–{fast:.0f}",
            style="bold" if profile.recommended else "",
        )
    stdout.print(table)
    for profile in profiles:
        if profile.recommended:
            stdout.print(f"\n{profile.reason}", markup=False)
            environment = "".join(f"{key}={shlex.quote(value)} " for key, value in profile.env)
            stdout.print(environment + shlex.join(profile.command), markup=False, soft_wrap=True)
            for note in profile.notes:
                stdout.print(f"· {note}", style="dim", markup=False)


def show_alternatives(nearest: "Sequence[Alternative]", language: "Language") -> None:
    """Print what comes nearest to a wish that does not fit."""
    import shlex

    from veche.cli.phrases import phrase

    if nearest:
        stdout.print("\n" + phrase("nearest", language), style="bold", markup=False)
    for each in nearest:
        stdout.print(f"· {each.reason}", markup=False)
        stdout.print("  " + shlex.join(each.profile.command), markup=False, soft_wrap=True)

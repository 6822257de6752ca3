"""`veche launch`: what fits on a card, and the command that starts it."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from veche.cli.launch_log import compare_with_log, show_calibrations
from veche.cli.launch_table import show_alternatives, show_profiles, show_refusal
from veche.cli.subject import Subject, subject
from veche.cli.terminal import JsonOption, LanguageOption, chosen_language, print_json, stdout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from veche.checkpoint.spec import ModelSpec
    from veche.core.language import Language
    from veche.launch.alternatives import Alternative
    from veche.launch.layout import Layout
    from veche.launch.profile import Profile
    from veche.launch.wish import Wish

CALIBRATIONS = "calibrations"
"""In place of MODEL: list what logs have taught."""

_MODEL = (
    "A recipe, a plan.json, a shipped base, a model folder or a hub id; or the word "
    "calibrations, which lists what logs have taught."
)
ModelArgument = Annotated[str | None, typer.Argument(help=_MODEL, show_default=False)]
GpuOption = Annotated[str, typer.Option(help="The card.")]
GpusOption = Annotated[int, typer.Option(min=1, help="Cards in each machine.")]
NodesOption = Annotated[int, typer.Option(min=1, help="Machines.")]
EngineOption = Annotated[str, typer.Option(help="vllm, sglang, llama.cpp, transformers or all.")]
VersionOption = Annotated[
    str | None, typer.Option(help="Of the one --engine, e.g. 0.24; else a recent one.")
]
QuantOption = Annotated[
    str | None, typer.Option(help="Of the weights, e.g. bf16, fp8-block, Q4_K_M.")
]
KvOption = Annotated[str | None, typer.Option(help="Of the KV cache: bf16, fp8, q8_0, q4_0.")]
ContextOption = Annotated[
    str | None, typer.Option(help="The longest sequence in tokens: 131072 or 128k.")
]
SessionsOption = Annotated[int, typer.Option(min=1, help="Sequences at once.")]
UtilOption = Annotated[
    float | None, typer.Option(help="Share of the card that the engine may take, e.g. 0.92.")
]
BatchedOption = Annotated[str | None, typer.Option(help="Tokens of one prefill step, e.g. 8k.")]
SequencesOption = Annotated[int | None, typer.Option(min=1, help="Sequences of one decode step.")]
TpOption = Annotated[int | None, typer.Option(min=1, help="Cards that share every matrix.")]
DpOption = Annotated[int | None, typer.Option(min=1, help="Replicas.")]
EpOption = Annotated[bool, typer.Option("--ep", help="Deal experts out whole.")]
FeatureOption = Annotated[
    list[str] | None, typer.Option(help="What must be served: routing, lora. Repeatable.")
]
OutOption = Annotated[
    Path | None,
    typer.Option(help="Write the recommended profile's scripts, unit and Compose file here."),
]
LogOption = Annotated[
    Path | None,
    typer.Option(help="Compare with an engine's start-up log, and learn from it."),
]
ForgetOption = Annotated[
    bool, typer.Option("--forget", help="With calibrations: forget what logs have taught.")
]


def launch(
    model: ModelArgument = None,
    gpu: GpuOption = "rtx-pro-6000",
    gpus: GpusOption = 1,
    nodes: NodesOption = 1,
    engine: EngineOption = "vllm",
    engine_version: VersionOption = None,
    quant: QuantOption = None,
    kv: KvOption = None,
    context: ContextOption = None,
    sessions: SessionsOption = 1,
    util: UtilOption = None,
    batched_tokens: BatchedOption = None,
    max_num_seqs: SequencesOption = None,
    tp: TpOption = None,
    dp: DpOption = None,
    ep: EpOption = False,
    feature: FeatureOption = None,
    out: OutOption = None,
    parse_log: LogOption = None,
    forget: ForgetOption = False,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what fits, how fast it will be, and how to start it."""
    from veche.launch.stored_weights import checked_against
    from veche.launch.wish import make_wish

    language = chosen_language(lang)
    if model == CALIBRATIONS:
        show_calibrations(language, forget=forget, as_json=as_json)
        return
    if parse_log is not None:
        compare_with_log(model, parse_log, gpu, quant, kv, language, as_json=as_json)
        return
    meant = subject(_required(model, forget=forget), language)
    wish = make_wish(
        gpu=gpu,
        num_gpus=gpus,
        num_nodes=nodes,
        engines=[engine],
        engine_version=engine_version,
        quantizations=[quant] if quant else None,
        kv_dtypes=[kv] if kv else None,
        context_tokens=_count(context, "--context"),
        num_sessions=sessions,
        utilization=util,
        batched_tokens=_count(batched_tokens, "--batched-tokens"),
        max_sequences=max_num_seqs,
        features=tuple(feature or ()),
        model_path=meant.path,
        notes=meant.notes,
        language=language,
    )
    wish = replace(wish, stored=checked_against(meant.stored, wish.quantizations, meant.name))
    wish = replace(wish, layout=_layout(meant.spec, wish, tp, dp, has_experts_whole=ep))
    _answer(meant, wish, out, as_json=as_json)


def _count(text: str | None, flag: str) -> int | None:
    from veche.core.units import parse_count

    return None if text is None else parse_count(text, flag)


def _required(model: str | None, *, forget: bool) -> str:
    from veche.core.errors import InputError

    if forget:
        raise InputError(
            "--forget is about what logs have taught", hint="veche launch calibrations --forget"
        )
    if model is None:
        raise InputError("MODEL is missing", hint="veche launch agi; veche launch --help")
    return model


def _layout(
    spec: "ModelSpec", wish: "Wish", tp: int | None, dp: int | None, *, has_experts_whole: bool
) -> "Layout | None":
    """Return the layout of --tp, --dp and --ep; None leaves it to veche."""
    from veche.launch.asked_layout import LayoutWish, asked_layout, check_engines, check_fp8_blocks

    asked = LayoutWish(tensor_parallel=tp, data_parallel=dp, has_expert_parallel=has_experts_whole)
    if asked.is_empty:
        return None
    check_engines(wish.engines)
    layout = asked_layout(spec, asked, wish.num_gpus, num_nodes=wish.num_nodes)
    stored = (wish.stored.quantization,) if wish.stored else None
    if (stored or wish.quantizations) == ("fp8-block",):
        check_fp8_blocks(spec, layout)
    return layout


def _answer(meant: Subject, wish: "Wish", out: Path | None, *, as_json: bool) -> None:
    """Compute the profiles, write the files that were asked for, and print."""
    from veche.launch.alternatives import alternatives
    from veche.launch.calibrations import spans
    from veche.launch.profiles import profiles_of
    from veche.launch.recommend import recommended

    wish = replace(wish, spans=spans(wish.gpu.name, wish.num_gpus * wish.num_nodes))
    profiles = profiles_of(meant.spec, wish)
    chosen = recommended(profiles)
    nearest = [] if chosen else alternatives(meant.spec, wish)
    files = _written(chosen, out, wish.language)
    if as_json:
        print_json(launch_report(meant.name, profiles, nearest, files))
        return
    show_profiles(meant.name, profiles, wish.language, share=wish.utilization)
    if chosen is None:
        show_refusal(profiles, wish.language)
        show_alternatives(nearest, wish.notes, wish.language)
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

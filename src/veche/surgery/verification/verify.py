"""Is the grown model the model that was promised? Two stages, as measured.

1. The exact part: source and grown model under the same dials must lie within the noise that the
   source itself shows between two attention implementations, measured in the same run. The long
   form also judges every layer on the source's own stream.
2. The whole recipe, and each lossy dial alone, on text: measured and reported, never judged.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from veche.checkpoint.config import read_config, spec_of
from veche.checkpoint.reader import open_checkpoint
from veche.core.errors import InputError, UnsupportedError
from veche.core.progress import Progress, Silent
from veche.planning.plan import BuildPlan
from veche.surgery.grow import require_same_base
from veche.surgery.loading import load_tokenizer
from veche.surgery.verification import layerwise, whole
from veche.surgery.verification.bench import Bench
from veche.surgery.verification.compare import Comparison, windows
from veche.surgery.verification.differences import differences
from veche.surgery.verification.figures import (
    FP32_TOLERANCE,
    KL_RESOLUTION,
    Dial,
    Exact,
    Form,
    LayerError,
    Verification,
    Whole,
)
from veche.surgery.verification.form import FormChoice, chosen_form, free_memory
from veche.surgery.verification.layerwise import Walked
from veche.surgery.verification.variants import experiment_of

DeviceChoice = Literal["auto", "cpu", "cuda"]
_MIN_TOKENS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifySettings:
    """How much is measured, and how.

    Attributes:
        num_windows: windows of text.
        window_tokens: tokens in each.
        fp32_tokens: tokens of the float32 comparison, which is the slowest.
        form: long (layer by layer), short (whole models), or what memory allows.
        device: where the models run; auto is CUDA where there is a card.
    """

    num_windows: int = 4
    window_tokens: int = 512
    fp32_tokens: int = 256
    form: FormChoice = "auto"
    device: DeviceChoice = "auto"


def verify(
    source: Path,
    target: Path,
    plan: BuildPlan,
    text: str,
    *,
    settings: VerifySettings | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Measure a grown model against its source.

    Args:
        source: the folder that was grown.
        target: the folder that `plan` made of it.
        plan: the plan.
        text: for NLL and KL; held out from whatever the models were fitted on.
        settings: how much to measure, and how.
        progress: where to report.

    Raises:
        InputError: the text is too short.
        RecipeError: the plan is for another source.
        CheckpointError: a folder cannot be loaded.
        UnsupportedError: the device is not there.
    """
    settings, progress = settings or VerifySettings(), progress or Silent()
    require_same_base(plan, open_checkpoint(source))
    device = device_of(settings.device)
    form = _form(source, target, settings, device, progress)
    base, grown = (spec_of(read_config(folder)) for folder in (source, target))
    bench = Bench(
        folders={"source": source, "target": target},
        experiment=experiment_of(plan, base, grown),
        tokens=_tokenize(source, text, settings).to(device),
        fp32_tokens=settings.fp32_tokens,
        device=device,
    )
    with torch.inference_mode():
        if form == "long":
            total = layerwise.num_steps(base, grown)
            with progress.task("verify layer by layer", total) as advance:
                seen = layerwise.walk(bench, advance)
        else:
            with progress.task("verify", whole.num_steps(bench.experiment)) as advance:
                comparisons = whole.compare_whole(bench, advance)
            seen = Walked(comparisons=comparisons, layers=(), not_finite=())
    figures = _figures(form, seen, bench)
    if figures.passed:
        return figures
    suspected = (*(layer.name for layer in figures.failed_layers), *figures.not_finite)
    found = differences(
        plan,
        open_checkpoint(source),
        open_checkpoint(target),
        suspected=suspected,
        progress=progress,
    )
    return replace(figures, differences=found)


def _figures(form: Form, seen: Walked, bench: Bench) -> Verification:
    pairs = seen.comparisons
    exact = judged(grown=pairs["exact"], floor=pairs["floor"], fp32=pairs["fp32"])
    on_text = pairs["whole"]
    return Verification(
        form=form,
        passed=exact.passed and _all_passed(seen.layers) and not seen.not_finite,
        exact=exact,
        whole=Whole(
            nll_source=on_text.nll_p,
            nll_target=on_text.nll_q,
            kl=on_text.kl,
            top1_agreement=on_text.top1_agreement,
        ),
        dials=tuple(
            _dial(name, value, pairs[name]) for name, value in bench.experiment.dials.items()
        ),
        layers=seen.layers,
        not_finite=seen.not_finite,
        num_tokens=on_text.num_tokens,
        window_tokens=bench.tokens.shape[1],
    )


def _all_passed(layers: tuple[LayerError, ...]) -> bool:
    return all(layer.passed for layer in layers)


def judged(*, grown: Comparison, floor: Comparison, fp32: Comparison) -> Exact:
    """Return whether a grown model is its source, up to rounding.

    Args:
        grown: source and grown model, in the checkpoint's dtype.
        floor: the source under two attention implementations, in the same.
        fp32: source and grown model, in float32.
    """
    margin = 2 * math.hypot(grown.kl_standard_error, floor.kl_standard_error)
    is_close = fp32.max_abs_diff <= FP32_TOLERANCE * fp32.scale
    return Exact(
        kl=grown.kl,
        floor_kl=floor.kl,
        margin_kl=margin,
        max_abs_logit_diff=fp32.max_abs_diff,
        logit_scale=fp32.scale,
        passed=grown.kl <= floor.kl + max(margin, KL_RESOLUTION) and is_close,
    )


def _dial(name: str, value: Any, result: Comparison) -> Dial:
    return Dial(
        name=name,
        value=value,
        nll_delta=result.nll_q - result.nll_p,
        kl=result.kl,
        top1_agreement=result.top1_agreement,
    )


def device_of(choice: DeviceChoice) -> torch.device:
    """Return the device that is meant; auto is CUDA where there is a card.

    Raises:
        UnsupportedError: it is not there.
    """
    has_cuda = torch.cuda.is_available()
    if choice == "cuda" and not has_cuda:
        raise UnsupportedError(
            "--device cuda: torch finds no CUDA device here", hint="use --device cpu"
        )
    return torch.device("cuda" if has_cuda and choice != "cpu" else "cpu")


def _form(
    source: Path,
    target: Path,
    settings: VerifySettings,
    device: torch.device,
    progress: Progress,
) -> Form:
    if settings.form != "auto":
        return settings.form
    free = torch.cuda.mem_get_info()[0] if device.type == "cuda" else free_memory()
    form, reason = chosen_form(source, target, free_bytes=free)
    progress.say(f"{form} form: {reason}")
    return form


def _tokenize(source: Path, text: str, settings: VerifySettings) -> Tensor:
    token_ids = load_tokenizer(source)(text, add_special_tokens=False, verbose=False)["input_ids"]
    if len(token_ids) < _MIN_TOKENS:
        raise InputError(
            f"the text has {len(token_ids)} tokens, too few to measure on",
            hint=f"give at least {_MIN_TOKENS}, better some thousands",
        )
    return windows(
        token_ids, num_windows=settings.num_windows, window_tokens=settings.window_tokens
    )

"""Is the grown model the model that was promised? Two stages, as measured.

1. The exact part: source and grown model under the same dials must lie within the noise that the
   source itself shows between two attention implementations, measured in the same run.
2. The whole recipe, and each lossy dial alone, on text: measured and reported, never judged.
"""

import gc
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from veche.checkpoint.config import read_config, spec_of
from veche.core.errors import InputError
from veche.core.progress import Progress, Silent
from veche.planning.fields import value_of
from veche.planning.plan import BuildPlan
from veche.surgery.grow import steps_of_plan
from veche.surgery.loading import Attention, Model, load_model, load_tokenizer
from veche.surgery.operations.expert_gain import gain_of
from veche.surgery.verification.compare import Comparison, windows

FP32_TOLERANCE = 1e-5
"""Largest difference of two logits in float32, in parts of the largest logit."""
KL_RESOLUTION = 1e-8
"""KL that float32 logits within FP32_TOLERANCE can show; lower than that is nobody's difference."""
_DIALS = (
    "num_experts_per_tok", "norm_topk_prob", "rope_theta", "rope_scaling",
    "max_position_embeddings", "hidden_act", "rms_norm_eps",
)  # fmt: skip
_MIN_TOKENS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """The exact part.

    Attributes:
        kl: KL(source‖grown) under the source's dials, in the checkpoint's dtype.
        floor_kl: KL between the source under two attention implementations.
        margin_kl: two standard errors of the difference of these two means.
        max_abs_logit_diff: in float32.
        logit_scale: the largest logit, in float32.
        passed: kl ≤ floor_kl + max(margin_kl, 1e-8), and max_abs_logit_diff ≤ 1e-5 · logit_scale.
    """

    kl: float
    floor_kl: float
    margin_kl: float
    max_abs_logit_diff: float
    logit_scale: float
    passed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """The whole recipe against the source, on text. NLL and KL in nats a token."""

    nll_source: float
    nll_target: float
    kl: float
    top1_agreement: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Dial:
    """One lossy field alone, on the source. NLL and KL in nats a token."""

    name: str
    value: Any
    nll_delta: float
    kl: float
    top1_agreement: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was measured, and on how many tokens."""

    exact: Exact
    whole: Whole
    dials: tuple[Dial, ...]
    num_tokens: int
    window_tokens: int

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifySettings:
    """How much is measured.

    Attributes:
        num_windows: windows of text.
        window_tokens: tokens in each.
        fp32_tokens: tokens of the float32 comparison, which is the slowest.
    """

    num_windows: int = 4
    window_tokens: int = 512
    fp32_tokens: int = 256


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
        settings: how much to measure.
        progress: where to report.

    Raises:
        InputError: the text is too short.
        CheckpointError: a folder cannot be loaded.
    """
    settings = settings or VerifySettings()
    lossy = [change for change in plan.fields if change.is_lossy and change.name in _DIALS]
    with (progress or Silent()).task("verify", 6 + len(lossy)) as advance, torch.inference_mode():
        bench = _Bench(source, target, plan, text, settings)
        reference = bench.logits(bench.source())
        advance(1)
        exact = _exact(bench, advance)
        whole = bench.compare(reference, bench.target_as_built())
        advance(1)
        dials = []
        for change in lossy:
            result = bench.compare(reference, bench.source({change.name: change.target}))
            dials.append(_dial(change.name, change.target, result))
            advance(1)
    return Verification(
        exact=exact,
        whole=Whole(
            nll_source=whole.nll_p,
            nll_target=whole.nll_q,
            kl=whole.kl,
            top1_agreement=whole.top1_agreement,
        ),
        dials=tuple(dials),
        num_tokens=whole.num_tokens,
        window_tokens=bench.window_tokens,
    )


class _Bench:
    """Source and target under any dials, on the same tokens; one model in memory at a time."""

    def __init__(
        self,
        source: Path,
        target: Path,
        plan: BuildPlan,
        text: str,
        settings: VerifySettings,
    ) -> None:
        self._source, self._target, self._plan = source, target, plan
        self._settings = settings
        base, grown = spec_of(read_config(source)), spec_of(read_config(target))
        self._base_dials = {
            name: value_of(base, name)
            for name in _DIALS
            if value_of(base, name) != value_of(grown, name)
        }
        self._tokens_WT = _tokenize(source, text, settings)

    @property
    def window_tokens(self) -> int:
        """Tokens in each window."""
        return self._tokens_WT.shape[1]

    def source(
        self,
        changes: Mapping[str, Any] | None = None,
        *,
        with_gain: bool = False,
        dtype: torch.dtype | None = None,
        attention: Attention = "sdpa",
    ) -> Model:
        """Load the source; a change of top-k brings its gain, as in the plan."""
        changes = dict(changes or {})
        model = load_model(
            self._source, changes=changes, dtype=dtype or "auto", attention=attention
        )
        if with_gain or "num_experts_per_tok" in changes:
            self._apply_gain(model)
        return model

    def target_under_source_dials(self, *, dtype: torch.dtype | None = None) -> Model:
        """Load the grown model with the source's top-k and rope."""
        return load_model(self._target, changes=self._base_dials, dtype=dtype or "auto")

    def target_as_built(self) -> Model:
        """Load the grown model as its config.json says."""
        return load_model(self._target)

    def logits(self, model: Model, tokens_WT: Tensor | None = None) -> list[Tensor]:
        """Return [T, V] logits of each window, in the model's dtype."""
        return list(self._forward(model, tokens_WT))

    def compare(self, reference: list[Tensor], model: Model) -> Comparison:
        """Compare a model with logits that were computed before."""
        result = Comparison()
        for window, expected, logits in zip(
            self._tokens_WT, reference, self._forward(model), strict=True
        ):
            result.add(expected, logits, window)
        return result

    def compare_fp32(self) -> Comparison:
        """Compare source and grown model in float32, on fewer tokens."""
        tokens = self._tokens_WT[:1, : self._settings.fp32_tokens]
        reference = self.logits(self.source(with_gain=True, dtype=torch.float32), tokens)
        _free_memory()
        result = Comparison()
        model = self.target_under_source_dials(dtype=torch.float32)
        result.add(reference[0], self.logits(model, tokens)[0], tokens[0])
        return result

    def _forward(self, model: Model, tokens_WT: Tensor | None = None) -> Iterator[Tensor]:
        for window in self._tokens_WT if tokens_WT is None else tokens_WT:
            yield model(input_ids=window[None], use_cache=False).logits[0]

    def _apply_gain(self, model: Model) -> None:
        """Scale the experts of a loaded source as expert_gain does, rounding as the files do."""
        gains = [
            gain_of(step.growth)
            for step in steps_of_plan(self._plan)
            if step.operation.name == "expert_gain"
        ]
        if not gains:
            return
        gain = gains[0]
        dtype = getattr(torch, self._plan.base_spec.torch_dtype)
        for name, weight in model.named_parameters():
            if name.endswith("experts.down_proj"):
                weight.data.copy_((weight.float() * gain).to(dtype))


def _exact(bench: _Bench, advance: Any) -> Exact:
    reference = bench.logits(bench.source(with_gain=True))
    advance(1)
    floor = bench.compare(reference, bench.source(with_gain=True, attention="eager"))
    advance(1)
    grown = bench.compare(reference, bench.target_under_source_dials())
    advance(1)
    del reference
    _free_memory()
    fp32 = bench.compare_fp32()
    advance(1)
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


def _free_memory() -> None:
    gc.collect()

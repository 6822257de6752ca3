"""What verification says of a grown model, as numbers."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

Form = Literal["long", "short"]
"""Layer by layer, or with whole models in memory."""
FP32_TOLERANCE = 1e-5
"""Largest difference of two logits in float32, in parts of the largest logit."""
LAYER_TOLERANCE = 1e-5
"""Largest relative error of one layer's output for one token, in float32, on the same input.

SmolLM2-135M, carved and grown: at most 5e-7 in any of 30 layers.
"""
KL_RESOLUTION = 1e-8
"""KL that float32 logits within FP32_TOLERANCE can show; lower than that is nobody's difference."""


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
class LayerError:
    """How far a layer of the grown model is from the source's. Errors are ‖Δ‖ / ‖source's output‖.

    Attributes:
        name: what the names of its tensors begin with.
        source: the source's layer that it is compared with.
        is_new: whether it must leave the residual stream as it is.
        stream_error: mean over tokens, each model on its own stream, in the checkpoint's dtype.
        stream_floor: the same of the source under two attention implementations.
        own_error: largest over tokens, in float32, with the source's stream as the input of both.
        own_floor: the same of the source's layer under two attention implementations.
        num_near_ties: tokens left out of both: the source's router cannot tell its last chosen
            expert from the next one.
        num_unreached_experts: experts that no token of `own_error` was routed to.
        passed: own_error ≤ max(1e-5, own_floor).
    """

    name: str
    source: str
    is_new: bool = False
    stream_error: float
    stream_floor: float
    own_error: float
    own_floor: float = 0.0
    num_near_ties: int = 0
    num_unreached_experts: int = 0

    @property
    def passed(self) -> bool:
        """Whether the layer does what the source's does; a NaN does not."""
        return self.own_error <= max(LAYER_TOLERANCE, self.own_floor)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorDifference:
    """A tensor of the grown model that is not what the plan makes of the source.

    Attributes:
        name: as in the files.
        num_different: elements whose bits differ.
        num_elements: all of them.
    """

    name: str
    num_different: int
    num_elements: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was measured, and on how many tokens.

    Attributes:
        form: how it was measured.
        passed: the exact part, and every layer of the long form.
        exact: the exact part.
        whole: the recipe as a whole.
        dials: each lossy field alone.
        layers: embedding, layers, norm and head, in order; empty in the short form.
        not_finite: tensors of the grown model in which the long form saw a NaN or an infinity.
        differences: tensors that are not what the plan makes of the source; looked for only when
            something failed.
        num_tokens: predictions compared.
        window_tokens: length of a window.
    """

    form: Form
    passed: bool
    exact: Exact
    whole: Whole
    dials: tuple[Dial, ...]
    layers: tuple[LayerError, ...] = ()
    not_finite: tuple[str, ...] = ()
    differences: tuple[TensorDifference, ...] = ()
    num_tokens: int
    window_tokens: int

    @property
    def failed_layers(self) -> tuple[LayerError, ...]:
        """Layers that do something else than the source's."""
        return tuple(layer for layer in self.layers if not layer.passed)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values; a figure that is not a number is None."""
        content = asdict(self)
        for layer, entry in zip(self.layers, content["layers"], strict=True):
            entry["passed"] = layer.passed
        finite: dict[str, Any] = _finite(content)
        return finite


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

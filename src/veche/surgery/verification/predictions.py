"""The last step of the long form: lm_head and its logits, a part of the vocabulary at a time.

Legend: N predictions, H hidden size, C a part of the vocabulary. This file imports torch.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from veche.surgery.verification.compare import Comparison, PairSums, largest
from veche.surgery.verification.figures import LayerError
from veche.surgery.verification.variants import Experiment, Side
from veche.surgery.verification.weights import Weights

_LOGITS = 4 << 20
"""Logits of one variant in memory at a time."""
_FEWEST_ROWS = 256


def compare_predictions(
    experiment: Experiment,
    states: Mapping[str, Tensor],
    weights: Mapping[Side, Weights],
    *,
    targets_N: Tensor,
    fp32_targets_N: Tensor,
    vocab_size: int,
) -> tuple[dict[str, Comparison], LayerError]:
    """Compare the predictions of every pair, and the heads on the source's own states.

    Args:
        experiment: the variants and pairs.
        states: after the final norm, [N, H] of each variant.
        weights: of source and target.
        targets_N: the tokens that follow.
        fp32_targets_N: the same for variants in float32.
        vocab_size: rows of lm_head.

    Returns:
        Each pair's comparison by its name, and the error of lm_head.
    """
    heads = _Heads(experiment, states, weights)
    sums = {
        name: PairSums(fp32_targets_N if name == "fp32" else targets_N) for name in experiment.pairs
    }
    forced = PairSums(fp32_targets_N)
    step = max(_FEWEST_ROWS, _LOGITS // max(1, len(targets_N)))
    for first in range(0, vocab_size, step):
        rows = range(first, min(first + step, vocab_size))
        logits = dict(heads.logits(rows))
        for name, pair in experiment.pairs.items():
            sums[name].add(logits[pair.reference], logits[pair.other], first=first)
        reference_NC = logits[experiment.pairs["fp32"].reference]
        forced.add(reference_NC, heads.forced_logits(rows), first=first)
    comparisons = {name: Comparison() for name in sums}
    for name, each in sums.items():
        comparisons[name].add_sums(each)
    return comparisons, LayerError(
        name="lm_head",
        source="lm_head",
        stream_error=float(sums["exact"].relative_error.mean()),
        stream_floor=float(sums["floor"].relative_error.mean()),
        own_error=largest(forced.relative_error),
    )


class _Heads:
    """Some rows of each model's lm_head at a time, on the states of every variant."""

    def __init__(
        self,
        experiment: Experiment,
        states: Mapping[str, Tensor],
        weights: Mapping[Side, Weights],
    ) -> None:
        self._experiment, self._states, self._weights = experiment, states, weights

    def logits(self, rows: range) -> Iterator[tuple[str, Tensor]]:
        """Yield the [N, C] logits of every variant, by name."""
        for side in self._weights:
            for is_fp32 in (False, True):
                rows_CH = self._rows(side, rows, is_fp32=is_fp32)
                for name, variant in self._experiment.variants.items():
                    if (variant.side, variant.is_fp32) == (side, is_fp32):
                        yield name, functional.linear(self._states[name], rows_CH)

    def forced_logits(self, rows: range) -> Tensor:
        """Return the [N, C] logits of the target's head on the source's states, in float32."""
        state_NH = self._states[self._experiment.pairs["fp32"].reference]
        return functional.linear(state_NH, self._rows("target", rows, is_fp32=True))

    def _rows(self, side: Side, rows: range, *, is_fp32: bool) -> Tensor:
        weights = self._weights[side]
        dtype = torch.float32 if is_fp32 else weights.dtype
        return weights.head_rows(rows.start, rows.stop, dtype)

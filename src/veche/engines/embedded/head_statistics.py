"""What each attention head of a batch does: equations on queries, keys and values.

Shapes: B rows (branches), H query heads, K key-value heads, G = H / K query heads a key-value head,
Q query tokens, N positions of one segment, D width of a head, M hidden size, L layers, T tokens.
Query head h reads key-value head h // G. Everything is computed in float32.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from veche.engines.protocol import HeadStatistics

_QUERY_TOKENS_AT_ONCE = 64
"""Attention over all positions is held for so many query tokens at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Keys and values of some positions: the trunk's, shared by all rows, or each row's own.

    Attributes:
        keys: [1 or B, K, N, D], after the rotary embedding.
        values: [1 or B, K, N, D].
        positions: [1 or B, N], absolute; what they say of padding is not read.
        is_real: [1 or B, N], False for padding; None is no padding.
    """

    keys: torch.Tensor
    values: torch.Tensor
    positions: torch.Tensor
    is_real: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadReading:
    """What the heads of one layer did.

    Attributes:
        entropy: [B, Q, H], −Σ_n a_n ln a_n of a head's attention a, in nats.
        distance: [B, Q, H], Σ_n a_n (position of the query − position of n), in tokens.
        output_norm: [B, Q, H], L2 norm of o = Σ_n a_n v_n.
        similarity_sum: [B, H, H], cosine of what two heads add to the residual stream, summed over
            the tokens that count.
        counts: [B, Q], which query tokens count.
    """

    entropy: torch.Tensor
    distance: torch.Tensor
    output_norm: torch.Tensor
    similarity_sum: torch.Tensor
    counts: torch.Tensor


def read_heads(
    query: torch.Tensor,
    segments: Sequence[Segment],
    *,
    query_positions: torch.Tensor,
    scaling: float,
    output_weight: torch.Tensor,
    counts: torch.Tensor | None = None,
) -> HeadReading:
    """Attend as the layer does, and describe each head.

    a = softmax(scaling · q·k) over the real positions n ≤ the query's own. Sources: attention
    entropy as in Zhai et al., arXiv 2303.06296; mean attention distance as in Vig and Belinkov,
    arXiv 1906.04284.

    Args:
        query: [B, H, Q, D], after the rotary embedding.
        segments: where the heads look; together all positions, each once.
        query_positions: [B, Q], absolute.
        scaling: what q·k is multiplied by.
        output_weight: [M, H · D], of the output projection.
        counts: [B, Q], which query tokens count for the similarity; None is all.
    """
    if counts is None:
        counts = torch.ones_like(query_positions, dtype=torch.bool)
    parts: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    similarity_BHH = query.new_zeros(
        query.shape[0], query.shape[1], query.shape[1], dtype=torch.float32
    )
    for start in range(0, query.shape[2], _QUERY_TOKENS_AT_ONCE):
        at = slice(start, start + _QUERY_TOKENS_AT_ONCE)
        attention = _attention(query[:, :, at], segments, query_positions[:, at], scaling)
        output_BQHD = _outputs(attention, segments).transpose(1, 2)
        parts.append(
            (
                entropy(attention),
                distance(attention, segments, query_positions[:, at]),
                output_BQHD.norm(dim=-1),
            )
        )
        cosine_BQHH = cosine_between(contributions(output_BQHD, output_weight))
        similarity_BHH += (cosine_BQHH * counts[:, at, None, None]).sum(1)
    entropies, distances, norms = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
    return HeadReading(
        entropy=entropies,
        distance=distances,
        output_norm=norms,
        similarity_sum=similarity_BHH,
        counts=counts,
    )


def entropy(attention: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return −Σ_n a_n ln a_n, [B, Q, H], of attention [B, H, Q, N] to each segment."""
    total_BHQ = torch.stack([torch.special.entr(part).sum(-1) for part in attention]).sum(0)
    return total_BHQ.transpose(1, 2)


def distance(
    attention: Sequence[torch.Tensor],
    segments: Sequence[Segment],
    query_positions: torch.Tensor,
) -> torch.Tensor:
    """Return Σ_n a_n (p − p_n), [B, Q, H], of attention [B, H, Q, N] to each segment."""
    total_BHQ = torch.stack(
        [
            (part * _distances(segment, query_positions)[:, None]).sum(-1)
            for part, segment in zip(attention, segments, strict=True)
        ]
    ).sum(0)
    return total_BHQ.transpose(1, 2)


def contributions(output: torch.Tensor, output_weight: torch.Tensor) -> torch.Tensor:
    """Return what each head adds to the residual stream, [B, Q, H, M], of outputs [B, Q, H, D].

    c_h = W_h o_h, where W = [W_1 … W_H] is the output projection [M, H · D]; its bias is no head's.
    """
    num_heads, width = output.shape[-2:]
    weight_MHD = output_weight.float().view(-1, num_heads, width)
    return torch.einsum("bqhd,mhd->bqhm", output, weight_MHD)


def cosine_between(vectors: torch.Tensor) -> torch.Tensor:
    """Return the cosines [..., H, H] of H vectors [..., H, M]; 0 with a vector of zeros."""
    unit = torch.nn.functional.normalize(vectors, dim=-1)
    return unit @ unit.transpose(-1, -2)


def _attention(
    query: torch.Tensor,
    segments: Sequence[Segment],
    query_positions: torch.Tensor,
    scaling: float,
) -> list[torch.Tensor]:
    """Return the attention [B, H, Q, N] to each segment; together it sums to 1."""
    scores = []
    for segment in segments:
        score_BHQN = scaling * _grouped(query.float(), segment.keys.float().transpose(-1, -2))
        is_seen = _distances(segment, query_positions) >= 0
        if segment.is_real is not None:
            is_seen = is_seen & segment.is_real[:, None]
        # The smallest number, not −∞: a row of padding that sees nothing must not become NaN.
        lowest = torch.finfo(torch.float32).min
        scores.append(score_BHQN.masked_fill(~is_seen[:, None], lowest))
    attention = torch.cat(scores, dim=-1).softmax(-1)
    return list(torch.split_with_sizes(attention, [score.shape[-1] for score in scores], dim=-1))


def _outputs(attention: Sequence[torch.Tensor], segments: Sequence[Segment]) -> torch.Tensor:
    """Return o = Σ_n a_n v_n, [B, H, Q, D]."""
    return torch.stack(
        [
            _grouped(part, segment.values.float())
            for part, segment in zip(attention, segments, strict=True)
        ]
    ).sum(0)


def _grouped(rows: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
    """Multiply [B, H, Q, X] by [1 or B, K, X, Y] of the head's group, to [B, H, Q, Y].

    What all rows share is read once: rows and query heads are folded into the tokens.
    """
    num_rows, num_heads, num_tokens, width = rows.shape
    num_groups = shared.shape[1]
    grouped = rows.reshape(num_rows, num_groups, -1, width)
    if shared.shape[0] == 1:
        folded = grouped.transpose(0, 1).reshape(1, num_groups, -1, width)
        product = (folded @ shared).reshape(num_groups, num_rows, -1, shared.shape[-1])
        product = product.transpose(0, 1)
    else:
        product = grouped @ shared
    return product.reshape(num_rows, num_heads, num_tokens, -1)


def _distances(segment: Segment, query_positions: torch.Tensor) -> torch.Tensor:
    """Return how far behind the query each position is, [B, Q, N]; negative is ahead of it."""
    return query_positions[:, :, None] - segment.positions[:, None, :]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowHeads:
    """What one row's heads did in a forward pass, for its T tokens that count.

    Attributes:
        entropy: [T, L, H], in nats.
        distance: [T, L, H], in tokens.
        output_norm: [T, L, H].
        similarity_sum: [L, H, H], summed over the T tokens.
    """

    entropy: NDArray[np.float32]
    distance: NDArray[np.float32]
    output_norm: NDArray[np.float32]
    similarity_sum: NDArray[np.float32]


class HeadTap:
    """Readings of the layers of one forward pass, which the attention function hands in."""

    def __init__(self) -> None:
        self.is_listening = False
        self._readings: list[HeadReading] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take readings until the block ends, however it ends."""
        self._readings.clear()
        self.is_listening = True
        try:
            yield
        finally:
            self.is_listening = False
            self._readings.clear()

    def record(self, reading: HeadReading) -> None:
        """Take the next layer's reading; layers come in their order."""
        self._readings.append(reading)

    def take(self) -> list[RowHeads]:
        """Return what each row's heads did in the last forward pass, and forget it."""
        readings, self._readings = self._readings, []
        if not readings:
            return []
        counts_BT = readings[0].counts.cpu().numpy().astype(bool)
        entropy_BTLH = _stacked([reading.entropy for reading in readings], dim=2)
        distance_BTLH = _stacked([reading.distance for reading in readings], dim=2)
        norm_BTLH = _stacked([reading.output_norm for reading in readings], dim=2)
        similarity_BLHH = _stacked([reading.similarity_sum for reading in readings], dim=1)
        return [
            RowHeads(
                entropy=entropy_BTLH[row, counts],
                distance=distance_BTLH[row, counts],
                output_norm=norm_BTLH[row, counts],
                similarity_sum=similarity_BLHH[row],
            )
            for row, counts in enumerate(counts_BT)
        ]


class HeadLog:
    """One branch's heads, forward pass by forward pass; the similarity is kept as a running sum."""

    def __init__(self) -> None:
        self._rows: list[RowHeads] = []
        self._similarity: NDArray[np.float32] | None = None

    def add(self, row: RowHeads) -> None:
        """Append what the branch's row did."""
        empty = np.empty((0, 0, 0), np.float32)
        total = self._similarity
        self._similarity = row.similarity_sum if total is None else total + row.similarity_sum
        self._rows.append(
            RowHeads(
                entropy=row.entropy,
                distance=row.distance,
                output_norm=row.output_norm,
                similarity_sum=empty,
            )
        )

    def joined(self) -> HeadStatistics | None:
        """Return the statistics of all tokens; None when there was no token."""
        num_tokens = sum(len(row.entropy) for row in self._rows)
        if self._similarity is None or num_tokens == 0:
            return None
        return HeadStatistics(
            entropy=np.concatenate([row.entropy for row in self._rows]),
            distance=np.concatenate([row.distance for row in self._rows]),
            output_norm=np.concatenate([row.output_norm for row in self._rows]),
            similarity=(self._similarity / num_tokens).astype(np.float32),
        )


def _stacked(layers: Sequence[torch.Tensor], dim: int) -> NDArray[np.float32]:
    stacked: NDArray[np.float32] = torch.stack(list(layers), dim=dim).float().cpu().numpy()
    return stacked

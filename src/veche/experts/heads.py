"""What a model's attention heads do: read a text with them, or let them answer.

Shapes: T tokens, L layers, H heads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veche.checkpoint.reader import open_checkpoint
from veche.core.errors import InputError
from veche.engines.protocol import (
    Branch,
    Capability,
    Capture,
    Engine,
    HeadStatistics,
    Sampling,
    require,
    scoring,
)
from veche.experts.growth import new_capacity
from veche.experts.head_redundancy import effective_heads, nearest_heads
from veche.experts.layer_weights import LayerWeights
from veche.surgery.names import GROWTH_NAME

Array = NDArray[np.float64]
_CAPTURE = Capture(heads=True, routing=False)
_CHARACTERS_A_TOKEN = 16
"""More than texts have: what lies behind so many is not even tokenised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadReport:
    """Each head's means over tokens.

    Attributes:
        num_tokens: how many tokens were read or decoded.
        entropy: [L, H], of its attention, in nats.
        distance: [L, H], to what it attends to, in tokens.
        output_norm: [L, H], of its output before the output projection.
        contribution: [L, H], output_norm times the norm of its part of the output projection:
            the most that it adds to the residual stream, on average.
        nearest: [L, H], the other head of its layer that adds what is most like it.
        nearest_cosine: [L, H], how like, from −1 (they cancel) to 1.
        effective_heads: [L], see head_redundancy.
        new_heads: of each layer of a grown model; empty tuples of one that was not grown.
    """

    num_tokens: int
    entropy: Array
    distance: Array
    output_norm: Array
    contribution: Array
    nearest: NDArray[np.int64]
    nearest_cosine: Array
    effective_heads: Array
    new_heads: tuple[tuple[int, ...], ...]

    @property
    def relative_contribution(self) -> Array:
        """[L, H], a head's contribution by the median of its layer's heads that are not new."""
        medians = [
            np.median(np.delete(row, list(new)) if len(new) < len(row) else row)
            for row, new in zip(self.contribution, self.new_heads, strict=True)
        ]
        scale = np.array(medians)[:, None]
        return np.asarray(self.contribution / np.where(scale > 0, scale, 1))

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        relative = self.relative_contribution
        return {
            "tokens": self.num_tokens,
            "num_layers": len(self.entropy),
            "num_heads": self.entropy.shape[1],
            "layers": [
                {
                    "layer": layer,
                    "effective_heads": float(self.effective_heads[layer]),
                    "new_heads": list(self.new_heads[layer]),
                    "entropy_nats": self.entropy[layer].tolist(),
                    "distance_tokens": self.distance[layer].tolist(),
                    "output_norm": self.output_norm[layer].tolist(),
                    "relative_contribution": relative[layer].tolist(),
                    "nearest": self.nearest[layer].tolist(),
                    "nearest_cosine": self.nearest_cosine[layer].tolist(),
                }
                for layer in range(len(self.entropy))
            ],
        }


def heads_of_text(engine: Engine, text: str, *, max_tokens: int) -> HeadStatistics:
    """Let the heads read the beginning of a text; its first word is what they start from.

    Raises:
        InputError: there are fewer than two words.
        UnsupportedError: the engine cannot score, or not report heads.
    """
    reader = scoring(engine)
    require(engine, Capability.HEADS)
    first, gap, rest = _beginning(engine, text.strip(), max_tokens).partition(" ")
    if not rest:
        raise InputError("there is no text to read: it takes two words", hint="give a longer one")
    trunk = reader.open_text(first)
    try:
        branch = Branch(voice="text", instruction="", capture=_CAPTURE)
        (result,) = reader.score(trunk, [branch], [gap + rest])
    finally:
        reader.close_trunk(trunk)
    return _told([result.heads])


def heads_of_prompts(engine: Engine, prompts: Sequence[str], *, max_tokens: int) -> HeadStatistics:
    """Let the model answer prompts, and watch its heads while it does.

    Raises:
        InputError: nothing was answered.
        UnsupportedError: the engine cannot report heads.
    """
    require(engine, Capability.HEADS)
    told = []
    for number, prompt in enumerate(prompts):
        trunk = engine.open_trunk(system="", user=prompt)
        try:
            branch = Branch(
                voice=str(number),
                instruction="",
                sampling=Sampling(max_new_tokens=max_tokens),
                capture=_CAPTURE,
            )
            told += [result.heads for result in engine.decode(trunk, [branch])]
        finally:
            engine.close_trunk(trunk)
    return _told(told)


def report_heads(told: HeadStatistics, folder: Path) -> HeadReport:
    """Sum up what heads did, beside what the checkpoint's output projections do with it.

    Args:
        told: of the heads of the model in `folder`.
        folder: its checkpoint; its growth.json, where there is one, says which heads are new.

    Raises:
        CheckpointError: the folder is damaged.
        InputError: it is of a model with other heads.
    """
    weights = LayerWeights(open_checkpoint(folder))
    num_layers, num_heads = told.entropy.shape[1:]
    spec = weights.spec
    if (num_layers, num_heads) != (spec.num_hidden_layers, spec.num_attention_heads):
        raise InputError(
            f"{folder} has {spec.num_hidden_layers} layers of {spec.num_attention_heads} heads, "
            f"and {num_layers} of {num_heads} were watched"
        )
    projections = np.stack([weights.head_output_norms(layer) for layer in range(num_layers)])
    nearest, cosine = nearest_heads(told.similarity)
    norm = told.output_norm.mean(0, dtype=np.float64)
    return HeadReport(
        num_tokens=len(told.entropy),
        entropy=told.entropy.mean(0, dtype=np.float64),
        distance=told.distance.mean(0, dtype=np.float64),
        output_norm=norm,
        contribution=norm * projections,
        nearest=nearest,
        nearest_cosine=cosine,
        effective_heads=effective_heads(told.similarity),
        new_heads=_new_heads(folder, num_layers),
    )


def joined(parts: Sequence[HeadStatistics]) -> HeadStatistics:
    """Return the statistics of all tokens of several branches of one model."""
    tokens = [len(part.entropy) for part in parts]
    return HeadStatistics(
        entropy=np.concatenate([part.entropy for part in parts]),
        distance=np.concatenate([part.distance for part in parts]),
        output_norm=np.concatenate([part.output_norm for part in parts]),
        similarity=np.average([part.similarity for part in parts], axis=0, weights=tokens).astype(
            np.float32
        ),
    )


def _told(parts: Sequence[HeadStatistics | None]) -> HeadStatistics:
    told = [part for part in parts if part is not None and len(part.entropy)]
    if not told:
        raise InputError(
            "no token was fed back to the model, so its heads did nothing",
            hint="give a longer text, or let it answer more: --max-tokens 64",
        )
    return joined(told)


def _beginning(engine: Engine, text: str, max_tokens: int) -> str:
    """Return the longest beginning of whole words that has at most `max_tokens` tokens."""
    ends = [
        at for at, letter in enumerate(text[: max_tokens * _CHARACTERS_A_TOKEN]) if letter == " "
    ]
    low, high = 0, len(ends)
    if len(text) <= max_tokens * _CHARACTERS_A_TOKEN and engine.count_tokens(text) <= max_tokens:
        return text
    while low < high:
        middle = (low + high + 1) // 2
        fits = engine.count_tokens(text[: ends[middle - 1]]) <= max_tokens
        low, high = (middle, high) if fits else (low, middle - 1)
    return text[: ends[low - 1]] if low else ""


def _new_heads(folder: Path, num_layers: int) -> tuple[tuple[int, ...], ...]:
    if not (folder / GROWTH_NAME).is_file():
        return ((),) * num_layers
    return tuple(layer.heads for layer in new_capacity(folder).layers)

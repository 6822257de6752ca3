"""Find the experts that tell two sets of texts apart."""

from dataclasses import dataclass

import numpy as np

from veche.core.errors import InputError
from veche.core.progress import Progress, Silent
from veche.engines.protocol import Engine
from veche.experts.recording import Source
from veche.experts.steering.basis import Finding, SteeringBasis
from veche.experts.steering.contrast import Contrast, basis_of, contrast
from veche.experts.steering.reading import reader
from veche.experts.steering.texts import TextSet, digests_of

_DEFAULT_SHARE = 0.1
"""Of all experts that are steered at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FindSettings:
    """How a steering is found.

    Attributes:
        most: experts that are favoured or muted at most; None means a tenth of all.
        layers: model layers that may be steered; None means all.
        holdout: share of the texts that is left for judging.
        seed: of held-out texts, resamples and permutations.
    """

    most: int | None = None
    layers: range | None = None
    holdout: float = 0.25
    seed: int = 0


def find(
    engine: Engine,
    for_: TextSet,
    against: TextSet,
    *,
    source: Source,
    settings: FindSettings | None = None,
    progress: Progress | None = None,
) -> tuple[SteeringBasis, Contrast]:
    """Read two sets of texts; return what favours the first, and every expert's difference.

    Args:
        engine: runs the model.
        for_: texts to steer for.
        against: texts to steer against.
        source: the model whose experts they are.
        settings: how.
        progress: told of each text.

    Raises:
        InputError: a set has too few texts, the sets share one, or no expert differs significantly.
        UnsupportedError: the engine or the model cannot be steered.
    """
    chosen, progress = settings or FindSettings(), progress or Silent()
    if shared := set(for_.texts) & set(against.texts):
        raise InputError(f"{len(shared)} texts are in both sets, first {min(shared)[:60]!r}")
    kept = [each.without_share(chosen.holdout, chosen.seed) for each in (for_, against)]
    total = sum(len(each.texts) for each in kept)
    with reader(engine) as reads, progress.task("read the texts", total=total) as advance:
        sides = [reads.activations(each.texts, advance) for each in kept]
    found = contrast(sides[0], sides[1], seed=chosen.seed)
    basis = basis_of(
        found,
        most=chosen.most or max(1, round(_DEFAULT_SHARE * found.q_values.size)),
        rows=None
        if chosen.layers is None
        else [row for row, layer in enumerate(source.layers) if layer in chosen.layers],
    )
    finding = Finding(
        towards=for_.name,
        away_from=against.name,
        num_for=found.num_for,
        num_against=found.num_against,
        num_significant=int(found.is_significant.sum()),
        seed=chosen.seed,
        used_texts=digests_of(kept),
    )
    steering = SteeringBasis(basis=basis.astype(np.float32), source=source, finding=finding)
    return steering, found

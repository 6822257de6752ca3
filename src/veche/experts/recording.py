"""Routed tokens, and who said them.

Shapes: T tokens, L layers that route, k active experts a token, E experts.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veche.engines.protocol import Routing

Ids = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A stretch of tokens that one voice said, or read, without a break.

    Attributes:
        document: what its tokens depend on each other in: a text, or a whole dialogue. Records of
            one document are never taken for independent.
        voice: who said it, or "text".
        num_tokens: how many there are.
        labels: what is known of all of it, e.g. domain or language.
    """

    document: str
    voice: str
    num_tokens: int
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The model that routed, and where its experts are.

    Attributes:
        model: what the user called it.
        identity: SHA-256 of its content; "" where that is not known.
        layers: for each layer that routes its number in the model; empty where not known.
        has_equal_weights: its routing weights are all 1/k and say nothing (carved models).
    """

    model: str
    identity: str = ""
    layers: tuple[int, ...] = ()
    has_equal_weights: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """Routed tokens, record after record.

    Attributes:
        records: in the order of their tokens.
        expert_ids: [T, L, k], best first; a place that a token did not use holds `num_experts`.
        num_experts: E.
        token_ids: [T]; None where they were not kept, as are the others.
        token_classes: [T], numbers of `token_classes.CLASSES`.
        weights: [T, L, k], of the chosen experts; 0 in places that were not used.
        router_logits: [T, L, E], before any steering.
        source: the model.
    """

    records: tuple[Record, ...]
    expert_ids: Ids
    num_experts: int
    token_ids: NDArray[np.uint32] | None = None
    token_classes: NDArray[np.uint8] | None = None
    weights: NDArray[np.float16] | None = None
    router_logits: NDArray[np.float16] | None = None
    source: Source | None = None

    @property
    def num_tokens(self) -> int:
        """T."""
        return len(self.expert_ids)

    @property
    def num_layers(self) -> int:
        """L."""
        return int(self.expert_ids.shape[1])

    @property
    def top_k(self) -> int:
        """Experts that a token has at most."""
        return int(self.expert_ids.shape[2])

    @property
    def voices(self) -> tuple[str, ...]:
        """Who speaks, in the order of their first words."""
        return tuple(dict.fromkeys(record.voice for record in self.records))

    @property
    def starts(self) -> NDArray[np.int64]:
        """[number of records + 1], where each record's tokens begin, and where the last ends."""
        lengths = [record.num_tokens for record in self.records]
        return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])

    def taken(self, is_wanted: Callable[[Record], bool]) -> "Recording":
        """Return the records that are wanted."""
        chosen = [index for index, record in enumerate(self.records) if is_wanted(record)]
        starts = self.starts
        kept = np.zeros(self.num_tokens, bool)
        for index in chosen:
            kept[starts[index] : starts[index + 1]] = True
        return replace(
            self,
            records=tuple(self.records[index] for index in chosen),
            expert_ids=self.expert_ids[kept],
            token_ids=None if self.token_ids is None else self.token_ids[kept],
            token_classes=None if self.token_classes is None else self.token_classes[kept],
            weights=None if self.weights is None else self.weights[kept],
            router_logits=None if self.router_logits is None else self.router_logits[kept],
        )

    def by_voice(self) -> dict[str, "Recording"]:
        """Return each voice's own part; a voice without tokens is left out."""
        parts = {
            voice: self.taken(lambda record, voice=voice: record.voice == voice)  # type: ignore[misc]
            for voice in self.voices
        }
        return {voice: part for voice, part in parts.items() if part.num_tokens}


def recorded(
    routing: Routing,
    record: Record,
    *,
    token_ids: Iterable[int] | None = None,
    token_classes: NDArray[np.uint8] | None = None,
    source: Source | None = None,
) -> Recording:
    """Return what an engine reported of one branch as a recording of one record."""
    is_unused = routing.weights == 0
    # A weight may round to 0 in float16; only a whole tail of zeros means that fewer were used.
    is_unused = np.logical_and.accumulate(is_unused[..., ::-1], axis=-1)[..., ::-1]
    is_unused[..., 0] = False
    ids = np.where(is_unused, routing.num_experts, routing.expert_ids)
    return Recording(
        records=(record,),
        expert_ids=narrow(ids),
        num_experts=routing.num_experts,
        token_ids=None if token_ids is None else np.array([*token_ids], np.uint32),
        token_classes=token_classes,
        weights=routing.weights,
        router_logits=None if routing.logits is None else routing.logits.astype(np.float16),
        source=source,
    )


def recording_of_run(routing: Mapping[str, Routing], *, source: Source | None = None) -> Recording:
    """Return each voice's routing of one run, which is one document, as a recording."""
    parts = [
        recorded(
            routed,
            Record(document="run", voice=voice, num_tokens=len(routed.expert_ids)),
            source=source,
        )
        for voice, routed in routing.items()
    ]
    if parts:
        return joined(parts)
    return Recording(
        records=(), expert_ids=np.empty((0, 0, 0), np.uint8), num_experts=0, source=source
    )


def narrow(ids: NDArray[Any]) -> Ids:
    """Return expert ids in the narrowest type that the largest of them fits in."""
    if int(ids.max(initial=0)) <= np.iinfo(np.uint8).max:
        return ids.astype(np.uint8)
    return ids.astype(np.uint16)


def joined(parts: Iterable[Recording]) -> Recording:
    """Return recordings of one model as one; what some of them lack, the whole lacks.

    Where they have fewer places for experts than others, the rest is unused.

    Raises:
        ValueError: there is none, or they are of different shapes.
    """
    found = list(parts)
    shapes = {(part.num_layers, part.num_experts) for part in found}
    if len(shapes) != 1:
        raise ValueError(f"recordings of {len(shapes)} shapes cannot be joined")
    top_k = max(part.top_k for part in found)
    weights = [part.weights for part in found]
    return replace(
        found[0],
        records=tuple(record for part in found for record in part.records),
        expert_ids=np.concatenate(
            [_widened(part.expert_ids, top_k, part.num_experts) for part in found]
        ),
        token_ids=_all_or_none([part.token_ids for part in found]),
        token_classes=_all_or_none([part.token_classes for part in found]),
        weights=_all_or_none([w if w is None else _widened(w, top_k, 0) for w in weights]),
        router_logits=_all_or_none([part.router_logits for part in found]),
    )


def _widened(array: NDArray[Any], top_k: int, filler: int) -> NDArray[Any]:
    missing = top_k - array.shape[-1]
    if not missing:
        return array
    if filler > np.iinfo(np.uint8).max and array.dtype == np.uint8:
        array = array.astype(np.uint16)
    return np.pad(array, ((0, 0), (0, 0), (0, missing)), constant_values=filler)


def _all_or_none(arrays: list[Any]) -> Any:
    return None if any(array is None for array in arrays) else np.concatenate(arrays)

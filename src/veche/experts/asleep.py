"""Which new experts of a grown model are still asleep: never, or hardly ever, chosen."""

from collections.abc import Iterator
from dataclasses import dataclass

from veche.core.errors import InputError
from veche.experts.growth import NewCapacity
from veche.experts.metrics import expert_counts
from veche.experts.recording import Recording

RARELY = 0.1
"""An expert is rarely chosen that gets less than this share of what uniform routing would give."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewExpert:
    """A new expert, and how often tokens were sent to it.

    Attributes:
        layer: of the model.
        expert: its number.
        num_tokens: that it was active for.
        relative_load: its load, × uniform: 1 is as often as by chance.
    """

    layer: int
    expert: int
    num_tokens: int
    relative_load: float

    @property
    def is_never_chosen(self) -> bool:
        """Whether no recorded token was sent to it."""
        return self.num_tokens == 0

    @property
    def is_asleep(self) -> bool:
        """Whether it is never or rarely chosen."""
        return self.relative_load < RARELY


def new_experts(recording: Recording, capacity: NewCapacity) -> tuple[NewExpert, ...]:
    """Return how every new expert of a grown model is used in a recording of it.

    Raises:
        InputError: the recording is of a model with other layers or experts.
    """
    return tuple(_new_experts(recording, capacity))


def _new_experts(recording: Recording, capacity: NewCapacity) -> Iterator[NewExpert]:
    counts_LE = expert_counts(recording.expert_ids, recording.num_experts)
    layers = recording.source.layers if recording.source else ()
    rows = {layer: row for row, layer in enumerate(layers or range(recording.num_layers))}
    for layer in capacity.layers:
        if not layer.experts:
            continue
        if layer.layer not in rows or layer.experts[-1] >= recording.num_experts:
            raise InputError(
                "the recording is not of this grown model: its layers or experts differ",
                hint="record the grown model: veche experts record MODEL INPUT --out FOLDER",
            )
        row = counts_LE[rows[layer.layer]]
        for expert in layer.experts:
            yield NewExpert(
                layer=layer.layer,
                expert=expert,
                num_tokens=int(row[expert]),
                relative_load=float(row[expert] * recording.num_experts / max(row.sum(), 1)),
            )

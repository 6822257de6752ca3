"""Which heads, units, experts and layers of a grown model are new."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from veche.checkpoint.config import read_config, spec_of
from veche.checkpoint.spec import ModelSpec
from veche.core.errors import CheckpointError
from veche.core.files import read_json_object
from veche.surgery.names import GROWTH_NAME

MlpWidth = Literal["moe_intermediate_size", "shared_expert_intermediate_size", "intermediate_size"]
"""The fields of config.json, as ModelSpec spells them, that units are counted by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCapacity:
    """What of one decoder layer is new, by its numbers in the grown model, ascending.

    Attributes:
        layer: its number, from 0.
        is_new: the layer itself was inserted: then all of it is listed.
        heads: new query heads.
        experts: new experts.
        units: new units of an MLP, by the width that they belong to; of experts, in each of them.
    """

    layer: int
    is_new: bool
    heads: tuple[int, ...]
    experts: tuple[int, ...]
    units: Mapping[MlpWidth, range]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCapacity:
    """What of a grown model is new.

    Attributes:
        mode: "zero" (new parts begin silent) or "split" (they begin as twins of old ones).
        layers: every decoder layer, in order.
    """

    mode: str
    layers: tuple[LayerCapacity, ...]

    @property
    def has_experts(self) -> bool:
        """Whether any expert is new."""
        return any(layer.experts for layer in self.layers)

    @property
    def has_heads(self) -> bool:
        """Whether any query head is new."""
        return any(layer.heads for layer in self.layers)


def new_capacity(folder: Path) -> NewCapacity:
    """Read growth.json of a grown checkpoint, in the numbering of its config.json.

    Raises:
        CheckpointError: there is none, or it contradicts config.json.
        ConfigError: config.json is not that of a known model.
    """
    path = folder / GROWTH_NAME
    if folder.is_dir() and not path.is_file():
        raise CheckpointError(
            f"{folder} has no {GROWTH_NAME}, so nothing says what of it is new",
            hint="name a folder that `veche build` made",
        )
    try:
        record = _Record.model_validate(read_json_object(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise CheckpointError(
            f"{path}: {where}: {first['msg']}", hint="build the folder anew with this veche"
        ) from error
    spec = spec_of(read_config(folder / "config.json"), where=str(folder / "config.json"))
    news = _News()
    for operation in record.operations:
        news = _after(news, operation)
    layers = tuple(_layer(index, news, spec) for index in range(spec.num_hidden_layers))
    _require_within(path, news, spec)
    return NewCapacity(mode=record.mode, layers=layers)


class _Parts(BaseModel):
    """Parts after an operation: which are new, and of which old one each is made."""

    model_config = ConfigDict(extra="ignore")
    new: list[int]
    source: list[int | None]


class _Width(BaseModel):
    model_config = ConfigDict(extra="ignore")
    old: int = Field(ge=0)
    new: int = Field(ge=0)


class _Operation(BaseModel):
    """An operation's record, as far as it says what is new; plugins may say more."""

    model_config = ConfigDict(extra="ignore")
    operation: str
    query_heads: _Parts | None = None
    experts: _Parts | None = None
    layers: _Parts | None = None
    moe_intermediate_size: _Width | None = None
    shared_expert_intermediate_size: _Width | None = None
    intermediate_size: _Width | None = None
    shared_expert_units: _Width | None = None


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore")
    schema_number: Literal[1] = Field(alias="schema")
    mode: str
    operations: list[_Operation]


@dataclass(frozen=True, slots=True, kw_only=True)
class _News:
    """What is new after some of the operations; parts alike in all layers."""

    heads: frozenset[int] = frozenset()
    experts: frozenset[int] = frozenset()
    layers: frozenset[int] = frozenset()
    units: Mapping[MlpWidth, range] = field(default_factory=dict)


def _after(news: _News, operation: _Operation) -> _News:
    widths: dict[MlpWidth, _Width | None] = {
        "moe_intermediate_size": operation.moe_intermediate_size,
        "shared_expert_intermediate_size": operation.shared_expert_intermediate_size
        or operation.shared_expert_units,
        "intermediate_size": operation.intermediate_size,
    }
    return _News(
        heads=_moved(news.heads, operation.query_heads),
        experts=_moved(news.experts, operation.experts),
        layers=_moved(news.layers, operation.layers),
        units={**news.units, **_widened(news.units, widths)},
    )


def _moved(before: frozenset[int], parts: _Parts | None) -> frozenset[int]:
    """Return the parts that are new, and those made of parts that were new before."""
    if parts is None:
        return before
    inherited = (part for part, source in enumerate(parts.source) if source in before)
    return frozenset([*parts.new, *inherited])


def _widened(
    before: Mapping[MlpWidth, range], widths: Mapping[MlpWidth, _Width | None]
) -> dict[MlpWidth, range]:
    return {
        name: range(before[name].start if name in before else width.old, width.new)
        for name, width in widths.items()
        if width is not None and width.new > width.old
    }


def _layer(index: int, news: _News, spec: ModelSpec) -> LayerCapacity:
    is_new, is_sparse = index in news.layers, spec.is_sparse_layer(index)
    heads: Iterable[int] = range(spec.num_attention_heads) if is_new else news.heads
    experts: Iterable[int] = range(spec.num_experts) if is_new else news.experts
    units = {
        name: range(getattr(spec, name)) if is_new else news.units.get(name, range(0))
        for name in _widths_of(spec, is_sparse=is_sparse)
    }
    return LayerCapacity(
        layer=index,
        is_new=is_new,
        heads=tuple(sorted(heads)),
        experts=tuple(sorted(experts)) if is_sparse else (),
        units={name: found for name, found in units.items() if found},
    )


def _widths_of(spec: ModelSpec, *, is_sparse: bool) -> tuple[MlpWidth, ...]:
    if not is_sparse:
        return ("intermediate_size",)
    if spec.shared_expert_intermediate_size:
        return ("moe_intermediate_size", "shared_expert_intermediate_size")
    return ("moe_intermediate_size",)


def _require_within(path: Path, news: _News, spec: ModelSpec) -> None:
    limits = {
        "layer": (news.layers, spec.num_hidden_layers),
        "query head": (news.heads, spec.num_attention_heads),
        "expert": (news.experts, spec.num_experts),
    }
    for name, (found, limit) in limits.items():
        if found and not (min(found) >= 0 and max(found) < limit):
            raise CheckpointError(
                f"{path} names {name} {max(found)}, but config.json has only {limit}",
                hint="the two files are of different builds: build the folder anew",
            )

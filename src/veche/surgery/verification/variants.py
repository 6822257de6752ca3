"""What has to be run, and compared with what, to judge a grown model: the same in either form."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from veche.checkpoint.spec import ModelSpec
from veche.planning.fields import value_of
from veche.planning.plan import BuildPlan
from veche.planning.steps import Step, steps_of

Side = Literal["source", "target"]
DIALS = (
    "num_experts_per_tok", "norm_topk_prob", "rope_theta", "rope_scaling",
    "max_position_embeddings", "hidden_act", "rms_norm_eps",
)  # fmt: skip
"""Fields that move no weight and change answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A model to be run on the text.

    Attributes:
        side: whose weights it has.
        changes: fields of its config.json to change first.
        attention: transformers' attention implementation.
        is_fp32: in float32 and on fewer tokens, rather than in the checkpoint's dtype.
        gain: what the experts' `down` is multiplied by, and rounded as the files are.
    """

    side: Side
    changes: Mapping[str, Any] = field(default_factory=dict)
    attention: Literal["sdpa", "eager"] = "sdpa"
    is_fp32: bool = False
    gain: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two variants to be compared, by name: q with its reference p."""

    reference: str
    other: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """Everything that is run, and everything that is compared.

    Attributes:
        variants: by name.
        pairs: by what they tell: "floor", "exact", "fp32", "whole", and each dial's name.
        dials: each lossy field and its target value.
    """

    variants: Mapping[str, Variant]
    pairs: Mapping[str, Pair]
    dials: Mapping[str, Any]


def experiment_of(plan: BuildPlan, base: ModelSpec, grown: ModelSpec) -> Experiment:
    """Design the comparisons for a plan.

    - "floor": the source under two attention implementations.
    - "exact", "fp32": the source and the grown model under the source's dials.
    - "whole": the source and the grown model as built.
    - every dial alone: on the source; on the grown model where the source has no such dial.

    Args:
        plan: what was built.
        base: the source's spec.
        grown: the target's spec, as its config.json says.
    """
    steps = steps_of(base, grown)
    undialled = _undialled(steps, base)
    gain = grown.num_experts_per_tok / undialled.num_experts_per_tok if _has_gain(steps) else 1.0
    kept = {
        name: value_of(undialled, name)
        for name in DIALS
        if value_of(undialled, name) != value_of(grown, name)
    }
    dials = {
        change.name: change.target
        for change in plan.fields
        if change.is_lossy and change.name in DIALS
    }
    source = Variant(side="source")
    exact, target = replace(source, gain=gain), Variant(side="target", changes=kept)
    variants = {
        "source": source,
        "source_exact": exact,
        "source_eager": replace(exact, attention="eager"),
        "source_fp32": replace(exact, is_fp32=True),
        "target_exact": target,
        "target_fp32": replace(target, is_fp32=True),
        "target": Variant(side="target"),
    }
    pairs = {
        "floor": Pair(reference="source_exact", other="source_eager"),
        "exact": Pair(reference="source_exact", other="target_exact"),
        "fp32": Pair(reference="source_fp32", other="target_fp32"),
        "whole": Pair(reference="source", other="target"),
    }
    for name, value in dials.items():
        variants[name] = _dialled(name, value, source=source, target=target, base=base, gain=gain)
        pairs[name] = Pair(reference="source", other=name)
    return _without_twins(Experiment(variants=variants, pairs=pairs, dials=dials))


def _dialled(
    name: str, value: Any, *, source: Variant, target: Variant, base: ModelSpec, gain: float
) -> Variant:
    """Return the source with one dial turned; a change of top-k brings its gain, as in the plan."""
    is_top_k = name == "num_experts_per_tok"
    if is_top_k and value > base.num_experts:
        return replace(target, changes={**target.changes, name: value})
    return replace(source, changes={name: value}, gain=gain if is_top_k else 1.0)


def _undialled(steps: tuple[Step, ...], base: ModelSpec) -> ModelSpec:
    """Return the spec of the grown model under the source's dials."""
    if not steps:
        return base
    return steps[-1].before if _has_gain(steps) else steps[-1].after


def _has_gain(steps: tuple[Step, ...]) -> bool:
    return bool(steps) and steps[-1].operation == "expert_gain"


def _without_twins(experiment: Experiment) -> Experiment:
    """Run variants that are the same only once."""
    first: dict[str, str] = {}
    kept: dict[str, Variant] = {}
    for name, variant in experiment.variants.items():
        twin = next((known for known, other in kept.items() if other == variant), None)
        first[name] = twin or name
        if twin is None:
            kept[name] = variant
    pairs = {
        name: Pair(reference=first[pair.reference], other=first[pair.other])
        for name, pair in experiment.pairs.items()
    }
    return Experiment(variants=kept, pairs=pairs, dials=experiment.dials)

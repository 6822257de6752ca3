"""Which parts of a grown model are new: growth.json, for training and for telemetry.

Each operation speaks of the model as it is after it; operations stand in their order. New units,
heads, experts and layers are numbered from 0, alike in all layers.
"""

from typing import Any

from veche import __version__
from veche.planning.plan import BuildPlan
from veche.surgery.grow import steps_of_plan

SCHEMA = 1


def growth_record(plan: BuildPlan) -> dict[str, Any]:
    """Return what is new in the model that `plan` makes, as JSON values."""
    return {
        "schema": SCHEMA,
        "veche": __version__,
        "mode": plan.mode,
        "seed": plan.seed,
        "operations": [
            {"operation": step.operation.name, **step.operation.record(step.growth)}
            for step in steps_of_plan(plan)
        ],
    }

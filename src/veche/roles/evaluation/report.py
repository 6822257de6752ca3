"""Figures of roles as JSON values."""

import math
from collections.abc import Sequence
from typing import Any

from veche.experts.bootstrap import Interval
from veche.roles.evaluation.compare import Comparison
from veche.roles.evaluation.evaluate import Evaluation
from veche.roles.evaluation.scored import Method, Note, Part


def evaluation_dict(evaluation: Evaluation) -> dict[str, Any]:
    """Return what `veche role eval --json` prints of a role."""
    return {
        "role": evaluation.role,
        "version": evaluation.version,
        "num_examples": evaluation.num_examples,
        "parts": [part_dict(part) for part in evaluation.parts],
        "notes": _notes(evaluation.notes),
    }


def comparison_dict(comparison: Comparison) -> dict[str, Any]:
    """Return what `veche role compare --json` prints of two roles."""
    return {
        "first": comparison.first,
        "second": comparison.second,
        "parts": [part_dict(part) for part in comparison.parts],
        "notes": _notes(comparison.notes),
    }


def part_dict(part: Part) -> dict[str, Any]:
    """Return the figures of one kind of judgement."""
    return {
        "measures": part.measures,
        "num_rows": part.num_rows,
        "num_problems": part.num_groups,
        "headline": part.headline,
        "methods": [_method(method) for method in part.methods],
        "notes": _notes(part.notes),
    }


def _method(method: Method) -> dict[str, Any]:
    return {
        "name": method.name,
        "figures": {name: _interval(each) for name, each in method.figures.items()},
        "gains": {name: _interval(each) for name, each in method.gains.items()},
    }


def _interval(interval: Interval) -> dict[str, Any]:
    """Return a figure and its interval; null is undefined."""
    ends = [None if math.isnan(end) else end for end in interval.as_list()]
    return {"value": None if math.isnan(interval.mean) else interval.mean, "interval": ends}


def _notes(notes: Sequence[Note]) -> list[dict[str, Any]]:
    return [{"key": note.key, **note.values} for note in notes]

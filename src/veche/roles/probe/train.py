"""Train what an observer measures with, and measure it beside its rivals."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from veche.core.errors import InputError
from veche.core.extras import require_extra
from veche.core.files import require_empty
from veche.core.progress import Progress, Silent
from veche.engines.protocol import Engine, local
from veche.experts.bootstrap import Interval
from veche.roles.data.example import Example
from veche.roles.evaluation.metrics import ece
from veche.roles.probe.compare import RIVAL, STACK, auroc_interval, gain, held_out_scores, methods
from veche.roles.probe.fitting import FitSettings
from veche.roles.probe.observation import Observation
from veche.roles.probe.observe import observe
from veche.roles.probe.probe_file import Reads, TrainedProbes, save_probes
from veche.roles.probe.rows import Rows, answer_rows, step_rows
from veche.roles.probe.stack import Fits, FittedStack, Stack
from veche.roles.role import Role

DEPTH = 0.6
"""Where in the model states are read: what a text means is clear early, whether it holds later."""
_LEAST_ROWS = 20
_ROWS: dict[Reads, Callable[[Sequence[Example], Sequence[Observation]], Rows]] = {
    "answer": answer_rows,
    "step": step_rows,
}


def train_probe(
    engine: Engine,
    role: Role,
    examples: Sequence[Example],
    out: Path,
    *,
    layers: Sequence[int] | None = None,
    settings: FitSettings | None = None,
    progress: Progress | None = None,
    cache: Path | None = None,
) -> TrainedProbes:
    """Train a role's probe, and write it to a folder.

    It learns from answers whose `is_right` is known, and from steps where `first_bad_step` is. The
    record that comes with it says how good each is on problems that were left out, beside its
    rivals.

    Args:
        engine: can look inside its model; see `observe`.
        role: an observer.
        examples: labelled.
        out: an empty or new folder.
        layers: whose states are read; one at six tenths of the model if None.
        settings: of the fits.
        progress: told of each text, and of each fit.
        cache: as in `observe`.

    Raises:
        InputError: the role is none, or the examples hold too few labels.
        UnsupportedError: the engine can't look inside its model.
        OutputError: `out` holds something.
        MissingExtraError: scikit-learn is not installed.
    """
    _require_trainable(role, out)
    progress, settings = progress or Silent(), settings or FitSettings()
    start = time.perf_counter()
    model = local(engine)
    chosen = tuple(layers) if layers is not None else (max(1, round(DEPTH * model.num_layers)),)
    seen = observe(engine, examples, chosen, progress=progress, cache=cache)
    read_s = time.perf_counter() - start
    stacks, measured = _learnt(role, examples, seen, settings, progress)
    if not stacks:
        raise _nothing_to_learn(role, examples)
    record = {
        "role": role.name,
        "engine": engine.name,
        "examples": len(examples),
        "tokens": int(sum(each.num_tokens.sum() for each in seen)),
        "read_s": round(read_s, 1),
        "fit_s": round(time.perf_counter() - start - read_s, 1),
        "settings": {**asdict(settings), "strengths": list(settings.strengths)},
        "measured": measured,
    }
    probes = TrainedProbes(base_hash=model.base_hash, layers=chosen, stacks=stacks, record=record)
    save_probes(out, probes)
    return probes


def _require_trainable(role: Role, out: Path) -> None:
    require_extra("probe")
    require_empty(out, advice="choose another folder")
    if role.kind != "observer":
        raise InputError(
            f"the role {role.name!r} is a {role.kind}: a probe is what an observer measures with",
            hint="veche role train recursia MODEL --data FILE --part probe",
        )


def _learnt(
    role: Role,
    examples: Sequence[Example],
    seen: Sequence[Observation],
    settings: FitSettings,
    progress: Progress,
) -> tuple[dict[Reads, Stack], dict[str, Any]]:
    """Return a stack for all that the labels allow, and how good each is."""
    stacks: dict[Reads, Stack] = {}
    measured: dict[str, Any] = {}
    for reads, rows_of in _ROWS.items():
        rows = rows_of(examples, seen).judged
        if not _is_enough(rows):
            continue
        with progress.task(f"fit the probe of each {reads}", total=2) as advance:
            measured[reads] = _measured(rows, settings)
            advance(1)
            fitted = _fitted(rows, settings)
            stacks[reads] = fitted.stack
            measured[reads] |= _chosen(fitted)
            advance(1)
    return stacks, measured


def as_json(interval: Interval) -> dict[str, float | None]:
    """Return an interval as JSON values; null is undefined."""
    ends = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return {name: None if np.isnan(value) else round(value, 4) for name, value in ends.items()}


def _is_enough(rows: Rows) -> bool:
    return len(rows) >= _LEAST_ROWS and len(set(rows.row_labels)) > 1 and len(set(rows.groups)) > 1


def _fitted(rows: Rows, settings: FitSettings) -> FittedStack:
    fits = Fits(rows.blocks, rows.row_labels, rows.groups, labels=rows.labels, settings=settings)
    return fits.stack(tuple(rows.blocks))


def _chosen(fitted: FittedStack) -> dict[str, Any]:
    parts = {**fitted.parts, STACK: fitted.top}
    return {"strengths": {name: part.strength for name, part in parts.items()}}


def _measured(rows: Rows, settings: FitSettings) -> dict[str, Any]:
    """Return how good the stack and its rivals are on groups that were left out."""
    scores = held_out_scores(rows, methods(rows), settings)
    return _counted(rows) | {
        "positive": rows.labels[1],
        "positive_share": round(float(rows.is_positive.mean()), 4),
        "auroc": {name: as_json(auroc_interval(each, rows)) for name, each in scores.items()},
        "gain_over_surface": as_json(gain(scores[RIVAL], scores[STACK], rows)),
        "ece": round(ece(scores[STACK], rows.is_positive), 4),
    }


def _counted(rows: Rows) -> dict[str, Any]:
    return {"rows": len(rows), "problems": len(set(rows.groups))}


def _nothing_to_learn(role: Role, examples: Sequence[Example]) -> InputError:
    return InputError(
        f"{len(examples)} examples hold too few labels for {role.name!r}: it needs at least "
        f"{_LEAST_ROWS} with is_right or first_bad_step, of two kinds, from two problems or more",
        hint="see docs/reference/files.md for how examples are labelled",
    )

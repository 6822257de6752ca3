"""Measure a role: what it can do, as far as the data has labels for it.

What is measured follows from what was trained, and from the labels:

    trained for the role      label                           measured
    probe of answers          is_right                        which answers are right
    probe of steps            first_bad_step                  which step is the first wrong one
    reader of intents         intent                          what is asked, and what is none of it
    reporter's adapter        is_right, first_bad_step        valid JSON, confidence, first error
    any other role            an answer, or final_answer      how it speaks, how often it is right
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from veche.core.errors import InputError
from veche.core.progress import Progress, Silent
from veche.engines.protocol import Engine
from veche.roles.data.example import Example
from veche.roles.evaluation.answers import Judged, prepare_stack
from veche.roles.evaluation.intervals import ENOUGH_GROUPS
from veche.roles.evaluation.questions import prepare_questions
from veche.roles.evaluation.reports import prepare_reports
from veche.roles.evaluation.scored import Note, Part, Prepared, measured
from veche.roles.evaluation.speech import MAX_TOKENS, prepare_speech
from veche.roles.host import Host, require_trained_on
from veche.roles.hot_swap import HotSwap
from veche.roles.intent.file import holds_intents, load_intents
from veche.roles.intent.reader import question_of
from veche.roles.intent.states import read_states
from veche.roles.probe.observe import observe
from veche.roles.probe.probe_file import TrainedProbes, load_probes
from veche.roles.probe.rows import Rows, answer_rows, num_judged_steps, step_rows
from veche.roles.registry import Registry
from veche.roles.reporter.confidence import DigitTokens
from veche.roles.role import Role
from veche.surgery.loading import load_tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What was measured of a role.

    Attributes:
        role: its name.
        version: of it; None where it was not of a registry.
        num_examples: that were given.
        parts: each kind of judgement that labels were there for.
        notes: what to know of all of them.
    """

    role: str
    version: int | None
    num_examples: int
    parts: tuple[Part, ...]
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a role is measured with.

    Attributes:
        model: the model's folder.
        engine: runs it.
        host: what is known of the model; see `host_of`.
        examples: what is measured on; the role has learnt from none of them.
        learn_from: what baselines learn from; empty: from folds of `examples`, or not at all.
        max_tokens: of an answer that a voice gives.
        cache: a folder for answers that were read; see `observe`.
        is_alone: leave baselines out.
    """

    model: Path
    engine: Engine
    host: Host | None
    examples: Sequence[Example]
    learn_from: Sequence[Example] = ()
    max_tokens: int = MAX_TOKENS
    cache: Path | None = None
    is_alone: bool = False


def evaluate(
    role: Role,
    task: Task,
    registry: Registry,
    *,
    version: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a role.

    Raises:
        InputError: the examples have no label that this role can be measured on.
        UnsupportedError: role or probe were made with another model.
    """
    progress = progress or Silent()
    prepared = prepare(role, task, registry, progress=progress)
    parts = [measured(each, progress=progress) for each in prepared]
    return Evaluation(
        role=role.name,
        version=version,
        num_examples=len(task.examples),
        parts=tuple(parts),
        notes=(*_shared(task), *few_groups(parts)),
    )


def prepare(
    role: Role, task: Task, registry: Registry, *, progress: Progress | None = None
) -> list[Prepared]:
    """Let the model read, or the role speak; return what can be measured then.

    Raises:
        VecheError: as `evaluate`.
    """
    progress = progress or Silent()
    if not task.examples:
        raise InputError("there is nothing to measure on: no examples were given")
    task = _apart(task)
    prepared = []
    if role.probe is not None:
        folder = registry.folder(role.probe)
        prepared += (_questions if holds_intents(folder) else _probed)(folder, task, progress)
    if role.kind == "observer" and role.adapter is not None:
        prepared.append(_reported(role, task, registry, progress))
    return prepared or [_spoken(role, task, registry, progress)]


def _apart(task: Task) -> Task:
    """Return the task without what baselines could learn by heart: problems of the data itself."""
    asked = {example.group for example in task.examples}
    return replace(task, learn_from=[e for e in task.learn_from if e.group not in asked])


def _shared(task: Task) -> list[Note]:
    asked = {example.group for example in task.examples}
    shared = asked & {example.group for example in task.learn_from}
    return [Note(key="shared", values={"count": len(shared)})] if shared else []


def few_groups(parts: Sequence[Part]) -> list[Note]:
    """Return a note where there are too few problems for intervals that say what they mean."""
    few = min(part.num_groups for part in parts)
    if few >= ENOUGH_GROUPS:
        return []
    return [Note(key="few_groups", values={"count": few, "enough": ENOUGH_GROUPS})]


def _questions(folder: Path, task: Task, progress: Progress) -> list[Prepared]:
    trained = load_intents(folder)
    require_trained_on(trained.base_hash, task.engine)
    texts = [question_of(example) for example in task.examples]
    states_NF = read_states(task.engine, texts, trained.reader.layers, progress=progress)
    return [prepare_questions(trained.reader, task.examples, states_NF, task.learn_from)]


def _probed(folder: Path, task: Task, progress: Progress) -> list[Prepared]:
    probes = load_probes(folder)
    require_trained_on(probes.base_hash, task.engine)
    examples = [example for example in task.examples if example.is_answered]
    wanted = _wanted(probes, examples)
    learn_from = [example for example in task.learn_from if example.is_answered]
    seen, learnt = (
        observe(task.engine, each, probes.layers, progress=progress, cache=task.cache)
        for each in (examples, learn_from)
    )
    prepared = []
    for measures, rows_of in wanted.items():
        judged = Judged(
            measures=measures,
            rows=rows_of(examples, seen),
            learnt=rows_of(learn_from, learnt) if learn_from else None,
        )
        prepared.append(prepare_stack(probes.stacks[measures], judged, is_alone=task.is_alone))
    return prepared


_Judges = Literal["answer", "step"]
_ROWS: dict[_Judges, Callable[..., Rows]] = {"answer": answer_rows, "step": step_rows}


def _wanted(
    probes: TrainedProbes, examples: Sequence[Example]
) -> dict[_Judges, Callable[..., Rows]]:
    """Return how rows are made of what the probe can judge and the examples have labels for.

    Raises:
        InputError: there is nothing such.
    """
    is_labelled: dict[_Judges, bool] = {
        "answer": any(example.is_right is not None for example in examples),
        "step": any(num_judged_steps(example) for example in examples),
    }
    wanted = {
        measures: rows_of
        for measures, rows_of in _ROWS.items()
        if measures in probes.stacks and is_labelled[measures]
    }
    if not wanted:
        raise InputError(
            f"the probe judges each {' and '.join(probes.stacks)}, and of {len(examples)} answers "
            "none has a label for it",
            hint='"is_right" and "first_bad_step" are such labels: docs/reference/files.md',
        )
    return wanted


def _reported(role: Role, task: Task, registry: Registry, progress: Progress) -> Prepared:
    with HotSwap(task.engine, registry, host=task.host).holding([role]) as (speaker,):
        return prepare_reports(
            task.engine,
            speaker,
            DigitTokens(load_tokenizer(task.model)),
            task.examples,
            task.learn_from,
            is_alone=task.is_alone,
            progress=progress,
        )


def _spoken(role: Role, task: Task, registry: Registry, progress: Progress) -> Prepared:
    with HotSwap(task.engine, registry, host=task.host).holding([role]) as (speaker,):
        return prepare_speech(
            task.engine,
            speaker,
            task.examples,
            max_tokens=task.max_tokens,
            is_alone=task.is_alone,
            progress=progress,
        )

"""Train a reader of intents: on states, on words, and on what is none of the intents.

Shapes: N questions, F features, K intents.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veche.core.errors import InputError
from veche.core.extras import require_extra
from veche.core.files import require_empty
from veche.core.progress import Progress, Silent
from veche.engines.protocol import Engine, local
from veche.roles.data.example import Example
from veche.roles.data.public_sets import OUT_OF_SCOPE
from veche.roles.intent.file import TrainedIntents, save_intents
from veche.roles.intent.reader import IntentReader, Scope, question_of
from veche.roles.intent.regression import fit_softmax
from veche.roles.intent.states import read_states
from veche.roles.intent.wording import fit_wording
from veche.roles.role import Role

LEAST_EXAMPLES = 5
"""Of an intent: one of five is held out."""
LEFT_OUT = 5
"""One example, and one intent, of so many are held out while shares and scope are chosen."""
ENOUGH_OUT_OF_SCOPE = 20
"""Examples out of scope from which on no intent has to stand for them."""
_SHARES_OF_DEPTH = (0.0, 0.2, 0.4, 0.6, 0.8)
_NO_SHARES = (1.0, 1.0)
_UNKNOWN = -1
_LEAST_SLOPE = 0.01
_LOST = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """What is learnt from.

    Attributes:
        texts: what was asked.
        states: [N, F], of `read_states`.
        intents: K names, sorted.
        label: [N], the number of the intent; −1 for what is out of scope.
    """

    texts: tuple[str, ...]
    states: NDArray[np.float32]
    intents: tuple[str, ...]
    label: NDArray[np.int64]

    def taken(self, rows: NDArray[np.int64], intents: Sequence[int]) -> "Questions":
        """Return some rows, with some intents numbered anew; what is of others is out of scope."""
        new = np.full(len(self.intents) + 1, _UNKNOWN)  # its last one is that of label −1
        new[list(intents)] = np.arange(len(intents))
        return Questions(
            texts=tuple(self.texts[row] for row in rows),
            states=self.states[rows],
            intents=tuple(self.intents[intent] for intent in intents),
            label=new[self.label[rows]],
        )

    @property
    def in_scope(self) -> "Questions":
        """Those of a known intent."""
        return self.taken(np.flatnonzero(self.label >= 0), range(len(self.intents)))


def train_intents(
    engine: Engine,
    role: Role,
    examples: Sequence[Example],
    out: Path,
    *,
    layers: Sequence[int] | None = None,
    out_of_scope: str = OUT_OF_SCOPE,
    progress: Progress | None = None,
) -> TrainedIntents:
    """Let the model read questions, learn which intent each is of, and write that to a folder.

    Args:
        engine: as `read_states` needs it.
        role: a reader.
        examples: with intents.
        out: an empty or new folder.
        layers: whose states are read; None is `reading_layers`.
        out_of_scope: the label of what is none of the intents; there need be none of it.
        progress: told of each question.

    Raises:
        InputError: the role is no reader, an example has no intent, or an intent too few examples,
            or there is one intent.
        UnsupportedError: the engine can't look inside its model.
        OutputError: `out` holds something.
        MissingExtraError: scikit-learn is not installed.
    """
    require_extra("probe")
    require_empty(out, advice="choose another folder")
    if role.kind != "reader":
        raise InputError(
            f"the role {role.name!r} is a {role.kind}: intents are what a reader reads",
            hint="veche role train q-intent MODEL --data FILE --part probe",
        )
    intents = intents_of(examples, out_of_scope)
    start = time.perf_counter()
    chosen = reading_layers(local(engine).num_layers) if layers is None else tuple(layers)
    texts = tuple(question_of(example) for example in examples)
    states_NF = read_states(engine, texts, chosen, progress=progress)
    read_s = time.perf_counter() - start
    questions = questions_of(examples, intents, states_NF)
    reader, counts = fit_reader(questions, chosen, progress=progress)
    record = {
        "role": role.name,
        "engine": engine.name,
        **counts,
        "tokens": sum(map(engine.count_tokens, texts)),
        "read_s": round(read_s, 1),
        "fit_s": round(time.perf_counter() - start - read_s, 1),
    }
    trained = TrainedIntents(base_hash=local(engine).base_hash, reader=reader, record=record)
    save_intents(out, trained)
    return trained


def reading_layers(num_hidden_layers: int) -> tuple[int, ...]:
    """Return the layers that are read: five from the embedding to four fifths of the depth.

    Words are told best by the first ones, what they mean together by those in the middle.
    """
    return tuple(sorted({round(share * num_hidden_layers) for share in _SHARES_OF_DEPTH}))


def questions_of(
    examples: Sequence[Example], intents: tuple[str, ...], states_NF: NDArray[np.float32]
) -> Questions:
    """Return examples as they are learnt from; what is of no intent named is out of scope."""
    number = {intent: index for index, intent in enumerate(intents)}
    return Questions(
        texts=tuple(question_of(example) for example in examples),
        states=states_NF,
        intents=intents,
        label=np.array([number.get(str(example.intent), _UNKNOWN) for example in examples]),
    )


def intents_of(examples: Sequence[Example], out_of_scope: str) -> tuple[str, ...]:
    """Return the intents that there are, sorted.

    Raises:
        InputError: as `train_intents` says.
    """
    if not examples:
        raise InputError("there is nothing to learn intents from: no examples were given")
    if unlabelled := [example for example in examples if example.intent is None]:
        raise InputError(
            f"{len(unlabelled)} of {len(examples)} examples have no intent, the first: "
            f"{unlabelled[0].messages[-1].content[:80]!r}",
            hint='write {"messages": […], "intent": "…"} a line',
        )
    counts = Counter(str(example.intent) for example in examples)
    counts.pop(out_of_scope, None)
    if len(counts) < 2:
        raise InputError(
            f"all examples are of {len(counts)} intent: there is nothing to tell apart",
            hint="give examples of two intents or more",
        )
    rare = sorted(intent for intent, count in counts.items() if count < LEAST_EXAMPLES)
    if rare:
        raise InputError(
            f"{len(rare)} intents have fewer than {LEAST_EXAMPLES} examples: "
            f"{', '.join(rare[:5])}{' …' if len(rare) > 5 else ''}",
            hint="give more examples of them, or leave them out",
        )
    return tuple(sorted(counts))


def fit_reader(
    questions: Questions, layers: Sequence[int], *, progress: Progress | None = None
) -> tuple[IntentReader, dict[str, Any]]:
    """Fit a reader, and return what was measured while its shares and scope were chosen.

    NOTE: shares are fitted to examples, and the scope to examples and intents, that the scores
    they weigh have not seen. What was given as out of scope tells the scope; where that is little,
    intents that were left out stand for it. These are nearer to the known ones than most of what
    comes, so that such a reader is stricter.
    """
    progress = progress or Silent()
    with progress.task("fit the reader", total=3) as advance:
        held_out, known = _parts(questions)
        trial = _fitted(known, layers)
        advance(1)
        shares = _shares(trial, held_out.in_scope)
        advance(1)
        trial = replace(trial, shares=shares)
        scope = _scope(_logits(trial, held_out), held_out.label >= 0)
        reader = replace(_fitted(questions.in_scope, layers), shares=shares, scope=scope)
        advance(1)
    inside = held_out.in_scope
    right_N = _logits(trial, inside).argmax(1) == inside.label
    record = {
        "examples": len(questions.texts),
        "intents": len(questions.intents),
        "out_of_scope_examples": int((questions.label < 0).sum()),
        "held_out_examples": len(held_out.texts),
        "held_out_accuracy": float(right_N.mean()),
        "shares": list(shares),
    }
    return reader, record


def _parts(questions: Questions) -> tuple[Questions, Questions]:
    """Return what is held out, and what is learnt from meanwhile."""
    order_N = np.argsort(questions.label, kind="stable")
    place_N = np.empty(len(order_N), np.int64)
    place_N[order_N] = np.arange(len(order_N))
    is_held_out_N = (place_N % LEFT_OUT == 0) | (questions.label < 0)
    every = range(len(questions.intents))
    has_enough = (questions.label < 0).sum() >= ENOUGH_OUT_OF_SCOPE
    # Two are always left to be told apart.
    unknown: set[int] = set() if has_enough else set(every[2::LEFT_OUT])
    kept = [intent for intent in every if intent not in unknown]
    held_out = questions.taken(np.flatnonzero(is_held_out_N), kept)
    learnt = questions.taken(np.flatnonzero(~is_held_out_N), kept)
    return held_out, learnt.in_scope


def _fitted(questions: Questions, layers: Sequence[int]) -> IntentReader:
    return IntentReader(
        intents=questions.intents,
        layers=tuple(layers),
        states=fit_softmax(questions.states, questions.label),
        words=fit_wording(questions.texts, questions.label),
        shares=_NO_SHARES,
        scope=Scope(slope=1.0, bias=0.0),
    )


def _logits(reader: IntentReader, questions: Questions) -> NDArray[np.float64]:
    states_NK = reader.states.scores(questions.states)
    return reader.shares[0] * states_NK + reader.shares[1] * reader.words.scores(questions.texts)


def _shares(reader: IntentReader, held_out: Questions) -> tuple[float, float]:
    """Return the two factors that make held-out intents likeliest."""
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    states_NK = reader.states.scores(held_out.states)
    words_NK = reader.words.scores(held_out.texts)
    rows = np.arange(len(held_out.label))

    def loss(log_shares: NDArray[np.float64]) -> float:
        """Return the negative log-likelihood, in nats."""
        logits_NK = np.exp(log_shares[0]) * states_NK + np.exp(log_shares[1]) * words_NK
        return float((logsumexp(logits_NK, axis=1) - logits_NK[rows, held_out.label]).mean())

    found = minimize(loss, np.zeros(2), method="Nelder-Mead", bounds=[(-6.0, 6.0)] * 2).x
    return float(np.exp(found[0])), float(np.exp(found[1]))


def _scope(logits_NK: NDArray[np.float64], is_in_scope_N: NDArray[np.bool_]) -> Scope:
    """Return the logistic regression of being in scope; both sides weigh the same.

    A higher score never makes a question less likely in scope, whatever few examples say. Where
    nothing is out of scope, all but a twentieth of the known ones are kept.
    """
    from sklearn.linear_model import LogisticRegression

    best_N = logits_NK.max(1)
    if is_in_scope_N.all():
        return Scope(slope=1.0, bias=-float(np.quantile(best_N, _LOST)))
    model = LogisticRegression(class_weight="balanced").fit(best_N[:, None], is_in_scope_N)
    slope, bias = float(model.coef_[0, 0]), float(model.intercept_[0])
    if slope < _LEAST_SLOPE:
        middle = best_N[is_in_scope_N].mean() / 2 + best_N[~is_in_scope_N].mean() / 2
        slope, bias = _LEAST_SLOPE, -_LEAST_SLOPE * float(middle)
    return Scope(slope=slope, bias=bias)

"""Let a model read questions, and note the states that say what each of them is about.

Shapes: N questions, T tokens of one, C captured layers, D hidden size.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from veche.core.errors import InputError
from veche.core.progress import Progress, Silent
from veche.engines.protocol import (
    Branch,
    BranchResult,
    Capability,
    Capture,
    Engine,
    Sampling,
    require,
    scoring,
)

_BEFORE, _BEHIND = 'A user asks: "', '"'
"""What a question stands between, so that it is read as one, and its first word is expected."""
_ROWS = 32
_TOKENS = 2048
"""Of one batch, padding included."""
_TINY = 1e-6


def read_states(
    engine: Engine,
    texts: Sequence[str],
    layers: Sequence[int],
    *,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Return two means of each question's states at each layer, [N, 2·C·D].

    With h_t the state after token t and p_t the probability that the model gave it, these are the
    mean of h_t over the T tokens, and

        Σ_t w_t h_t,   w_t = −ln p_t / Σ_s −ln p_s:

    "what is the" is expected and counts little, "balance" is not and counts. Such weights are those
    of Arora, Liang, Ma, A simple but tough-to-beat baseline for sentence embeddings (2017), with a
    model's own surprisal in place of a word's frequency.

    Args:
        engine: with SCORE, LOGPROBS and HIDDEN_STATES.
        texts: questions; equal ones are read once.
        layers: see `Capture.hidden_layers`.
        progress: told of each question.

    Raises:
        UnsupportedError: the engine can't look inside its model.
        InputError: a question is empty or longer than the context, or a layer does not exist.
    """
    require(engine, Capability.SCORE, Capability.LOGPROBS, Capability.HIDDEN_STATES)
    reading = scoring(engine)
    capture = Capture(routing=False, logprobs=0, hidden_layers=tuple(layers))
    known: dict[str, NDArray[np.float32]] = {}
    trunk = reading.open_text(_BEFORE)
    try:
        with (progress or Silent()).task("read the questions", total=len(set(texts))) as advance:
            for batch in _batches(engine, texts):
                branches = [
                    Branch(voice=str(row), instruction="", sampling=Sampling(), capture=capture)
                    for row in range(len(batch))
                ]
                results = reading.score(trunk, branches, [text + _BEHIND for text in batch])
                known.update(zip(batch, map(_state, results), strict=True))
                advance(len(batch))
    finally:
        reading.close_trunk(trunk)
    return np.stack([known[text] for text in texts])


def _batches(engine: Engine, texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield texts of like length together, each of them once."""
    lengths = {text: _length(engine, text) for text in texts}
    batch: list[str] = []
    for text in sorted(lengths, key=lambda text: (lengths[text], text)):
        if batch and (len(batch) == _ROWS or (len(batch) + 1) * lengths[text] > _TOKENS):
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch


def _length(engine: Engine, text: str) -> int:
    if not text.strip():
        raise InputError("there is nothing to read: a question is empty")
    return engine.count_tokens(text + _BEHIND)


def _state(result: BranchResult) -> NDArray[np.float32]:
    """Return both means, [2·C·D].

    NOTE: row t of an engine's hidden states is what token t was drawn from, so the state after
    token t is row t + 1. The last token, which closes the question, has none and is left out.
    """
    assert result.hidden_states is not None  # noqa: S101 - asked for
    assert result.logprobs is not None  # noqa: S101 - asked for
    after_TCD = result.hidden_states[1:]
    surprisal_T = np.maximum(-result.logprobs.chosen[:-1], 0) + _TINY
    if not len(after_TCD):  # one token holds all of it
        after_TCD, surprisal_T = result.hidden_states, np.ones(1, np.float32)
    weights_T = surprisal_T / surprisal_T.sum()
    means = (after_TCD.mean(0), np.tensordot(weights_T, after_TCD, axes=1))
    return np.stack(means).ravel().astype(np.float32)

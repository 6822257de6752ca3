"""How sure the observer is: the expectation of the confidence digit under the model's own logits.

Shapes: T tokens of a report, V vocabulary, C tokens that may hold the digit.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veche.engines.protocol import BranchResult
from veche.roles.reporter.report import CONFIDENCE_HEAD, CONFIDENCE_TAIL, MAX_CONFIDENCE

_DIGITS = "0123456789"
_BEFORE = "a"
"""Some tokenizers drop the space of a first token: each is looked at behind this one."""


class DigitTokens:
    """The tokens of a vocabulary that can hold the confidence digit.

    NOTE: a tokenizer may join the digit with what stands around it: " 7", "7,", ": 7". A token
    holds it if it is an end of what stands before, a digit, and a beginning of what stands behind;
    which of these come into question is decided by what was already written.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Find them.

        Args:
            tokenizer: of transformers.
        """
        self._by_lead: dict[str, tuple[list[int], list[int]]] = {}
        for token_id, text in _texts(tokenizer):
            at = next((index for index, letter in enumerate(text) if letter in _DIGITS), None)
            if at is None:
                continue
            lead, digit, tail = text[:at], text[at], text[at + 1 :]
            if CONFIDENCE_HEAD.endswith(lead) and CONFIDENCE_TAIL.startswith(tail):
                ids, digits = self._by_lead.setdefault(lead, ([], []))
                ids.append(token_id)
                digits.append(int(digit))

    def confidence(self, result: BranchResult) -> float | None:
        """Return Σ_d d·p(d)/9 in [0, 1], of the token that held the digit.

        p(d) is the probability, under the logits that the token was drawn from, of all tokens
        that put digit d in this place, divided by that of all digits: the model's own choice
        between digits, whatever was drawn. None where the report has no digit.

        Args:
            result: a report, with logits.
        """
        place = _place(result)
        if place is None:
            return None
        token, lead = place
        ids, digits = self._by_lead.get(lead, ([], []))
        if not ids:
            return None
        assert result.logits is not None  # noqa: S101 - asked for
        return expected_digit(result.logits[token, ids], np.array(digits)) / MAX_CONFIDENCE


def expected_digit(logits_C: NDArray[np.float32], digits_C: NDArray[np.int64]) -> float:
    """Return Σ_c digit_c · exp(z_c) / Σ_c exp(z_c).

    Args:
        logits_C: z, of the tokens that may stand there.
        digits_C: the digit that each of them puts there.
    """
    weights_C = np.exp(logits_C.astype(np.float64) - float(logits_C.max()))
    return float((weights_C * digits_C).sum() / weights_C.sum())


def _place(result: BranchResult) -> tuple[int, str] | None:
    """Return which token holds the digit, and what it says before it."""
    at = result.text.find(CONFIDENCE_HEAD)
    at += len(CONFIDENCE_HEAD)
    if at < len(CONFIDENCE_HEAD) or result.text[at : at + 1] not in tuple(_DIGITS):
        return None
    assert result.token_ends is not None  # noqa: S101 - by an engine with logits
    token = int(np.searchsorted(np.array(result.token_ends), at, side="right"))
    start = result.token_ends[token - 1] if token else 0
    return token, result.text[start:at]


def _texts(tokenizer: Any) -> Iterator[tuple[int, str]]:
    before = tokenizer(_BEFORE, add_special_tokens=False).input_ids
    shown = _decoded(tokenizer, before)
    for token, token_id in tokenizer.get_vocab().items():
        # Only these need to be decoded, which is slow.
        if sum(letter in _DIGITS for letter in token) == 1:
            yield token_id, _decoded(tokenizer, [*before, token_id])[len(shown) :]


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

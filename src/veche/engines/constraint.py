"""Hold an answer to a JSON schema, token by token: V vocabulary. llguidance does the work."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veche.core.errors import EngineError, InputError, MissingExtraError

_ONE_LINE: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""As json.dumps writes; where any whitespace is allowed, some models write nothing else."""


class Grammars:
    """A tokenizer, as llguidance reads it; made once, when it is first needed.

    Args:
        read_tokenizer: makes llguidance's tokenizer.
        vocab_size: how many logits a token has.
        extra: what to install where llguidance is missing.
    """

    def __init__(self, read_tokenizer: Callable[[], Any], *, vocab_size: int, extra: str) -> None:
        self._read_tokenizer = read_tokenizer
        self._vocab_size = vocab_size
        self._extra = extra
        self._tokenizer: Any = None

    def constraint(self, schema: Mapping[str, Any]) -> "Constraint":
        """Return a new answer's constraint.

        Raises:
            MissingExtraError: llguidance is not installed.
            InputError: the schema can't be held to; why is said.
        """
        try:
            import llguidance
        except ImportError as error:
            raise MissingExtraError("llguidance", self._extra) from error
        if self._tokenizer is None:
            self._tokenizer = self._read_tokenizer()
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(
                json.dumps(schema), overrides=_ONE_LINE
            )
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(
                f"the JSON schema can't be used: {error}",
                hint="a schema is JSON: objects, lists, texts and numbers, not nested without end",
            ) from error
        matcher = llguidance.LLMatcher(self._tokenizer, grammar)
        if matcher.is_error():
            raise InputError(
                f"the JSON schema can't be used: {_first_line(matcher.get_error())}",
                hint="see json-schema.org; llguidance says which keywords it knows",
            )
        return Constraint(matcher, self._vocab_size)


class Constraint:
    """What may come next in one answer."""

    def __init__(self, matcher: Any, vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size

    @property
    def is_finished(self) -> bool:
        """Whether the answer is complete, so that nothing may follow."""
        return bool(self._matcher.is_stopped())

    def allowed(self) -> NDArray[np.bool_]:
        """Return which tokens may come next, [V].

        Raises:
            EngineError: the grammar has grown beyond llguidance's limits.
        """
        import llguidance.numpy as bits

        mask = bits.allocate_token_bitmask(1, self._vocab_size)
        bits.fill_next_token_bitmask(self._matcher, mask)
        if error := self._matcher.get_error():
            raise EngineError(f"the JSON grammar gave up: {_first_line(error)}")
        bits_V = np.unpackbits(mask.view(np.uint8), bitorder="little")[: self._vocab_size]
        return bits_V.astype(np.bool_)

    def push(self, token_id: int) -> None:
        """Take the token that was chosen."""
        self._matcher.consume_token(token_id)


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["?"])[0]

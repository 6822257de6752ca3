"""Hold an answer to a JSON schema, token by token."""

import json
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veche.core.errors import EngineError, InputError
from veche.engines.llama_cpp.vocabulary import Vocabulary

_SPACING = {"whitespace_pattern": "[ ]?"}
"""At most a space between parts: where any would do, a model may write spaces without end."""


class Constraints:
    """Makes constraints for one vocabulary, which llguidance reads once."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._tokenizer: Any = None

    def of(self, schema: Mapping[str, Any]) -> "Constraint":
        """Begin a constraint.

        Raises:
            InputError: llguidance cannot follow this schema.
        """
        from llguidance import LLMatcher
        from llguidance.llamacpp import lltokenizer_from_vocab

        if self._tokenizer is None:
            with warnings.catch_warnings():  # it asks for tokens' attributes by an older name
                warnings.simplefilter("ignore", DeprecationWarning)
                self._tokenizer = lltokenizer_from_vocab(
                    self._vocabulary.pointer, eos_token=self._vocabulary.end_ids()
                )
        grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_SPACING)
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise InputError(
                f"the JSON schema can't be followed: {matcher.get_error()}",
                hint="https://github.com/guidance-ai/llguidance lists what schemas may use",
            )
        return Constraint(matcher, self._vocabulary.size)


class Constraint:
    """What may come next in one answer."""

    def __init__(self, matcher: Any, num_vocab: int) -> None:
        self._matcher = matcher
        self._mask = np.zeros((1, (num_vocab + 31) // 32), np.int32)
        self._num_vocab = num_vocab

    def applied(self, logits_V: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits with -inf where a token would break the schema."""
        from llguidance.numpy import fill_next_token_bitmask

        fill_next_token_bitmask(self._matcher, self._mask)
        bits = np.unpackbits(self._mask.view(np.uint8), bitorder="little")[: self._num_vocab]
        return np.where(bits == 1, logits_V, np.float32(-np.inf))

    def take(self, token_id: int) -> bool:
        """Note the token that was picked; return whether the JSON is complete with it.

        Raises:
            EngineError: the token was not allowed.
        """
        if not self._matcher.consume_token(token_id):
            raise EngineError(f"a token broke the JSON schema: {self._matcher.get_error()}")
        return bool(self._matcher.is_stopped())

"""Hold an answer to a JSON schema, token by token: V vocabulary. llguidance does the work."""

import json
from collections.abc import Collection, Mapping
from typing import Any

import torch

from veche.core.errors import EngineError, InputError, MissingExtraError

_ONE_LINE: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""As json.dumps writes; where any whitespace is allowed, some models write nothing else."""


class Grammars:
    """A tokenizer, as llguidance reads it; made once, when it is first needed."""

    def __init__(self, tokenizer: Any, *, vocab_size: int, end_ids: Collection[int]) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._end_ids = sorted(end_ids)
        self._read: Any = None

    def constraint(self, schema: Mapping[str, Any]) -> "Constraint":
        """Return a new answer's constraint.

        Raises:
            MissingExtraError: llguidance is not installed.
            InputError: the schema can't be held to; why is said.
        """
        try:
            import llguidance
            import llguidance.hf
        except ImportError as error:
            raise MissingExtraError("llguidance", "model") from error
        if self._read is None:
            self._read = llguidance.hf.from_tokenizer(
                self._tokenizer, n_vocab=self._vocab_size, eos_token=self._end_ids or None
            )
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(
                json.dumps(schema), overrides=_ONE_LINE
            )
        except (TypeError, ValueError) as error:
            raise InputError(f"the JSON schema can't be used: {error}") from error
        matcher = llguidance.LLMatcher(self._read, grammar)
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

    def masked(self, logits_V: torch.Tensor) -> torch.Tensor:
        """Set the logits of tokens that can't come next to −∞."""
        import llguidance.numpy as bits

        mask = bits.allocate_token_bitmask(1, self._vocab_size)
        bits.fill_next_token_bitmask(self._matcher, mask)
        if error := self._matcher.get_error():
            raise EngineError(f"the JSON grammar gave up: {_first_line(error)}")
        is_allowed = torch.from_numpy(_unpacked(mask, len(logits_V))).to(logits_V.device)
        return logits_V.masked_fill(~is_allowed, -torch.inf)

    def push(self, token_id: int) -> None:
        """Take the token that was chosen."""
        self._matcher.consume_token(token_id)


def _unpacked(mask: Any, vocab_size: int) -> Any:
    import numpy as np

    bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
    return bits[:vocab_size].astype(bool)


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["?"])[0]

"""The texts of single tokens, from a model folder's tokenizer.json."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

_FILE_NAME = "tokenizer.json"


class Vocabulary:
    """A tokenizer that is only asked what its tokens say."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._control = {
            number
            for number, token in tokenizer.get_added_tokens_decoder().items()
            if token.special
        }

    def texts(self, ids: Sequence[int]) -> list[str]:
        """Return each token's text in its place.

        A character may be spelt by several tokens: each of them gets the whole of it.
        """
        from tokenizers.decoders import DecodeStream

        stream = DecodeStream(skip_special_tokens=False)
        texts: list[str] = []
        waiting = 0
        for number in ids:
            waiting += 1
            piece = stream.step(self._tokenizer, int(number))
            if piece is not None:
                texts += [piece] * waiting
                waiting = 0
        return texts + ["\N{REPLACEMENT CHARACTER}"] * waiting

    def is_control(self, ids: Sequence[int]) -> list[bool]:
        """Whether each token is one of the chat format's own."""
        return [int(number) in self._control for number in ids]


def vocabulary_of(model: Path) -> Vocabulary | None:
    """Read the folder's tokenizer.json; None where there is none, or no package to read it.

    The engine has read it before, so here it is known to be sound.
    """
    path = model / _FILE_NAME
    if not path.is_file():
        return None
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return None
    return Vocabulary(Tokenizer.from_file(str(path)))

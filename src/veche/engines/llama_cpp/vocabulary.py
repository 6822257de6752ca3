"""A GGUF's tokenizer, spelled as transformers' tokenizers are, so that chat_format reads both."""

import ctypes
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from veche.engines.llama_cpp.library import library

_SENTENCEPIECE = 1
"""LLAMA_VOCAB_TYPE_SPM."""
_PIECE_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Tokens of a text."""

    input_ids: list[int]


class Vocabulary:
    """The tokenizer and the chat template in a GGUF file.

    Args:
        vocab: llama.cpp's pointer, valid as long as its model.
        chat_template: Jinja, as `tokenizer.chat_template` of the file.
    """

    def __init__(self, vocab: Any, chat_template: str | None) -> None:
        self.chat_template = chat_template
        self._lib = library()
        self._vocab = vocab
        self._pieces: dict[int, bytes] = {}
        self._strips = (
            self._lib.llama_vocab_type(vocab) == _SENTENCEPIECE and not self._keeps_first_space()
        )

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return int(self._lib.llama_vocab_n_tokens(self._vocab))

    @property
    def bos_token_id(self) -> int | None:
        """The token that begins a text, if there is one."""
        token_id = int(self._lib.llama_vocab_bos(self._vocab))
        return token_id if token_id >= 0 else None

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a text, if there is one."""
        token_id = int(self._lib.llama_vocab_eos(self._vocab))
        return token_id if token_id >= 0 else None

    def is_end(self, token_id: int) -> bool:
        """Whether a token ends an answer."""
        return bool(self._lib.llama_vocab_is_eog(self._vocab, token_id))

    def __call__(
        self,
        text: str,
        *,
        add_special_tokens: bool = True,
        split_special_tokens: bool = False,
        verbose: bool = True,
    ) -> Encoded:
        """Tokenise; control tokens in the text are obeyed unless they are to be split."""
        raw = text.encode()
        room = len(raw) + 8
        while True:
            ids = (self._lib.llama_token * room)()
            count = self._lib.llama_tokenize(
                self._vocab, raw, len(raw), ids, room, add_special_tokens, not split_special_tokens
            )
            if count >= 0:
                return Encoded(input_ids=list(ids[:count]))
            room = -count

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, control tokens left out."""
        raw = b"".join(self._piece(token_id) for token_id in ids)
        return (raw.removeprefix(b" ") if self._strips else raw).decode(errors="replace")

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """Return the token that is written so, control tokens included; None if there is none."""
        ids = self(token, add_special_tokens=False).input_ids
        if len(ids) != 1 or self._lib.llama_vocab_get_text(self._vocab, ids[0]) != token.encode():
            return None
        return ids[0]

    def guided(self) -> Any:
        """Return the tokenizer as llguidance reads it."""
        from llguidance.llamacpp import lltokenizer_from_vocab

        end_ids = [token_id for token_id in range(self.size) if self.is_end(token_id)]
        with warnings.catch_warnings():  # it asks for tokens' attributes by an older name
            warnings.simplefilter("ignore", DeprecationWarning)
            return lltokenizer_from_vocab(self._vocab, eos_token=end_ids or None)

    def apply_chat_template(self, messages: Sequence[dict[str, str]], **options: Any) -> str:
        """Render a conversation as text.

        Raises:
            jinja2.TemplateError: the template refuses it.
        """
        from jinja2.exceptions import TemplateError

        if self.chat_template is None:
            raise TemplateError("there is no template")
        bos, eos = (self._markup(kind) for kind in ("bos", "eos"))
        template = _environment().from_string(self.chat_template)
        return str(template.render(messages=messages, bos_token=bos, eos_token=eos, **options))

    def _keeps_first_space(self) -> bool:
        """Whether tokenising adds no space before the first word, so that none is to be removed."""
        encoded = self("a", add_special_tokens=False, split_special_tokens=True).input_ids
        return not self._piece(encoded[0]).startswith(b" ")

    def _markup(self, kind: str) -> str:
        token_id = getattr(self._lib, f"llama_vocab_{kind}")(self._vocab)
        if token_id < 0:
            return ""
        return bytes(self._lib.llama_vocab_get_text(self._vocab, token_id)).decode()

    def _piece(self, token_id: int) -> bytes:
        if token_id not in self._pieces:
            buffer = ctypes.create_string_buffer(_PIECE_BYTES)
            length = self._lib.llama_token_to_piece(
                self._vocab, token_id, buffer, _PIECE_BYTES, 0, False
            )
            self._pieces[token_id] = buffer.raw[: max(length, 0)]
        return self._pieces[token_id]


def _environment() -> Any:
    """Return what templates are rendered in: they come from strangers, and may not run code.

    Source: the settings and functions are those of transformers' `_compile_jinja_template`.
    """
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
    return environment

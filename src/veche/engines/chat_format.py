"""Where a model's chat template puts the user's words, and the tokens on either side of them."""

from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import TemplateError

from veche.engines.request_limits import require_text

_SYSTEM_SLOT = "vechesystemslot"
_USER_SLOT = "vecheuserslot"
_ANSWER_SLOT = "vecheanswerslot"
_NEXT_SLOT = "vechenextslot"
_PLAIN_BREAK = "\n\n"
_BETWEEN_TEXTS = "<|endoftext|>"
"""In the training texts of most families; chat models have another token that ends an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatFormat:
    """The markup around the system text and around the user's turn.

    NOTE: markup is tokenised with its control tokens, text without: `<|im_end|>` in a question is
    ten characters of data. Every segment is tokenised alone, so appending to the user's turn
    never changes a token that is already in the trunk.

    Attributes:
        before_system: markup before the system text; the whole head when there is no such slot.
        before_user: markup between the system text and the user's text.
        after_user: markup that ends the user's turn and begins the answer.
        after_answer: markup that ends the answer and begins the user's next turn.
        has_system_slot: False for templates without a system role: the text goes before the user's.
    """

    tokenizer: Any
    before_system: str
    before_user: str
    after_user: str
    after_answer: str
    has_system_slot: bool
    leading_ids: tuple[int, ...] = ()

    def head_ids(self, system: str, user: str) -> list[int]:
        """Tokenise the conversation up to the open end of the user's turn."""
        between = self._markup(self.before_user) if self.has_system_slot else self._text("\n\n")
        return [
            *self.leading_ids,
            *self._markup(self.before_system),
            *self._text(system),
            *between,
            *self._text(user),
        ]

    @property
    def document_ids(self) -> list[int]:
        """What a plain text begins with: what the tokenizer adds, or what stands between texts."""
        tokenizer = self.tokenizer
        added = list(tokenizer("a").input_ids)[:1]
        if added and added == [getattr(tokenizer, "bos_token_id", None)]:
            return [int(added[0])]
        between = tokenizer.convert_tokens_to_ids(_BETWEEN_TEXTS)
        if between is None or between == getattr(tokenizer, "unk_token_id", None):
            between = getattr(tokenizer, "eos_token_id", None)
        return [] if between is None else [int(between)]

    def text_ids(self, text: str) -> list[int]:
        """Tokenise what is appended to the open turn."""
        return self._text(text)

    def next_turn_ids(self, text: str) -> list[int]:
        """Tokenise the end of an answer and the beginning of the user's next turn."""
        return [*self._markup(self.after_answer), *self._text(text)]

    def suffix_ids(self, instruction: str) -> list[int]:
        """Tokenise an instruction, the end of the turn and the beginning of the answer."""
        return [*self._text(instruction), *self._markup(self.after_user)]

    def _markup(self, markup: str) -> list[int]:
        return _ids(self.tokenizer, markup, split_special_tokens=False)

    def _text(self, text: str) -> list[int]:
        return _ids(self.tokenizer, text, split_special_tokens=True)


def chat_format(tokenizer: Any) -> ChatFormat:
    """Find the slots of the tokenizer's chat template; a plain layout where it has none."""
    if getattr(tokenizer, "chat_template", None) is None:
        return _plain(tokenizer)
    parts = _split(_render(tokenizer, system=True), _SYSTEM_SLOT, _USER_SLOT)
    if parts is not None:
        before_system, before_user, after_user = parts
        return ChatFormat(
            tokenizer=tokenizer,
            before_system=before_system,
            before_user=before_user,
            after_user=after_user,
            after_answer=_after_answer(tokenizer, system=True),
            has_system_slot=True,
        )
    parts = _split(_render(tokenizer, system=False), _USER_SLOT)
    if parts is None:
        return _plain(tokenizer)
    return ChatFormat(
        tokenizer=tokenizer,
        before_system=parts[0],
        before_user="",
        after_user=parts[1],
        after_answer=_after_answer(tokenizer, system=False),
        has_system_slot=False,
    )


def _after_answer(tokenizer: Any, *, system: bool) -> str:
    """Return what stands between an answer and the next question, where the template has both."""
    answer = {"role": "assistant", "content": _ANSWER_SLOT}
    question = {"role": "user", "content": _NEXT_SLOT}
    parts = _split(_render(tokenizer, answer, question, system=system), _ANSWER_SLOT, _NEXT_SLOT)
    return parts[1] if parts is not None else _PLAIN_BREAK


def _render(tokenizer: Any, *behind: dict[str, str], system: bool) -> str:
    messages = [{"role": "user", "content": _USER_SLOT}, *behind]
    if system:
        messages.insert(0, {"role": "system", "content": _SYSTEM_SLOT})
    try:
        # enable_thinking: hybrid Qwen3 templates would else spend the budget on hidden thought.
        return str(
            tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        )
    except TemplateError:
        return ""


def _split(rendered: str, *slots: str) -> tuple[str, ...] | None:
    parts = []
    for slot in slots:
        if rendered.count(slot) != 1:
            return None
        before, rendered = rendered.split(slot)
        parts.append(before)
    return (*parts, rendered)


def _plain(tokenizer: Any) -> ChatFormat:
    first = list(tokenizer("a").input_ids)[:1]
    return ChatFormat(
        tokenizer=tokenizer,
        before_system="",
        before_user="\n\n",
        after_user="\n\nAnswer:",
        after_answer=_PLAIN_BREAK,
        has_system_slot=True,
        leading_ids=tuple(first) if first == [tokenizer.bos_token_id] else (),
    )


def _ids(tokenizer: Any, text: str, *, split_special_tokens: bool) -> list[int]:
    if not text:
        return []
    require_text(text)
    encoded = tokenizer(
        text, add_special_tokens=False, split_special_tokens=split_special_tokens, verbose=False
    )
    return list(encoded.input_ids)

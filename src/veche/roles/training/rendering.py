"""An example as the tokens that a served role would read and write.

NOTE: each segment is tokenised alone, as `ChatFormat` does for the embedded engine, so that the
tokens that an adapter learns from are those that it will meet. The prefix is what the trunk holds;
the adapter acts on the suffix, which begins with the invocation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from veche.core.errors import InputError
from veche.engines.chat_format import ChatFormat
from veche.roles.data.dialogue import UNASKED, system_and_turns
from veche.roles.data.example import Example, Message
from veche.roles.role import Role
from veche.roles.speaker import own_instruction

_BREAK = "\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenisedExample:
    """One example, ready to be learnt from.

    Attributes:
        prefix_ids: read without the adapter.
        suffix_ids: read and written with it.
        num_loss: tokens at the suffix's end that bear loss: the answer, and the token that ends it.
    """

    prefix_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...]
    num_loss: int

    @property
    def num_tokens(self) -> int:
        """Of prefix and suffix."""
        return len(self.prefix_ids) + len(self.suffix_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenised:
    """All examples.

    Attributes:
        examples: those that are learnt from.
        num_too_long: left out, because they have more than the longest length.
        longest: tokens of the longest of all.
    """

    examples: tuple[TokenisedExample, ...]
    num_too_long: int
    longest: int

    @property
    def num_tokens(self) -> int:
        """Of all that are learnt from."""
        return sum(example.num_tokens for example in self.examples)

    @property
    def num_loss_tokens(self) -> int:
        """Those of them that bear loss."""
        return sum(example.num_loss for example in self.examples)


def with_invocation(role: Role) -> Role:
    """Return a role that has an invocation: its own, or its name in brackets on a line."""
    return role if role.invocation else replace(role, invocation=f"{_BREAK}[{role.name}]\n")


class Renderer:
    """Turns examples into tokens, for one role and one tokenizer."""

    def __init__(
        self, chat: ChatFormat, role: Role, *, end_ids: frozenset[int], acts_everywhere: bool
    ) -> None:
        """Find the tokens of the role's invocation.

        Args:
            chat: of the model's tokenizer.
            role: whose invocation and prompt stand before each answer.
            end_ids: tokens that end an answer.
            acts_everywhere: whether the adapter acts on the prefix too.
        """
        self._chat = chat
        self._role = role
        self._end_ids = end_ids
        self._acts_everywhere = acts_everywhere
        self.invocation_ids = tuple(chat.text_ids(role.invocation))

    def tokenised(self, example: Example, *, where: str) -> TokenisedExample:
        """Return an example's tokens; a plain text answers the role's prompt alone.

        Raises:
            InputError: its turns are not in the order of a dialogue, it has no answer, or its
                prompt swallows the invocation's tokens; `where` says in which.
        """
        system, turns = _turns(example, where)
        head = self._chat.head_ids(system, turns[0].content)
        for answer, question in zip(turns[1:-1:2], turns[2::2], strict=True):
            head += self._chat.suffix_ids("")
            head += self._chat.text_ids(answer.content)
            head += self._chat.next_turn_ids(question.content)
        instruction = own_instruction(self._role, example.language)
        suffix = self._chat.suffix_ids(instruction)
        self._require_invocation(suffix, where)
        answer_ids = [*self._chat.text_ids(turns[-1].content), *self._end()]
        if self._acts_everywhere:
            head, suffix = [], head + suffix
        return TokenisedExample(
            prefix_ids=tuple(head),
            suffix_ids=(*suffix, *answer_ids),
            num_loss=len(answer_ids),
        )

    def all_of(self, examples: Sequence[Example], *, max_length: int) -> Tokenised:
        """Tokenise examples; those that are too long are left out and counted.

        Raises:
            InputError: there is none, one is no dialogue, or all are too long.
        """
        if not examples:
            raise InputError(
                "there is no example to learn from",
                hint="name a file that has some: --data FILE; wrong answers teach no voice",
            )
        found = [
            self.tokenised(example, where=f"example {number}")
            for number, example in enumerate(examples, 1)
        ]
        short = tuple(example for example in found if example.num_tokens <= max_length)
        longest = max(example.num_tokens for example in found)
        if not short:
            raise InputError(
                f"all {len(found)} examples have more than {max_length} tokens",
                hint=f"--max-length {longest}",
            )
        return Tokenised(examples=short, num_too_long=len(found) - len(short), longest=longest)

    def _require_invocation(self, suffix: list[int], where: str) -> None:
        num = len(self.invocation_ids)
        starts = [
            start
            for start in range(len(suffix) - num + 1)
            if num and tuple(suffix[start : start + num]) == self.invocation_ids
        ]
        if len(starts) > 1:
            raise InputError(
                f"{where}: the invocation {self._role.invocation!r} of role {self._role.name!r} "
                "stands in its prompt once more, and an adapter acts from the last one only",
                hint="choose an invocation that the prompt does not say",
            )
        if starts == [0] or not num:
            return
        raise InputError(
            f"{where}: the invocation {self._role.invocation!r} of role {self._role.name!r} "
            "becomes other tokens in front of the role's prompt, so that it would not be found",
            hint="let the invocation end with a line break",
        )

    def _end(self) -> list[int]:
        """Return the first token behind an answer that ends it."""
        markup = self._chat.next_turn_ids("")
        for place, token in enumerate(markup):
            if token in self._end_ids:
                return markup[: place + 1]
        return sorted(self._end_ids)[:1]


def _turns(example: Example, where: str) -> tuple[str, Sequence[Message]]:
    """Return the system text, and the turns: user and assistant in turn, the last one answers."""
    system, turns = system_and_turns(example.messages)
    if not any(message.role == "assistant" for message in turns):
        raise InputError(
            f"{where} has no assistant's turn, so there is nothing to learn from it",
            hint="end each dialogue with the answer that is to be learnt",
        )
    if [message.role for message in turns] == ["assistant"]:
        turns = (UNASKED, *turns)
    expected = ["user", "assistant"] * (len(turns) // 2 + 1)
    for number, (message, wanted) in enumerate(zip(turns, expected, strict=False), 1):
        if message.role != wanted:
            raise InputError(
                f"{where}: turn {number} is the {message.role}'s, where the {wanted}'s is due",
                hint="a dialogue is: system (or none), user, assistant, user, assistant, …",
            )
    if turns[-1].role != "assistant":
        raise InputError(
            f"{where} ends with the user's turn, so its answer is missing",
            hint="end each dialogue with the answer that is to be learnt",
        )
    if not turns[-1].content.strip():
        raise InputError(f"{where} ends with an empty answer", hint="remove this example")
    return system, turns

"""An engine that answers from a script: for tests, and to try a council without a model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event

from veche.core.errors import InputError, UnsupportedError
from veche.core.files import read_json_object
from veche.engines.protocol import (
    Branch,
    BranchResult,
    Capability,
    FinishReason,
    OnRouting,
    OnToken,
    Trunk,
    require_for,
)

Script = Mapping[str, str | Sequence[str]]
"""The replies of each voice, first to last; the last one repeats, a missing voice is silent."""

_CONTEXT_TOKENS = 1 << 20


def create(model: str | Path, *, top_k: int | None = None) -> "ScriptedEngine":
    """Read a script: a JSON object of voice → reply, or list of replies.

    Raises:
        CheckpointError: the file is missing or is no JSON object.
        InputError: a reply is not a text.
        UnsupportedError: `top_k` is given.
    """
    if top_k is not None:
        raise UnsupportedError("a script has no experts", hint="leave --top-k out")
    path = Path(model)
    script = read_json_object(path)
    for voice, replies in script.items():
        texts = replies if isinstance(replies, list) else [replies]
        if not texts or not all(isinstance(text, str) for text in texts):
            raise InputError(f"{path}: the replies of {voice!r} are not texts")
    return ScriptedEngine(script, name=path.stem)


class ScriptedTrunk:
    """The conversation's text so far, and how often each voice has spoken behind it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.turns: dict[str, int] = {}

    @property
    def num_tokens(self) -> int:
        """Words, divided by whitespace."""
        return len(self.text.split())


class ScriptedEngine:
    """Fixed replies; a token is a word between whitespace.

    A voice `objector → A` that has no replies of its own says those of `objector`.

    Args:
        script: the replies of each voice.
        name: shown to the user.
        entropies: of each voice's tokens, in nats; without it there is no ENTROPY.
        context_tokens: refuse to go beyond it.
    """

    def __init__(
        self,
        script: Script,
        *,
        name: str = "scripted",
        entropies: Mapping[str, float] | None = None,
        context_tokens: int = _CONTEXT_TOKENS,
    ) -> None:
        self.name = name
        self.context_tokens = context_tokens
        self._script = script
        self._entropies = entropies

    @property
    def capabilities(self) -> frozenset[Capability]:
        """FORK and KEEP; ENTROPY when it is scripted too."""
        entropy = {Capability.ENTROPY} if self._entropies is not None else set()
        return frozenset({Capability.FORK, Capability.KEEP} | entropy)

    def count_tokens(self, text: str) -> int:
        """Return the number of words."""
        return len(text.split())

    def open_trunk(self, *, system: str, user: str) -> ScriptedTrunk:
        """Begin a conversation."""
        trunk = ScriptedTrunk(f"{system}\n\n{user}")
        self._require_room(trunk.num_tokens)
        return trunk

    def extend_trunk(self, trunk: Trunk, text: str) -> int:
        """Append words."""
        mine = _mine(trunk)
        self._require_room(mine.num_tokens + len(text.split()))
        mine.text += text
        return len(text.split())

    def decode(
        self,
        trunk: Trunk,
        branches: Sequence[Branch],
        on_token: OnToken | None = None,
        *,
        on_routing: OnRouting | None = None,
        cancel: Event | None = None,
    ) -> list[BranchResult]:
        """Let each voice say its next reply, cut to its budget; once cancelled, no more."""
        require_for(self, branches)
        mine = _mine(trunk)
        return [self._reply(mine, branch, on_token, cancel or Event()) for branch in branches]

    def close_trunk(self, trunk: Trunk) -> None:
        """Forget the conversation."""
        _mine(trunk).text = ""

    def _reply(
        self, trunk: ScriptedTrunk, branch: Branch, on_token: OnToken | None, cancel: Event
    ) -> BranchResult:
        suffix_tokens = len(branch.instruction.split())
        self._require_room(trunk.num_tokens + suffix_tokens + branch.sampling.max_new_tokens)
        turn = trunk.turns.get(branch.voice, 0)
        trunk.turns[branch.voice] = turn + 1
        text, reason = self._said(branch, turn, on_token, cancel)
        num_tokens = len(text.split())
        return BranchResult(
            voice=branch.voice,
            text=text,
            token_ids=tuple(range(num_tokens)),
            finish_reason=reason,
            prefilled_tokens=suffix_tokens,
            reused_tokens=trunk.num_tokens,
            entropies=None
            if self._entropies is None
            else (self._entropies.get(branch.voice, 0.0),) * num_tokens,
            trunk=_kept(trunk, branch, text) if branch.keep and reason != "cancelled" else None,
        )

    def _said(
        self, branch: Branch, turn: int, on_token: OnToken | None, cancel: Event
    ) -> tuple[str, FinishReason]:
        """Say the reply word by word, as far as budget, stop texts and `cancel` let it."""
        whole = self._text(branch.voice, turn)
        starts = [at for stop in branch.sampling.stop if (at := whole.find(stop)) >= 0]
        words = (whole[: min(starts)] if starts else whole).split(" ")
        text = ""
        for index, word in enumerate(words):
            if cancel.is_set():
                return text, "cancelled"
            if index >= branch.sampling.max_new_tokens:
                return text, "length"
            piece = word if index == 0 else f" {word}"
            text += piece
            if on_token is not None and piece:
                on_token(branch.voice, piece)
        return text, "stop"

    def _text(self, voice: str, turn: int) -> str:
        replies = self._script.get(voice, self._script.get(voice.split(" → ", maxsplit=1)[0], ""))
        if isinstance(replies, str):
            return replies
        return replies[min(turn, len(replies) - 1)]

    def _require_room(self, num_tokens: int) -> None:
        if num_tokens > self.context_tokens:
            raise InputError(
                f"{num_tokens} tokens are needed, but {self.name} has a context of "
                f"{self.context_tokens}",
                hint="ask something shorter, or allow fewer new tokens",
            )


def _kept(trunk: ScriptedTrunk, branch: Branch, text: str) -> ScriptedTrunk:
    kept = ScriptedTrunk(f"{trunk.text}{branch.instruction} {text}")
    kept.turns = dict(trunk.turns)
    return kept


def _mine(trunk: Trunk) -> ScriptedTrunk:
    if not isinstance(trunk, ScriptedTrunk):
        raise ValueError("this trunk was opened by another engine")
    return trunk

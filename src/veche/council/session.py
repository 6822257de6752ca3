"""One trunk, and the books of everything that is said over it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from veche.core.language import Language
from veche.core.transcript import Transcript
from veche.council import prompts
from veche.council.agreement import agreement_matrix
from veche.council.observer import measure
from veche.council.settings import CouncilSettings
from veche.engines.protocol import (
    Branch,
    BranchResult,
    Capture,
    Engine,
    OnToken,
    Routing,
    Sampling,
    Trunk,
)
from veche.roles.observer.watch import Watch
from veche.roles.role import Role
from veche.roles.speaker import Speaker, instruction_for

MARKUP_TOKENS = 32
"""Room for the chat format's own tokens behind an instruction."""


class ContextFullError(Exception):
    """The deliberation has filled the model's context; the council ends with what it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one voice is asked in a step; `target` is the draft that it is asked about."""

    voice: Role
    task: str
    target: str | None = None

    @property
    def instruction(self) -> str:
        """What stands in its branch."""
        return instruction_for(self.voice, self.task)

    @property
    def label(self) -> str:
        """Tell apart the branches of one voice in one batch."""
        return self.voice.name if self.target is None else f"{self.voice.name} → {self.target}"


Judge = Callable[[Turn, str], Mapping[str, Any]]


class Session:
    """A council's model, trunk and transcript.

    NOTE: rounds append. Text is prefilled once, when it is appended; a turn's own instruction is
    prefilled in its branch, and is gone with it.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        settings: CouncilSettings,
        transcript: Transcript,
        speakers: Sequence[Speaker],
        language: Language,
        on_token: OnToken | None,
        watch: Watch | None = None,
    ) -> None:
        self.engine = engine
        self.routing: dict[str, Routing] = {}
        self.turn_tokens = 0
        self._settings = settings
        self._transcript = transcript
        self._speakers = {speaker.role.name: speaker for speaker in speakers}
        roles = (speaker.role for speaker in speakers)
        self._observer = next((role for role in roles if role.kind == "observer"), None)
        self._watch = watch
        self._stop = prompts.stop_texts(language)
        self._on_token = on_token
        self._trunk: Trunk | None = None
        self._num_turns = 0

    @property
    def trunk(self) -> Trunk:
        """The open trunk."""
        if self._trunk is None:
            raise ValueError("the trunk is not open")
        return self._trunk

    def open(self, *, system: str, user: str) -> None:
        """Prefill the question."""
        self._trunk = self.engine.open_trunk(system=system, user=user)
        tokens = self._trunk.num_tokens
        self._transcript.append("STEP_STARTED", step="trunk", prefilled_tokens=tokens)
        self._transcript.append("STEP_FINISHED", step="trunk")

    def close(self) -> None:
        """Free the trunk."""
        if self._trunk is not None:
            self.engine.close_trunk(self._trunk)
            self._trunk = None

    def step(
        self,
        name: str,
        turns: Sequence[Turn],
        *,
        appended: str = "",
        facts: Mapping[str, Any] | None = None,
        judge: Judge | None = None,
    ) -> list[str]:
        """Append to the trunk, let voices speak as one batch, and write it all down.

        Args:
            name: of the step.
            turns: who is asked what.
            appended: text for the trunk.
            facts: more to write at the beginning of the step.
            judge: says what is thought of a turn's text, for its event; without it, the step's
                texts are compared with each other.

        Returns:
            The texts, in the order of `turns`.

        Raises:
            ContextFullError: the context can't hold it; nothing was appended.
        """
        self._require_room(appended, turns)
        prefilled = self.engine.extend_trunk(self.trunk, appended) if appended else 0
        self._transcript.append(
            "STEP_STARTED", step=name, prefilled_tokens=prefilled, **(facts or {})
        )
        branches = [self._branch(turn) for turn in turns]
        results = self.engine.decode(self.trunk, branches, self._shown)
        said: dict[str, list[BranchResult]] = {}
        for turn, result in zip(turns, results, strict=True):
            said.setdefault(turn.voice.name, []).append(result)
            self._note_routing(turn.voice.name, result.routing)
            self._write(name, turn, result, judge)
        texts = [prompts.without_label(result.text) for result in results]
        if self._observer is not None:
            matrix = agreement_matrix(texts) if judge is None and len(texts) > 1 else None
            signals = measure(said, matrix)
            if self._watch is not None and judge is None:  # an objection is no answer
                signals |= self._watch.report(said)
            self._transcript.append("STATE_DELTA", self._observer.name, step=name, **signals)
        self._transcript.append("STEP_FINISHED", step=name)
        return texts

    def _require_room(self, appended: str, turns: Sequence[Turn]) -> None:
        tokens = self.engine.count_tokens(appended) if appended else 0
        longest = max(self.engine.count_tokens(turn.instruction) for turn in turns)
        need = self.trunk.num_tokens + tokens + longest + MARKUP_TOKENS + self.turn_tokens
        if need > self.engine.context_tokens:
            raise ContextFullError

    def _write(self, step: str, turn: Turn, result: BranchResult, judge: Judge | None) -> None:
        text = prompts.without_label(result.text)
        self._transcript.append(
            "TEXT_MESSAGE_CONTENT",
            turn.voice.name,
            step=step,
            text=text,
            target=turn.target,
            finish_reason=result.finish_reason,
            prefilled_tokens=result.prefilled_tokens,
            reused_tokens=result.reused_tokens,
            decoded_tokens=len(result.token_ids),
            **(judge(turn, text) if judge is not None else {}),
        )

    def _branch(self, turn: Turn) -> Branch:
        sampling = Sampling(
            max_new_tokens=self.turn_tokens,
            top_p=self._settings.top_p,
            repetition_penalty=self._settings.repetition_penalty,
            seed=self._settings.seed * 1000 + self._num_turns,
            stop=self._stop,
        )
        self._num_turns += 1
        capture = Capture() if self._watch is None else self._watch.capture
        return self._speakers[turn.voice.name].branch(
            voice=turn.label, instruction=turn.instruction, sampling=sampling, capture=capture
        )

    def _shown(self, voice: str, piece: str) -> None:
        if self._on_token is not None and (visible := prompts.printable(piece)):
            self._on_token(voice, visible)

    def _note_routing(self, voice: str, routing: Routing | None) -> None:
        if routing is None:
            return
        if (before := self.routing.get(voice)) is not None:
            routing = Routing(
                expert_ids=np.concatenate([before.expert_ids, routing.expert_ids]),
                weights=np.concatenate([before.weights, routing.weights]),
                num_experts=routing.num_experts,
            )
        self.routing[voice] = routing

"""Let voices answer one question: blind drafts, objections, revision, synthesis.

The order follows the evidence: free debate loses to independent samples, so drafts are blind;
the council ends when they agree; objections must name a fault in a text without an author; only
drafts with such a fault are revised; and one voice that sees everything writes the answer.
"""

import random
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path

from veche.core.errors import InputError, VecheError
from veche.core.language import Language
from veche.core.transcript import OnEvent, Transcript
from veche.council import prompts
from veche.council.agreement import agreement_matrix, all_agree, largest_group, most_central
from veche.council.objections import holds
from veche.council.result import CouncilResult
from veche.council.seats import default_council
from veche.council.session import MARKUP_TOKENS, ContextFullError, Session, Turn
from veche.council.settings import CouncilSettings, turn_tokens
from veche.engines.protocol import Capability, Engine, OnToken, require
from veche.roles.hot_swap import HotSwap
from veche.roles.intent.live import reading_for, report_question
from veche.roles.intent.reader import Reading
from veche.roles.observer.watch import watch_of
from veche.roles.role import Role
from veche.roles.role_file import version_hash

_LABEL_TOKENS = 16
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def deliberate(
    engine: Engine,
    question: str,
    *,
    settings: CouncilSettings | None = None,
    voices: Sequence[Role] | None = None,
    swap: HotSwap | None = None,
    transcript: Path | None = None,
    on_event: OnEvent | None = None,
    on_token: OnToken | None = None,
    language: Language = "en",
) -> CouncilResult:
    """Ask a council.

    Args:
        engine: one model for all voices; it must be able to FORK.
        question: what is asked.
        settings: budget and dials.
        voices: at least two who draft, one who objects, one who synthesises; the default council
            of the registry where none are given.
        swap: what loads adapters into `engine`, where it serves more than this run.
        transcript: a new file for the run's events, as JSON lines.
        on_event: told of each event after it is written.
        on_token: told of each (voice, piece) of text while it is decoded.
        language: of the prompts, English or Russian.

    Raises:
        InputError: the question is empty, holds NUL, or leaves no room in the context.
        UnsupportedError: the engine can't fork a trunk, or lacks what a role needs.
        RoleError: what a role consists of is missing or damaged.
        OutputError: the transcript exists already.
        EngineError: the model did not answer.
    """
    require(engine, Capability.FORK)
    _check_question(question)
    with ExitStack() as stack:
        swap = swap or stack.enter_context(closing(HotSwap(engine)))
        chosen = tuple(voices or default_council(swap.registry))
        council = _Council(chosen, settings or CouncilSettings(), language)
        speakers = stack.enter_context(swap.holding(chosen))
        watch = watch_of(engine, swap.registry, chosen, question)
        reading = reading_for(engine, swap.registry, chosen, question.strip())
        log = stack.enter_context(Transcript(transcript, on_event=on_event))
        session = Session(
            engine,
            settings=council.settings,
            transcript=log,
            speakers=speakers,
            language=language,
            on_token=on_token,
            watch=watch,
        )
        try:
            council.run(session, log, question.strip(), reading)
        except VecheError as error:
            log.append("RUN_ERROR", type=type(error).__name__, message=error.message)
            raise
        finally:
            session.close()
        return CouncilResult(events=tuple(log.events), routing=session.routing, language=language)


class _Council:
    """The voices by their parts, and the order in which they are heard."""

    def __init__(
        self, voices: tuple[Role, ...], settings: CouncilSettings, language: Language
    ) -> None:
        self.settings = settings
        self._language = language
        self._voices = voices
        self._drafters = [voice for voice in voices if voice.kind in ("drafter", "objector")]
        self._objector = _the(voices, "objector")
        self._synthesiser = _the(voices, "synthesiser")
        if not 2 <= len(self._drafters) <= len(_LETTERS):
            raise InputError(f"a council needs 2 to {len(_LETTERS)} voices who draft")
        if len({voice.name for voice in voices}) < len(voices):
            raise InputError("two voices of the council have the same name")

    def run(
        self,
        session: Session,
        log: Transcript,
        question: str,
        reading: tuple[str, Reading] | None,
    ) -> None:
        """Hear everyone, and write the answer down; nobody is told what a reader read."""
        self._open(session, log, question)
        if reading is not None:
            report_question(log, *reading)
        texts = self._draft(session)
        matrix = agreement_matrix(texts)
        threshold = self.settings.agreement_threshold
        group = largest_group(matrix, threshold)
        vote = {
            "agreed": [self._drafters[index].name for index in group] if len(group) > 1 else [],
            "drafters": [voice.name for voice in self._drafters],
        }
        if self.settings.early_stop and all_agree(matrix, threshold):
            _finish(log, texts[most_central(matrix)], reason="agreement", vote=vote)
            return
        reason, answer = "synthesis", ""
        try:
            texts, appended = self._debate(session, texts, group)
            turn = Turn(voice=self._synthesiser, task=self._synthesis_task(question))
            answer = session.step("synthesis", [turn], appended=appended)[0]
        except ContextFullError:
            reason = "context"
        if not answer:
            reason = "context" if reason == "context" else "silence"
            answer = _fallback(texts)
        _finish(log, answer, reason=reason, vote=vote)

    def _open(self, session: Session, log: Transcript, question: str) -> None:
        log.append(
            "RUN_STARTED",
            question=question,
            language=self._language,
            engine=session.engine.name,
            voices=[_told(voice) for voice in self._voices],
            settings=asdict(self.settings),
        )
        session.open(
            system=prompts.system(self._language),
            user=prompts.question(question, self._language),
        )
        longest = session.engine.count_tokens(self._synthesis_task(question))
        labels = _LABEL_TOKENS * (3 * len(self._drafters) + 4)
        used = session.trunk.num_tokens + longest + labels + MARKUP_TOKENS
        session.turn_tokens = turn_tokens(
            self.settings, len(self._drafters), session.engine.context_tokens - used
        )

    def _draft(self, session: Session) -> list[str]:
        turns = [
            Turn(
                voice=voice,
                task=prompts.draft_task(self._persona(voice), self._language),
            )
            for voice in self._drafters
        ]
        return session.step("drafts", turns)

    def _debate(
        self, session: Session, texts: list[str], group: Sequence[int]
    ) -> tuple[list[str], str]:
        """Object, and revise where an objection holds.

        Returns:
            The drafts as they are now, and what has yet to be appended before the synthesis.
        """
        order = list(range(len(texts)))
        random.Random(self.settings.seed).shuffle(order)  # noqa: S311 - anonymity, not secrecy
        letters = [_LETTERS[order.index(index)] for index in range(len(texts))]
        held, appended = self._object(session, texts, letters)
        agreed = sorted(letters[index] for index in group)
        appended += prompts.vote(agreed, self._language)
        if not held:
            return texts, appended
        return self._revise(session, texts, letters, held, appended)

    def _object(
        self, session: Session, texts: list[str], letters: list[str]
    ) -> tuple[list[int], str]:
        drafts = dict(sorted(zip(letters, texts, strict=True)))
        turns = [
            Turn(
                voice=self._objector,
                task=prompts.objection_task(letter, text, self._language),
                target=letter,
            )
            for letter, text in drafts.items()
            if text
        ]
        if not turns:
            return [], ""
        authors = {
            letter: voice.name for letter, voice in zip(letters, self._drafters, strict=True)
        }

        def judge(turn: Turn, text: str) -> dict[str, bool]:
            return {"holds": holds(text, drafts[turn.target or ""], texts)}

        said = session.step(
            "objections",
            turns,
            appended=prompts.drafts(list(drafts.items()), self._language),
            facts={"letters": dict(sorted(authors.items()))},
            judge=judge,
        )
        upheld = [
            (turn.target or "", text)
            for turn, text in zip(turns, said, strict=True)
            if judge(turn, text)["holds"]
        ]
        block = prompts.objections(upheld, self._language) if upheld else ""
        return [letters.index(letter) for letter, _ in upheld], block

    def _revise(
        self,
        session: Session,
        texts: list[str],
        letters: list[str],
        held: list[int],
        appended: str,
    ) -> tuple[list[str], str]:
        turns = [
            Turn(
                voice=self._drafters[index],
                task=prompts.revision_task(
                    self._persona(self._drafters[index]),
                    letters[index],
                    texts[index],
                    self._language,
                ),
            )
            for index in held
        ]
        revised = list(texts)
        for index, text in zip(
            held, session.step("revisions", turns, appended=appended), strict=True
        ):
            revised[index] = text or texts[index]
        shown = [(letters[index], revised[index]) for index in held]
        return revised, prompts.revisions(shown, self._language)

    def _persona(self, voice: Role) -> str:
        return voice.prompt[self._language]

    def _synthesis_task(self, question: str) -> str:
        return prompts.synthesis_task(self._persona(self._synthesiser), question, self._language)


def _check_question(question: str) -> None:
    if not question.strip():
        raise InputError("the question is empty", hint='veche ask "..."')
    if "\0" in question:
        raise InputError("the question holds a NUL character, which no text has")
    try:
        question.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the question is not valid Unicode: {error.reason}") from error


def _told(voice: Role) -> dict[str, str]:
    """Return who a voice is, for the transcript: its version, and its adapter if it has one."""
    told = {"name": voice.name, "kind": voice.kind, "version": version_hash(voice)}
    return told if voice.adapter is None else told | {"adapter": voice.adapter.content_hash}


def _the(voices: Sequence[Role], kind: str) -> Role:
    found = [voice for voice in voices if voice.kind == kind]
    if len(found) != 1:
        raise InputError(f"a council needs one {kind}, not {len(found)}")
    return found[0]


def _fallback(texts: Sequence[str]) -> str:
    """Return the draft that the others agree with most; nothing when all are silent."""
    spoken = [text for text in texts if text]
    return spoken[most_central(agreement_matrix(spoken))] if spoken else ""


def _finish(log: Transcript, answer: str, *, reason: str, vote: dict[str, list[str]]) -> None:
    log.append(
        "RUN_FINISHED",
        answer=answer,
        reason=reason,
        stopped_early=reason == "agreement",
        agreed=vote["agreed"],
        minority=[name for name in vote["drafters"] if name not in vote["agreed"]],
    )

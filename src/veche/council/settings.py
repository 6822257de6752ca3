"""How much a council may spend."""

from dataclasses import dataclass

from veche.core.errors import InputError

MIN_TURN_TOKENS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class CouncilSettings:
    """The dials of one run.

    Attributes:
        max_tokens_per_voice: the most tokens that a voice decodes in one turn.
        max_tokens_per_run: the most tokens decoded in the whole run; None lets every turn have
            its full length. Either way the run ends: there are at most 3·drafters + 1 turns.
        agreement_threshold: content-word F1 from which two drafts without a marked answer agree.
        repetition_penalty: of every voice, on what it has decoded itself.
        top_p: nucleus mass of the voices that sample.
        seed: of the voices' random streams, and of the order in which drafts are shown.
        early_stop: end after the drafts when all of them agree.
    """

    max_tokens_per_voice: int = 160
    max_tokens_per_run: int | None = None
    agreement_threshold: float = 0.6
    repetition_penalty: float = 1.05
    top_p: float = 0.9
    seed: int = 0
    early_stop: bool = True

    def __post_init__(self) -> None:
        limits = {"max_tokens_per_voice": self.max_tokens_per_voice}
        if self.max_tokens_per_run is not None:
            limits["max_tokens_per_run"] = self.max_tokens_per_run
        for name, value in limits.items():
            if value < MIN_TURN_TOKENS:
                raise InputError(f"{name} is {value}, but a turn needs {MIN_TURN_TOKENS} tokens")
        if not 0 < self.agreement_threshold <= 1:
            raise InputError(f"agreement_threshold is {self.agreement_threshold}, not in (0, 1]")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}, not in (0, 1]")
        if self.repetition_penalty < 1:
            raise InputError(f"repetition_penalty is {self.repetition_penalty}, below 1")


def turn_tokens(settings: CouncilSettings, num_drafters: int, room_tokens: int) -> int:
    """Share a run's budget and the context's room among the most turns that there can be.

    tokens a turn = min(per voice, per run / turns, room / turns), turns = 3·drafters + 1.

    Raises:
        InputError: less than a sentence is left for each turn.
    """
    turns = 3 * num_drafters + 1
    run_tokens = settings.max_tokens_per_run
    if run_tokens is not None and run_tokens // turns < MIN_TURN_TOKENS:
        raise InputError(
            f"max_tokens_per_run is {run_tokens}, but {turns} turns need "
            f"{turns * MIN_TURN_TOKENS} tokens",
            hint=f"allow at least {turns * MIN_TURN_TOKENS}",
        )
    if room_tokens // turns < MIN_TURN_TOKENS:
        raise InputError(
            f"the question leaves {max(room_tokens, 0)} tokens of the model's context, but a "
            f"council needs {turns * MIN_TURN_TOKENS}",
            hint="ask a shorter question, or use a model with a longer context",
        )
    shares = [settings.max_tokens_per_voice, room_tokens // turns]
    if run_tokens is not None:
        shares.append(run_tokens // turns)
    return min(shares)

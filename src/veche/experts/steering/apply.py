"""Answer a prompt twice from one trunk: with steering, and without."""

from dataclasses import asdict, dataclass
from typing import Any

from veche.engines.protocol import Branch, Capture, Engine, Sampling, Steering

_PLAIN, _STEERED = "plain", "steered"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerPair:
    """Two answers to one prompt, of the same seed.

    Attributes:
        plain: without steering.
        steered: with it.
        common_tokens: how many tokens they begin with in common.
        plain_tokens: tokens of the plain answer.
        steered_tokens: tokens of the steered answer.
    """

    plain: str
    steered: str
    common_tokens: int
    plain_tokens: int
    steered_tokens: int

    def as_dict(self) -> dict[str, Any]:
        """Return the two answers as JSON has them."""
        return asdict(self)


def answer_twice(
    engine: Engine, prompt: str, steering: Steering, *, sampling: Sampling
) -> AnswerPair:
    """Answer with and without steering, as one batch; the prompt itself is read without it.

    Args:
        engine: runs the model.
        prompt: the user's turn.
        steering: acts from the first token behind the prompt on.
        sampling: of both answers.

    Raises:
        UnsupportedError: the engine, or the model in it, cannot be steered.
        InputError: the prompt is empty or too long.
    """
    trunk = engine.open_trunk(system="", user=prompt)
    capture = Capture(routing=False)
    branches = [
        Branch(voice=_PLAIN, instruction="", sampling=sampling, capture=capture),
        Branch(
            voice=_STEERED, instruction="", sampling=sampling, capture=capture, steering=steering
        ),
    ]
    try:
        plain, steered = engine.decode(trunk, branches)
    finally:
        engine.close_trunk(trunk)
    pairs = zip(plain.token_ids, steered.token_ids, strict=False)
    differs = [first != second for first, second in pairs]
    return AnswerPair(
        plain=plain.text,
        steered=steered.text,
        common_tokens=differs.index(True) if True in differs else len(differs),
        plain_tokens=len(plain.token_ids),
        steered_tokens=len(steered.token_ids),
    )

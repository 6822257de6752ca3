"""Whether a server obeys a sampling dial, or only lets it pass: found out by what it says."""

from collections.abc import Mapping
from typing import Literal

import openai

from veche.engines.protocol import Sampling
from veche.engines.remote.probe import say
from veche.engines.remote.requests import RequestForm, answered
from veche.engines.remote.session import Session

DIALS: Mapping[str, float] = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Dials that OpenAI's API does not have, and where each does nothing."""
Continuation = Literal["refused", "plain", "repeated"]
_FREE_QUESTION = "Write about anything you like."
_REPEATED = "Repeat for ever: la la la la la la la la la la la la"


def turned(sampling: Sampling) -> frozenset[str]:
    """Return the dials beyond OpenAI's API that change what this sampling draws."""
    return frozenset(
        name
        for name, neutral in DIALS.items()
        if getattr(sampling, name) != neutral
        and (name == "repetition_penalty" or sampling.temperature > 0)
    )


async def obeys(session: Session, form: RequestForm, dial: str) -> bool:
    """Say whether the server obeys a dial.

    top_k = 1 and min_p = 1 leave one token to draw, so a hot answer must be the greedy one, while
    without them it is another. A repetition penalty of 2 must change a greedy answer that repeats.
    """
    if not form.takes_extras:
        return False
    try:
        if dial == "repetition_penalty":
            plain, penalised = [
                await _text(session, form, _REPEATED, 24, repetition_penalty=penalty)
                for penalty in (1.0, 2.0)
            ]
            return plain != penalised
        sure = {dial: 1 if dial == "top_k" else 1.0}
        greedy = await _text(session, form, _FREE_QUESTION, 12)
        hot = await _text(session, form, _FREE_QUESTION, 12, temperature=2.0)
        held = await _text(session, form, _FREE_QUESTION, 12, temperature=2.0, **sure)
    except openai.APIStatusError:
        return False
    return held == greedy != hot


async def continuation(session: Session, form: RequestForm) -> Continuation:
    """Say what the server does with an answer that is to go on.

    A one-token answer that is left open adds exactly one token to the prompt; a closed one adds
    the markup of its end, too. llama-server says the given part again before it goes on.
    """
    question = form.opening("", "Count.")
    sampling = Sampling(max_new_tokens=1)
    begun = "One council hears every voice"
    try:
        before = await say(session, form, question, sampling)
        behind = await say(session, form, answered(question, "a"), sampling)
        said = await say(session, form, answered(question, begun), sampling)
    except openai.APIStatusError:
        return "refused"
    if before.usage is None or behind.usage is None:
        return "refused"
    if behind.usage.prompt_tokens - before.usage.prompt_tokens != 1:
        return "refused"
    return "repeated" if said.text.startswith(begun) else "plain"


async def _text(
    session: Session, form: RequestForm, question: str, num_tokens: int, **dials: float
) -> str:
    sampling = Sampling(max_new_tokens=num_tokens, **dials)  # type: ignore[arg-type]
    return (await say(session, form, form.opening("", question), sampling)).text

"""Questions about weather, money and travel, made of parts, so that words tell them apart."""

import itertools

from veche.roles.data.example import Example, Message

_ASKED = {
    "weather": (("is it", "will it be"), ("raining", "sunny", "cold"), ("today", "in Kazan")),
    "balance": (("how much", "what"), ("money", "cash", "credit"), ("do i have", "is left")),
    "flight": (("book", "find"), ("a flight", "a plane", "a seat"), ("to Ufa", "for monday")),
    "oos": (("why do", "how can"), ("cats", "stars", "poets"), ("sing", "shine so")),
}


def questions(*intents):
    """An example for each combination of parts, of the intents named; of all without a name."""
    return [
        Example(
            messages=(Message(role="user", content=" ".join(parts)),),
            group=" ".join(parts),
            task="questions",
            language="en",
            intent=intent,
        )
        for intent in intents or _ASKED
        for parts in itertools.product(*_ASKED[intent])
    ]

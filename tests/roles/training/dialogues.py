"""Examples, roles and tokenised examples that the tests of training share."""

import numpy as np

from veche.roles.data.example import Example, Message
from veche.roles.role import Role
from veche.roles.training.rendering import TokenisedExample

ROLE = Role(
    name="adder",
    kind="drafter",
    title={"en": "Adder", "ru": "Слагающий"},
    prompt={"en": "Add the numbers.", "ru": "Сложи числа."},
    invocation="\n\n[adder]\n",
)


def dialogue(*turns: str, system: str = "", **more) -> Example:
    """Return a dialogue whose turns are the user's and the assistant's in turn."""
    speakers = ["user", "assistant"] * len(turns)
    messages = [Message(role="system", content=system)] if system else []
    messages += [Message(role=s, content=t) for s, t in zip(speakers, turns, strict=False)]
    return Example(messages=tuple(messages), group="g", task="t", **more)


def sums(count: int) -> list[Example]:
    """Return questions of addition, in both languages, of several lengths."""
    return [
        dialogue(f"сколько {n} + {n}?", f"это {2 * n}.", language="ru")
        if n % 2
        else dialogue(f"what is {n} + {n}, " + "please " * (n % 5) + "?", f"it is {2 * n}.")
        for n in range(count)
    ]


def made(prefix: int, suffix: int, loss: int, *, seed: int, vocab: int = 384) -> TokenisedExample:
    """Return random tokens."""
    draw = np.random.default_rng(seed)
    return TokenisedExample(
        prefix_ids=tuple(draw.integers(3, vocab, prefix).tolist()),
        suffix_ids=tuple(draw.integers(3, vocab, suffix).tolist()),
        num_loss=loss,
    )

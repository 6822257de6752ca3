"""First wrong steps that can be guessed without reading: baselines of reports."""

from collections import Counter
from collections.abc import Sequence

from veche.roles.data.example import Example
from veche.roles.probe.steps import steps_of


def is_step_known(example: Example) -> bool:
    """Whether somebody looked for the first wrong step: there is one, or the answer is right."""
    return example.first_bad_step is not None or bool(example.is_right)


def guesses(
    examples: Sequence[Example], learnt_from: Sequence[Example]
) -> list[tuple[str, list[int | None]]]:
    """Return first wrong steps that can be guessed without reading, by the guess's name."""
    known = Counter(e.first_bad_step for e in learnt_from if is_step_known(e))
    commonest = known.most_common(1)[0][0] if known else None
    wrong = Counter({step: count for step, count in known.items() if step is not None})
    step = wrong.most_common(1)[0][0] if wrong else 0
    return [
        ("none", [None for _ in examples]),
        ("commonest", [commonest for _ in examples]),
        ("commonest_step", [step for _ in examples]),
        ("last_step", [len(steps_of(example)) - 1 for example in examples]),
    ]

"""What is learnt from, and what is measured on, which share no passage."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veche.core.errors import InputError
from veche.roles.data.example import Example
from veche.roles.data.read import read_examples
from veche.roles.data.split import split_by_group
from veche.surgery.carving.calibration import calibration_text, heldout_text

_HELDOUT_SHARE = 0.1
_BETWEEN = "\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class HealTexts:
    """Texts as tokens.

    Attributes:
        train: to learn from.
        heldout: to measure on; no passage of it is learnt from.
        source: where they come from, for reports.
    """

    train: list[int]
    heldout: list[int]
    source: str


def texts_of(
    tokenizer: Any, paths: Sequence[Path], heldout: Path | None, *, seed: int
) -> HealTexts:
    """Read the texts, and keep those apart that are measured on.

    Without paths they are veche's own: one half of Python's help topics and source code to learn
    from, the other half of the topics to measure on.

    Args:
        tokenizer: the models'.
        paths: files as `read_examples` takes them.
        heldout: a file to measure on; None holds out a tenth of the passages of `paths`.
        seed: of what is held out.

    Raises:
        InputError: a file cannot be read, or too little is left.
    """
    if not paths:
        train, measured = calibration_text(), heldout_text()
        if heldout is not None:
            measured = _joined(tokenizer, read_examples(heldout))
        return HealTexts(
            train=_tokens(tokenizer, train), heldout=_tokens(tokenizer, measured), source="own"
        )
    examples = [example for path in paths for example in read_examples(path)]
    if heldout is None:
        learnt, kept = split_by_group(examples, (1 - _HELDOUT_SHARE, _HELDOUT_SHARE), seed=seed)
    else:
        kept = read_examples(heldout)
        groups = {example.group for example in kept}
        learnt = [example for example in examples if example.group not in groups]
    if not learnt:
        raise InputError(
            "every passage of --text is also in --heldout: nothing is left to learn from",
            hint="give two different texts",
        )
    return HealTexts(
        train=_tokens(tokenizer, _joined(tokenizer, learnt)),
        heldout=_tokens(tokenizer, _joined(tokenizer, kept)),
        source=", ".join(str(path) for path in paths),
    )


def _tokens(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def _joined(tokenizer: Any, examples: Sequence[Example]) -> str:
    return _BETWEEN.join(_rendered(tokenizer, example) for example in examples)


def _rendered(tokenizer: Any, example: Example) -> str:
    """Return a text as it is, and a dialogue in the model's chat format, if it has one."""
    if len(example.messages) == 1 or not tokenizer.chat_template:
        return _BETWEEN.join(message.content for message in example.messages)
    messages = [{"role": turn.role, "content": turn.content} for turn in example.messages]
    rendered: str = tokenizer.apply_chat_template(messages, tokenize=False)
    return rendered

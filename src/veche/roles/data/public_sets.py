"""Public sets that models and observers are measured on, as their authors publish them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from veche.core.errors import InputError
from veche.roles.data.dialogue import group_of
from veche.roles.data.example import Example, Message

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
OUT_OF_SCOPE = "oos"
"""The intent of what is none of the others, as clinc150 spells it."""

_CALCULATION = re.compile(r"<<[^<>\n]*(?:>>|$)", re.MULTILINE)
_ANSWER = re.compile(r"^A:\s*(.+)$", re.MULTILINE)


_Row = TypeVar("_Row", bound=BaseModel)


class _Solution(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    is_correct: bool
    solution: str


class _Gsm8k(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    question: Annotated[str, Field(min_length=1)]
    ground_truth: str
    __pydantic_extra__: dict[str, _Solution]


class _Mistake(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    input: Annotated[str, Field(min_length=1)]
    steps: list[str]
    target: str
    answer: str | None
    mistake_index: Annotated[int, Field(ge=0)] | None


def gsm8k_examples(where: str, value: Mapping[str, Any]) -> Iterator[Example]:
    """Yield an example for each model's solution of a question of GSM8K.

    Marks for a calculator (<<2*3=6>>) are dropped; a line is a step; `author` is the model.
    Source: github.com/openai/grade-school-math, example_model_solutions.jsonl.

    Raises:
        InputError: the line is not as published.
    """
    row = _checked(_Gsm8k, where, value)
    question = Message(role="user", content=row.question)
    right = _ANSWER.findall(row.ground_truth)
    for author, said in row.__pydantic_extra__.items():
        steps = _lines(_CALCULATION.sub("", said.solution))
        if steps:
            yield Example(
                messages=(question, _answer(steps)),
                group=group_of(row.question),
                task="gsm8k",
                language="en",
                steps=steps,
                is_right=said.is_correct,
                final_answer=right[-1].strip() if right else None,
                author=author,
            )


def mistake_example(where: str, value: Mapping[str, Any], *, task: str) -> Example:
    """Return a trace of BIG-Bench Mistake; its first wrong step is as people found it.

    An answer is right where it is the target's words; a trace may get there in spite of a mistake,
    or miss it by how the answer is written. Empty steps are dropped.
    Source: Tyen et al., arXiv 2311.08516, github.com/WHGTyen/BIG-Bench-Mistake.

    Raises:
        InputError: the line is not as published.
    """
    row = _checked(_Mistake, where, value)
    places = [index for index, step in enumerate(row.steps) if step.strip()]
    if (row.mistake_index is not None and row.mistake_index not in places) or not places:
        raise InputError(
            f"{where}: mistake_index is {row.mistake_index}, and there is no such step",
            hint="download the set again",
        )
    steps = tuple(row.steps[index] for index in places)
    return Example(
        messages=(Message(role="user", content=row.input), _answer(steps)),
        group=group_of(row.input),
        task=task,
        language="en",
        steps=steps,
        is_right=row.answer is not None and row.answer.strip() == row.target.strip(),
        first_bad_step=None if row.mistake_index is None else places.index(row.mistake_index),
        final_answer=row.target,
    )


def clinc_examples(
    where: str, value: Mapping[str, Any], *, split: Split | None
) -> Iterator[Example]:
    """Yield what users of clinc150 said, with their intents, the out-of-scope ones included.

    Args:
        where: the file, for errors.
        value: what it holds.
        split: of those that the authors made; None is all of them.

    Raises:
        InputError: the file is not as published.
    """
    for name in SPLITS if split is None else (split,):
        for part in (name, f"oos_{name}"):
            for number, pair in enumerate(value.get(part, [])):
                if not _is_pair(pair):
                    raise InputError(
                        f"{where}: {part}[{number}] is no pair of a text and an intent: "
                        f"{pair!r:.80}",
                        hint="download the set again",
                    )
                text, intent = pair
                yield Example(
                    messages=(Message(role="user", content=text),),
                    group=group_of(text),
                    task="clinc150",
                    language="en",
                    intent=intent,
                )


def is_clinc(value: Mapping[str, Any]) -> bool:
    """Whether a JSON object is as clinc150's files are."""
    known = {*SPLITS, *(f"oos_{name}" for name in SPLITS)}
    return (
        "train" in value
        and set(value) <= known
        and all(isinstance(rows, list) for rows in value.values())
    )


def _is_pair(pair: Any) -> bool:
    return (
        isinstance(pair, list)
        and len(pair) == 2
        and all(isinstance(part, str) and part.strip() for part in pair)
    )


def _answer(steps: Sequence[str]) -> Message:
    return Message(role="assistant", content="\n".join(steps))


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.split("\n") if line.strip())


def _checked(kind: type[_Row], where: str, value: Mapping[str, Any]) -> _Row:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{where}: {place}: {first['msg'][:1].lower()}{first['msg'][1:]}",
            hint="the line is not as its authors published it: download the set again",
        ) from error

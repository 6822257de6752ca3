"""Reports of a real engine: always valid when constrained, and as sure as its own logits."""

import itertools
import random

import numpy as np
import pytest
import torch
from tests import tiny_models
from transformers import AutoModelForCausalLM, AutoTokenizer

from veche.core.language import LANGUAGES
from veche.engines.protocol import BranchResult
from veche.engines.transformers import create
from veche.roles.data.problems.generate import generate
from veche.roles.probe.steps import steps_of
from veche.roles.reporter.ask import MAX_TOKENS, report_on
from veche.roles.reporter.confidence import DigitTokens, expected_digit
from veche.roles.reporter.reading import reading_text
from veche.roles.reporter.report import CONFIDENCE_HEAD, Report
from veche.roles.role import Role
from veche.roles.speaker import Speaker, instruction_for

WORDS = dict.fromkeys(LANGUAGES, "Report.")
REPORTER = Speaker(role=Role(name="recursia", kind="observer", title=WORDS, prompt=WORDS))
EXAMPLES = [
    example
    for kind in ("lists", "syllogisms")
    for example in generate(kind, language="ru", difficulty=3, count=2, seed=1)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_models.tiny_mixtral(
        tmp_path_factory.mktemp("m") / "moe", max_position_embeddings=4096
    )


@pytest.fixture(scope="module")
def engine(folder):
    return create(folder, dtype="float32")


@pytest.fixture(scope="module")
def digits(folder):
    return DigitTokens(AutoTokenizer.from_pretrained(folder))


def test_constrained_reports_of_a_random_model_are_always_reports(engine, digits):
    reported = report_on(engine, EXAMPLES, REPORTER, digits)
    for item, example in zip(reported, EXAMPLES, strict=True):
        assert isinstance(item.report, Report)
        assert 0 <= item.confidence <= 1
        if item.report.first_bad_step is not None:
            assert item.report.first_bad_step < len(steps_of(example))


def test_the_longest_report_fits_into_the_tokens_that_it_is_given():
    longest = Report(
        intent="i" * 40, contradictions=(998,) * 4, first_bad_step=998, confidence=9,
        next_focus="question",
    )  # fmt: skip
    assert len(longest.as_json()) < MAX_TOKENS


def test_unconstrained_ones_are_not_and_that_is_counted(engine, digits):
    reported = report_on(engine, EXAMPLES[:2], REPORTER, digits, is_constrained=False)
    assert not any(item.is_valid for item in reported)
    assert [item.confidence for item in reported] == [None, None]


def test_confidence_is_the_expectation_under_a_plain_forward_pass(engine, folder, digits):
    """Read the same tokens with transformers, and add the digits up from the whole distribution."""
    (item,) = report_on(engine, EXAMPLES[:1], REPORTER, digits)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    example = EXAMPLES[0]
    head = tokenizer.apply_chat_template(
        [
            {"role": "system", "content": ""},
            {"role": "user", "content": "SLOT"},
        ],
        tokenize=False,
        add_generation_prompt=True,
    )
    before, after = head.split("SLOT")
    text = item.report.as_json()
    written = text[: text.index(CONFIDENCE_HEAD) + len(CONFIDENCE_HEAD)]
    shown = reading_text(example)
    pieces = (before, shown, instruction_for(REPORTER.role, "Report."), after, written)
    ids = [
        token for piece in pieces for token in tokenizer(piece, add_special_tokens=False).input_ids
    ]
    with torch.no_grad():
        probabilities = torch.softmax(model(torch.tensor([ids])).logits[0, -1].double(), -1)
    shares = [
        float(probabilities[tokenizer.convert_tokens_to_ids(str(digit))]) for digit in range(10)
    ]
    slow = sum(d * share for d, share in enumerate(shares)) / sum(shares) / 9
    assert item.confidence == pytest.approx(slow, abs=1e-4)


class JoiningTokenizer:
    """A tokenizer of whole strings, some of which join the digit with its neighbours."""

    def __init__(self, tokens):
        self.tokens = ["a", *tokens]

    def get_vocab(self):
        return {token: number for number, token in enumerate(self.tokens)}

    def __call__(self, text, add_special_tokens=False):
        return type("Encoded", (), {"input_ids": [self.tokens.index(text)]})

    def decode(self, ids, **_):
        return "".join(self.tokens[number] for number in ids)


def said(tokens, pieces, rng):
    """Return a report that was written in these pieces, with logits of its own at each."""
    vocabulary = JoiningTokenizer(tokens).get_vocab()
    logits = rng.normal(size=(len(pieces), len(vocabulary))).astype(np.float32)
    ends = tuple(itertools.accumulate(map(len, pieces)))
    return BranchResult(
        voice="v", text="".join(pieces), token_ids=tuple(vocabulary[p] for p in pieces),
        finish_reason="stop", prefilled_tokens=0, reused_tokens=0, logits=logits, token_ends=ends,
    )  # fmt: skip


@pytest.mark.parametrize(
    "shape", ["{d}", " {d}", ": {d}", "{d},", " {d},", '": {d}, "next', 'confidence": {d}, "']
)
def test_digits_that_are_joined_with_their_neighbours_are_found(shape):
    report = '{"confidence": 7, "next_focus": "step"}'
    joined = [shape.format(d=digit) for digit in range(10)]
    # Of the same digits, written otherwise: some fit in the same place, some never.
    others = [f"{digit}, " for digit in range(10)] + ["70", "7}", "x7", "7 ", "17"]
    piece = shape.format(d=7)
    start = report.index(piece)
    pieces = [*report[:start], piece, report[start + len(piece) :]]
    tokens = [*dict.fromkeys([*pieces, *joined, *others])]
    result = said(tokens, pieces, np.random.default_rng(0))
    lead = shape[: shape.index("{")]
    tail = ', "next_focus": "'
    weights = dict.fromkeys(range(10), 0.0)
    for number, token in enumerate(["a", *tokens]):
        for digit in range(10):
            rest = token.removeprefix(f"{lead}{digit}")
            if token.startswith(f"{lead}{digit}") and tail.startswith(rest):
                weights[digit] += float(np.exp(result.logits[start, number].astype(np.float64)))
    slow = sum(d * w for d, w in weights.items()) / sum(weights.values()) / 9
    assert DigitTokens(JoiningTokenizer(tokens)).confidence(result) == pytest.approx(slow)


def test_the_expectation_is_within_the_digits_and_shifts_change_nothing():
    rng = np.random.default_rng(1)
    logits, values = rng.normal(size=10).astype(np.float32), np.arange(10)
    expected = expected_digit(logits, values)
    assert 0 <= expected <= 9
    assert expected_digit(logits + 500, values) == pytest.approx(expected, rel=1e-4)
    assert expected_digit(np.zeros(10, np.float32), values) == pytest.approx(4.5)


def test_the_order_of_the_examples_does_not_matter(engine, digits):
    mixed = random.Random(0).sample(EXAMPLES, len(EXAMPLES))  # noqa: S311
    one = dict(zip(map(id, EXAMPLES), report_on(engine, EXAMPLES, REPORTER, digits), strict=True))
    other = dict(zip(map(id, mixed), report_on(engine, mixed, REPORTER, digits), strict=True))
    assert one == other

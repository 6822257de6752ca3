"""Voices answer questions that can be checked: marks, signals, and files that are gone on with."""

import json

import numpy as np
import pytest
from tests import tiny_models

from veche.core.errors import InputError, OutputError
from veche.core.language import LANGUAGES
from veche.engines.protocol import Branch, Capture, Sampling
from veche.engines.scripted import ScriptedEngine
from veche.engines.transformers import create
from veche.roles.data.answer_file import AnswerFile
from veche.roles.data.asking import Asked, Asking, asked_speakers
from veche.roles.data.example import Example, Message
from veche.roles.data.own_answers import collect, plan_questions, questions_of, summary_of
from veche.roles.data.problems.generate import generate
from veche.roles.data.read import read_examples
from veche.roles.role import Role, RoleSampling
from veche.roles.speaker import Speaker

ASKING = Asking(language="en")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tiny_models.tiny_mixtral(tmp_path_factory.mktemp("m") / "moe")
    return create(folder, dtype="float32")


def question(text="What is 2 + 2?", final="4"):
    message = Message(role="user", content=text)
    return Example(messages=(message,), group=text, task="sums", language="en", final_answer=final)


def voice(name, **sampling):
    return Asked(name=name, sampling=Sampling(**sampling))


def kept(engine, voices, questions=None, asking=ASKING):
    found = []
    collect(engine, questions_of(questions or [question()]), voices, asking, keep=found.append)
    return found


def test_answers_are_marked_and_compared_with_each_other():
    engine = ScriptedEngine(
        {
            "a": "2 + 2 = 4\nAnswer: 4",
            "b": "It is 4.",
            "c": "Answer: 5",
            "d": "I cannot say",
            "e": "",
        },
        entropies={"a": 0.5},
    )
    (answers,) = kept(engine, [voice(name) for name in "abcde"])
    marks = {answer.author: answer.is_right for answer in answers}
    assert marks == {"a": True, "b": True, "c": False, "d": False}
    signals = {answer.author: answer.signals for answer in answers}
    # Of four others: one who says nothing disagrees too.
    assert {name: told["disagreement"] for name, told in signals.items()} == {
        "a": 0.75, "b": 0.75, "c": 1.0, "d": 1.0,
    }  # fmt: skip
    assert signals["a"]["mean_entropy"] == 0.5
    assert signals["d"]["has_answer"] == 0
    assert "mean_logprob" not in signals["a"]
    assert {answer.group for answer in answers} == {"What is 2 + 2?"}


def test_an_answer_that_ran_out_of_tokens_says_so():
    engine = ScriptedEngine({"a": "one two three four"})
    (answers,) = kept(engine, [voice("a", max_new_tokens=2)])
    assert (answers[0].messages[-1].content, answers[0].signals["is_cut"]) == ("one two", 1)


def test_small_models_are_stopped_before_they_ask_themselves():
    engine = ScriptedEngine({"a": "Answer: 4\n\nProblem: 2 + 3\nAnswer: 5"})
    (answers,) = kept(engine, [voice("a")])
    assert answers[0].is_right


def test_the_mean_log_probability_is_that_of_reading_the_answer(tiny):
    (answers,) = kept(tiny, [voice("a", max_new_tokens=8), voice("b", temperature=1.0, seed=3)])
    for answer in answers:
        asking_branch = ASKING.branch(voice(answer.author))
        trunk = tiny.open_trunk(system=ASKING.system, user=ASKING.problem("What is 2 + 2?"))
        branch = Branch(
            voice="reader", instruction=asking_branch.instruction, capture=Capture(logprobs=0)
        )
        (result,) = tiny.score(trunk, [branch], [answer.messages[-1].content])
        if len(result.token_ids) == answer.signals["num_tokens"]:
            mean = float(np.mean(result.logprobs.chosen))
            assert answer.signals["mean_logprob"] == pytest.approx(mean, abs=1e-4)


def test_the_order_of_the_voices_changes_no_answer(tiny):
    voices = [voice("a", max_new_tokens=6), voice("b", max_new_tokens=6, temperature=1.0, seed=1)]
    (one,), (other,) = kept(tiny, voices), kept(tiny, voices[::-1])
    assert {(a.author, a.messages) for a in one} == {(a.author, a.messages) for a in other}


def test_worked_problems_stand_before_the_question_and_take_the_place_of_the_task():
    worked = generate("units", language="ru", difficulty=1, count=2, seed=0, answers="right")
    asking = Asking(language="ru", worked=tuple(worked))
    for example in worked:
        assert example.messages[0].content in asking.opening
        assert example.messages[1].content in asking.opening
    assert asking.branch(voice("a"), question="?").instruction == "?"
    assert "Ответ:" in Asking(language="ru").branch(voice("a"), question="?").instruction


def role(name, temperature=0.0):
    words = dict.fromkeys(LANGUAGES, f"Be {name}.")
    return Role(
        name=name, kind="drafter", title=words, prompt=words,
        sampling=RoleSampling(temperature=temperature),
    )  # fmt: skip


def test_roles_are_sampled_with_seeds_of_their_own_and_a_greedy_one_first_greedily():
    speakers = [Speaker(role=role("calm")), Speaker(role=role("wild", 0.9))]
    voices = asked_speakers(speakers, samples=2, temperature=0.4, seed=7)
    assert [v.name for v in voices] == ["calm", "calm-2", "wild", "wild-2"]
    assert [v.sampling.temperature for v in voices] == [0.0, 0.4, 0.9, 0.9]
    assert [v.sampling.seed for v in voices] == [7, 8, 9, 10]
    branch = Asking(language="en").branch(voices[1])
    assert "Be calm." in branch.instruction
    assert branch.sampling.temperature == 0.4


class TestQuestions:
    def test_each_problem_is_asked_once_whatever_answers_it_has(self):
        examples = generate("lists", language="en", difficulty=2, count=4, seed=0)
        assert len(questions_of(examples)) == 4

    @pytest.mark.parametrize("final", [None, "perhaps"])
    def test_what_cannot_be_checked_is_refused(self, final):
        with pytest.raises(InputError, match="no final_answer that can be checked"):
            questions_of([question(final=final)])

    def test_shown_problems_are_not_asked(self):
        examples = generate("dates", language="en", difficulty=2, count=9, seed=0)
        ((asking, asked),) = plan_questions(examples, shots=3, limit=None)
        shown = {example.group for example in asking.worked}
        assert len(shown) == 3
        assert all(example.is_right for example in asking.worked)
        assert len(asked) == 6
        assert not shown & {q.example.group for q in asked}

    def test_a_limit_is_spread_over_the_kinds(self):
        examples = [
            example
            for kind in ("dates", "lists")
            for example in generate(kind, language="en", difficulty=2, count=9, seed=0)
        ]
        planned = plan_questions(examples, shots=None, limit=4)
        assert [len(asked) for _, asked in planned] == [2, 2]

    @pytest.mark.parametrize(("limit", "counts"), [(1, [1, 0]), (5, [3, 2]), (9, [7, 2])])
    def test_no_more_are_asked_than_the_limit_says_nor_fewer(self, limit, counts):
        examples = [
            example
            for kind, count in (("dates", 12), ("lists", 5))
            for example in generate(kind, language="en", difficulty=2, count=count, seed=0)
        ]
        planned = plan_questions(examples, shots=3, limit=limit)
        assert [len(asked) for _, asked in planned] == counts

    def test_questions_without_solutions_are_asked_without_worked_problems(self):
        examples = generate("dates", language="en", difficulty=2, count=5, seed=0, answers="none")
        ((asking, asked),) = plan_questions(examples, shots=None, limit=None)
        assert (asking.worked, len(asked)) == ((), 5)
        with pytest.raises(InputError, match="0 solved problems, and 3 are to be shown"):
            plan_questions(examples, shots=3, limit=None)


def test_a_summary_counts_each_voice():
    engine = ScriptedEngine({"a": ["4", "4"], "b": "5"})
    (answers,) = kept(engine, [voice("a"), voice("b")])
    summary = summary_of(answers)
    assert (summary["answers"], summary["right"], summary["share"]) == (2, 1, 0.5)
    assert summary["voices"]["a"]["share"] == 1
    assert summary_of([])["share"] is None


SETTINGS = {"model": "m", "seed": 0}


class TestFile:
    def answers(self, group, count=2):
        texts = [f"{group} {number}" for number in range(count)]
        return [
            Example(
                messages=(
                    Message(role="user", content=group),
                    Message(role="assistant", content=text),
                ),
                group=group,
                task="t",
                is_right=True,
            )
            for text in texts
        ]

    def test_it_is_gone_on_with_where_it_stopped(self, tmp_path):
        path = tmp_path / "a.jsonl"
        AnswerFile(path, SETTINGS).append(self.answers("one"))
        again = AnswerFile(path, SETTINGS)
        assert again.groups == {"one"}
        again.append(self.answers("two"))
        assert read_examples(path) == self.answers("one") + self.answers("two")

    @pytest.mark.parametrize("lost", [1, 5, 150])
    def test_a_line_that_was_cut_short_goes_with_its_question(self, tmp_path, lost):
        path = tmp_path / "a.jsonl"
        file = AnswerFile(path, SETTINGS)
        for group in ("one", "two"):
            file.append(self.answers(group))
        path.write_bytes(path.read_bytes()[:-lost])
        again = AnswerFile(path, SETTINGS)
        assert "two" not in again.groups
        for group in ("one", "two"):
            if group not in again.groups:
                again.append(self.answers(group))
        assert read_examples(path) == self.answers("one") + self.answers("two")

    def test_a_file_that_was_cut_in_its_first_line_begins_anew(self, tmp_path):
        path = tmp_path / "a.jsonl"
        AnswerFile(path, SETTINGS).append(self.answers("one"))
        path.write_bytes(path.read_bytes()[:20])
        assert AnswerFile(path, SETTINGS).groups == frozenset()

    def test_other_settings_and_other_files_are_refused(self, tmp_path):
        path = tmp_path / "a.jsonl"
        AnswerFile(path, SETTINGS).append(self.answers("one"))
        with pytest.raises(OutputError, match="was begun with seed 0, not 1"):
            AnswerFile(path, SETTINGS | {"seed": 1})
        stranger = tmp_path / "b.jsonl"
        stranger.write_text(json.dumps({}))
        with pytest.raises(OutputError, match="nothing says how it was made"):
            AnswerFile(stranger, SETTINGS)

    def test_a_full_disk_leaves_no_half_of_a_question(self, tmp_path, monkeypatch):
        import resource
        import signal

        from veche.core.errors import DiskError

        path = tmp_path / "a.jsonl"
        file = AnswerFile(path, SETTINGS)
        file.append(self.answers("one"))
        before = path.read_bytes()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))
            with pytest.raises(DiskError, match=r"a\.jsonl could not be written"):
                file.append(self.answers("two"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, old)
        assert path.read_bytes() == before

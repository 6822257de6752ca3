"""`veche role data`, as its user meets it."""

import json

import pytest
from tests import tiny_models

from veche.roles.data.read import read_examples


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_models.tiny_mixtral(
        tmp_path_factory.mktemp("m") / "moe", max_position_embeddings=2048
    )


def generated(veche, tmp_path, *options):
    path = tmp_path / "problems.jsonl"
    arguments = ["role", "data", "generate", "--out", str(path), "--count", "5", *options]
    return path, veche(*arguments, "--json")


def test_problems_are_written_and_read_back(veche, tmp_path):
    path, done = generated(veche, tmp_path, "--language", "ru", "--language", "en")
    assert done.json["examples"] == len(read_examples(path)) == 2 * 5 * 5 * 2
    assert done.json["problems"] == 50
    assert done.json["kinds"] == ["arithmetic", "dates", "units", "lists", "syllogisms"]
    again = veche("role", "data", "generate", "--out", str(path), "--json")
    assert again.code == 2
    assert "overwrites nothing" in again.error["message"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kind", "sums"], "no problems of kind 'sums'"),
        (["--language", "de"], "not made in 'de'"),
        (["--difficulty", "13"], "no difficulty 13"),
        (["--answers", "all"], "--answers all is unknown"),
    ],
)
def test_what_cannot_be_made_is_refused(veche, tmp_path, options, message):
    path, done = generated(veche, tmp_path, *options)
    assert done.code == 2
    assert message in done.error["message"]
    assert not path.exists()


def test_own_answers_are_collected_once(veche, tmp_path, model):
    questions, _ = generated(veche, tmp_path, "--kind", "lists", "--difficulty", "1")
    out = tmp_path / "answers.jsonl"
    arguments = [
        "role", "data", "collect", str(model), str(questions), "--out", str(out),
        "--voices", "proposer,logician", "--max-tokens", "6", "--shots", "1", "--json",
    ]  # fmt: skip
    done = veche(*arguments)
    assert done.code == 0, done.out
    assert done.json["questions"] == 4
    answers = read_examples(out)
    assert {answer.author for answer in answers} == {"proposer", "logician"}
    assert all("mean_logprob" in answer.signals for answer in answers)
    before = out.read_bytes()
    assert veche(*arguments).json == done.json
    assert out.read_bytes() == before
    other = veche(*arguments, "--seed", "1")
    assert (other.code, other.error["type"]) == (2, "OutputError")
    settings = json.loads((tmp_path / "answers.jsonl.settings.json").read_text())
    assert [role["name"] for role in settings["roles"]] == ["proposer", "logician"]


def test_a_difficulty_is_looked_for_in_both_ways_of_printing(veche, model):
    arguments = [
        "role", "data", "difficulty", str(model), "--kind", "arithmetic", "--count", "2",
        "--shots", "0", "--max-tokens", "3",
    ]  # fmt: skip
    fit = veche(*arguments, "--json").json["fits"][0]
    assert fit["verdict"] == "too hard"
    assert "слишком трудно" in veche(*arguments, "--lang", "ru").out
    refused = veche(*arguments, "--least", "0.9", "--json")
    assert "above --most" in refused.error["message"]


def test_parts_of_a_split_share_no_problem(veche, tmp_path):
    path, _ = generated(veche, tmp_path, "--kind", "dates")
    done = veche(
        "role", "data", "split", path, "--out", tmp_path / "parts", "--test", 0.4,
        "--validation", 0.2, "--json",
    )  # fmt: skip
    assert done.code == 0, done
    assert [(each["part"], each["problems"]) for each in done.json["parts"]] == [
        ("train", 2), ("test", 2), ("validation", 1),
    ]  # fmt: skip
    parts = [read_examples(tmp_path / "parts" / f"{name}.jsonl")
             for name in ("train", "test", "validation")]  # fmt: skip
    everything = [example for part in parts for example in part]
    assert sorted(map(repr, everything)) == sorted(map(repr, read_examples(path)))
    groups = [{example.group for example in part} for part in parts]
    assert sum(map(len, groups)) == len(set().union(*groups))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--test", "1"], "leave a part to train on"),
        (["--test", "nan"], "leave a part to train on"),
        (["--test", "0.1", "--validation", "-0.1"], "leave a part to train on"),
        (["--out", "."], "working folder"),
    ],
)
def test_a_split_that_cannot_be_is_refused(veche, tmp_path, options, message):
    path, _ = generated(veche, tmp_path, "--kind", "dates")
    done = veche("role", "data", "split", path, "--out", tmp_path / "p", *options, "--json")
    assert done.code == 2, done
    assert message in done.error["message"]
    assert not (tmp_path / "p").exists()


def test_one_problem_cannot_be_split(veche, tmp_path):
    path = tmp_path / "one.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "Кто?"}]}\n')
    done = veche("role", "data", "split", path, "--out", tmp_path / "p", "--json")
    assert done.code == 2, done
    assert "cannot be split" in done.error["message"]
    assert not (tmp_path / "p").exists()

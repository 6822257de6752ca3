"""`veche steer` as its user meets it."""

import json

import pytest
from tests import tiny_models

INTERVAL = {"mean", "low", "high"}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    russian = [f"Совет слышит каждый голос, номер {n}." for n in range(12)]
    english = [{"text": f"the council hears\nevery voice, number {n}"} for n in range(12)]
    (folder / "russian.txt").write_text("\n".join(russian), encoding="utf-8")
    (folder / "english.jsonl").write_text("\n".join(map(json.dumps, english)), encoding="utf-8")
    (folder / "neutral.txt").write_text("def f(x):\n    return x + 1\n" * 60)
    return {"--for": folder / "russian.txt", "--against": folder / "english.jsonl"}


def options(given):
    return [part for pair in given.items() for part in pair]


@pytest.fixture(scope="module")
def found(veche, shelf, sets, tmp_path_factory):
    path = tmp_path_factory.mktemp("found") / "s.safetensors"
    done = veche("steer", "find", shelf / "moe", *options(sets), "--out", path, "--json")
    assert done.code == 0, done
    return path, done.json


def test_find_names_the_experts_and_how_sure_it_is(found):
    path, said = found
    assert path.is_file()
    assert said["file"] == str(path)
    assert (said["towards"], said["away_from"]) == ("russian", "english")
    assert (said["num_for"], said["num_against"], said["num_experts"]) == (9, 9, 24)
    assert said["num_significant"] >= len(said["experts"]) > 0
    for expert in said["experts"]:
        assert expert["low"] <= expert["difference"] <= expert["high"]
        assert expert["q_value"] < 0.05
        assert expert["basis"] * expert["difference"] > 0
    assert max(abs(expert["basis"]) for expert in said["experts"]) == 1


@pytest.mark.parametrize("language", ["en", "ru"])
def test_find_tells_people_the_same_and_warns(veche, shelf, sets, tmp_path, language):
    out = tmp_path / "s.safetensors"
    given = [*options(sets), "--out", out, "--lang", language, "--most", 2]
    done = veche("steer", "find", shelf / "moe", *given)
    assert done.code == 0
    assert str(out) in done.out.replace("\n", "")
    warning = "safety behaviour" if language == "en" else "осторожность"
    assert warning in done.err.replace("\n", " ")


def test_apply_answers_twice(veche, shelf, found):
    path, _ = found
    command = ["steer", "apply", shelf / "moe", "Что слышит совет?", "--steering", path]
    said = veche(*command, "--strength", 4, "--max-tokens", 8, "--json").json
    assert set(said) == {
        "strength", "is_same_model", "plain", "steered", "common_tokens", "plain_tokens",
        "steered_tokens",
    }  # fmt: skip
    assert said["is_same_model"] is True
    other_way = veche(*command, "--strength", -4, "--max-tokens", 8, "--json").json
    assert other_way["plain"] == said["plain"]
    done = veche(*command, "--max-tokens", 8, "--layers", "0-1", "--lang", "en")
    assert done.code == 0
    assert "Without steering" in done.out


def test_evaluate_reports_effect_and_collateral(veche, shelf, sets, found, tmp_path):
    path, _ = found
    neutral = sets["--for"].parent / "neutral.txt"
    given = [*options(sets), "--neutral", neutral, "--pieces", 2, "--strength", "1,-2"]
    command = ["steer", "evaluate", shelf / "moe", "--steering", path, *given]
    said = veche(*command, "--out", tmp_path / "рисунок.png", "--json").json
    assert (tmp_path / "рисунок.png").read_bytes().startswith(b"\x89PNG")
    assert (said["num_for"], said["num_against"], said["num_neutral"]) == (3, 3, 2)
    assert [row["strength"] for row in said["rows"]] == [-2, 1]
    for row in [said["floor"], *said["rows"]]:
        assert set(row["effect"]) == {
            "nll_for", "nll_against", "preference", "favoured_rate", "muted_rate",
        }  # fmt: skip
        assert set(row["collateral"]) == {"nll", "agreement", "kl"}
        assert set(row["effect"]["preference"]) == INTERVAL
        assert row["collateral"]["kl"]["mean"] >= 0
    done = veche(*command, "--lang", "ru")
    assert done.code == 0
    assert "Побочное действие" in done.out
    assert "отложено текстов: 3. Интервалы" in done.out  # three tell little, and that is said
    assert path.with_suffix(".png").is_file()


def test_a_model_of_another_shape_is_refused_and_one_of_other_weights_is_named(
    veche, shelf, found, tmp_path
):
    path, _ = found
    tail = ["?", "--steering", path, "--max-tokens", 2, "--json"]
    fewer = tiny_models.tiny_mixtral(tmp_path / "fewer", num_local_experts=4)
    refused = veche("steer", "apply", fewer, *tail)
    assert refused.code == 2
    assert "8 experts" in refused.error["message"]
    assert "4 experts" in refused.error["message"]
    dense = veche("steer", "apply", shelf / "dense", *tail)
    assert dense.code == 2
    assert "no experts to steer" in dense.error["message"]
    other = tiny_models.tiny_mixtral(tmp_path / "other", seed=5)
    assert veche("steer", "apply", other, *tail).json["is_same_model"] is False
    warned = veche("steer", "apply", other, *tail[:-1], "--lang", "en")
    assert "other weights (moe)" in warned.err.replace("\n", " ")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--layers", "5-2"], "no range of layers"),
        (["--layers", "x"], "no range of layers"),
        (["--layers", "7-9"], "no steered expert is in the layers 7-9"),
        (["--strength", "99999"], "beyond|within"),
        (["--strength", "inf"], "within"),
        (["--strength", "nan"], "within"),
        (["--temperature", "1e-300"], "temperature 1e-300 is not"),
    ],
)
def test_impossible_dials_are_refused(veche, shelf, found, given, message):
    path, _ = found
    done = veche("steer", "apply", shelf / "moe", "?", "--steering", path, *given, "--json")
    assert done.code == 2
    assert any(part in done.error["message"] for part in message.split("|"))


@pytest.mark.parametrize("strength", ["", "0", "1,nan", "один"])
def test_strengths_that_are_none_are_refused(veche, shelf, sets, found, strength):
    path, _ = found
    command = ["steer", "evaluate", shelf / "moe", "--steering", path, *options(sets)]
    done = veche(*command, f"--strength={strength}", "--json")
    assert done.code == 2
    assert "are no strengths" in done.error["message"]


def test_too_few_texts_find_nothing_and_say_why(veche, shelf, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"{name} первый\n{name} второй\n", encoding="utf-8")
    files = ["--for", tmp_path / "a", "--against", tmp_path / "b"]
    out = tmp_path / "s.safetensors"
    done = veche("steer", "find", shelf / "moe", *files, "--holdout", 0, "--out", out, "--json")
    assert done.code == 2
    assert "no p-value is below" in done.error["message"]
    assert not out.exists()


def test_the_texts_and_the_model_are_never_written_over(veche, shelf, sets):
    weights = shelf / "moe" / "model.safetensors"
    for out in (sets["--for"], sets["--against"], weights, shelf / "moe"):
        before = out.read_bytes() if out.is_file() else None
        done = veche("steer", "find", shelf / "moe", *options(sets), "--out", out, "--json")
        assert done.code == 2
        assert "only read" in done.error["message"]
        assert before is None or out.read_bytes() == before

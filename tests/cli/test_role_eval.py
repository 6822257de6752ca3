"""`veche role eval` and `veche role compare`, as their user meets them."""

import json
from dataclasses import replace

import pytest
from tests import tiny_models
from tests.roles.intent.questions import questions

from veche.engines.transformers import create
from veche.roles.data.problems.generate import generate
from veche.roles.intent.train import train_intents
from veche.roles.probe.fitting import FitSettings
from veche.roles.probe.train import train_probe
from veche.roles.registry import Registry

FAST = FitSettings(strengths=(0.1,), folds=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_models.tiny_mixtral(
        tmp_path_factory.mktemp("m") / "moe", max_position_embeddings=2048
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory, model):
    """A home with a trained reader, in two versions, and a trained observer."""
    folder, out = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("out")
    registry, engine = Registry(folder / "roles"), create(model, dtype="float32")
    reader, observer = registry.get("q-intent"), registry.get("recursia")
    asked = questions("weather", "balance", "flight")
    for number, examples in enumerate((asked[::2], asked)):
        train_intents(engine, reader, examples, out / f"reader{number}")
        kept = registry.keep(out / f"reader{number}", "probe", base_hash=engine.base_hash)
        registry.save(replace(reader, probe=kept))
    problems = generate("arithmetic", language="en", difficulty=1, count=12, seed=0)
    train_probe(engine, observer, problems, out / "observer", settings=FAST)
    kept = registry.keep(out / "observer", "probe", base_hash=engine.base_hash)
    registry.save(replace(observer, probe=kept))
    return folder


@pytest.fixture(autouse=True)
def at_home(home, monkeypatch):
    monkeypatch.setenv("VECHE_HOME", str(home))


@pytest.fixture
def asked(tmp_path):
    return written(tmp_path / "asked.jsonl", questions())


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    made = generate("arithmetic", language="en", difficulty=1, count=8, seed=1)
    return written(tmp_path_factory.mktemp("d") / "solved.jsonl", made)


def written(path, examples):
    from veche.roles.data.labelled import write_examples

    write_examples(path, examples)
    return path


def test_a_reader_is_measured_beside_its_baselines(veche, model, asked, tmp_path):
    learnt = written(tmp_path / "learnt.jsonl", [
        replace(e, group=f"learnt {e.group}") for e in questions("weather", "balance", "flight")
    ])  # fmt: skip
    done = veche(
        "role", "eval", "q-intent", model, "--data", asked, "--learn-from", learnt,
        "--figures", tmp_path / "png", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert (done.json["role"], done.json["version"]) == ("q-intent", 2)
    (part,) = done.json["parts"]
    assert part["measures"] == "question"
    assert [method["name"] for method in part["methods"]] == ["role", "tf-idf", "majority"]
    assert part["methods"][0]["figures"]["accuracy"]["value"] == 1
    low, high = part["methods"][2]["gains"]["accuracy"]["interval"]
    assert 0 < low <= high
    for picture in done.json["pictures"]:
        assert (tmp_path / "png").joinpath(picture).read_bytes().startswith(b"\x89PNG")


def test_two_versions_of_a_reader_are_compared_in_pairs(veche, model, asked):
    done = veche("role", "compare", "q-intent@1", "q-intent@2", model, "--data", asked, "--json")
    assert done.code == 0, done.err
    (part,) = done.json["parts"]
    second, first = part["methods"]
    assert (first["name"], second["name"]) == ("q-intent@1", "q-intent@2")
    gain = first["gains"]["accuracy"]["value"]
    assert gain == pytest.approx(
        second["figures"]["accuracy"]["value"] - first["figures"]["accuracy"]["value"]
    )


def test_an_observer_is_measured_on_answers_and_steps(veche, model, solved, tmp_path):
    done = veche(
        "role", "eval", "recursia", model, "--data", solved, "--figures", tmp_path, "--json"
    )
    assert done.code == 0, done.err
    parts = {part["measures"]: part for part in done.json["parts"]}
    assert set(parts) == {"answer", "step"}
    assert "same_question_pairs" in parts["answer"]["methods"][0]["figures"]
    assert "first_error" in parts["step"]["methods"][0]["figures"]
    assert {"key": "folds"} in parts["answer"]["notes"]
    assert [note["key"] for note in done.json["notes"]] == ["few_groups"]
    assert {"tf-idf", "surface", "router", "entropy", "majority"} <= {
        method["name"] for method in parts["step"]["methods"]
    }


@pytest.mark.parametrize(("lang", "said"), [("en", "AUROC"), ("ru", "роль")])
def test_people_read_tables_in_their_language(veche, model, solved, asked, lang, said):
    done = veche("role", "eval", "recursia", model, "--data", solved, "--lang", lang)
    assert done.code == 0, done.err
    assert said in done.out
    done = veche(
        "role", "compare", "q-intent@1", "q-intent@2", model, "--data", asked, "--lang", lang
    )
    assert done.code == 0, done.err
    assert "q-intent@2" in done.out


def test_a_voice_is_measured_by_what_it_says(veche, model, solved):
    done = veche(
        "role", "eval", "logician", model, "--data", solved, "--most", "4", "--max-tokens", "4",
        "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    (part,) = done.json["parts"]
    assert part["measures"] == "speech"
    assert {"nll", "accuracy"} <= set(part["methods"][0]["figures"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["q-intent@one"], "names no version"),
        (["q-intent@" + "9" * 5000], "names no version"),
        (["q-intent@7"], "no version 7"),
        (["q-intnt"], "no role 'q-intnt'"),
        (["q-intent", "--split", "dev"], "no part 'dev'"),
        (["q-intent", "--split", "test"], "was not split"),
    ],
)
def test_what_cannot_be_measured_is_one_clear_error(veche, model, asked, arguments, message):
    name, *options = arguments
    done = veche("role", "eval", name, model, "--data", asked, *options, "--json")
    assert done.code == 2
    assert message in done.error["message"]


def test_data_without_the_labels_is_refused(veche, model, asked, solved, tmp_path):
    done = veche("role", "eval", "recursia", model, "--data", asked, "--json")
    assert (done.code, "none has a label" in done.error["message"]) == (2, True)
    blank = tmp_path / "blank.jsonl"
    blank.write_text(json.dumps({"messages": [{"role": "user", "content": "hi"}]}) + "\n")
    done = veche("role", "eval", "q-intent", model, "--data", blank, "--json")
    assert (done.code, "have no intent" in done.error["message"]) == (2, True)
    done = veche("role", "compare", "q-intent", "recursia", model, "--data", asked, "--json")
    assert done.code == 2


def test_baselines_do_not_learn_what_they_are_measured_on(veche, model, asked):
    done = veche(
        "role", "eval", "q-intent", model, "--data", asked, "--learn-from", asked, "--json"
    )
    assert done.code == 0, done.err
    assert done.json["notes"] == [{"key": "shared", "count": 48}]
    (part,) = done.json["parts"]
    assert [method["name"] for method in part["methods"]] == ["role"]


def test_another_model_is_refused(veche, asked, tmp_path):
    other = tiny_models.tiny_mixtral(tmp_path / "other", seed=5)
    done = veche("role", "eval", "q-intent", other, "--data", asked, "--json")
    assert done.code == 2
    assert "was trained on the model" in done.error["message"]

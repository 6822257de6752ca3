"""`veche role train`: from a file of examples to a new version of a role."""

import json

import pytest
import yaml
from tiny_models import tiny_mixtral

from veche.cli.main import main
from veche.engines.transformers import create
from veche.roles.registry import Registry

FAST = ["--steps", "3", "--batch", "2", "--rank", "2"]


@pytest.fixture
def model(tmp_path):
    return tiny_mixtral(tmp_path / "model")


@pytest.fixture
def data(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": f"what is {n} + {n}?"},
                      {"role": "assistant", "content": f"it is {2 * n}."}]}
        for n in range(6)
    ]  # fmt: skip
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def run(*arguments):
    return main(["role", "train", *map(str, arguments)])


def read(capsys):
    return json.loads(capsys.readouterr().out)


def test_a_trained_role_is_in_use_and_speaks(model, data, tmp_path, capsys):
    before = Registry().versions("logician")[0]
    out = tmp_path / "out"
    license_ = ["--license", "MIT"]
    assert run("logician", model, "--data", data, "--out", out, *FAST, *license_, "--json") == 0
    said = read(capsys)
    assert (said["part"], said["version"], said["steps"]) == ("adapter", 1, 3)
    registry = Registry()
    role = registry.get("logician")
    assert role.invocation == "\n\n[logician]\n"
    assert role.adapter is not None
    assert role.adapter.license == "MIT"
    assert role.adapter.base_hash == said["run"]["base_hash"]
    assert role.parents == (before.content_hash,)
    engine = create(model)
    assert engine.load_adapter("logician", registry.folder(role.adapter))


def test_trained_twice_it_has_two_versions_in_a_line(model, data, tmp_path, capsys):
    for number in ("1", "2"):
        assert run("logician", model, "--data", data, "--out", tmp_path / number, *FAST) == 0
    versions = Registry().versions("logician")
    assert [version.number for version in versions] == [0, 1, 2]
    assert Registry().get("logician").parents == (versions[1].content_hash,)


def test_a_dry_run_tells_memory_and_dials_and_trains_nothing(model, data, tmp_path, capsys):
    (model / "model.safetensors").unlink()  # it is not even read
    out = tmp_path / "out"
    assert run("logician", model, "--data", data, "--out", out, "--dry-run", "--json") == 0
    said = read(capsys)
    assert said["memory"]["weights"] > 0
    assert said["memory"]["total"] == sum(
        said["memory"][name]
        for name in (
            "weights", "adapter", "gradients", "optimizer", "prefix", "activations", "logits",
        )
    )  # fmt: skip
    assert said["cards"]["rtx-4090"] == 1
    assert said["settings"]["learning_rate"] == 2e-4
    assert "learning_rate" in said["reasons"]
    assert not out.exists()
    for language in ("en", "ru"):
        assert run("logician", model, "--data", data, "--dry-run", "--lang", language) == 0
        assert "rtx-4090" in capsys.readouterr().out


def test_scripts_start_the_same_training_without_what_keeps_it_from_training(
    model, data, tmp_path, capsys, monkeypatch
):
    arguments = [
        "role", "train", "logician", str(model), "--data", str(data), "--gpus", "2",
        "--emit", str(tmp_path / "scripts"), "--batch", "4", "--json",
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["veche", *arguments])
    assert main(arguments) == 0
    commands = read(capsys)["commands"]
    training = f"veche role train logician {model} --data {data} --batch 4"
    assert commands["train-torchrun.sh"].endswith(training)
    assert commands["train-fsdp.sh"].endswith(training)
    config = yaml.safe_load((tmp_path / "scripts" / "accelerate.yaml").read_text())
    assert config["num_processes"] == 2


def test_wrong_answers_are_not_learnt(model, tmp_path, capsys):
    path = tmp_path / "labelled.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
         "group": str(n), "task": "t", "is_right": n != 0}
        for n in range(4)
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, rows)))
    assert run("logician", model, "--data", path, "--dry-run", "--json") == 0
    said = read(capsys)
    assert (said["data"]["wrong"], said["data"]["examples"]) == (1, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--part", "voice"], "--part 'voice' is unknown"),
        (["--method", "alroa"], "did you mean 'alora'"),
        (["--rank", "0"], "rank 0 is not at least 1"),
        (["--micro-batch", "99"], "more than the batch"),
        (["--max-length", "5"], "have more than 5 tokens"),
    ],
)
def test_a_wrong_dial_is_one_clear_error(arguments, message, model, data, capsys):
    assert run("logician", model, "--data", data, *arguments, "--json") == 2
    error = read(capsys)["error"]
    assert message in error["message"] + error["hint"]


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("recursia", ["--dry-run"]),
        ("recursia", ["--rank", "4"]),
        ("q-intent", ["--resume"]),
        ("q-intent", ["--cache", "read"]),
        ("logician", ["--cache", "read"]),
    ],
)
def test_what_would_have_no_effect_is_refused(name, option, model, data, capsys):
    assert run(name, model, "--data", data, *option, "--json") == 2
    error = read(capsys)["error"]
    assert f"{option[0]} has no meaning for" in error["message"]
    assert "train the other part: --part" in error["hint"]


def test_an_unknown_role_and_empty_data_are_refused(model, data, tmp_path, capsys):
    assert run("logicain", model, "--data", data, "--json") == 2
    assert "did you mean 'logician'" in read(capsys)["error"]["hint"]
    (tmp_path / "empty.jsonl").write_text("")
    assert run("logician", model, "--data", tmp_path / "empty.jsonl", "--json") == 2
    assert read(capsys)["error"]["message"]


def test_an_observer_gets_a_probe_and_a_reader_too(model, tmp_path, capsys):
    path = tmp_path / "labelled.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": f"what is {n} + 1?"},
                      {"role": "assistant", "content": f"it is {n + n % 2}."}],
         "group": str(n), "task": "sums", "is_right": bool(n % 2),
         "intent": "odd" if n % 2 else "even"}
        for n in range(24)
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, rows)))
    for name in ("recursia", "q-intent"):
        assert run(name, model, "--data", path, "--out", tmp_path / name, "--json") == 0
        said = read(capsys)
        assert (said["part"], said["version"]) == ("probe", 1)
        role = Registry().get(name)
        assert role.adapter is None
        assert list(Registry().folder(role.probe).iterdir())


def test_a_licence_that_is_none_is_refused_before_any_training(model, data, tmp_path, capsys):
    out = tmp_path / "out"
    for given in ("no\nlicence", "\x1b[2J", ""):
        assert (
            run("logician", model, "--data", data, "--out", out, "--license", given, "--json") == 2
        )
        assert "is no SPDX identifier" in read(capsys)["error"]["message"]
    assert not list(tmp_path.glob("out*"))
    assert len(Registry().versions("logician")) == 1


@pytest.mark.parametrize(("lang", "next_step"), [("en", "Next"), ("ru", "Далее")])
def test_a_probe_says_how_good_it_is_and_what_comes_next(lang, next_step, model, tmp_path, capsys):
    path = tmp_path / "labelled.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": f"what is {n} + 1?"},
                      {"role": "assistant", "content": f"it is {n + n % 2}."}],
         "group": str(n), "task": "sums", "is_right": bool(n % 2)}
        for n in range(24)
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, rows)))
    cache, out = tmp_path / "read", tmp_path / "probe"
    given = ["--data", path, "--out", out, "--cache", cache, "--lang", lang]
    assert run("recursia", model, *given) == 0
    said = capsys.readouterr().out
    measured = json.loads((out / "probe.json").read_text())["record"]["measured"]["answer"]
    assert f"AUROC {measured['auroc']['stack']['mean']:.3f} [" in said
    assert f"{measured['gain_over_surface']['mean']:+.3f} [" in said
    assert f"{next_step}" in said
    assert f"veche role eval recursia {model} --data" in said
    assert list(cache.rglob("*.safetensors"))

"""A whole healing: its files, its figures, its interruptions."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from tests import tiny_models
from tests.roles.healing import lessons

from veche.core.errors import CheckpointError, FailureError, InputError, OutputError
from veche.engines.protocol import Branch, Capture
from veche.engines.transformers import create
from veche.experts.growth import new_capacity
from veche.planning.planner import make_plan
from veche.planning.recipe import Recipe
from veche.roles.healing.heal import heal, plan_healing
from veche.roles.healing.lesson import lesson_of
from veche.surgery.build import build
from veche.surgery.loading import load_model, load_tokenizer
from veche.surgery.verification.hashes import verify_hashes

ALL = ("routers", "experts", "attention")


def healed(model, target, *, progress=None, teacher=None, dials=None, **changes):
    lesson = lesson_of(model, teacher=teacher, **(dials or {}))
    texts = lessons.texts(model)
    plan = plan_healing(lesson, lessons.replace_settings(**changes), texts)
    return heal(plan, target, texts, progress=progress)


def tensors(folder):
    found = {}
    for file in folder.glob("*.safetensors"):
        found |= safetensors.numpy.load_file(file)
    return found


@pytest.mark.parametrize("name", ["moe", "carved"])
def test_the_result_is_a_complete_checkpoint_and_inputs_are_untouched(shelf, tmp_path, name):
    before = lessons.digest(shelf / name)
    report = healed(shelf / name, tmp_path / "out", dials={"top_k": 2}, steps=10)
    assert lessons.digest(shelf / name) == before
    out = tmp_path / "out"
    assert sorted(each.name for each in tmp_path.iterdir() if "home" not in each.name) == ["out"]
    assert not [file for file in out.iterdir() if file.name.startswith(".")]
    assert verify_hashes(out, shelf / name).passed
    assert json.loads((out / "config.json").read_text())["num_experts_per_tok"] == 2
    record = json.loads((out / "veche_heal.json").read_text())
    assert record == json.loads(json.dumps(report.as_dict()))
    if name == "carved":  # whose experts were fitted before
        assert report.recovery.kl[1].mean < report.recovery.kl[0].mean
    assert len(report.losses) == report.num_steps == 10
    model = load_model(out)
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_the_engine_takes_the_result_and_answers_as_transformers_does(shelf, tmp_path):
    healed(shelf / "carved", tmp_path / "out", dials={"top_k": 2})
    engine = create(str(tmp_path / "out"))
    branch = Branch(voice="v", instruction="", capture=Capture(logprobs=1), keep=True)
    (result,) = engine.score(engine.open_text("the council hears"), [branch], [" every voice"])
    tokens = torch.tensor([list(result.trunk.token_ids)])
    count = len(result.token_ids)
    with torch.no_grad():
        logits = load_model(tmp_path / "out")(input_ids=tokens).logits[0].log_softmax(-1)
    expected = logits[-count - 1 : -1].gather(1, tokens[0, -count:, None])[:, 0]
    assert load_tokenizer(tmp_path / "out").decode(tokens[0]).endswith("hears every voice")
    assert torch.allclose(torch.from_numpy(result.logprobs.chosen), expected, atol=1e-3)


def test_after_is_what_another_reader_measures_on_the_written_files(shelf, tmp_path):
    """NLL and KL once more, from the two folders alone, with torch's own functions."""
    report = healed(shelf / "moe", tmp_path / "out", dials={"top_k": 2})
    texts = lessons.texts(shelf / "moe")
    settings = lessons.SETTINGS
    length, count = settings.heldout_tokens, settings.heldout_windows
    starts = [i * (len(texts.heldout) - length) // (count - 1) for i in range(count)]
    source, result = load_model(shelf / "moe"), load_model(tmp_path / "out")
    lost, divergence = [], []
    for start in starts:
        tokens = torch.tensor([texts.heldout[start : start + length]])
        with torch.no_grad():
            given = [model(input_ids=tokens).logits[0, :-1].double() for model in (source, result)]
        p, q = (logits.log_softmax(-1) for logits in given)
        nll = [torch.nn.functional.nll_loss(each, tokens[0, 1:]).item() for each in (p, q)]
        lost.append(nll[1] - nll[0])
        divergence.append(
            torch.nn.functional.kl_div(q, p, log_target=True, reduction="batchmean").item()
        )
    assert report.recovery.left.mean == pytest.approx(np.mean(lost), abs=1e-5)
    assert report.recovery.kl[1].mean == pytest.approx(np.mean(divergence), abs=1e-5)


def test_only_chosen_tensors_differ_in_the_files(shelf, tmp_path):
    healed(shelf / "moe", tmp_path / "out", dials={"top_k": 2}, train=("attention",))
    old, new = tensors(shelf / "moe"), tensors(tmp_path / "out")
    assert old.keys() == new.keys()
    changed = {name for name in old if old[name].tobytes() != new[name].tobytes()}
    assert changed
    assert all(".self_attn." in name and name.endswith("_proj.weight") for name in changed)


def test_without_a_step_it_is_the_model_with_its_dial(shelf, tmp_path):
    report = healed(
        shelf / "moe", tmp_path / "out", dials={"top_k": 2}, steps=0, fit_tokens=0, train=ALL
    )
    old, new = tensors(shelf / "moe"), tensors(tmp_path / "out")
    assert all(np.array_equal(old[name], new[name]) for name in old)
    assert report.recovery.left.mean == report.recovery.lost.mean
    assert report.losses == ()


@pytest.mark.parametrize("mode", ["zero", "split"])
def test_of_a_grown_model_only_what_is_new_moves(shelf, tmp_path, mode):
    fields = {
        "num_attention_heads": 6, "num_key_value_heads": 6, "moe_intermediate_size": 32,
        "num_experts": 16, "num_experts_per_tok": 6,
    }  # fmt: skip
    recipe = Recipe(name="t", base=str(shelf / "moe"), fields=fields, mode=mode)
    build(make_plan(recipe), shelf / "moe", tmp_path / "grown")
    # Grown exactly, it has nothing to win back; with fewer experts it has.
    report = healed(
        tmp_path / "grown", tmp_path / "out", dials={"top_k": 4}, teacher=shelf / "moe",
        train=("new",), steps=4, experts_rate=1e-2,
    )  # fmt: skip
    capacity = new_capacity(tmp_path / "grown").layers[0]
    head_dim, old, new = 8, tensors(tmp_path / "grown"), tensors(tmp_path / "out")
    rows = [h * head_dim + i for h in capacity.heads for i in range(head_dim)]
    units = list(capacity.units["moe_intermediate_size"])
    moved = 0
    for name, before in old.items():
        after, may_move = new[name], np.zeros(before.shape, bool)
        if name.endswith("q_proj.weight"):
            may_move[rows] = True
        elif name.endswith("o_proj.weight"):
            may_move[:, rows] = True
        elif name.endswith("mlp.gate.weight"):
            may_move[list(capacity.experts)] = True
        elif ".experts." in name:
            expert = int(name.split(".experts.")[1].split(".")[0])
            may_move[...] = expert in capacity.experts
            part = may_move if "down_proj" in name else may_move.T
            part[:, units] = True
        different = before != after
        assert not (different & ~may_move).any(), name
        moved += int(different.sum())
    assert moved > 0
    assert report.fitted is not None
    if mode == "zero":
        assert any(s["after"]["awake"] > s["before"]["awake"] for s in report.woke.values())


def test_what_was_interrupted_goes_on_to_the_same_bytes(shelf, tmp_path):
    expected = tmp_path / "whole"
    healed(shelf / "carved", expected, dials={"top_k": 2})
    for label, number in (("fit layers", 2), ("teacher reads", 1), ("distil", 6), ("write", 3)):
        with pytest.raises(KeyboardInterrupt):
            healed(
                shelf / "carved", tmp_path / "out", dials={"top_k": 2},
                progress=lessons.StoppedAt(label, number),
            )  # fmt: skip
        assert not (tmp_path / "out").exists()
    report = healed(shelf / "carved", tmp_path / "out", dials={"top_k": 2})
    assert tensors_equal(tmp_path / "out", expected)
    assert len(report.losses) == lessons.SETTINGS.steps


def tensors_equal(one, other):
    return (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


_KILLED = """
import sys
from pathlib import Path
from tests.roles.healing.test_heal import healed
healed(Path(sys.argv[1]), Path(sys.argv[2]), dials={"top_k": 2}, optimizer="loft")
"""


def test_what_was_killed_goes_on_to_the_same_bytes(shelf, tmp_path):
    expected, out = tmp_path / "whole", tmp_path / "out"
    healed(shelf / "moe", expected, dials={"top_k": 2}, optimizer="loft")
    command = [sys.executable, "-c", _KILLED, str(shelf / "moe"), str(out)]
    child = subprocess.Popen(command, cwd=Path.cwd())
    kept = tmp_path / "out.partial" / ".veche_heal"
    while not any(kept.glob("step-*.safetensors")) and child.poll() is None:
        pass
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not out.exists()
    healed(shelf / "moe", out, dials={"top_k": 2}, optimizer="loft")
    assert tensors_equal(out, expected)


def test_another_seed_is_another_training_and_the_same_one_the_same(shelf, tmp_path):
    results = [
        healed(shelf / "moe", tmp_path / str(i), dials={"top_k": 2}, seed=seed).losses
        for i, seed in enumerate((1, 1, 2))
    ]
    assert results[0] == results[1] != results[2]


def test_the_teacher_writes_text_by_the_seed(shelf, tmp_path):
    report = healed(
        shelf / "moe", tmp_path / "out", dials={"top_k": 2}, generate_tokens=200, fit_tokens=0
    )
    assert report.plan.train_tokens > 200
    assert "write" in report.seconds


def test_minutes_become_a_number_of_steps(shelf, tmp_path):
    report = healed(
        shelf / "moe", tmp_path / "out", dials={"top_k": 2}, steps=None, minutes=0.02, fit_tokens=0
    )
    assert report.num_steps >= 1


def test_a_rate_that_is_far_too_high_is_one_clear_error_and_nothing_is_written(shelf, tmp_path):
    with pytest.raises(FailureError, match="gone astray") as caught:
        healed(shelf / "moe", tmp_path / "out", dials={"top_k": 2}, learning_rate=1e30)
    assert "--experts-rate" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_inputs_and_other_work_are_never_written_over(shelf, tmp_path):
    with pytest.raises(OutputError, match="only read"):
        healed(shelf / "moe", shelf / "moe", dials={"top_k": 2})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty"):
        healed(shelf / "moe", tmp_path / "out", dials={"top_k": 2})
    with pytest.raises(KeyboardInterrupt):
        healed(
            shelf / "moe", tmp_path / "two", dials={"top_k": 2},
            progress=lessons.StoppedAt("distil", 3),
        )  # fmt: skip
    with pytest.raises(OutputError, match="begun with another"):
        healed(shelf / "moe", tmp_path / "two", dials={"top_k": 2}, seed=5)


def test_a_damaged_point_is_named(shelf, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        healed(
            shelf / "moe", tmp_path / "out", dials={"top_k": 2},
            progress=lessons.StoppedAt("distil", 4),
        )  # fmt: skip
    (kept,) = (tmp_path / "out.partial" / ".veche_heal").glob("step-*.safetensors")
    kept.write_bytes(kept.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"step-.*\.safetensors is damaged"):
        healed(shelf / "moe", tmp_path / "out", dials={"top_k": 2})


@pytest.mark.parametrize("changes", [{"hidden_size": 48}, {"num_hidden_layers": 2}])
def test_a_teacher_of_another_shape_teaches_by_its_answers_alone(shelf, tmp_path, changes):
    teacher = tiny_models.tiny_mixtral(tmp_path / "teacher", **changes)
    report = healed(shelf / "moe", tmp_path / "out", dials={"top_k": 2}, teacher=teacher, steps=1)
    assert not report.plan.is_fitted
    assert report.num_steps == 1


@pytest.mark.parametrize("rate", ["learning_rate", "experts_rate"])
def test_a_rate_that_is_no_single_precision_number_is_refused_by_name(rate):
    with pytest.raises(InputError, match=f"{rate} is 1e.38, and may be 1e.30 at most"):
        lessons.replace_settings(**{rate: 1e38}).require_sound()

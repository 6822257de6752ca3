"""Whole trainings on tiny models: what they learn, what they leave, and what they refuse."""

import json
import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from tests.roles.training.dialogues import ROLE, dialogue, sums
from tiny_models import tiny_llama, tiny_mixtral, tiny_qwen3_moe

from veche.core.errors import DiskError, FailureError, InputError, OutputError
from veche.engines.embedded.loading import end_ids_of
from veche.engines.protocol import Branch, Capture
from veche.engines.transformers import create
from veche.roles.speaker import instruction_for
from veche.roles.training.adapter import load_adapter_weights, with_adapter
from veche.roles.training.checkpoint import read_checkpoint
from veche.roles.training.learner import Learner
from veche.roles.training.settings import TrainingSettings, chosen
from veche.roles.training.train import prepare, train_adapter
from veche.surgery.loading import load_model

FAST = TrainingSettings(batch=4, steps=12, rank=4, learning_rate=2e-2, save_every=5)
ROOT = Path(__file__).parents[3]


@pytest.fixture
def model(tmp_path):
    return tiny_mixtral(tmp_path / "model")


def weights_of(folder):
    return safetensors.torch.load_file(folder / "adapter_model.safetensors")


class TestWhatIsTrained:
    def test_the_loss_of_the_answers_falls(self, model, tmp_path):
        trained = train_adapter(model, sums(8), FAST, tmp_path / "out", role=ROLE)
        losses = trained.record.curve["loss"]
        assert len(losses) == 12
        assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])

    @pytest.mark.parametrize("make", [tiny_mixtral, tiny_qwen3_moe, tiny_llama])
    def test_the_embedded_engine_says_what_was_trained(self, make, tmp_path):
        """Logits of every answer token, behind a trunk that knows nothing of the adapter."""
        folder = make(tmp_path / "model")
        examples = sums(6)
        train_adapter(folder, examples, FAST, tmp_path / "out", role=ROLE)
        base = load_model(folder)
        spec_settings = prepare(folder, examples, FAST, role=ROLE).settings
        wrapped = with_adapter(base, spec_settings)
        load_adapter_weights(wrapped, weights_of(tmp_path / "out"))
        learner = Learner(wrapped, wants_balance=False)
        engine = create(folder)
        engine.load_adapter("adder", tmp_path / "out")
        for example, rendered in zip(
            examples, prepare(folder, examples, FAST, role=ROLE).tokenised.examples, strict=True
        ):
            question, answer = (message.content for message in example.messages)
            trunk = engine.open_trunk(system="", user=question)
            branch, plain = (
                Branch(
                    voice="v",
                    instruction=instruction_for(ROLE, ROLE.prompt[example.language or "en"]),
                    adapter=name,
                    capture=Capture(logits=True),
                )
                for name in ("adder", None)
            )
            served = engine.score(trunk, [branch], [answer])[0].logits
            trained = learner.answer_logits(rendered)[: len(served)].numpy()
            np.testing.assert_allclose(served, trained, rtol=1e-4, atol=1e-4)
            without = engine.score(trunk, [plain], [answer])[0].logits
            assert np.abs(without - served).max() > 0.1
            engine.close_trunk(trunk)

    def test_the_same_seed_gives_the_same_bytes_and_another_others(self, model, tmp_path):
        settings = replace(FAST, steps=4)
        for name in ("a", "b"):
            train_adapter(model, sums(8), settings, tmp_path / name, role=ROLE)
        train_adapter(model, sums(8), replace(settings, seed=1), tmp_path / "c", role=ROLE)
        a, b, c = ((tmp_path / n / "adapter_model.safetensors").read_bytes() for n in "abc")
        assert a == b
        assert a != c

    def test_parts_of_a_batch_add_up_to_the_batch(self, model, tmp_path):
        settings = replace(FAST, steps=3)
        train_adapter(model, sums(8), settings, tmp_path / "whole", role=ROLE)
        train_adapter(
            model, sums(8), replace(settings, micro_batch=1), tmp_path / "parts", role=ROLE
        )
        parts = weights_of(tmp_path / "parts")
        for name, weight in weights_of(tmp_path / "whole").items():
            torch.testing.assert_close(parts[name], weight, rtol=1e-3, atol=1e-4)

    def test_merged_experts_are_a_checkpoint_that_says_what_the_adapter_did(self, model, tmp_path):
        settings = replace(FAST, method="merged-experts", steps=8)
        trained = train_adapter(model, sums(8), settings, tmp_path / "out", role=ROLE)
        before, after = load_model(model), load_model(tmp_path / "out")
        changed = {
            name
            for (name, old), new in zip(
                before.state_dict().items(), after.state_dict().values(), strict=True
            )
            if not torch.equal(old, new)
        }
        assert changed
        assert all(".experts." in name for name in changed)
        merged = Learner(with_adapter(after, chosen_of(model, settings)), wants_balance=False)
        examples = prepare(model, sums(8), settings, role=ROLE).tokenised.examples
        with torch.no_grad():
            loss = merged(examples)[0].item() / sum(e.num_loss for e in examples)
        assert loss < 0.9 * trained.record.curve["loss"][0]
        assert create(tmp_path / "out").count_tokens("four") > 0

    def test_the_balance_loss_pulls_routers_towards_evenness(self, model, tmp_path):
        evened = replace(FAST, method="merged-experts", router_aux_loss_coef=50.0, steps=20)
        trained = train_adapter(model, sums(8), evened, tmp_path / "out", role=ROLE)
        balance = trained.record.curve["balance"]
        assert np.mean(balance[-3:]) < np.mean(balance[:3])


def chosen_of(model, settings):
    return prepare(model, sums(8), settings, role=ROLE).settings


class TestWhatIsLeft:
    def test_adapter_record_picture_and_events_and_no_pickle(self, model, tmp_path):
        out = tmp_path / "out"
        trained = train_adapter(model, sums(8), FAST, out, role=ROLE)
        names = {file.name for file in out.rglob("*") if file.is_file()}
        events = {name for name in names if name.startswith("events.out.tfevents")}
        assert names - events == {
            "adapter_config.json", "adapter_model.safetensors", "training.json", "loss.png",
        }  # fmt: skip
        assert len(events) == 1
        assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
        assert not (tmp_path / "out.partial").exists()
        record = json.loads((out / "training.json").read_text())
        assert record["run"]["base_hash"] == trained.base_hash
        assert record["run"]["invocation"] == ROLE.invocation
        assert record["steps"] == 12
        assert record["data"]["loss_tokens"] < record["data"]["tokens"]
        assert record["tokens_per_s"] > record["loss_tokens_per_s"] > 0
        assert set(record["versions"]) >= {"veche", "torch", "transformers", "peft"}
        config = json.loads((out / "adapter_config.json").read_text())
        assert config["alora_invocation_tokens"] == record["run"]["invocation_ids"]
        assert sorted(config["target_modules"]) == ["k_proj", "o_proj", "q_proj", "v_proj"]
        assert str(tmp_path) not in (out / "adapter_config.json").read_text()

    def test_tensorboard_reads_the_loss_of_every_step(self, model, tmp_path):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        trained = train_adapter(model, sums(8), FAST, tmp_path / "out", role=ROLE)
        events = EventAccumulator(str(tmp_path / "out" / "tensorboard"))
        events.Reload()
        read = [(event.step, event.value) for event in events.Scalars("loss")]
        assert [step for step, _ in read] == [*range(1, 13)]
        np.testing.assert_allclose(
            [value for _, value in read], trained.record.curve["loss"], rtol=1e-6
        )

    def test_peft_itself_loads_the_folder(self, model, tmp_path):
        from peft import PeftModel

        train_adapter(model, sums(8), replace(FAST, method="lora"), tmp_path / "out", role=ROLE)
        loaded = PeftModel.from_pretrained(load_model(model), tmp_path / "out")
        kept = weights_of(tmp_path / "out")
        found = {n: w for n, w in loaded.named_parameters() if "lora_" in n}
        assert len(found) == len(kept)
        for name, weight in found.items():
            assert torch.equal(weight, kept[name.replace(".default", "")])


@pytest.mark.parametrize("optimizer", ["adamw", "loft"])
def test_a_killed_training_resumes_to_the_same_bytes(optimizer, model, tmp_path):
    if optimizer == "loft":
        pytest.importorskip("veche.roles.loft.pairs")
    done = subprocess.run(
        [sys.executable, "-m", "tests.roles.training.killed", model, tmp_path, optimizer, "3"],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=500,
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}:{ROOT / 'tests'}",
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout)
    assert seen["events"] > 12
    assert seen["resumed"] >= 1


class TestBadLuck:
    def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(
        self, model, tmp_path, monkeypatch
    ):
        from veche.roles.training import loop

        rates = loop.ChosenSettings.learning_rate_at
        monkeypatch.setattr(
            loop.ChosenSettings,
            "learning_rate_at",
            lambda self, step: 1e38 if step >= 6 else rates(self, step),
        )
        with pytest.raises(FailureError, match="is not a finite number") as caught:
            train_adapter(model, sums(8), FAST, tmp_path / "out", role=ROLE)
        assert "last good checkpoint is of step 5" in caught.value.message
        assert "--learning-rate" in caught.value.hint
        kept = read_checkpoint(tmp_path / "out.partial" / "checkpoints")
        assert kept.step == 5
        assert all(torch.isfinite(weight).all() for weight in kept.weights.values())
        assert not (tmp_path / "out").exists()

    def test_a_full_disk_is_one_error_and_leaves_nothing_half(self, model, tmp_path):
        def train():
            train_adapter(model, sums(8), replace(FAST, rank=64), tmp_path / "out", role=ROLE)

        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, before[1]))
        try:
            with pytest.raises(DiskError, match="step-0000005"):
                train()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert not (tmp_path / "out").exists()
        train()
        assert (tmp_path / "out" / "adapter_model.safetensors").exists()

    def test_another_config_does_not_resume(self, model, tmp_path, monkeypatch):
        interrupted(model, tmp_path / "out", monkeypatch)
        with pytest.raises(OutputError, match="unfinished training") as caught:
            train_adapter(model, sums(8), FAST, tmp_path / "out", role=ROLE)
        assert "--resume" in caught.value.hint
        for settings, examples, names in (
            (replace(FAST, rank=8), sums(8), "settings.rank was 4, and is 8"),
            (replace(FAST, learning_rate=0.5), sums(8), "settings.learning_rate was 0.02"),
            (FAST, sums(9), "data_hash was"),
        ):
            with pytest.raises(InputError, match="another training: ") as refused:
                train_adapter(model, examples, settings, tmp_path / "out", role=ROLE, resume=True)
            assert names in refused.value.message
        other = tiny_mixtral(tmp_path / "other", seed=1)
        with pytest.raises(InputError, match="base_hash was"):
            train_adapter(other, sums(8), FAST, tmp_path / "out", role=ROLE, resume=True)
        monkeypatch.undo()
        done = train_adapter(model, sums(8), FAST, tmp_path / "out", role=ROLE, resume=True)
        assert len(done.record.curve["loss"]) == 12

    def test_a_damaged_checkpoint_is_named(self, model, tmp_path, monkeypatch):
        interrupted(model, tmp_path / "out", monkeypatch)
        (file,) = (tmp_path / "out.partial" / "checkpoints").glob("*.safetensors")
        file.write_bytes(file.read_bytes()[:500])
        monkeypatch.undo()
        with pytest.raises(InputError, match="is damaged"):
            train_adapter(model, sums(8), FAST, tmp_path / "out", role=ROLE, resume=True)

    def test_a_taken_folder_is_refused_before_any_work(self, model, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("mine")
        with pytest.raises(OutputError, match="not empty"):
            train_adapter(model, sums(8), FAST, tmp_path / "out", role=ROLE)
        assert (tmp_path / "out" / "mine").read_text() == "mine"

    def test_nothing_is_left_of_a_training_that_could_not_begin(self, model, tmp_path):
        (model / "model.safetensors").write_bytes(b"no weights")
        with pytest.raises(InputError):
            train_adapter(model, sums(8), FAST, tmp_path / "out", role=ROLE)
        assert not (tmp_path / "out.partial").exists()

    def test_bad_examples_are_refused_before_the_weights_are_read(self, model, tmp_path):
        (model / "model.safetensors").unlink()
        for examples, message in (([], "no example"), ([dialogue("q")], "no assistant's turn")):
            with pytest.raises(InputError, match=message):
                train_adapter(model, examples, FAST, tmp_path / "out", role=ROLE)


def interrupted(model, out, monkeypatch):
    """Train until step 7, with a checkpoint of step 5."""
    from veche.roles.training import loop

    step = loop.Loop.advance

    def until_seven(self):
        if self.step == 7:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(loop.Loop, "advance", until_seven)
    with pytest.raises(KeyboardInterrupt):
        train_adapter(model, sums(8), FAST, out, role=ROLE)


def test_the_end_tokens_are_those_of_config_tokenizer_and_generation(model):
    from veche.surgery.loading import load_tokenizer

    assert end_ids_of(model, load_tokenizer(model)) == {2}


def test_dials_that_are_not_given_have_a_value_and_a_reason(model):
    from veche.checkpoint.config import read_config, spec_of

    spec = spec_of(read_config(model))
    done = chosen(TrainingSettings(), spec, num_examples=100)
    assert done.num_steps == 13
    assert set(done.reasons) >= {"num_steps", "learning_rate", "max_length", "save_every", "alpha"}
    assert all(done.reasons.values())
    given = chosen(TrainingSettings(steps=7, alpha=3.0), spec, num_examples=100)
    assert (given.num_steps, given.alpha) == (7, 3.0)
    assert not {"num_steps", "alpha"} & set(given.reasons)
    with pytest.raises(InputError, match="steps, above"):
        chosen(TrainingSettings(epochs=1e6), spec, num_examples=10**6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "alroa"}, "method 'alroa' is unknown"),
        ({"rank": 0}, "rank 0 is not at least 1"),
        ({"learning_rate": 0.0}, "learning_rate 0.0 is not above 0"),
        ({"learning_rate": float("nan")}, "learning_rate nan is not above 0"),
        ({"micro_batch": 9}, "more than the batch"),
        ({"method": "merged-experts", "optimizer": "loft"}, "loft trains attention adapters only"),
        ({"warmup_share": 1.0}, "warmup_share"),
        ({"seed": 2**70}, "seed 1180591620717411303424 is above"),
        ({"learning_rate": 1e38}, "learning_rate 1e.38 is above 1e.30"),
        ({"steps": 10**20}, "steps 100000000000000000000 is above"),
        ({"batch": 10**6}, "batch 1000000 is above"),
        ({"epochs": 1e300}, "epochs 1e.300 is above"),
    ],
)
def test_dials_that_make_no_sense_are_refused_by_name(settings, message):
    with pytest.raises(InputError, match=message):
        TrainingSettings(**settings)


def test_the_learning_rate_rises_and_falls():
    from veche.checkpoint.config import spec_of

    config = {"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2,
              "num_hidden_layers": 1, "vocab_size": 9, "intermediate_size": 8}  # fmt: skip
    done = chosen(
        TrainingSettings(steps=100, learning_rate=1.0, warmup_share=0.1),
        spec_of(config),
        num_examples=5,
    )
    rates = [done.learning_rate_at(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert max(rates) == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[99] == pytest.approx(0.1, abs=1e-3)

"""Real weights through the chain, judged by transformers itself and by arithmetic done here."""

import gc
import json

import pytest
import torch
from tests.cli.interrupting import interrupt
from transformers import AutoModelForCausalLM, AutoTokenizer

from veche.demo.chain import RECORD_NAME
from veche.engines.protocol import Branch, Capture, Sampling
from veche.engines.transformers import create
from veche.surgery.carving.calibration import heldout_text
from veche.surgery.names import PLAN_NAME
from veche.surgery.verification.verify import VerifySettings, verify

pytestmark = pytest.mark.real_model

TOKENS = 96


@pytest.fixture(autouse=True)
def _one_model_at_a_time():
    yield
    gc.collect()


def load(folder, **changes):
    """Load with transformers alone, and insist on every key."""
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, output_loading_info=True, **changes
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not report[kind], (kind, report[kind])
    return model.eval()


@torch.no_grad()
def logits(model, folder, num_tokens=TOKENS):
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ids = tokenizer(heldout_text()[:4000], return_tensors="pt")["input_ids"][:, :num_tokens]
    return model(ids, use_cache=False).logits[0]


def test_the_source_is_the_model_that_its_makers_describe(real_model):
    config = json.loads((real_model.source / "config.json").read_text())
    shape = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    assert [config[key] for key in shape] == [576, 1536, 30, 9]
    assert config["num_key_value_heads"] == 3
    assert "apache-2.0" in (real_model.source / "README.md").read_text()


def test_with_all_experts_the_carved_model_is_the_dense_one(real_model):
    equality = real_model.carving.equality
    assert equality.max_abs_logit_diff <= 2e-5 * equality.logit_scale
    assert 0 <= equality.kl < 1e-8


def test_its_routers_keep_most_of_every_layer(real_model):
    """With 12 of 16 experts chance keeps three quarters."""
    kept, hits = real_model.carving.kept_energy, real_model.carving.hit_rate
    assert len(kept) == 30
    assert min(kept) > 0.80
    assert sum(kept) / 30 > 0.88
    assert min(hits) > 0.75


def test_the_grown_model_has_the_plans_shape_and_no_key_too_many(real_model):
    model = load(real_model.grown, dtype=torch.bfloat16)
    config = model.config
    assert config.architectures == ["MixtralForCausalLM"]
    assert (config.num_attention_heads, config.num_key_value_heads) == (12, 6)
    assert (config.intermediate_size, config.head_dim) == (128, 64)
    assert (config.num_experts_per_tok, config.num_local_experts) == (12, 16)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == real_model.plan.after.parameters
    assert (real_model.grown / PLAN_NAME).is_file()


def test_under_the_sources_dials_it_is_the_same_function(real_model):
    """k = 16 for both. The file carries k'/k = 12/16 in every `down`; the source gets it here."""
    source = load(real_model.carved, dtype=torch.float32, num_experts_per_tok=16)
    for layer in source.model.layers:
        down = layer.mlp.experts.down_proj.data
        down.copy_((down * (12 / 16)).to(torch.bfloat16))
    expected = logits(source, real_model.carved)
    del source
    gc.collect()
    grown = load(real_model.grown, dtype=torch.float32, num_experts_per_tok=16)
    got = logits(grown, real_model.grown)
    assert float((got - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    assert bool((got.argmax(-1) == expected.argmax(-1)).all())


def generated(folder, dtype):
    """Return what transformers' own generate() answers, greedily."""
    model = load(folder, dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    made = model.generate(**prompt, max_new_tokens=10, do_sample=False)
    return tokenizer.decode(made[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)


def test_the_carved_model_generates_what_the_dense_one_does(real_model):
    answer = generated(real_model.source, torch.float32)
    assert "Paris" in answer
    assert generated(real_model.carved, torch.float32) == answer


def test_the_grown_model_generates(real_model):
    assert generated(real_model.grown, torch.bfloat16).strip()


def test_a_demo_that_is_stopped_leaves_no_half_of_a_model(tmp_path, monkeypatch, real_model):
    home, out = tmp_path / "home", tmp_path / "out"
    monkeypatch.setenv("VECHE_HOME", str(home))
    stopped = interrupt(["demo", "--out", out], lambda: any(home.glob("models/*.partial")))
    assert stopped.code == 130
    assert "1/9" in stopped.err
    assert "Traceback" not in stopped.err
    assert list(home.glob("models/*")) == []
    assert [file.name for file in out.iterdir()] == [RECORD_NAME]


def measured(real_model, form):
    return verify(
        real_model.carved,
        real_model.grown,
        real_model.plan,
        heldout_text(),
        settings=VerifySettings(num_windows=1, window_tokens=256, fp32_tokens=64, form=form),
    )


@pytest.fixture(scope="module")
def figures(real_model):
    """Return what the short form says."""
    return measured(real_model, "short")


def test_verification_layer_by_layer_says_the_same(real_model, figures):
    long = measured(real_model, "long")
    assert long.passed
    assert len(long.layers) == 30 + 3
    # The same arithmetic; lm_head is multiplied in parts, which may round bfloat16 otherwise.
    assert long.exact.kl == pytest.approx(figures.exact.kl, rel=1e-3)
    assert long.exact.floor_kl == pytest.approx(figures.exact.floor_kl, rel=1e-3)
    assert long.exact.logit_scale == pytest.approx(figures.exact.logit_scale, rel=1e-5)
    assert long.exact.max_abs_logit_diff <= 1e-5 * long.exact.logit_scale
    assert long.whole.nll_target == pytest.approx(figures.whole.nll_target, rel=1e-3)
    assert long.whole.kl == pytest.approx(figures.whole.kl, rel=1e-3)
    for layer in long.layers:
        assert layer.own_error < 1e-5
        assert layer.stream_error <= 3 * layer.stream_floor


def test_verification_finds_the_exact_part_in_the_noise_and_the_rest_bearable(figures):
    exact, whole = figures.exact, figures.whole
    assert exact.max_abs_logit_diff <= 1e-5 * exact.logit_scale
    # Two bfloat16 noises of one size, on few tokens: which is the larger is left to chance.
    assert 0 < exact.kl <= 1.5 * exact.floor_kl
    assert exact.passed
    dials = {dial.name: dial for dial in figures.dials}
    assert set(dials) == {"num_experts_per_tok", "rope_theta", "rope_scaling"}
    # Top-k is the only lossy change that is carried out, so the whole recipe is that dial.
    assert whole.kl == pytest.approx(dials["num_experts_per_tok"].kl, rel=0.15)
    assert whole.nll_target - whole.nll_source < 0.5
    assert whole.top1_agreement > 0.6
    assert dials["rope_theta"].kl > exact.kl


@pytest.mark.parametrize("num_branches", [1, 2, 3, 4, 5])
def test_greedy_branches_equal_transformers_without_branches(real_model, num_branches):
    """The reference is transformers' own model and attention, one pass, no cache."""
    engine = create(real_model.grown, dtype="float32")
    trunk = engine.open_trunk(system="Отвечай кратко.", user="What is the capital of France?")
    branches = [
        Branch(
            voice=str(index),
            instruction=" Please answer, слово за словом." * index,
            sampling=Sampling(max_new_tokens=6),
            capture=Capture(logits=True),
            keep=True,
        )
        for index in range(num_branches)
    ]
    plain = load(real_model.grown, dtype=torch.float32)
    for result in engine.decode(trunk, branches):
        ids, num_new = result.trunk.token_ids, len(result.token_ids)
        with torch.inference_mode():
            whole = plain(torch.tensor([ids]), use_cache=False).logits[0]
        expected = whole[-num_new - 1 : -1]
        assert list(result.token_ids) == expected.argmax(-1).tolist()
        difference = abs(torch.from_numpy(result.logits) - expected).max()
        assert difference <= 2e-5 * float(abs(expected).max())

"""The long form and the short one: the same figures, and only one layer in memory."""

import weakref
from dataclasses import replace

import pytest
import torch
from tiny_families import TEXT, grown, plan_to, tiny

from veche.checkpoint.config import read_config
from veche.checkpoint.edit import edited
from veche.core.errors import InputError, UnsupportedError
from veche.core.files import write_json
from veche.planning.plan import Effect, FieldChange
from veche.surgery.build import build
from veche.surgery.verification import form as forms
from veche.surgery.verification.figures import LAYER_TOLERANCE
from veche.surgery.verification.form import chosen_form, free_memory
from veche.surgery.verification.layerwise import near_ties
from veche.surgery.verification.verify import VerifySettings, verify
from veche.surgery.verification.weights import Weights

SETTINGS = VerifySettings(num_windows=2, window_tokens=64, fp32_tokens=64)
WIDER = {"moe_intermediate_size": 32, "num_attention_heads": 6, "num_key_value_heads": 6}
MULTIPLIED = {"num_experts": 16, "num_experts_per_tok": 6}
GROWTHS = {
    "mixtral": ("mixtral", WIDER),
    "qwen3_moe": ("qwen3_moe", WIDER),
    "qwen2_moe": ("qwen2_moe", {**WIDER, "shared_expert_intermediate_size": 48}),
    "olmoe": ("olmoe", {"moe_intermediate_size": 32}),
    "llama": ("llama", {"intermediate_size": 40, "num_hidden_layers": 5}),
    "qwen2": ("qwen2", {"num_attention_heads": 6, "num_key_value_heads": 6}),
    "qwen3": ("qwen3", {"intermediate_size": 32}),
    "untied": ("llama-tied-biases", {"tie_word_embeddings": False}),
    "deeper mixtral": ("mixtral", {"num_hidden_layers": 5}),
    "deeper, some dense": ("qwen3_moe-some-dense", {"intermediate_size": 56}),
    "more experts": ("qwen3_moe", {**MULTIPLIED, "num_hidden_layers": 4}),
    "more experts, unnormalised": ("olmoe", MULTIPLIED),
    "widths of no multiple of 8": ("mixtral", {"moe_intermediate_size": 27}),
}


def lossy(name, value):
    return FieldChange(
        name=name, base=None, target=value, effect=Effect.CONFIG_ONLY, reason="", is_lossy=True
    )


def both_forms(source, target, plan):
    return (
        verify(source, target, plan, TEXT, settings=replace(SETTINGS, form=form))
        for form in ("long", "short")
    )


def assert_equal(long, short):
    """Two forms that do the same arithmetic in another order of files."""
    assert (long.form, short.form) == ("long", "short")
    assert (long.num_tokens, long.window_tokens) == (short.num_tokens, short.window_tokens)
    assert long.exact.kl == pytest.approx(short.exact.kl, rel=1e-6, abs=1e-12)
    assert long.exact.floor_kl == pytest.approx(short.exact.floor_kl, rel=1e-6, abs=1e-12)
    scale = short.exact.logit_scale
    assert long.exact.logit_scale == pytest.approx(scale, rel=1e-6)
    assert abs(long.exact.max_abs_logit_diff - short.exact.max_abs_logit_diff) <= 1e-5 * scale
    assert long.exact.passed == short.exact.passed
    for one, other in ((long.whole, short.whole), *zip(long.dials, short.dials, strict=True)):
        assert one.kl == pytest.approx(other.kl, rel=1e-6, abs=1e-12)
        assert one.top1_agreement == pytest.approx(other.top1_agreement)
    assert long.whole.nll_source == pytest.approx(short.whole.nll_source, rel=1e-6)
    assert long.whole.nll_target == pytest.approx(short.whole.nll_target, rel=1e-6)
    assert [dial.name for dial in long.dials] == [dial.name for dial in short.dials]


@pytest.mark.parametrize(
    ("dtype", "mode"), [(torch.bfloat16, "split"), (torch.float32, "zero")], ids=["bf16", "fp32"]
)
@pytest.mark.parametrize(("case", "changes"), GROWTHS.values(), ids=GROWTHS)
def test_both_forms_agree_and_a_good_growth_passes(tmp_path, case, changes, dtype, mode):
    source, target, plan = grown(tmp_path, case, changes, dtype=dtype, mode=mode)
    assert plan.steps
    long, short = both_forms(source, target, plan)
    assert_equal(long, short)
    assert long.passed
    assert short.passed
    assert short.layers == ()
    assert long.exact.floor_kl > 0
    depth = plan.target_spec.num_hidden_layers
    names = [f"model.layers.{index}" for index in range(depth)]
    assert [layer.name for layer in long.layers] == [
        "model.embed_tokens", *names, "model.norm", "lm_head"
    ]  # fmt: skip
    assert max(layer.own_error for layer in long.layers) < LAYER_TOLERANCE / 4
    assert all(layer.own_floor < LAYER_TOLERANCE for layer in long.layers)
    num_new = sum(layer.is_new for layer in long.layers)
    assert num_new == depth - plan.base_spec.num_hidden_layers


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_an_upcycled_dense_model_is_compared_with_the_dense_one(tmp_path, family):
    source = tiny(tmp_path / "source", {"mixtral": "llama", "qwen3_moe": "qwen3"}[family])
    plan, config = plan_to(source, {}), read_config(source)
    experts = {
        "mixtral": {"num_local_experts": 4, "sliding_window": None},
        "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 24, "norm_topk_prob": True},
    }[family]
    architecture = {"mixtral": "MixtralForCausalLM", "qwen3_moe": "Qwen3MoeForCausalLM"}[family]
    moe = {**config, **experts, "model_type": family, "architectures": [architecture],
           "num_experts_per_tok": 2}  # fmt: skip
    plan = replace(plan, target_config=moe)
    assert [step.operation for step in plan.steps] == ["upcycle"]
    build(plan, source, tmp_path / "grown")
    long, short = both_forms(source, tmp_path / "grown", plan)
    assert_equal(long, short)
    assert long.passed


def test_every_lossy_dial_is_measured_alone_in_both_forms(tmp_path):
    source = tiny(tmp_path / "source", "qwen3_moe")
    dials = {"num_experts_per_tok": 2, "norm_topk_prob": False, "rope_theta": 1e5}
    plan = plan_to(source, {**WIDER, **dials})
    plan = replace(plan, fields=tuple(lossy(*item) for item in dials.items()))
    build(plan, source, tmp_path / "grown")
    long, short = both_forms(source, tmp_path / "grown", plan)
    assert_equal(long, short)
    assert [dial.name for dial in long.dials] == list(dials)
    assert all(dial.kl > 1e-3 for dial in long.dials)
    assert long.passed
    assert long.whole.kl > long.exact.kl


def test_a_dial_that_the_source_has_not_is_measured_on_the_grown_model(tmp_path):
    source = tiny(tmp_path / "source", "qwen3_moe")
    plan = plan_to(source, {"num_experts": 16, "num_experts_per_tok": 9})
    plan = replace(plan, fields=(lossy("num_experts_per_tok", 9),))
    build(plan, source, tmp_path / "grown")
    long, short = both_forms(source, tmp_path / "grown", plan)
    assert_equal(long, short)
    assert long.passed
    # Nothing else was changed: the dial alone is the whole recipe.
    assert long.dials[0].kl == pytest.approx(long.whole.kl, rel=0.1)
    assert long.dials[0].kl > 1e-3


@pytest.mark.parametrize("top_k", [4, 6], ids=["exact gain", "rounded gain"])
def test_the_gain_of_a_carved_model_is_the_same_in_both_forms(tmp_path, top_k):
    note = {"carved": {"equal_routing_weights": True}}
    changes = {**WIDER, "num_experts_per_tok": top_k}
    source, target, plan = grown(
        tmp_path, "mixtral", changes, veche=note, num_experts_per_tok=8
    )  # fmt: skip
    assert "expert_gain" in [step.operation for step in plan.steps]
    plan = replace(plan, fields=(lossy("num_experts_per_tok", top_k),))
    long, short = both_forms(source, target, plan)
    assert_equal(long, short)
    assert long.passed
    assert long.dials[0].kl == pytest.approx(long.whole.kl, rel=0.1)


def test_a_longer_text_is_cut_into_parts_of_the_vocabulary(tmp_path, monkeypatch):
    from veche.surgery.verification import predictions

    source, target, plan = grown(tmp_path, "mixtral", WIDER)
    monkeypatch.setattr(predictions, "_LOGITS", 100)
    monkeypatch.setattr(predictions, "_FEWEST_ROWS", 50)
    assert_equal(*both_forms(source, target, plan))


def test_no_two_layers_are_in_memory_at_once(tmp_path, monkeypatch):
    source, target, plan = grown(tmp_path, "mixtral", {"num_hidden_layers": 5})
    alive: list[weakref.ref[torch.Tensor]] = []
    reads = []
    read = Weights.layer

    def watched(self, layer, dtype):
        assert [ref() for ref in alive if ref() is not None] == []
        weights = read(self, layer, dtype)
        alive[:] = [weakref.ref(value) for value in weights.values()]
        reads.append((layer, dtype))
        return weights

    monkeypatch.setattr(Weights, "layer", watched)
    verify(source, target, plan, TEXT, settings=replace(SETTINGS, form="long"))
    assert len(reads) == 2 * (3 + 5)


class Stopping:
    """Progress whose watcher interrupts the work at a step."""

    def __init__(self, step):
        self.left = step

    def say(self, text):
        """Hear nothing."""

    def task(self, label, total=None):
        from contextlib import nullcontext

        self.total = total
        return nullcontext(self._advance)

    def _advance(self, amount):
        self.left -= amount
        if self.left < 0:
            raise KeyboardInterrupt


def test_the_walk_tells_each_layer_and_can_be_stopped(tmp_path):
    source, target, plan = grown(tmp_path, "mixtral", {"num_hidden_layers": 5})
    settings = replace(SETTINGS, form="long")
    progress = Stopping(100)
    before = {file: file.read_bytes() for file in (*source.iterdir(), *target.iterdir())}
    verify(source, target, plan, TEXT, settings=settings, progress=progress)
    assert 100 - progress.left == progress.total == 3 + 5 + 1
    with pytest.raises(KeyboardInterrupt):
        verify(source, target, plan, TEXT, settings=settings, progress=Stopping(4))
    assert {file: file.read_bytes() for file in (*source.iterdir(), *target.iterdir())} == before


# --- the choice -----------------------------------------------------------------------------------


def test_the_short_form_is_chosen_where_the_larger_model_fits_easily(tmp_path):
    source = tiny(tmp_path / "source", "mixtral")
    target = tiny(tmp_path / "target", "mixtral", num_hidden_layers=4)
    size = 4 * sum(value.numel() for value in _parameters(target))
    assert chosen_form(source, target, free_bytes=int(size / 0.4) + 1)[0] == "short"
    for order in ((source, target), (target, source)):
        form, reason = chosen_form(*order, free_bytes=int(size / 0.4) - 1)
        assert form == "long"
        assert "more than 40%" in reason
    assert chosen_form(source, target, free_bytes=None)[0] == "long"


def _parameters(folder):
    import safetensors.torch

    return safetensors.torch.load_file(folder / "model.safetensors").values()


def test_free_memory_is_part_of_what_the_machine_has():
    free = free_memory()
    assert free is not None
    assert 0 < free < 1 << 50


def test_the_choice_is_said_with_its_reason(tmp_path, monkeypatch):
    source, target, plan = grown(tmp_path, "mixtral", WIDER)
    said = []

    class Listening(Stopping):
        def say(self, text):
            said.append(text)

    for share, form in ((0.4, "short"), (0.0, "long")):
        monkeypatch.setattr(forms, "COMFORTABLE", share)
        figures = verify(source, target, plan, TEXT, settings=SETTINGS, progress=Listening(1000))
        assert figures.form == form
        assert said.pop().startswith(f"{form} form: the larger model in float32 takes")
    assert said == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(tmp_path):
    source, target, plan = grown(tmp_path, "mixtral", WIDER)
    with pytest.raises(UnsupportedError, match="no CUDA device"):
        verify(source, target, plan, TEXT, settings=replace(SETTINGS, device="cuda"))


@pytest.mark.parametrize("form", ["long", "short"])
def test_too_short_a_text_is_refused(tmp_path, form):
    source, target, plan = grown(tmp_path, "mixtral", WIDER)
    with pytest.raises(InputError, match="too few"):
        verify(source, target, plan, "word", settings=replace(SETTINGS, form=form))


# --- near ties ------------------------------------------------------------------------------------


def test_near_ties_are_those_at_the_border_of_the_chosen():
    logits = torch.tensor(
        [
            [4.0, 3.0, 2.0, 1.0],
            [4.0, 3.0, 3.0 - 2e-5, 1.0],
            [4.0, 4.0, 2.0, 1.0],
            [4.0, 3.0, 2.0, 2.0],
            [-4.0, -5.0, -5.0, -6.0],
        ]
    )
    assert near_ties(logits, 2).tolist() == [False, True, False, False, True]
    assert near_ties(logits, 4).tolist() == [False] * 5
    assert near_ties(logits * 1e-6, 2).tolist() == [False, True, False, False, True]


def test_config_edits_that_no_dial_explains_are_an_error_of_the_operation(tmp_path):
    """Every tensor is what the plan makes of the source; the layers still differ."""
    source, target, plan = grown(tmp_path, "mixtral", WIDER)
    write_json(target / "config.json", {**edited(read_config(target), {}), "sliding_window": 4})
    figures = verify(source, target, plan, TEXT, settings=replace(SETTINGS, form="long"))
    assert not figures.passed
    assert [layer.name for layer in figures.failed_layers] == [
        f"model.layers.{n}" for n in (0, 1, 2)
    ]
    assert figures.differences == ()

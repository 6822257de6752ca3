"""What a branch may ask for besides text: captures, JSON, adapters, other sampling, an end."""

import json
from threading import Event, Thread

import jsonschema
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from veche.core.errors import CheckpointError, InputError, UnsupportedError
from veche.engines.embedded.observations import entropy_nats
from veche.engines.embedded.sampling import at_least, likeliest
from veche.engines.protocol import Branch, Capture, Sampling
from veche.engines.transformers import create

SYSTEM = "You hear every voice."
SCHEMA = {
    "type": "object",
    "properties": {
        "intent": {"enum": ["вопрос", "ask"]},
        "confidence": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["intent", "confidence"],
    "additionalProperties": False,
}


def opened(engine):
    return engine.open_trunk(system=SYSTEM, user="Вопрос: the answer is four?")


def a_branch(voice="v", instruction=" Why", max_new_tokens=8, sampling=None, **given):
    asked = Sampling(max_new_tokens=max_new_tokens, **(sampling or {}))
    return Branch(voice=voice, instruction=instruction, sampling=asked, **given)


def test_captures_of_decoded_tokens_equal_a_pass_over_them(engine):
    capture = Capture(logits=True, logprobs=2, hidden_layers=(1, 3), heads=True)
    branches = [a_branch("a", capture=capture, keep=True), a_branch("b", " Кратко", 3)]
    result, plain = engine.decode(opened(engine), branches)
    assert plain.logits is plain.logprobs is plain.hidden_states is plain.heads is None
    num_new = len(result.token_ids)
    with torch.inference_mode():
        output = engine._model(
            torch.tensor([result.trunk.token_ids]), use_cache=False, output_hidden_states=True
        )
    logits = output.logits[0, -num_new - 1 : -1]
    assert np.allclose(result.logits, logits.numpy(), rtol=0, atol=1e-3)
    logprobs = torch.log_softmax(logits, -1)
    assert np.allclose(result.logprobs.top, logprobs.topk(2).values.numpy(), atol=1e-3)
    assert np.allclose(result.logprobs.chosen, result.logprobs.top[:, 0])
    for column, layer in enumerate(capture.hidden_layers):
        states = output.hidden_states[layer][0, -num_new - 1 : -1].numpy()
        assert np.allclose(result.hidden_states[:, column], states, atol=1e-3)
    assert result.heads.entropy.shape == (num_new - 1, 3, 4)
    assert np.allclose(np.diagonal(result.heads.similarity, axis1=1, axis2=2), 1, atol=1e-5)


def test_captures_change_no_token(engine):
    everything = Capture(
        logits=True, logprobs=1, hidden_layers=(0,), heads=True, router_logits=False
    )
    nothing = Capture(routing=False)
    first, second = engine.decode(
        opened(engine), [a_branch("a", capture=everything), a_branch("b", capture=nothing)]
    )
    assert first.token_ids == second.token_ids
    assert second.routing is None


def test_a_layer_that_the_model_does_not_have_is_refused(engine):
    with pytest.raises(InputError, match=r"layer 4 .* 0 \(the embedding\) to 3"):
        engine.decode(opened(engine), [a_branch(capture=Capture(hidden_layers=(4,)))])


# --- JSON -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.5, "seed": 3}])
def test_an_answer_is_held_to_its_schema_and_its_neighbour_is_not(engine, sampling):
    results = engine.decode(
        opened(engine),
        [
            a_branch("json", max_new_tokens=120, sampling=sampling, json_schema=SCHEMA),
            a_branch("free"),
        ],
    )
    answer = json.loads(results[0].text)
    jsonschema.validate(answer, SCHEMA)
    assert results[0].finish_reason == "stop"
    free = engine.decode(opened(engine), [a_branch("free")])[0]
    assert results[1].token_ids == free.token_ids


def test_a_schema_that_can_not_be_held_to_says_why(moe_engine):
    for schema in ({"type": "nonsense"}, {"$ref": "https://example.com/x"}):
        with pytest.raises(InputError, match="JSON schema can't be used"):
            moe_engine.decode(opened(moe_engine), [a_branch(json_schema=schema)])


# --- adapters -------------------------------------------------------------------------------------


def an_adapter(path, model_folder, *, seed, targets=("q_proj", "v_proj"), **config):
    """Write a random LoRA with PEFT itself, and return the model that has it merged."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    asked = LoraConfig(
        r=4, lora_alpha=8, target_modules=list(targets), task_type="CAUSAL_LM", **config
    )
    adapted = get_peft_model(model, asked)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            weight.data = 0.2 * torch.randn(weight.shape, generator=generator)
    adapted.save_pretrained(path)
    return adapted


def test_two_adapters_in_one_batch_act_behind_the_trunk_only(moe_folder, tmp_path):
    """The reference: PEFT's own mixed forward, base rows up to the invocation by the base model."""
    engine = create(moe_folder, dtype="float32")
    trunk = opened(engine)
    plain = engine.decode(trunk, [a_branch("p", capture=Capture(logits=True))])[0]
    before = [layer.keys.clone() for layer in trunk.rows.cache.layers]
    for seed, name in enumerate(("one", "two")):
        an_adapter(tmp_path / name, moe_folder, seed=seed)
        assert len(engine.load_adapter(name, tmp_path / name)) == 64
    branches = [
        a_branch(voice, adapter=name, keep=True, capture=Capture(logits=True))
        for voice, name in (("base", None), ("one", "one"), ("two", "two"), ("again", "one"))
    ]
    results = engine.decode(trunk, branches)
    assert np.allclose(results[0].logits, plain.logits, rtol=0, atol=1e-4)
    assert np.allclose(results[1].logits, results[3].logits, rtol=0, atol=1e-4)
    assert not np.allclose(results[1].logits, results[2].logits, rtol=0, atol=1e-2)
    for result, name in zip(results[1:3], ("one", "two"), strict=True):
        expected = behind_a_base_trunk(moe_folder, tmp_path / name, trunk, result)
        assert np.allclose(result.logits, expected, rtol=0, atol=1e-3)
        assert result.trunk.lineage
    for layer, keys in zip(trunk.rows.cache.layers, before, strict=True):
        assert torch.equal(layer.keys[:, :, : layer.length], keys[:, :, : layer.length])
    engine.unload_adapter("one")
    with pytest.raises(InputError, match="no adapter 'one' is loaded"):
        engine.decode(trunk, [a_branch(adapter="one")])
    again = engine.decode(trunk, [a_branch("p", capture=Capture(logits=True))])[0]
    assert np.allclose(again.logits, plain.logits, rtol=0, atol=1e-4)


def behind_a_base_trunk(model_folder, adapter, trunk, result):
    """Let PEFT read the trunk without, and the branch with, the adapter; logits [T, V]."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, adapter)
    ids, num_trunk = torch.tensor([result.trunk.token_ids]), trunk.num_tokens
    with torch.inference_mode():
        with model.disable_adapter():
            cache = model(ids[:, :num_trunk], use_cache=True).past_key_values
        logits = model(ids[:, num_trunk:], past_key_values=cache).logits[0]
    return logits[-len(result.token_ids) - 1 : -1].numpy()


def test_an_adapter_with_invocation_tokens_acts_from_them_on(moe_folder, tmp_path):
    engine = create(moe_folder, dtype="float32")
    invocation = engine._format.text_ids(" слово")
    an_adapter(tmp_path / "a", moe_folder, seed=0, alora_invocation_tokens=invocation)
    an_adapter(tmp_path / "plain", moe_folder, seed=0)
    for name in ("a", "plain"):
        engine.load_adapter(name, tmp_path / name)
    capture = Capture(logits=True)

    def said(instruction, adapter, trunk):
        branch = a_branch(instruction=instruction, adapter=adapter, capture=capture)
        return engine.decode(trunk, [branch])[0].logits

    trunk = opened(engine)
    longer = opened(engine)
    engine.extend_trunk(longer, " Сначала")
    # What stands before the invocation is read as the trunk is: by the base model.
    assert np.allclose(
        said(" Сначала слово", "a", trunk), said(" слово", "plain", longer), rtol=0, atol=1e-4
    )
    with pytest.raises(InputError, match="waits for its invocation tokens"):
        said(" Why", "a", trunk)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        ("pickle", CheckpointError, r"has no adapter_model\.safetensors"),
        ("shape", CheckpointError, "does not fit the model"),
        ("experts", UnsupportedError, "changes .*gate"),
        ("missing", CheckpointError, "adapter_config"),
    ],
)
def test_an_adapter_that_is_unfit_is_refused_and_leaves_nothing(
    moe_folder, tmp_path, damage, error, message
):
    engine = create(moe_folder, dtype="float32")
    folder = tmp_path / "adapter"
    targets = ["q_proj", "gate"] if damage == "experts" else ["q_proj"]
    if damage != "missing":
        an_adapter(folder, moe_folder, seed=0, targets=targets)
    weights = folder / "adapter_model.safetensors"
    if damage == "pickle":
        weights.rename(folder / "adapter_model.bin")
    if damage == "shape":
        stored = load_file(weights)
        save_file({name: torch.ones(len(each), 5) for name, each in stored.items()}, weights)
    expected = engine.decode(opened(engine), [a_branch()])[0]
    with pytest.raises(error, match=message):
        engine.load_adapter("a", folder)
    assert engine.decode(opened(engine), [a_branch()])[0].token_ids == expected.token_ids
    with pytest.raises(InputError, match="no adapter 'a'"):
        engine.unload_adapter("a")


# --- sampling -------------------------------------------------------------------------------------


@given(
    st.lists(st.floats(-8, 8), min_size=2, max_size=12, unique=True),
    st.integers(1, 5),
    st.floats(0.01, 1),
)
def test_top_k_and_min_p_equal_their_definitions(values, top_k, min_p):
    logits = torch.tensor(values, dtype=torch.float64)
    kept = likeliest(logits, top_k).isfinite()
    assert set(logits[kept].tolist()) == set(sorted(logits.tolist())[-top_k:])
    probs = torch.softmax(logits, -1)
    expected = [p if p >= min_p * max(probs.tolist()) else 0.0 for p in probs.tolist()]
    assert at_least(probs, min_p).tolist() == expected


def test_entropy_equals_its_definition_and_bears_impossible_tokens():
    logits = torch.randn(5, 40, generator=torch.Generator().manual_seed(0)) * 9
    logits[1, 3:] = -torch.inf
    logits[2, 1:] = -torch.inf
    probs = torch.softmax(logits.double(), -1)
    expected = torch.special.entr(probs).sum(-1)
    assert torch.allclose(entropy_nats(logits).double(), expected, atol=1e-5)
    assert entropy_nats(torch.tensor([[0.0, torch.nan]])).isnan().all()


def test_one_token_to_draw_from_is_greedy(engine):
    greedy = engine.decode(opened(engine), [a_branch()])[0]
    for narrow in ({"top_k": 1}, {"min_p": 1.0}, {"top_p": 1e-6}):
        hot = a_branch(sampling={"temperature": 2.0, "seed": 1, **narrow})
        assert engine.decode(opened(engine), [hot])[0].token_ids == greedy.token_ids


# --- an end ---------------------------------------------------------------------------------------


def test_cancelling_in_the_middle_of_a_token_keeps_what_was_said(engine):
    trunk = opened(engine)
    whole = engine.decode(trunk, [a_branch("a"), a_branch("b", " Кратко")])
    cancel, passes = Event(), []

    def in_the_second_layer(module, inputs):
        passes.append(None)
        if len(passes) == 4:
            cancel.set()

    handle = engine._model.model.layers[1].register_forward_pre_hook(in_the_second_layer)
    try:
        results = engine.decode(
            trunk, [a_branch("a", keep=True), a_branch("b", " Кратко")], cancel=cancel
        )
    finally:
        handle.remove()
    for cut, full in zip(results, whole, strict=True):
        assert cut.finish_reason == "cancelled"
        assert cut.token_ids == full.token_ids[:3]
        assert full.text.startswith(cut.text)
        assert cut.trunk is None
    assert len(passes) == 4
    again = engine.decode(trunk, [a_branch("a"), a_branch("b", " Кратко")])
    assert [r.token_ids for r in again] == [r.token_ids for r in whole]


def test_what_is_cancelled_before_it_begins_says_nothing(engine):
    cancel = Event()
    cancel.set()
    result = engine.decode(opened(engine), [a_branch()], cancel=cancel)[0]
    assert (result.text, result.token_ids, result.finish_reason) == ("", (), "cancelled")


def test_another_thread_can_cancel(moe_engine):
    cancel, begun = Event(), Event()
    results = []

    def decode():
        branch = a_branch(instruction=" Why", max_new_tokens=400)
        results.extend(
            moe_engine.decode(
                opened(moe_engine), [branch], lambda voice, piece: begun.set(), cancel=cancel
            )
        )

    thread = Thread(target=decode)
    thread.start()
    assert begun.wait(60)
    cancel.set()
    thread.join(60)
    assert results[0].finish_reason == "cancelled"
    assert 0 < len(results[0].token_ids) < 400

"""Requests that no model can follow, and engines that several ask at once."""

import json
import math
from threading import Thread

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from veche.core.errors import CheckpointError, EngineError, InputError, UnsupportedError
from veche.engines.protocol import Branch, Capture, Sampling
from veche.engines.scripted import create as scripted
from veche.engines.transformers import create

NAN = math.nan


def a_branch(voice="голос", **asked):
    return Branch(voice=voice, instruction="?", **{"sampling": Sampling(max_new_tokens=4), **asked})


def opened(engine):
    return engine.open_trunk(system="", user="Спроси совет")


@pytest.mark.parametrize(
    "asked",
    [
        {"max_new_tokens": 0}, {"max_new_tokens": -1}, {"max_new_tokens": 2.5},
        {"temperature": -1}, {"temperature": NAN}, {"temperature": math.inf},
        {"temperature": 1e-300}, {"temperature": 1e300},
        {"top_k": -1}, {"top_k": 1.5}, {"top_p": 0}, {"top_p": 2}, {"top_p": NAN},
        {"min_p": -1}, {"min_p": 2}, {"min_p": NAN}, {"repetition_penalty": 0},
        {"repetition_penalty": NAN}, {"stop": ("",)}, {"stop": "abc"}, {"stop": (3,)},
    ],
)  # fmt: skip
def test_a_number_out_of_its_range_is_refused_by_its_name(asked):
    with pytest.raises(InputError, match=next(iter(asked))):
        Sampling(**asked)


@pytest.mark.parametrize("asked", [{"logprobs": -1}, {"hidden_layers": (-1,)}])
def test_what_no_model_can_report_is_refused(asked):
    with pytest.raises(InputError, match=next(iter(asked))):
        Capture(**asked)


@pytest.mark.parametrize("seed", [-1, 2**64, 2**70])
def test_any_seed_draws(moe_engine, seed):
    sampling = Sampling(max_new_tokens=4, temperature=1, seed=seed)
    assert moe_engine.decode(opened(moe_engine), [a_branch(sampling=sampling)])[0].token_ids


def test_two_branches_of_one_voice_are_refused_by_any_engine(moe_engine, tmp_path):
    (tmp_path / "script.json").write_text('{"голос": "Да."}')
    spoken = scripted(tmp_path / "script.json")
    for engine in (moe_engine, spoken):
        with pytest.raises(InputError, match=r"2 branches .*'голос'"):
            engine.decode(opened(engine), [a_branch(), a_branch()])


def test_half_of_a_surrogate_pair_is_refused(moe_engine):
    with pytest.raises(InputError, match="surrogate pair at letter 3"):
        moe_engine.open_trunk(system="", user="да \ud800")


def test_a_schema_nested_without_end_is_refused(moe_engine):
    schema = inner = {}
    for _ in range(5000):
        inner["items"] = {}
        inner = inner["items"]
    with pytest.raises(InputError, match="JSON schema can't be used"):
        moe_engine.decode(opened(moe_engine), [a_branch(json_schema=schema)])


@pytest.mark.parametrize("memory_bytes", [0, -5])
def test_no_memory_is_refused_before_weights_are_read(tmp_path, memory_bytes):
    with pytest.raises(InputError, match="memory_bytes"):
        create(tmp_path, memory_bytes=memory_bytes)


@pytest.mark.parametrize("device", ["meta", "privateuseone", "nowhere", "mps", ""])
def test_a_device_that_does_not_compute_is_refused(moe_folder, device):
    with pytest.raises(InputError, match="can't be used"):
        create(moe_folder, device=device)


# --- several at once ------------------------------------------------------------------------------


def test_threads_that_ask_at_once_get_what_each_would_get_alone(moe_engine):
    trunk = opened(moe_engine)
    sampling = Sampling(max_new_tokens=12)
    branches = {k: [a_branch(num_experts_per_tok=k, sampling=sampling)] for k in (1, 2, 4, 8)}
    alone = {k: moe_engine.decode(trunk, asked)[0] for k, asked in branches.items()}
    found = {}

    def ask(k):
        found[k] = moe_engine.decode(trunk, branches[k])[0]

    threads = [Thread(target=ask, args=(k,)) for k in branches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, result in alone.items():
        assert found[k].token_ids == result.token_ids
        assert np.array_equal(found[k].routing.expert_ids, result.routing.expert_ids)


def test_asking_from_within_an_answer_is_an_error_that_leaves_the_engine_as_it_was(moe_engine):
    trunk = opened(moe_engine)
    expected = moe_engine.decode(trunk, [a_branch()])[0]
    with pytest.raises(EngineError, match="while it was answering"):
        moe_engine.decode(trunk, [a_branch()], lambda *_: moe_engine.extend_trunk(trunk, "ещё"))
    assert moe_engine.decode(trunk, [a_branch()])[0].token_ids == expected.token_ids


# --- snapshots ------------------------------------------------------------------------------------


def rewritten(source, target, tensors, metadata):
    with safe_open(source, "pt") as file:
        told = file.metadata()
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    changed = {**kept, **{name: change(kept[name]) for name, change in tensors.items()}}
    save_file(changed, target, metadata={**told, **metadata})


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        ({}, {"pending": "-1"}),
        ({}, {"pending": str(10**30)}),
        ({}, {"pending": "много"}),
        ({}, {"lineage": "5"}),
        ({}, {"lineage": "[[1]]"}),
        ({}, {"lineage": "[" * 100_000}),
        ({}, {"turn": "nobody's"}),
        ({"token_ids": lambda ids: ids.float()}, {}),
        ({"token_ids": lambda ids: ids[:, None].clone()}, {}),
        ({"token_ids": lambda ids: ids + 10**9}, {}),
        ({"token_ids": lambda ids: -1 - ids}, {}),
        ({"keys.1": lambda keys: keys.half()}, {}),
        ({"keys.1": lambda keys: keys[:, :1].clone()}, {}),
        ({"values.0": lambda values: values[..., :4].clone()}, {}),
        ({"values.0": lambda values: torch.cat([values, values])}, {}),
    ],
)
def test_a_snapshot_that_contradicts_the_model_or_itself_is_refused(
    moe_engine, tmp_path, tensors, metadata
):
    path = tmp_path / "trunk.safetensors"
    moe_engine.save_trunk(opened(moe_engine), path)
    rewritten(path, tmp_path / "bad.safetensors", tensors, metadata)
    with pytest.raises(CheckpointError):
        moe_engine.load_trunk(tmp_path / "bad.safetensors")


def test_a_text_of_one_token_comes_back_from_its_snapshot(moe_engine, tmp_path):
    trunk = moe_engine._opened([65], "text")
    moe_engine.save_trunk(trunk, tmp_path / "one.safetensors")
    again = moe_engine.load_trunk(tmp_path / "one.safetensors")
    first, second = (moe_engine.decode(each, [a_branch()])[0] for each in (trunk, again))
    assert first.token_ids == second.token_ids


# --- adapters -------------------------------------------------------------------------------------


@pytest.fixture
def an_adapter(moe_folder, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(moe_folder, dtype=torch.float32)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(base, config).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"r": 10**9}, CheckpointError),
        ({"r": "4"}, CheckpointError),
        ({"rank_pattern": 5}, CheckpointError),
        ({"rank_pattern": {"(((": 4}}, CheckpointError),
        ({"target_modules": [["q_proj"]]}, CheckpointError),
        ({"target_modules": ".*"}, UnsupportedError),
        ({"alora_invocation_tokens": "abc"}, CheckpointError),
        ({"bias": "all"}, UnsupportedError),
        ({"modules_to_save": ["lm_head"]}, UnsupportedError),
        ({"layer_replication": [[0, 2], [1, 3]]}, UnsupportedError),
        ({"init_lora_weights": "pissa"}, UnsupportedError),
        ({"init_lora_weights": "olora"}, UnsupportedError),
    ],
)
def test_an_adapters_config_that_would_change_the_base_or_makes_no_sense_is_refused(
    moe_engine, an_adapter, config, error
):
    expected = moe_engine.decode(opened(moe_engine), [a_branch(capture=Capture(logits=True))])[0]
    file = an_adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    with pytest.raises(error):
        moe_engine.load_adapter("роль", an_adapter)
    after = moe_engine.decode(opened(moe_engine), [a_branch(capture=Capture(logits=True))])[0]
    assert np.array_equal(after.logits, expected.logits)


def test_an_adapter_of_which_a_weight_is_missing_is_refused_and_the_old_one_stays(
    moe_engine, an_adapter
):
    said = {}
    for name in ("роль", "a.b", "", "__base__", "train"):
        moe_engine.load_adapter(name, an_adapter)
        said[name] = moe_engine.decode(opened(moe_engine), [a_branch(adapter=name)])[0].token_ids
    assert len(set(said.values())) == 1
    weights = load_file(an_adapter / "adapter_model.safetensors")
    del weights[next(iter(weights))]
    save_file(weights, an_adapter / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="weights, where the model needs"):
        moe_engine.load_adapter("роль", an_adapter)
    again = moe_engine.decode(opened(moe_engine), [a_branch(adapter="роль")])[0].token_ids
    assert again == said["роль"]
    for name in said:
        moe_engine.unload_adapter(name)

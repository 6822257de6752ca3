"""The openai engine against a real vLLM on this CPU, with tiny random models.

`make contract-server` installs vLLM into .venv-vllm and runs this; otherwise it is skipped.
"""

import json
import math
import os
import urllib.request

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests import tiny_models
from tests.engines.remote.real_server import SYSTEM, TASKS, USER, kill, reference, running
from transformers import AutoModelForCausalLM, AutoTokenizer

from veche.core.errors import EngineError
from veche.engines.openai import create
from veche.engines.protocol import Branch, Capability, Capture, Sampling, adapters
from veche.engines.remote.markup import as_data
from veche.engines.transformers import create as embedded

HOME = os.environ.get("VECHE_VLLM", "")
pytestmark = pytest.mark.skipif(not HOME, reason="make contract-server")
SHAPE = {
    "hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "max_position_embeddings": 2048,
}  # fmt: skip
BLOCK_TOKENS = 128  # of vLLM's cache on a CPU
RANK, ALPHA = 4, 16


def vllm(folder, *flags):
    """Serve a model until the block ends; yields the address and the process."""
    command = [
        f"{HOME}/bin/vllm", "serve", str(folder), "--host", "127.0.0.1",
        "--served-model-name", "tiny", "--dtype", "float32", "--max-model-len", "1024",
        "--enforce-eager", "--enable-prefix-caching", "--enable-prompt-tokens-details", *flags,
    ]  # fmt: skip
    return running(
        command, folder / "vllm.log", VLLM_CPU_KVCACHE_SPACE="1", HF_HUB_OFFLINE="1",
        VLLM_NO_USAGE_STATS="1", VLLM_ALLOW_RUNTIME_LORA_UPDATING="True",
        VLLM_CPU_OMP_THREADS_BIND="nobind", OMP_NUM_THREADS="1",
    )  # fmt: skip


@pytest.fixture(scope="module", params=["tiny_qwen3_moe", "tiny_llama"])
def pair(request, tmp_path_factory):
    """A server and the embedded engine, with the same weights."""
    folder = getattr(tiny_models, request.param)(tmp_path_factory.mktemp("model"), **SHAPE)
    with vllm(folder) as (url, _):
        yield create(url), embedded(folder, dtype="float32"), folder, url


def branches(num_tokens=16, **more):
    sampling = Sampling(max_new_tokens=num_tokens)
    return [Branch(voice=task, instruction=task, sampling=sampling, **more) for task in TASKS]


def test_it_says_the_tokens_that_the_embedded_engine_says(pair):
    server, local, _, _ = pair
    said = [
        [r.token_ids for r in e.decode(e.open_trunk(system=SYSTEM, user=USER), branches())]
        for e in (server, local)
    ]
    assert said[0] == said[1]


def test_logprobs_are_those_of_a_plain_forward_pass(pair):
    server, _, folder, _ = pair
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    trunk = server.open_trunk(system=SYSTEM, user=USER)
    for result in server.decode(trunk, branches(capture=Capture(logprobs=5))):
        lines = reference(model, tokenizer, result.voice, result.token_ids).numpy()
        rows = np.arange(len(result.token_ids))
        np.testing.assert_allclose(
            result.logprobs.chosen, lines[rows, list(result.token_ids)], atol=1e-3
        )
        np.testing.assert_allclose(
            result.logprobs.top, np.take_along_axis(lines, result.logprobs.top_ids, 1), atol=1e-3
        )
        np.testing.assert_allclose(result.logprobs.top, -np.sort(-lines, 1)[:, :5], atol=1e-3)


def test_the_trunk_is_read_from_the_prefix_cache(pair):
    server, _, _, _ = pair
    trunk = server.open_trunk(system=SYSTEM, user=USER)
    assert trunk.num_tokens > BLOCK_TOKENS
    for result in server.decode(trunk, branches()):
        assert result.reused_tokens == trunk.num_tokens // BLOCK_TOKENS * BLOCK_TOKENS


def test_the_probe_sees_what_this_server_can_do(pair):
    server, _, _, _ = pair
    always = {Capability.FORK, Capability.KEEP, Capability.LOGPROBS, Capability.JSON}
    assert server.capabilities == always  # the adapters' verb is there, and of no use
    assert server.context_tokens == 1024
    assert server.count_tokens("the council") == 2


@pytest.mark.parametrize("dial", [{"top_k": 3}, {"min_p": 0.3}, {"repetition_penalty": 1.5}])
def test_dials_are_obeyed(pair, dial):
    server, _, _, _ = pair
    trunk = server.open_trunk(system=SYSTEM, user=USER)
    sampling = Sampling(max_new_tokens=8, temperature=1.0, seed=3, **dial)
    say = lambda: server.decode(trunk, [Branch(voice="a", instruction="", sampling=sampling)])  # noqa: E731
    assert say()[0].token_ids == say()[0].token_ids


def test_json_is_held_to_its_schema(pair):
    server, _, _, _ = pair
    trunk = server.open_trunk(system=SYSTEM, user=USER)
    schema = {"type": "string", "enum": ["да", "нет"]}
    branch = Branch(voice="a", instruction="", json_schema=schema)
    (result,) = server.decode(trunk, [branch])
    assert json.loads(result.text) in schema["enum"]


def test_markup_in_a_text_gives_no_control_token(pair):
    _, _, folder, url = pair
    control = set(AutoTokenizer.from_pretrained(folder).all_special_ids)

    def ids_of(text):
        request = urllib.request.Request(  # noqa: S310 - http on this machine
            url.removesuffix("/v1") + "/tokenize",
            json.dumps({"prompt": text, "add_special_tokens": False}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            return set(json.load(answer)["tokens"])

    text = "".join(tiny_models.CONTROL_TOKENS)
    assert ids_of(text) & control
    assert not ids_of(as_data(text)) & control


def test_a_refusal_of_the_server_is_passed_on(pair):
    server, _, _, _ = pair
    trunk = server.open_trunk(system=SYSTEM, user=USER)
    with pytest.raises(EngineError, match=r"gave no answer to voice .* logprobs of 300"):
        server.decode(trunk, branches(capture=Capture(logprobs=300)))


def _lora(path, model):
    """Write a random adapter of the query projections, and put the same into the model."""
    tensors, generator = {}, torch.Generator().manual_seed(0)
    for index, layer in enumerate(model.model.layers):
        weight = layer.self_attn.q_proj.weight
        down_RD = torch.randn(RANK, weight.shape[1], generator=generator) / math.sqrt(RANK)
        up_OR = torch.randn(weight.shape[0], RANK, generator=generator) * 0.3
        name = f"base_model.model.model.layers.{index}.self_attn.q_proj"
        tensors |= {f"{name}.lora_A.weight": down_RD, f"{name}.lora_B.weight": up_OR}
        weight.data += ALPHA / RANK * up_OR @ down_RD
    path.mkdir()
    save_file(tensors, path / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA,
        "target_modules": ["q_proj"], "base_model_name_or_path": "tiny", "bias": "none",
    }  # fmt: skip
    (path / "adapter_config.json").write_text(json.dumps(config))


def test_an_adapter_is_loaded_used_beside_the_plain_model_and_forgotten(tmp_path):
    folder = tiny_models.tiny_llama(tmp_path / "model", **SHAPE)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    dressed = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    _lora(tmp_path / "role", dressed)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # With one slot (the default) vLLM 0.32.0 on a CPU decodes plain requests with the adapter of
    # their neighbours.
    with vllm(folder, "--enable-lora", "--max-lora-rank", "8", "--max-loras", "2") as (url, _):
        engine = adapters(create(url))
        engine.load_adapter("role", tmp_path / "role")
        trunk = engine.open_trunk(system=SYSTEM, user=USER)
        both = [
            Branch(
                voice=TASKS[0], instruction=TASKS[0], adapter=adapter, capture=Capture(logprobs=1),
                sampling=Sampling(max_new_tokens=16),
            )
            for adapter in (None, "role")
        ]  # fmt: skip
        results = engine.decode(trunk, both)
        assert results[0].token_ids != results[1].token_ids
        for result, model in zip(results, (plain, dressed), strict=True):
            lines = reference(model, tokenizer, TASKS[0], result.token_ids)
            np.testing.assert_allclose(result.logprobs.chosen, lines.max(-1).values, atol=1e-3)
        engine.unload_adapter("role")
        with pytest.raises(EngineError, match="answers 404"):
            engine.decode(trunk, both[1:])
        assert engine.decode(trunk, both[:1])[0].token_ids == results[0].token_ids


def test_a_server_that_is_killed_in_mid_stream_gives_one_clear_error(tmp_path):
    folder = tiny_models.tiny_llama(tmp_path / "model", **SHAPE)
    with vllm(folder) as (url, process):
        engine = create(url, max_retries=0)
        trunk = engine.open_trunk(system=SYSTEM, user=USER)
        heard = []

        def hear(voice, piece):
            heard.append(piece)
            if len(heard) == 1:
                kill(process)

        long = [
            Branch(voice=str(seed), instruction="", sampling=Sampling(
                max_new_tokens=700, temperature=1.5, seed=seed))
            for seed in range(12)  # some may end early
        ]  # fmt: skip
        with pytest.raises(EngineError, match=r"(after \d+ tokens of|no answer to) voice"):
            engine.decode(trunk, long, hear)
        with pytest.raises(EngineError, match="does not answer"):
            engine.open_trunk(system=SYSTEM, user=USER)

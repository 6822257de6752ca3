"""The openai engine against a real llama-server, with a tiny random model.

VECHE_LLAMA_SERVER names the program; otherwise this is skipped.
"""

import json
import os

import numpy as np
import pytest
import torch
from tests.engines.remote.real_server import SYSTEM, TASKS, USER, reference, running
from tests.surgery.gguf.models import PRE, write_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from veche.engines.openai import create
from veche.engines.protocol import Branch, Capability, Capture, Sampling
from veche.surgery.gguf.export import export_gguf

PROGRAM = os.environ.get("VECHE_LLAMA_SERVER", "")
pytestmark = pytest.mark.skipif(not PROGRAM, reason="VECHE_LLAMA_SERVER names no program")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A server with one slot, and the folder of the same weights."""
    folder = tmp_path_factory.mktemp("served")
    write_model("qwen3_moe", folder / "model", max_position_embeddings=1024)
    export_gguf(folder / "model", folder / "tiny.gguf", type_name="f32", pre=PRE)
    command = [
        PROGRAM, "-m", str(folder / "tiny.gguf"), "--host", "127.0.0.1", "-c", "1024", "-np", "1",
        "-t", "1", "--jinja",
    ]  # fmt: skip
    with running(command, folder / "server.log") as (url, _):
        yield create(url, concurrency=1), folder / "model"


def branches(num_tokens, **more):
    sampling = Sampling(max_new_tokens=num_tokens)
    return [Branch(voice=task, instruction=task, sampling=sampling, **more) for task in TASKS]


def test_the_probe_sees_what_this_server_can_do(model):
    engine, _ = model
    always = {Capability.FORK, Capability.KEEP, Capability.LOGPROBS, Capability.JSON}
    assert engine.capabilities == always
    assert engine.context_tokens == 1024
    assert engine.count_tokens("the council") == 2


def test_logprobs_are_those_of_a_plain_forward_pass(model):
    engine, folder = model
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    trunk = engine.open_trunk(system=SYSTEM, user=USER)
    for result in engine.decode(trunk, branches(12, capture=Capture(logprobs=3))):
        lines = reference(plain, tokenizer, result.voice, result.token_ids).numpy()
        rows = np.arange(len(result.token_ids))
        np.testing.assert_allclose(
            result.logprobs.chosen, lines[rows, list(result.token_ids)], atol=1e-2
        )
        np.testing.assert_allclose(result.logprobs.top, -np.sort(-lines, 1)[:, :3], atol=1e-2)


def test_one_slot_reads_the_trunk_from_its_cache(model):
    engine, _ = model
    trunk = engine.open_trunk(system=SYSTEM, user=USER)
    for result in engine.decode(trunk, branches(4)):
        assert result.reused_tokens > 0.8 * trunk.num_tokens
        assert len(result.token_ids) == 4
        assert min(result.token_ids) >= 0


@pytest.mark.parametrize("dial", [{"top_k": 3}, {"min_p": 0.3}, {"repetition_penalty": 1.5}])
def test_dials_are_obeyed(model, dial):
    engine, _ = model
    trunk = engine.open_trunk(system=SYSTEM, user=USER)
    sampling = Sampling(max_new_tokens=4, temperature=1.0, **dial)
    branch = Branch(voice="a", instruction="", sampling=sampling)
    assert len(engine.decode(trunk, [branch])[0].token_ids) == 4


def test_json_is_held_to_its_schema(model):
    engine, _ = model
    trunk = engine.open_trunk(system=SYSTEM, user=USER)
    schema = {"type": "string", "enum": ["да", "нет"]}
    (result,) = engine.decode(trunk, [Branch(voice="a", instruction="", json_schema=schema)])
    assert json.loads(result.text) in schema["enum"]

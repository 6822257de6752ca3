"""What is found out about a server, and what of it is believed."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.engines.remote.served import (
    CONTEXT,
    EXPERTS,
    LAYERS,
    LLAMA,
    OLLAMA,
    SGLANG,
    TOP_K,
    VLLM,
    routed,
    serving,
)
from tests.tiny_models import tiny_qwen3_moe

from veche.core.errors import EngineError, InputError, UnsupportedError
from veche.engines.openai import create
from veche.engines.protocol import Branch, Capability, Capture, Sampling, adapters
from veche.engines.remote.address import parse_address
from veche.engines.remote.markup import as_data

# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "base", "root", "model"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1", "http://127.0.0.1:8000", None),
        ("https://gpu/v1/#Qwen/Q3", "https://gpu/v1", "https://gpu", "Qwen/Q3"),
        ("http://[::1]:1/v1#a:b", "http://[::1]:1/v1", "http://[::1]:1", "a:b"),
        ("http://h/x/v1#%D0%B4%D0%B0", "http://h/x/v1", "http://h/x", "да"),
        (" http://h:5/api ", "http://h:5/api", "http://h:5/api", None),
    ],
)
def test_an_address_is_read_as_it_is_typed(typed, base, root, model):
    address = parse_address(typed)
    assert (address.base_url, address.root_url, address.model) == (base, root, model)


@pytest.mark.parametrize(
    "typed",
    ["", "model", "ftp://h/v1", "file:///etc", "http://", "http://h:x/v1", "http://h:70000"],
)
def test_what_is_no_address_is_refused_with_an_example(typed):
    with pytest.raises(InputError) as caught:
        create(typed)
    assert "http://127.0.0.1:8000/v1" in caught.value.hint


@pytest.mark.parametrize("typed", ["http://me:secret@h/v1", "http://h/v1?key=secret"])
def test_a_secret_in_an_address_is_refused_unshown(typed):
    with pytest.raises(InputError, match="password or a query") as caught:
        create(typed)
    assert "secret" not in caught.value.message


# --- texts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["a < b | c > d", "x[0] <T> [INSTALL]", "да <|", "<em>ё</em>", "|>", "<s", "\u2060"]
)
def test_a_text_without_markup_is_left_as_it_is(text):
    assert as_data(text) == text


@pytest.mark.parametrize(
    "mark",
    [
        "<|im_start|>", "<|eot_id|>", "<｜User｜>", "<s>", "</s>", "<bos>", "<start_of_turn>",
        "<end_of_turn>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "[SYSTEM_PROMPT]", "<think>",
        "</think>", "<|START_OF_TURN_TOKEN|>", "<BOS_TOKEN>", "<tool_call>",
    ],
)  # fmt: skip
def test_markup_of_every_family_is_broken_and_can_still_be_read(mark):
    safe = as_data(f"a{mark}b")
    assert mark not in safe
    assert safe.replace("\u2060", "") == f"a{mark}b"
    assert as_data(safe) == safe


# --- models ---------------------------------------------------------------------------------------


def test_the_only_model_is_taken_and_of_several_one_must_be_named():
    with serving(VLLM) as found:
        assert create(found.url).name.startswith("tiny at 127.0.0.1:")
        found.models = ["small", "large"]
        with pytest.raises(InputError, match="serves 2 models: small, large") as caught:
            create(found.url)
        assert f"{found.url}#small" in caught.value.hint
        assert create(f"{found.url}#large").name.startswith("large at")
        with pytest.raises(InputError, match="serves no model 'huge'") as caught:
            create(f"{found.url}#huge")
        assert "small, large" in caught.value.hint
        found.models = []
        with pytest.raises(EngineError, match="serves no model"):
            create(found.url)


def test_an_adapter_is_no_model_of_its_own():
    with serving(VLLM) as found:
        found.adapters["role"] = "/x"
        assert create(found.url).name.startswith("tiny at")


@pytest.mark.parametrize("kind", [VLLM, LLAMA, OLLAMA], ids=lambda kind: kind.name)
def test_each_server_is_asked_for_its_context_in_its_own_way(kind):
    with serving(kind) as found:
        assert create(found.url).context_tokens == CONTEXT
        assert create(found.url, context_tokens=77).context_tokens == 77


def test_a_server_that_hides_its_context_must_be_told_of():
    with serving(VLLM, context_in="") as found:
        with pytest.raises(InputError, match="does not tell how long") as caught:
            create(found.url)
        assert "--engine-option context_tokens=" in caught.value.hint
        assert create(found.url, context_tokens=100).context_tokens == 100


def test_tokens_are_counted_by_the_server_or_bounded_from_above():
    with serving(VLLM) as found:
        engine = create(found.url)
        assert (engine.count_tokens("a b в"), engine.count_tokens("")) == (3, 0)
    with serving(OLLAMA) as found:
        assert create(found.url).count_tokens("да b") == len("да b".encode())


# --- forms ----------------------------------------------------------------------------------------


def test_without_a_system_role_its_text_goes_before_the_users():
    with serving(VLLM, system_role=False) as found:
        engine = create(found.url)
        trunk = engine.open_trunk(system="Be brief.", user="Why?")
        assert engine.decode(trunk, [Branch(voice="a", instruction="")])[0].text
        assert found.requests[-1]["messages"] == [{"role": "user", "content": "Be brief.\n\nWhy?"}]


def test_a_strict_server_is_sent_nothing_that_openai_does_not_have():
    with serving(OLLAMA, refuses_extras=True) as found:
        engine = create(found.url)
        trunk = engine.open_trunk(system="s", user="u")
        engine.decode(trunk, [Branch(voice="a", instruction="")])
        assert set(found.requests[-1]) == {
            "model", "messages", "stream", "stream_options", "max_tokens", "temperature", "top_p",
            "seed",
        }  # fmt: skip


def test_defaults_of_the_server_are_overruled_by_neutral_values():
    with serving(VLLM) as found:
        engine = create(found.url)
        engine.open_trunk(system="s", user="u")
        sent = found.requests[-1]
        assert (sent["top_k"], sent["min_p"], sent["repetition_penalty"]) == (-1, 0.0, 1.0)
        assert (sent["temperature"], sent["top_p"]) == (0.0, 1.0)


def test_a_seed_of_any_size_is_sent_as_one_that_every_server_takes():
    with serving(VLLM) as found:
        engine = create(found.url)
        trunk = engine.open_trunk(system="s", user="u")
        for seed in (0, 2**63 - 1, 2**80 + 3):
            sampling = Sampling(seed=seed, temperature=1.0)
            engine.decode(trunk, [Branch(voice="a", instruction="", sampling=sampling)])
            assert 0 <= found.requests[-1]["seed"] < 2**31


# --- dials ----------------------------------------------------------------------------------------

TURNED = [{"top_k": 3}, {"min_p": 0.2}, {"repetition_penalty": 1.2}]


@pytest.mark.parametrize("dial", TURNED, ids=lambda dial: next(iter(dial)))
def test_a_dial_is_used_where_it_is_obeyed_and_refused_where_it_is_let_pass(dial):
    (name,) = dial
    branch = Branch(
        voice="a", instruction="", sampling=Sampling(temperature=1.0, max_new_tokens=4, **dial)
    )
    for kind in (VLLM, LLAMA, SGLANG):
        with serving(kind) as found:
            engine = create(found.url)
            trunk = engine.open_trunk(system="s", user="u")
            assert engine.decode(trunk, [branch])[0].text
            (value,) = dial.values()
            assert found.requests[-1][name] == value
    for changes in ({}, {"refuses_extras": True}):
        with serving(OLLAMA, **changes) as found:
            engine = create(found.url)
            trunk = engine.open_trunk(system="s", user="u")
            with pytest.raises(UnsupportedError, match=f"does not obey {name}") as caught:
                engine.decode(trunk, [branch])
            assert f"without={name}" in caught.value.hint


def test_a_user_may_do_without_a_dial():
    with serving(OLLAMA) as found:
        engine = create(found.url, without="repetition_penalty, top_k")
        trunk = engine.open_trunk(system="s", user="u")
        given = Sampling(temperature=1.0, top_k=3, repetition_penalty=1.2)
        assert engine.decode(trunk, [Branch(voice="a", instruction="", sampling=given)])[0].text
        assert found.requests[-1]["top_k"] == -1
        with pytest.raises(InputError, match="without names temperature"):
            create(found.url, without="temperature")


def test_greedy_draws_ask_for_no_proof_of_dials_that_change_nothing():
    with serving(OLLAMA) as found:
        engine = create(found.url)
        trunk = engine.open_trunk(system="s", user="u")
        branch = Branch(voice="a", instruction="", sampling=Sampling(top_k=3, min_p=0.5))
        assert engine.decode(trunk, [branch])[0].text


# --- what the probe must not believe --------------------------------------------------------------


def test_a_schema_that_is_let_pass_is_no_json():
    with serving(VLLM, json=False) as found:
        engine = create(found.url)
        assert Capability.JSON not in engine.capabilities
        trunk = engine.open_trunk(system="s", user="u")
        with pytest.raises(UnsupportedError, match="cannot do: json"):
            engine.decode(trunk, [Branch(voice="a", instruction="", json_schema={})])


def test_logprobs_of_unnumbered_tokens_are_not_announced():
    with serving(OLLAMA) as found:
        engine = create(found.url)
        trunk = engine.open_trunk(system="s", user="u")
        with pytest.raises(UnsupportedError, match="cannot do: logprobs"):
            engine.decode(trunk, [Branch(voice="a", instruction="", capture=Capture(logprobs=1))])


@pytest.mark.parametrize(
    ("option", "value"),
    [("timeout_s", 0), ("timeout_s", float("nan")), ("max_retries", -1), ("concurrency", 0),
     ("context_tokens", 0)],
)  # fmt: skip
def test_options_out_of_range_are_refused(option, value):
    with pytest.raises(InputError, match=option):
        create("http://127.0.0.1:1/v1", **{option: value})


def test_the_number_of_experts_of_a_running_server_cannot_be_changed():
    with pytest.raises(UnsupportedError, match="running server"):
        create("http://127.0.0.1:1/v1", top_k=4)


# --- adapters -------------------------------------------------------------------------------------


@pytest.fixture
def role(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    return tmp_path


@pytest.mark.parametrize(("kind", "called"), [(VLLM, "role"), (SGLANG, "tiny:role")])
def test_an_adapter_is_loaded_tried_used_and_forgotten(kind, called, role):
    with serving(kind, lora="yes") as found:
        engine = adapters(create(found.url))
        first = engine.load_adapter("role", role)
        assert found.requests[-1]["model"] == called
        assert found.adapters == {"role": str(role.resolve())}
        trunk = engine.open_trunk(system="s", user="u")
        plain, dressed = engine.decode(
            trunk,
            [Branch(voice="a", instruction=""), Branch(voice="b", instruction="", adapter="role")],
        )
        assert plain.text != dressed.text
        engine.unload_adapter("role")
        assert found.adapters == {}
        with pytest.raises(EngineError, match="no such adapter"):
            engine.unload_adapter("role")
        (role / "adapter_model.safetensors").write_bytes(b"others")
        assert engine.load_adapter("role", role) != first


def test_an_adapter_that_cannot_run_is_noticed_when_it_is_loaded(role):
    with serving(VLLM, lora="yes") as found:
        engine = adapters(create(found.url, max_retries=0))
        found.faults.append(lambda handler, body: handler.say({"error": {"message": "died"}}, 500))
        with pytest.raises(EngineError, match="answers 500: died"):
            engine.load_adapter("role", role)
        assert found.adapters == {}


def test_a_verb_that_is_there_and_of_no_use_is_no_capability():
    for kind in (VLLM, SGLANG):
        with serving(kind, lora="off") as found:
            assert Capability.ADAPTERS not in create(found.url).capabilities


def test_a_folder_that_is_no_adapter_is_refused_here(tmp_path):
    with serving(VLLM, lora="yes") as found:
        engine = adapters(create(found.url))
        with pytest.raises(InputError, match=r"adapter_config.json is missing"):
            engine.load_adapter("role", tmp_path)


# --- routed experts -------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path):
    tiny_qwen3_moe(
        tmp_path, num_hidden_layers=LAYERS, num_experts=EXPERTS, num_experts_per_tok=TOP_K,
        mlp_only_layers=[1],
    )  # fmt: skip
    return Path(tmp_path)


@pytest.mark.parametrize("kind", [VLLM, SGLANG], ids=lambda kind: kind.name)
def test_routed_experts_are_those_of_the_tokens_that_were_fed_back(kind, config):
    with serving(kind, routing=kind.name) as found:
        engine = create(found.url, config=config)
        assert Capability.ROUTING in engine.capabilities
        trunk = engine.open_trunk(system="s", user="u " * 30)
        heard, sampling = [], Sampling(max_new_tokens=6)
        (result,) = engine.decode(
            trunk,
            [Branch(voice="a", instruction="why?", sampling=sampling)],
            on_routing=lambda voice, ids, weights: heard.append(ids),
        )
        num_prompt = len(found.prompts[-1])
        num_rows = len(result.token_ids) - 1
        wanted = routed(num_prompt + num_rows)[num_prompt:, [0, 2]]  # layer 1 is dense
        np.testing.assert_array_equal(result.routing.expert_ids, wanted)
        np.testing.assert_array_equal(np.stack(heard), wanted)
        assert result.routing.num_experts == EXPERTS
        np.testing.assert_allclose(result.routing.weights, 1 / TOP_K)  # no server tells them
        quiet = Branch(voice="a", instruction="", capture=Capture(routing=False))
        assert engine.decode(trunk, [quiet])[0].routing is None


def test_routed_experts_need_the_models_config_and_a_server_that_sends_them(config):
    with serving(VLLM, routing="vllm") as found:
        assert Capability.ROUTING not in create(found.url).capabilities
    with serving(VLLM) as found:
        assert Capability.ROUTING not in create(found.url, config=config).capabilities


def test_routed_experts_of_another_model_are_refused(config):
    changed = json.loads((config / "config.json").read_text()) | {"num_hidden_layers": LAYERS + 1}
    (config / "config.json").write_text(json.dumps(changed))
    with (
        serving(VLLM, routing="vllm") as found,
        pytest.raises(EngineError, match="not those of this model"),
    ):
        create(found.url, config=config)

"""What comes from outside: files that are not what they claim, adapters, snapshots, interrupts."""

import _thread
import json
import os
import shutil
import threading
import time

import gguf
import jsonschema
import numpy as np
import pytest
import torch
from tests.engines.llamacpp.test_branches import (
    EVERYTHING,
    INSTRUCTIONS,
    PLAIN,
    SYSTEM,
    USER,
    branches,
    opened,
    prompt_ids,
    tokens,
)

from veche.core.errors import CheckpointError, EngineError, InputError
from veche.engines.protocol import Branch, Capability, Sampling

pytestmark = pytest.mark.skipif(not os.environ.get("VECHE_LLAMA_CPP"), reason="make test-llamacpp")


@pytest.fixture
def create():
    from veche.engines.llamacpp import create

    return create


# --- files ----------------------------------------------------------------------------------------


def test_a_missing_file_a_folder_and_another_format_are_refused(create, folder_of, tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        create(tmp_path / "none.gguf")
    with pytest.raises(CheckpointError, match="is a folder"):
        create(folder_of("llama"))
    (tmp_path / "m.gguf").write_text("{}")
    with pytest.raises(CheckpointError, match="is not a GGUF file"):
        create(tmp_path / "m.gguf")


def test_what_llama_cpp_says_of_a_damaged_file_is_quoted_and_nothing_else_is_shown(
    create, gguf_of, tmp_path, capfd
):
    whole = gguf_of("qwen3_moe").read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="corrupted or incomplete"):
        create(cut)
    head = tmp_path / "head.gguf"
    head.write_bytes(whole[:100])
    with pytest.raises(CheckpointError, match="can't load"):
        create(head)
    unknown = tmp_path / "unknown.gguf"
    unknown.write_bytes(whole.replace(b"qwen3moe", b"qwen9moe"))
    with pytest.raises(CheckpointError, match="unknown model architecture: 'qwen9moe'"):
        create(unknown)
    assert capfd.readouterr() == ("", "")


def test_nan_weights_are_an_error_and_not_an_answer(create, gguf_of, tmp_path):
    file = tmp_path / "nan.gguf"
    shutil.copy(gguf_of("qwen3_moe"), file)
    norm = next(t for t in gguf.GGUFReader(file).tensors if t.name == "output_norm.weight")
    with file.open("r+b") as stream:
        stream.seek(int(norm.data_offset))
        stream.write(np.float32(np.nan).tobytes())
    engine = create(file, threads=1)
    with opened(engine) as trunk, pytest.raises(EngineError, match="NaN logits for voice 'short'"):
        engine.decode(trunk, branches())
    assert engine._cells.num_used == 0
    engine.close()


def test_options_that_are_not_possible_are_refused(create, gguf_of):
    file = gguf_of("qwen3_moe")
    for top_k in (0, 9):
        with pytest.raises(InputError, match=f"top_k {top_k} is not in 1..8"):
            create(file, top_k=top_k)
    with pytest.raises(InputError, match="has no experts"):
        create(gguf_of("llama"), top_k=2)
    with pytest.raises(InputError, match="kv_type 'q4_0' is unknown"):
        create(file, kv_type="q4_0")
    with pytest.raises(InputError, match=r"max_sequences 257 is not in 2\.\.256"):
        create(file, max_sequences=257)
    with pytest.raises(InputError, match="cache_tokens 0 is not positive"):
        create(file, cache_tokens=0)


def test_a_cache_beyond_its_budget_is_refused(create, gguf_of):
    # 3 layers × 2 KV heads × (8 + 8) × 4 bytes = 384 bytes a token
    file = gguf_of("qwen3_moe")
    with pytest.raises(InputError, match=r"a cache of 1000 tokens takes 375\.00 KiB") as raised:
        create(file, kv_type="f32", cache_tokens=1000, max_cache_bytes=384 * 999)
    assert "allow 999 tokens" in raised.value.hint
    engine = create(file, kv_type="f32", cache_tokens=999, max_cache_bytes=384 * 999, threads=1)
    assert engine.context_tokens == 512
    engine.close()
    engine.close()


@pytest.mark.parametrize("name", ["qwen3_moe", "mixtral"])
def test_the_number_of_active_experts_is_that_of_the_option(load, reference_of, name):
    engine, reference = load(name, top_k=2), reference_of(name, num_experts_per_tok=2)
    with opened(engine) as trunk:
        result = engine.decode(trunk, branches(capture=EVERYTHING)[:1])[0]
        prompt = prompt_ids(engine, trunk, INSTRUCTIONS["short"])
    assert result.routing.expert_ids.shape[-1] == 2
    wanted = reference.logits([*prompt, *result.token_ids])[len(prompt) - 1 : -1]
    assert np.abs(result.logits - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_a_branch_of_its_own_number_of_experts_is_refused(moe):
    with opened(moe) as trunk, pytest.raises(InputError, match="cannot do: num_experts_per_tok"):
        moe.decode(trunk, [Branch(voice="a", instruction="", num_experts_per_tok=2)])


# --- adapters -------------------------------------------------------------------------------------

RANK, ALPHA = 4, 8.0
TARGETS = {
    "blk.0.attn_v.weight": "model.layers.0.self_attn.v_proj.weight",
    "blk.1.attn_output.weight": "model.layers.1.self_attn.o_proj.weight",
    "blk.2.attn_q.weight": "model.layers.2.self_attn.q_proj.weight",
}


def write_lora(file, model, seed):
    """Write a random LoRA for llama.cpp; return what it adds to each weight: α/r · B A."""
    generator = torch.Generator().manual_seed(seed)
    writer = gguf.GGUFWriter(file, "qwen3moe")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", ALPHA)
    weights, added = dict(model.named_parameters()), {}
    for name, target in TARGETS.items():
        rows, columns = weights[target].shape
        low = torch.randn(RANK, columns, generator=generator) * 0.3
        high = torch.randn(rows, RANK, generator=generator) * 0.3
        writer.add_tensor(f"{name}.lora_a", low.numpy())
        writer.add_tensor(f"{name}.lora_b", high.numpy())
        added[target] = high @ low * (ALPHA / RANK)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return added


class TestAdapters:
    @pytest.fixture
    def loras(self, moe, folder_of, tmp_path):
        """Load two adapters; return for each a model in transformers with the sums as weights."""
        from tests.engines.llamacpp.conftest import Reference

        merged = {}
        for seed, name in enumerate(("first", "second")):
            merged[name] = Reference(folder_of("qwen3_moe"))
            added = write_lora(tmp_path / f"{name}.gguf", merged[name].model, seed)
            with torch.no_grad():
                for target, weight in merged[name].model.named_parameters():
                    if target in added:
                        weight += added[target]
            assert len(moe.load_adapter(name, tmp_path / f"{name}.gguf")) == 64
        yield merged
        for name in merged:
            moe.unload_adapter(name)

    def test_each_branch_of_a_batch_uses_its_own_from_its_first_token_on(
        self, moe, loras, reference_of
    ):
        """The trunk is the base model's: the reference reads it from the base model's cache."""
        asked = [
            Branch(
                voice=str(adapter), instruction=" Why", adapter=adapter, capture=EVERYTHING,
                sampling=Sampling(max_new_tokens=6),
            )
            for adapter in (None, "first", "second")
        ]  # fmt: skip
        base = reference_of("qwen3_moe")
        with opened(moe) as trunk:
            results = moe.decode(trunk, asked)
            suffix = moe._format.suffix_ids(" Why")
            for result, branch in zip(results, asked, strict=True):
                with torch.inference_mode():
                    cache = base.model(torch.tensor([trunk.token_ids])).past_key_values
                    model = loras[branch.adapter].model if branch.adapter else base.model
                    ids = [*suffix, *result.token_ids]
                    output = model(torch.tensor([ids]), past_key_values=cache)
                wanted = output.logits[0, len(suffix) - 1 : -1].numpy()
                assert np.abs(result.logits - wanted).max() <= 1e-5 * np.abs(wanted).max()
                assert result.routing.expert_ids.shape[0] == len(result.token_ids) - 1
            again = moe.decode(trunk, asked[:1])[0]
        assert len({r.token_ids for r in results}) == 3
        assert np.array_equal(again.logits, moe_alone(moe, asked[0]).logits)

    def test_unknown_and_doubled_names_are_refused(self, moe, loras, tmp_path):
        with pytest.raises(InputError, match="'first' is loaded already"):
            moe.load_adapter("first", tmp_path / "second.gguf")
        with pytest.raises(InputError, match="no adapter 'third'") as raised:
            moe.unload_adapter("third")
        assert raised.value.hint == "loaded: first, second"
        with opened(moe) as trunk, pytest.raises(InputError, match="no adapter 'third'"):
            moe.decode(trunk, [Branch(voice="a", instruction="", adapter="third")])

    def test_what_is_no_adapter_of_this_model_is_refused(self, moe, gguf_of, tmp_path):
        with pytest.raises(CheckpointError, match="0 files"):
            moe.load_adapter("x", tmp_path)
        with pytest.raises(CheckpointError, match="can't load the adapter"):
            moe.load_adapter("x", gguf_of("qwen3_moe"))

    def test_a_kept_branch_remembers_its_adapter_in_a_snapshot(self, moe, loras, tmp_path):
        with opened(moe) as trunk:
            asked = Branch(voice="a", instruction=" Why", adapter="first", keep=True)
            kept = moe.decode(trunk, [asked])[0].trunk
        moe.save_trunk(kept, tmp_path / "t.safetensors")
        moe.close_trunk(kept)
        moe.close_trunk(moe.load_trunk(tmp_path / "t.safetensors"))
        moe.unload_adapter("first")
        with pytest.raises(InputError, match="which is not loaded"):
            moe.load_trunk(tmp_path / "t.safetensors")
        moe.load_adapter("first", tmp_path / "first.gguf")


def moe_alone(engine, branch):
    with opened(engine) as trunk:
        return engine.decode(trunk, [branch])[0]


# --- snapshots ------------------------------------------------------------------------------------


class TestSnapshots:
    def test_a_trunk_from_disk_goes_on_as_if_it_had_never_left(
        self, create, gguf_of, moe, tmp_path
    ):
        file = tmp_path / "trunk.safetensors"
        with opened(moe, " Ещё.") as trunk:
            moe.save_trunk(trunk, file)
            ids = list(trunk.token_ids)
            moe.extend_trunk(trunk, " again")
            wanted = moe.decode(trunk, branches())
        other = create(gguf_of("qwen3_moe"), kv_type="f32", threads=1)
        found = other.load_trunk(file)
        assert found.token_ids == ids
        other.extend_trunk(found, " again")
        results = other.decode(found, branches())
        assert tokens(results) == tokens(wanted)
        for one, two in zip(results, wanted, strict=True):
            assert np.abs(one.logits - two.logits).max() <= 1e-5 * np.abs(two.logits).max()
        other.close_trunk(found)
        assert other._cells.num_used == 0
        other.close()

    def test_another_model_and_another_cache_are_refused(
        self, create, gguf_of, moe, load, tmp_path
    ):
        file = tmp_path / "trunk.safetensors"
        with opened(moe) as trunk:
            moe.save_trunk(trunk, file)
        with pytest.raises(CheckpointError, match="belongs to another model"):
            load("mixtral").load_trunk(file)
        with pytest.raises(CheckpointError, match="belongs to another active experts: 3, not 2"):
            load("qwen3_moe", top_k=2).load_trunk(file)
        halves = create(gguf_of("qwen3_moe"), threads=1)
        with pytest.raises(CheckpointError, match="belongs to another cache type: f32, not f16"):
            halves.load_trunk(file)
        halves.close()

    def test_a_damaged_file_is_refused_and_leaves_nothing(self, moe, tmp_path):
        file = tmp_path / "trunk.safetensors"
        with opened(moe) as trunk:
            moe.save_trunk(trunk, file)
        whole = file.read_bytes()
        for damaged in (b"", whole[:5], whole[:-8], b"x" * len(whole)):
            file.write_bytes(damaged)
            with pytest.raises(CheckpointError):
                moe.load_trunk(file)
        start = whole.index(b"}}") + 2
        wrong = bytearray(whole)
        wrong[start + 64 : start + 164] = bytes(255 for _ in range(100))
        file.write_bytes(bytes(wrong))
        with pytest.raises((CheckpointError, EngineError)):
            moe.load_trunk(file)
        assert moe._cells.num_used == 0
        with opened(moe) as trunk:
            assert moe.decode(trunk, branches())


# --- JSON -----------------------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "properties": {"vote": {"enum": ["да", "no"]}, "weight": {"type": "integer", "maximum": 9}},
    "required": ["vote", "weight"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_holds_to_its_schema_and_its_neighbours_are_free(load, temperature):
    engine = load("mixtral")
    asked = [
        Branch(
            voice=str(seed), instruction=" Why", json_schema=SCHEMA, capture=PLAIN,
            sampling=Sampling(max_new_tokens=200, temperature=temperature, seed=seed, min_p=0.02),
        )
        for seed in range(4)
    ]  # fmt: skip
    with opened(engine) as trunk:
        *held, free = engine.decode(trunk, [*asked, branches()[0]])
        alone = engine.decode(trunk, branches()[:1])[0]
    finished = [result for result in held if result.finish_reason == "stop"]
    assert finished
    for result in finished:
        jsonschema.validate(json.loads(result.text), SCHEMA)
    for result in held:
        assert result.text.lstrip().startswith("{")
    assert free.token_ids == alone.token_ids


def test_a_schema_that_cannot_be_followed_is_refused(moe):
    asked = Branch(voice="a", instruction="", json_schema={"type": "nothing"})
    with opened(moe) as trunk, pytest.raises(InputError, match="can't be used"):
        moe.decode(trunk, [asked])


# --- stopping -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slow(create_module, gguf_of):
    """A model whose long prompt takes seconds."""
    wide = {"hidden_size": 512, "intermediate_size": 4096, "num_hidden_layers": 12}
    wide |= {"max_position_embeddings": 4096, "moe_intermediate_size": 1024}
    engine = create_module(gguf_of("qwen3_moe", **wide), threads=1)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def create_module():
    from veche.engines.llamacpp import create

    return create


class TestStopping:
    def test_a_cancelled_branch_ends_with_what_it_has_said(self, moe):
        cancel, pieces = threading.Event(), []

        def hear(voice, piece):
            pieces.append((voice, piece))
            if len(pieces) == 7:
                cancel.set()

        with opened(moe) as trunk:
            results = moe.decode(trunk, branches(max_new_tokens=200), hear, cancel=cancel)
            assert {r.finish_reason for r in results} <= {"cancelled", "stop"}
            for result in results:
                assert result.text == "".join(p for voice, p in pieces if voice == result.voice)
            used = moe._cells.num_used
            assert used == trunk.num_tokens
            assert moe.decode(trunk, branches())

    def test_a_branch_that_was_cancelled_can_be_kept(self, moe, reference_of):
        cancel = threading.Event()
        cancel.set()
        with opened(moe) as trunk:
            kept = moe.decode(trunk, branches(keep=True)[:1], cancel=cancel)[0]
            assert kept.finish_reason == "cancelled"
            assert kept.token_ids == ()
            wanted = reference_of("qwen3_moe").logits(kept.trunk.token_ids)[-1]
            assert kept.trunk.token_ids == prompt_ids(moe, trunk, INSTRUCTIONS["short"])
            assert np.abs(kept.trunk.last_logits - wanted).max() <= 1e-5 * np.abs(wanted).max()
        moe.close_trunk(kept.trunk)

    def test_cancelling_stops_in_the_middle_of_a_token(self, slow):
        trunk = slow.open_trunk(system="", user="a")
        whole, stopped = threading.Event(), threading.Event()
        asked = [Branch(voice="a", instruction="голос " * 80, sampling=Sampling(max_new_tokens=1))]
        start = time.perf_counter()
        slow.decode(trunk, asked, cancel=whole)
        full_s = time.perf_counter() - start
        threading.Timer(0.1 * full_s, stopped.set).start()
        start = time.perf_counter()
        result = slow.decode(trunk, asked, cancel=stopped)[0]
        # one evaluation takes all of it: it can only be shorter if it was stopped inside
        assert result.finish_reason == "cancelled"
        assert result.token_ids == ()
        assert slow._cells.num_used == trunk.num_tokens
        assert slow.decode(trunk, asked)[0].finish_reason == "length"
        slow.close_trunk(trunk)

    def test_an_interrupt_in_the_middle_of_a_prefill_is_let_through_and_forgets_it_whole(
        self, slow
    ):
        trunk = slow.open_trunk(system="", user="a")
        before = slow.decode(trunk, [Branch(voice="a", instruction=" b")])[0]
        threading.Timer(0.2, _thread.interrupt_main).start()
        with pytest.raises(KeyboardInterrupt):
            slow.extend_trunk(trunk, "голос " * 300)
        assert slow._cells.num_used == trunk.num_tokens
        after = slow.decode(trunk, [Branch(voice="a", instruction=" b")])[0]
        assert after.token_ids == before.token_ids
        slow.close_trunk(trunk)

    def test_an_interrupt_while_a_piece_is_shown_leaks_nothing(self, moe):
        def interrupt(voice, piece):
            raise KeyboardInterrupt

        with opened(moe) as trunk:
            expected = moe.decode(trunk, branches())
            with pytest.raises(KeyboardInterrupt):
                moe.decode(trunk, branches(), interrupt)
            assert moe._cells.num_used == trunk.num_tokens
            assert tokens(moe.decode(trunk, branches())) == tokens(expected)


def test_an_engine_that_nobody_holds_frees_its_model_once(create, gguf_of):
    import gc
    import weakref

    engine = create(gguf_of("llama"), threads=1)
    assert Capability.SNAPSHOT in engine.capabilities
    engine.open_trunk(system=SYSTEM, user=USER)
    loaded = weakref.ref(engine._loaded)
    del engine
    gc.collect()
    assert loaded() is None

"""GGUF files against their sources, by other readers: the gguf package's and transformers'."""

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.surgery.gguf.models import MODELS, PRE, VARIANTS, write_model
from transformers import AutoConfig, AutoModelForCausalLM

from veche.checkpoint.reader import open_checkpoint
from veche.core.errors import VerificationError
from veche.surgery.gguf import encode
from veche.surgery.gguf.architectures import ARCHITECTURES
from veche.surgery.gguf.check import check_file, tolerance
from veche.surgery.gguf.export import export_gguf
from veche.surgery.gguf.read_back import read_back
from veche.surgery.gguf.tensor_plan import plan_tensors

TYPES = ("f32", "f16", "bf16", "q8_0")
READ_BY_TRANSFORMERS = ("llama", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe")
every_model = pytest.mark.parametrize("name", [*MODELS, *VARIANTS])


def reference(folder):
    """Return GGUF names → values, by the gguf package's table of names and plain stacking."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = model.config
    arch_name = ARCHITECTURES[config.model_type].name
    (arch,) = (key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == arch_name)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    found = {}
    for key, value in model.state_dict().items():
        value = value.numpy()
        key = key.replace("block_sparse_moe", "mlp")
        if key.endswith("experts.gate_up_proj"):
            stem = key.removesuffix("gate_up_proj")
            gate, up = np.split(value, 2, axis=1)
            pairs = [(f"{stem}gate_proj.weight", gate), (f"{stem}up_proj.weight", up)]
        elif key.endswith("experts.down_proj"):
            pairs = [(f"{key}.weight", value)]
        else:
            pairs = [(key, value)]
        for one, values in pairs:
            name = names.get_name(one, try_suffixes=(".weight", ".bias"))
            assert name, one
            found[name] = values
    if config.tie_word_embeddings and ARCHITECTURES[config.model_type].ties_output:
        del found["output.weight"]
    if arch_name == "llama":
        _reorder(found, config.num_attention_heads, config.num_key_value_heads)
    return found


def _reorder(found, num_heads, num_kv_heads):
    """Put row 2i + h of every head where row h · d/2 + i was: a loop over what rope turns."""
    for name, values in found.items():
        heads = {"attn_q": num_heads, "attn_k": num_kv_heads}.get(name.split(".")[-2])
        if not heads:
            continue
        size = len(values) // heads
        order = [
            head * size + half * (size // 2) + i
            for head in range(heads)
            for i in range(size // 2)
            for half in range(2)
        ]
        found[name] = values[order]


@pytest.mark.parametrize("type_name", TYPES)
@every_model
def test_every_tensor_has_its_name_shape_and_values(source, exported, name, type_name):
    file, report = exported(name, type_name)
    wanted = reference(source(name))
    reader = gguf.GGUFReader(file)
    found = {tensor.name: tensor for tensor in reader.tensors}
    computed = {"rope_freqs.weight"} if name == "llama-rope3" else set()
    assert set(found) == set(wanted) | computed
    for key, values in wanted.items():
        tensor = found[key]
        values = values.reshape(tuple(int(n) for n in reversed(tensor.shape)))
        stored = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(values.shape)
        rows = values.reshape(-1, values.shape[-1])
        allowed = tolerance(rows, tensor.tensor_type.name).reshape(values.shape)
        assert (np.abs(stored - values) <= allowed).all(), key
    assert report.check.num_parameters == sum(int(t.n_elements) for t in reader.tensors)


@pytest.mark.parametrize("type_name", TYPES)
@pytest.mark.parametrize("name", MODELS)
def test_vectors_norms_and_routers_are_float32_and_matrices_of_the_type(exported, name, type_name):
    for tensor in gguf.GGUFReader(exported(name, type_name)[0]).tensors:
        kind = tensor.tensor_type.name
        if len(tensor.shape) == 1 or "_norm" in tensor.name or "ffn_gate_inp" in tensor.name:
            assert kind == "F32", tensor.name
        elif type_name == "q8_0" and tensor.shape[0] % 32:
            assert kind == "F16", tensor.name
        else:
            assert kind == type_name.upper(), tensor.name


@every_model
def test_our_reader_and_that_of_the_gguf_package_find_the_same(exported, name):
    file, _ = exported(name, "q8_0")
    ours, theirs = read_back(file), gguf.GGUFReader(file)
    assert {
        (t.name, tuple(map(int, reversed(t.shape))), t.tensor_type, int(t.data_offset))
        for t in theirs.tensors
    } == {(t.name, t.shape, t.type, t.start) for t in ours.tensors.values()}
    fields = {key: one.contents() for key, one in theirs.fields.items() if key[:5] != "GGUF."}
    assert set(fields) == set(ours.metadata)
    for key, value in fields.items():
        found = ours.metadata[key]
        assert len(found) == len(value) if isinstance(value, list) else found == value, key


@pytest.mark.parametrize("name", READ_BY_TRANSFORMERS)
@pytest.mark.parametrize("type_name", TYPES)
def test_transformers_reads_the_file_as_the_same_model(source, exported, name, type_name):
    file, _ = exported(name, type_name)
    config = AutoConfig.from_pretrained(source(name))
    again, report = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, config=config, dtype=torch.float32,
        output_loading_info=True,
    )  # fmt: skip
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    first = AutoModelForCausalLM.from_pretrained(source(name), dtype=torch.float32)
    rounding = {"f32": 0, "f16": 2**-11, "bf16": 2**-8, "q8_0": 0.01}
    with torch.no_grad():
        for key, values in first.state_dict().items():
            scale = values.abs().max()
            error = (again.state_dict()[key] - values).abs().max()
            assert error <= scale * rounding[type_name]
        ids = torch.arange(3, 67)[None]
        wanted, found = first(ids).logits, again(ids).logits
    limit = {"f32": 0, "f16": 0.01, "bf16": 0.1, "q8_0": 0.2}[type_name]
    assert (found - wanted).abs().max() <= limit * wanted.abs().max()


class TestLayouts:
    @pytest.mark.parametrize("name", ["qwen3_moe", "qwen2_moe", "mixtral", "olmoe"])
    def test_fused_stacks_and_single_experts_make_the_same_file(self, source, tmp_path, name):
        single = source(name)
        family = open_checkpoint(single).spec.family
        tensors = load_file(single / "model.safetensors")
        stems = {key.split(".experts.")[0] for key in tensors if ".experts." in key}
        assert all(stem.endswith(family.moe_block) for stem in stems)
        for stem in stems:
            gate, up, down = (
                torch.stack([tensors.pop(f"{stem}.experts.{e}.{one}.weight") for e in range(8)])
                for one in family.expert_names
            )
            tensors[f"{stem}.experts.gate_up_proj"] = torch.cat([gate, up], dim=1).contiguous()
            tensors[f"{stem}.experts.down_proj"] = down
        fused = tmp_path / name
        fused.mkdir()
        for file in single.iterdir():
            if file.suffix != ".safetensors":
                (fused / file.name).write_bytes(file.read_bytes())
        save_file(tensors, fused / "model.safetensors", metadata={"format": "pt"})
        for folder, out in ((single, "a.gguf"), (fused, "b.gguf")):
            export_gguf(folder, tmp_path / out, type_name="q8_0", pre=PRE)
        assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    @pytest.mark.parametrize("type_name", ["f16", "bf16", "f32"])
    def test_sixteen_bit_sources(self, tmp_path, dtype, type_name):
        folder = write_model("mixtral", tmp_path / "m", dtype=dtype)
        report = export_gguf(folder, tmp_path / "m.gguf", type_name=type_name, pre=PRE)
        # bfloat16 has fewer digits, so float16 holds it wherever its range does.
        is_rounded = (dtype, type_name) == ("float16", "bf16")
        assert (report.check.relative_error > 0) == is_rounded

    @pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "llama-bias"])
    def test_the_file_does_not_depend_on_how_many_values_are_in_hand(
        self, source, exported, tmp_path, monkeypatch, name
    ):
        monkeypatch.setattr(encode, "_CHUNK_VALUES", 100)
        tensors = plan_tensors(open_checkpoint(source(name)), "BF16")
        lengths = [len(chunk) for tensor in tensors for chunk in encode.encoded(tensor)]
        export_gguf(source(name), tmp_path / "m.gguf", type_name="bf16", pre=PRE)
        assert (tmp_path / "m.gguf").read_bytes() == exported(name, "bf16")[0].read_bytes()
        assert max(lengths) < 2000 < sum(lengths)


class TestTheCheck:
    def _check(self, source, file):
        tensors = plan_tensors(open_checkpoint(source("mixtral")), "BF16")
        return check_file(file, tensors, is_exact_type=True)

    def test_it_finds_a_value_that_was_changed(self, source, exported, tmp_path):
        file, _ = exported("mixtral", "bf16")
        bad = tmp_path / "bad.gguf"
        stored = read_back(file).tensors["blk.1.ffn_down_exps.weight"]
        content = bytearray(file.read_bytes())
        content[stored.start + 1] ^= 0x40
        bad.write_bytes(content)
        with pytest.raises(VerificationError, match=r"row 0 of blk\.1\.ffn_down_exps"):
            self._check(source, bad)

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            (b"blk.2.attn_norm.weight", b"blk.2.attn_gnom.weight", "attn_norm.weight is missing"),
            (b"attention.head_count_kv", b"attention.head_count_kx", "attn_k.weight is"),
        ],
    )
    def test_it_finds_names_and_shapes_that_llama_cpp_refuses(
        self, source, exported, tmp_path, old, new, message
    ):
        content = exported("mixtral", "bf16")[0].read_bytes()
        assert content.count(old) == 1
        bad = tmp_path / "bad.gguf"
        bad.write_bytes(content.replace(old, new))
        with pytest.raises(VerificationError, match=message):
            self._check(source, bad)

    @pytest.mark.parametrize("length", [0, 3, 40, 3000, -1])
    def test_it_finds_a_file_that_ends_too_early(self, source, exported, tmp_path, length):
        bad = tmp_path / "bad.gguf"
        bad.write_bytes(exported("mixtral", "bf16")[0].read_bytes()[:length][:-64])
        with pytest.raises(VerificationError, match="not a GGUF file"):
            self._check(source, bad)

    def test_it_finds_the_file_of_another_model(self, source, exported):
        with pytest.raises(VerificationError):
            self._check(source, exported("mixtral-wide-heads", "bf16")[0])

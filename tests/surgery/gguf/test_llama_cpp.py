"""Exported files in llama.cpp itself: its loader, its arithmetic, its converter, its quantiser.

`make test-llamacpp` builds llama-cpp-python and llama-quantize from the package's source
distribution into .venv-llamacpp and runs this; otherwise it is skipped.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.surgery.gguf.models import (
    MODELS,
    PRE,
    VARIANTS,
    write_model,
    write_sentencepiece_tokenizer,
)
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from veche.surgery.carving.carve import CarveSettings, carve
from veche.surgery.gguf.export import export_gguf

HOME = os.environ.get("VECHE_LLAMA_CPP", "")
pytestmark = pytest.mark.skipif(not HOME, reason="make test-llamacpp")
HERE = Path(__file__).parent
NUM_TOKENS, NUM_GREEDY = 64, 8
TEXT = "the council hears 12345 voices, don't you? Ещё\n\n  ok <|im_end|> \t x"
SENTENCES = (
    "the council", "the voices hear the council, and every answer is four", "",
    "Совет hears 4 voices!\n\n  the  end</s>the", "  lead", "the councilcouncil hearhear",
)  # fmt: skip


@pytest.fixture(scope="session")
def tools():
    """Put llama-quantize on PATH."""
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{HOME}/build/bin{os.pathsep}{before}"
    yield
    os.environ["PATH"] = before


def in_llama_cpp(jobs):
    """Run jobs in llama-cpp-python; see llama_cpp_runner."""
    done = subprocess.run(
        [f"{HOME}/bin/python", HERE / "llama_cpp_runner.py"],
        input=json.dumps({"jobs": jobs}), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def in_transformers(folder, ids):
    """Return logits of every position, and the tokens that greedy decoding adds."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = torch.tensor([ids])
    with torch.no_grad():
        logits = model(tokens).logits[0].numpy()
        for _ in range(NUM_GREEDY):
            following = model(tokens).logits[0, -1].argmax()
            tokens = torch.cat([tokens, following[None, None]], dim=1)
    return logits, tokens[0, len(ids) :].tolist()


def compare(folder, files, ids):
    """Return for each file: max|Δlogit| / max|logit|, mean KL, whether greedy tokens agree."""
    wanted, greedy = in_transformers(folder, ids)
    jobs = [{"file": str(f), "tokens": ids, "text": TEXT, "greedy": NUM_GREEDY} for f in files]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    measured = []
    for result in in_llama_cpp(jobs):
        found = np.array(result["logits"])
        log_p, log_q = (torch.log_softmax(torch.tensor(x).double(), -1) for x in (wanted, found))
        kl = float((log_p.exp() * (log_p - log_q)).sum(-1).mean())
        relative = float(np.abs(found - wanted).max() / np.abs(wanted).max())
        measured.append((relative, kl, result["greedy"] == greedy))
        assert result["text_tokens"] == tokenizer.encode(TEXT)
    return measured


def random_tokens():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, 384, (NUM_TOKENS,), generator=generator).tolist()


def say(name, **measured):
    """Write what was measured; `make test-llamacpp` shows it."""
    for kind, (relative, kl, is_greedy) in measured.items():
        sys.stdout.write(
            f"{name} {kind}: max|Δlogit|/scale {relative:.1e}, KL {kl:.1e}, greedy "
            f"{'the same' if is_greedy else 'differs'}\n"
        )


@pytest.mark.parametrize("name", [*MODELS, *VARIANTS])
def test_it_computes_what_transformers_computes(source, exported, name):
    files = [exported(name, kind)[0] for kind in ("f32", "f16", "q8_0")]
    exact, half, eight = compare(source(name), files, random_tokens())
    say(name, f32=exact, f16=half, q8_0=eight)
    assert exact[0] <= 1e-5
    assert exact[2]
    assert half[1] <= 1e-3
    assert eight[1] <= 0.05


@pytest.mark.parametrize(("top_k", "loudness"), [(8, 1), (5, 1000)])
def test_a_carved_model_chooses_the_experts_that_it_chooses_in_transformers(
    tmp_path, top_k, loudness
):
    """Both rank probabilities in float32, and those of carved routers are equal to four digits.

    With fewer than all experts near-ties fall out differently, unless routers are made louder.
    """
    dense = write_model("llama", tmp_path / "dense", intermediate_size=64)
    settings = CarveSettings(num_experts=8, num_experts_per_tok=top_k, calibration_tokens=256)
    folder = tmp_path / "carved"
    carve(dense, folder, settings, text="the council hears every voice. " * 300)
    tensors = load_file(folder / "model.safetensors")
    routers = {key: tensors[key] * loudness for key in tensors if key.endswith(".gate.weight")}
    assert len(routers) == 3
    save_file({**tensors, **routers}, folder / "model.safetensors", metadata={"format": "pt"})
    export_gguf(folder, tmp_path / "m.gguf", type_name="f32", pre=PRE)
    exact = compare(folder, [tmp_path / "m.gguf"], random_tokens())[0]
    say(f"carved, {top_k} of 8", f32=exact)
    assert exact[0] <= 1e-5
    assert exact[2]


@pytest.mark.parametrize("prepends", [True, False])
def test_it_splits_text_as_a_sentencepiece_tokenizer_does(tmp_path, prepends):
    folder = write_model("mixtral", tmp_path / "m")
    write_sentencepiece_tokenizer(folder, prepends=prepends)
    export_gguf(folder, tmp_path / "m.gguf")
    jobs = [{"file": str(tmp_path / "m.gguf"), "tokens": [5], "text": text} for text in SENTENCES]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text, result in zip(SENTENCES, in_llama_cpp(jobs), strict=True):
        assert result["text_tokens"] == tokenizer.encode(text).ids, text


@pytest.fixture(scope="session")
def demo():
    """The demo's real weights."""
    from veche.core.errors import InputError
    from veche.demo.source import source_folder

    try:
        return source_folder()
    except InputError as error:
        pytest.skip(f"{error.message}: {error.hint}")


KINDS = ("f16", "bf16", "q8_0")
# A tied qwen2moe has no output.weight in its file, and llama.cpp does not load that.
CONVERTED = [name for name in (*MODELS, *VARIANTS) if name != "qwen2_moe-tied"]


@pytest.fixture(scope="session")
def official(source, tmp_path_factory):
    """Return what llama.cpp's converter makes of a model: official("mixtral", "bf16")."""
    folder = tmp_path_factory.mktemp("official")
    convert([(source(name), folder / f"{name}-{k}", k, PRE) for name in CONVERTED for k in KINDS])
    return lambda name, kind: gguf.GGUFReader(folder / f"{name}-{kind}")


def convert(jobs):
    """Run llama.cpp's converter; see official_converter."""
    keys = ("folder", "target", "type", "pre")
    done = subprocess.run(
        [sys.executable, HERE / "official_converter.py", f"{HOME}/source/vendor/llama.cpp"],
        input=json.dumps([dict(zip(keys, map(str, job), strict=True)) for job in jobs]),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


class TestItsOwnConverter:
    OURS_ALONE = frozenset({"tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token"})
    """Said even where it is no."""

    def _differences(self, ours, theirs):
        """Return keys that differ, after the tensors were found equal, byte for byte."""
        first, second = ({t.name: t for t in reader.tensors} for reader in (ours, theirs))
        assert set(first) == set(second)
        for name, tensor in first.items():
            other = second[name]
            assert tensor.tensor_type == other.tensor_type, name
            # it leaves a dimension of one at the shared expert's router; llama.cpp ignores it
            assert tensor.shape.tolist() == [n for n in other.shape.tolist() if n != 1], name
            assert tensor.data.tobytes() == other.data.tobytes(), name
        mine, its = (
            {key: f.contents() for key, f in reader.fields.items() if not key.startswith("GGUF.")}
            for reader in (ours, theirs)
        )
        return {key for key in {*mine, *its} if mine.get(key) != its.get(key)} - self.OURS_ALONE

    @pytest.mark.parametrize("name", CONVERTED)
    @pytest.mark.parametrize("kind", KINDS)
    def test_it_writes_the_same_tensors(self, official, exported, name, kind):
        ours = gguf.GGUFReader(exported(name, kind)[0])
        differ = self._differences(ours, official(name, kind))
        allowed = {"vocab_size", "rope.dimension_count"}  # it writes them for llama only
        if "yarn" in name:
            allowed.add("context_length")  # ours is what YaRN reaches
        if name == "qwen3_moe-yarn-attention":
            # its key is one that llama.cpp reads for other families
            allowed |= {"rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor"}
        if name == "olmoe":
            allowed.add("attention.layer_norm_rms_epsilon")  # it writes 1e-5 for every model
        assert {key.split(".", 1)[1] for key in differ} <= allowed

    @pytest.mark.real_model
    def test_it_takes_the_demo_model_for_what_we_take_it_for(self, demo, tmp_path):
        ours, theirs = tmp_path / "ours.gguf", tmp_path / "theirs.gguf"
        assert export_gguf(demo, ours).pre_tokenizer == "smollm"
        convert([(demo, theirs, "bf16", "")])
        assert self._differences(gguf.GGUFReader(ours), gguf.GGUFReader(theirs)) == set()


@pytest.mark.real_model
@pytest.mark.usefixtures("tools")
def test_the_demo_model_speaks_as_it_does_in_transformers(demo, tmp_path):
    from pydoc_data import topics

    kinds = ("f32", "bf16", "q8_0", "q4_k_m")
    files = [tmp_path / f"{kind}.gguf" for kind in kinds]
    reports = [
        export_gguf(demo, file, type_name=kind) for file, kind in zip(files, kinds, strict=True)
    ]
    ids = AutoTokenizer.from_pretrained(demo).encode(topics.topics["assignment"])[:NUM_TOKENS]
    exact, bf16, q8_0, q4_k_m = compare(demo, files, ids)
    say("SmolLM2-135M-Instruct", f32=exact, bf16=bf16, q8_0=q8_0, q4_k_m=q4_k_m)
    assert exact[0] <= 1e-5
    assert exact[2]
    assert bf16[1] <= 2e-3
    assert bf16[2]
    assert q8_0[1] <= 0.02
    assert q4_k_m[1] <= 0.2
    assert sum(reports[3].check.types.get(kind, 0) for kind in ("Q4_K", "Q5_0", "Q6_K")) > 100


@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize("name", ["qwen3_moe", "mixtral"])
def test_llama_quantize_takes_our_files(source, tmp_path, name):
    # Not as wild as the others: four bits must not drown in what a random model makes of them.
    wide = write_model(name, tmp_path / "m", hidden_size=256, initializer_range=0.05)
    report = export_gguf(wide, tmp_path / "m.gguf", type_name="q4_k_m", pre=PRE)
    assert report.check.types["Q4_K"] > 5
    assert 0.01 < report.check.relative_error < 0.2
    assert {file.name for file in tmp_path.iterdir()} == {"m", "m.gguf"}
    measured = compare(wide, [tmp_path / "m.gguf"], random_tokens())[0]
    say(f"{name} of 256 units", q4_k_m=measured)
    assert measured[1] <= 0.1

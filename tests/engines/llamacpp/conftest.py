"""llama.cpp in this process: `make test-llamacpp` names the environment that holds it."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.surgery.gguf.models import PRE, write_model
from transformers import AutoModelForCausalLM

from veche.surgery.gguf.export import export_gguf

HOME = os.environ.get("VECHE_LLAMA_CPP", "")
if HOME:
    # At the end of the path: of that environment only what this one lacks is used.
    sys.path.extend(str(path) for path in Path(HOME).glob("lib/python*/site-packages"))

FAMILIES = ("qwen3_moe", "qwen2_moe", "mixtral", "olmoe", "llama")
FULL = {"qwen2_moe": {"use_sliding_window": False, "layer_types": ["full_attention"] * 3}}


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory):
    """Return the folder of a tiny random model: folder_of("mixtral")."""
    root = tmp_path_factory.mktemp("llamacpp")

    def write(name, **changes):
        folder = root / "-".join([name, *map(str, changes.values())])
        if not folder.exists():
            write_model(name, folder, **FULL.get(name, {}), **changes)
        return folder

    return write


@pytest.fixture(scope="session")
def gguf_of(folder_of):
    """Return the same as a GGUF file of float32."""

    def export(name, **changes):
        folder = folder_of(name, **changes)
        file = folder.with_suffix(".gguf")
        if not file.exists():
            export_gguf(folder, file, type_name="f32", pre=PRE)
        return file

    return export


@pytest.fixture(scope="session")
def load(gguf_of):
    """Load a tiny model into llama.cpp; what one test loads others use too."""
    from veche.engines.llamacpp import create

    loaded = {}

    def loading(name, **options):
        key = (name, *sorted(options.items()))
        if key not in loaded:
            loaded[key] = create(gguf_of(name), kv_type="f32", threads=1, **options)
        return loaded[key]

    yield loading
    for engine in loaded.values():
        engine.close()


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def engine(load, family):
    """A model of each family; what a test leaves in the cache is a leak."""
    yield from _without_leaks(load(family))


@pytest.fixture
def moe(load):
    yield from _without_leaks(load("qwen3_moe"))


def _without_leaks(engine):
    before = engine._cells.num_used
    yield engine
    assert engine._cells.num_used == before


class Reference:
    """The model in transformers: one forward pass over all tokens, without any cache."""

    def __init__(self, folder, **changes):
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **changes)
        self.model.eval()

    def logits(self, ids):
        """Return [T, V]."""
        with torch.inference_mode():
            return self.model(torch.tensor([list(ids)]), use_cache=False).logits[0].numpy()

    def router_logits(self, ids):
        """Return [L, T, E]."""
        with torch.inference_mode():
            output = self.model(
                torch.tensor([list(ids)]), use_cache=False, output_router_logits=True
            )
        return np.stack([layer.numpy() for layer in output.router_logits])


@pytest.fixture(scope="session")
def reference_of(folder_of):
    loaded = {}

    def loading(name, **changes):
        key = (name, *changes.items())
        if key not in loaded:
            loaded[key] = Reference(folder_of(name), **changes)
        return loaded[key]

    return loading


@pytest.fixture
def reference(reference_of, family):
    return reference_of(family)

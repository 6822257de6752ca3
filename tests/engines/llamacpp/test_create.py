"""What needs no llama-cpp-python: its absence, and what a file is called."""

import hashlib
from importlib.util import find_spec

import pytest

from veche.core.errors import MissingExtraError
from veche.engines.llama_cpp.loading import content_hash_of
from veche.engines.llamacpp import create


@pytest.mark.skipif(find_spec("llama_cpp") is not None, reason="llama-cpp-python is there")
def test_a_missing_package_names_its_install_line():
    with pytest.raises(MissingExtraError, match="llama_cpp") as raised:
        create("model.gguf")
    assert raised.value.hint == "pip install 'veche[llamacpp]'"


def test_a_model_in_parts_is_another_one_when_any_part_is(tmp_path):
    whole = tmp_path / "m.gguf"
    whole.write_bytes(b"GGUF one")
    assert content_hash_of(whole) == hashlib.sha256(b"GGUF one").hexdigest()
    parts = [tmp_path / f"m-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    for part in parts:
        part.write_bytes(b"GGUF one")
    seen = {content_hash_of(whole), content_hash_of(parts[0])}
    for part in parts:
        part.write_bytes(b"GGUF two")
        seen.add(content_hash_of(parts[0]))
    assert len(seen) == 5

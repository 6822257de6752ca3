"""Without llama-cpp-python the engine says what to install."""

from importlib.util import find_spec

import pytest

from veche.core.errors import MissingExtraError
from veche.engines.llamacpp import create


@pytest.mark.skipif(find_spec("llama_cpp") is not None, reason="llama-cpp-python is there")
def test_a_missing_package_names_its_install_line():
    with pytest.raises(MissingExtraError, match="llama_cpp") as raised:
        create("model.gguf")
    assert raised.value.hint == "pip install 'veche[llamacpp]'"

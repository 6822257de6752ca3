"""Options that only one engine takes."""

import pytest

from veche.cli.engine_options import open_engine
from veche.core.errors import InputError
from veche.plugins.registry import names


@pytest.mark.parametrize("engine", names("engines"))
def test_every_engine_tells_its_options_before_it_loads_anything(engine):
    with pytest.raises(InputError, match="no option 'запас'") as caught:
        open_engine(engine, "nowhere", top_k=None, options=["запас=1"])
    assert "it takes" in caught.value.hint


def test_a_value_becomes_what_the_engine_says_it_is():
    with pytest.raises(InputError, match="cache_tokens=много"):
        open_engine("llamacpp", "nowhere", top_k=None, options=["cache_tokens=много"])


@pytest.mark.parametrize(
    ("model", "engine"),
    [("http://127.0.0.1:9/v1", "openai"), ("модель.gguf", "llamacpp")],
)
def test_what_is_no_folder_names_the_engine_that_takes_it(model, engine):
    with pytest.raises(InputError) as caught:
        open_engine("transformers", model, top_k=None, options=None)
    assert caught.value.hint == f"add --engine {engine}"

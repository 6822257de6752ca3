"""Models of these tests, made once."""

import pytest
from tests import tiny_models
from tests.roles.healing import lessons


@pytest.fixture(scope="session")
def shelf(tmp_path_factory):
    """Hold models that tests only read."""
    folder = tmp_path_factory.mktemp("healing")
    tiny_models.tiny_qwen3_moe(folder / "moe")
    tiny_models.tiny_llama(folder / "llama")
    lessons.carved(folder)
    return folder

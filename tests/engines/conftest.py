from pathlib import Path

import pytest
from tests import tiny_models

from veche.engines.embedded.engine import EmbeddedEngine
from veche.engines.transformers import create


@pytest.fixture(scope="session", params=["tiny_mixtral", "tiny_qwen3_moe", "tiny_llama"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return getattr(tiny_models, request.param)(tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def engine(folder: Path) -> EmbeddedEngine:
    return create(folder, dtype="float32")


@pytest.fixture(scope="session")
def moe_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.tiny_qwen3_moe(tmp_path_factory.mktemp("moe"))


@pytest.fixture(scope="session")
def moe_engine(moe_folder: Path) -> EmbeddedEngine:
    return create(moe_folder, dtype="float32")

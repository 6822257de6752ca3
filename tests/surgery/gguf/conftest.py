"""Exports of tiny models, made once."""

import pytest
from tests.surgery.gguf.models import MODELS, PRE, VARIANTS, write_model

from veche.surgery.gguf.export import export_gguf


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """Return the folder of a tiny model: source("mixtral")."""
    folder = tmp_path_factory.mktemp("sources")
    for name in (*MODELS, *VARIANTS):
        write_model(name, folder / name)
    return lambda name: folder / name


@pytest.fixture(scope="session")
def exported(source, tmp_path_factory):
    """Return the GGUF file of a tiny model and its report: exported("mixtral", "q8_0")."""
    folder, made = tmp_path_factory.mktemp("exported"), {}

    def export(name, type_name):
        file = folder / f"{name}-{type_name}.gguf"
        if file not in made:
            made[file] = export_gguf(source(name), file, type_name=type_name, pre=PRE)
        return file, made[file]

    return export

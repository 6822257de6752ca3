"""A GGUF file → a Hugging Face folder, by transformers' own reader. This file imports torch."""

import io
import shutil
from contextlib import redirect_stderr
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from veche.core.errors import CheckpointError, DiskError
from veche.core.files import disk_error, write_text
from veche.surgery.loading import quiet_transformers

_CARD = """---
license: {license}
base_model: {base_model}
---
Converted from `{file}` by veche: the quantised weights as bfloat16.
"""


def convert_gguf(file: Path, target: Path, *, license_id: str, base_model: str) -> None:
    """Write the model in `file` as a Hugging Face folder, by way of `target`.partial.

    Args:
        file: a GGUF file of a family that transformers reads.
        target: the folder to make; it must not exist.
        license_id: of the weights, e.g. "apache-2.0".
        base_model: the hub's name of the model whose weights these are, quantised.

    Raises:
        CheckpointError: transformers cannot read the file.
        DiskError: the folder could not be written.
    """
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _convert(file, partial)
        card = _CARD.format(license=license_id, base_model=base_model, file=file.name)
        write_text(partial / "README.md", card)
        partial.rename(target)
    except OSError as error:
        raise disk_error(error, target) from error
    except SafetensorError as error:  # safetensors' own name for a disk that refuses
        raise DiskError(
            f"{target} could not be written: {error}",
            hint="free some space, then run the same command again",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _convert(file: Path, folder: Path) -> None:
    # The bar of transformers' GGUF reader has no switch.
    with quiet_transformers(), redirect_stderr(io.StringIO()):
        try:
            where = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
            model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.bfloat16)
            tokenizer = AutoTokenizer.from_pretrained(**where)
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{file} cannot be read as a model: {error}") from error
        # A model from GGUF counts as quantised until told otherwise, and refuses to be saved.
        model.hf_quantizer = None
        del model.config.quantization_config
        # GGUF keeps it in float32: 9.999999747378752e-06 was 1e-05.
        model.config.rms_norm_eps = float(f"{model.config.rms_norm_eps:.6g}")
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

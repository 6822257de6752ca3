"""A checkpoint folder → one GGUF file for llama.cpp, streamed and checked."""

import difflib
import errno
import os
import shutil
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import gguf

from veche.checkpoint.reader import Checkpoint, open_checkpoint
from veche.core.errors import CheckpointError, FailureError, InputError, OutputError
from veche.core.files import PARTIAL_SUFFIX, atomic_writer, disk_error, sync_folder
from veche.core.peak_memory import peak_memory_bytes
from veche.core.progress import Progress, Silent
from veche.core.units import format_bytes
from veche.planning.gguf_types import RECIPES
from veche.surgery.gguf.check import FileCheck, check_file, shape_problems
from veche.surgery.gguf.encode import encoded, num_bytes
from veche.surgery.gguf.limits import require_exportable
from veche.surgery.gguf.llama_quantize import find_tool, quantize
from veche.surgery.gguf.metadata import architecture_name, write_metadata
from veche.surgery.gguf.tensor_plan import GgufTensor, plan_tensors
from veche.surgery.gguf.vocabulary import Vocabulary, read_vocabulary

_OWN_TYPES: Mapping[str, str] = {
    "F32": "ALL_F32", "F16": "MOSTLY_F16", "BF16": "MOSTLY_BF16", "Q8_0": "MOSTLY_Q8_0",
}  # fmt: skip
"""Types that the `gguf` package writes → general.file_type."""
TYPES: tuple[str, ...] = (*_OWN_TYPES, *(name for name in RECIPES if name not in _OWN_TYPES))
"""All that --type takes; those that are not ours are llama-quantize's."""
_FULL_BYTES = 1 << 20
"""A disk with less than this left is what a tool has failed of."""
_INTERMEDIATE = ".bf16" + PARTIAL_SUFFIX


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What an export made.

    Attributes:
        target: the file.
        architecture: general.architecture.
        type: as asked for, e.g. "q8_0".
        pre_tokenizer: tokenizer.ggml.pre.
        num_bytes: of the file.
        check: what reading it back found.
        num_unlisted_merges: see Vocabulary.
        seconds: it took.
        peak_memory_bytes: the highest resident memory of this process.
    """

    target: str
    architecture: str
    type: str
    pre_tokenizer: str
    num_bytes: int
    check: FileCheck
    num_unlisted_merges: int
    seconds: float
    peak_memory_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def export_gguf(
    source: Path,
    target: Path,
    *,
    type_name: str = "bf16",
    pre: str | None = None,
    progress: Progress | None = None,
) -> ExportReport:
    """Write the checkpoint in `source` as the GGUF file `target`, and check it.

    Args:
        source: a checkpoint folder with its tokenizer; only read.
        target: must not exist.
        type_name: of the matrices: f32, f16, bf16, q8_0, or one of llama-quantize's.
        pre: llama.cpp's name of the pre-tokenizer; None to find it out.
        progress: where to report.

    Raises:
        InputError: the type or the pre-tokenizer is not known, or the target is taken.
        UnsupportedError: llama.cpp cannot hold this model.
        CheckpointError: the source is damaged, or has no tokenizer.
        VerificationError: the file that was written is not what it must be.
        DiskError: the disk is full or refuses.
    """
    started = time.perf_counter()
    progress = progress or Silent()
    kind = type_of(type_name)
    _require_free(target)
    tool = None if kind in _OWN_TYPES else find_tool(kind)
    checkpoint = open_checkpoint(source)
    require_exportable(checkpoint)
    vocabulary = read_vocabulary(source, checkpoint.spec.vocab_size, pre=pre)
    _warn(vocabulary, progress)
    first = kind if tool is None else "BF16"
    tensors = plan_tensors(checkpoint, first)
    writer = _writer(checkpoint, tensors, vocabulary, first)
    _require_shapes(checkpoint, tensors, writer)
    with _unfinished(target) as (whole, partial):
        check = _write(whole if tool else partial, writer, tensors, progress)
        if tool:
            check = _quantized(tool, whole, partial, kind, tensors, progress)
        partial.replace(target)
        sync_folder(target.parent)
    return ExportReport(
        target=str(target),
        architecture=writer.arch,
        type=kind.lower(),
        pre_tokenizer=vocabulary.pre,
        num_bytes=target.stat().st_size,
        check=check,
        num_unlisted_merges=vocabulary.num_unlisted_merges,
        seconds=round(time.perf_counter() - started, 2),
        peak_memory_bytes=peak_memory_bytes(),
    )


def type_of(name: str) -> str:
    """Return the type's name in capitals.

    Raises:
        InputError: it is none of TYPES; the nearest is named.
    """
    if name.upper() in TYPES:
        return name.upper()
    near = difflib.get_close_matches(name.upper(), TYPES, n=1)
    raise InputError(
        f"--type: there is no type {name!r}",
        hint=(f"did you mean {near[0].lower()!r}? " if near else "")
        + f"one of: {', '.join(TYPES).lower()}",
    )


def _require_free(target: Path) -> None:
    if target.is_dir():
        raise OutputError(f"{target} is a folder", hint="name a file in it: FOLDER/model.gguf")
    if target.exists() or target.is_symlink():
        raise OutputError(
            f"{target} exists, and veche overwrites nothing",
            hint="choose another file, or remove it first",
        )


def _warn(vocabulary: Vocabulary, progress: Progress) -> None:
    if vocabulary.num_unlisted_merges:
        progress.say(
            f"{vocabulary.num_unlisted_merges} ways to join two tokens into a third are not "
            "listed in tokenizer.json, and llama.cpp takes them: it may split some text otherwise"
        )


def _writer(
    checkpoint: Checkpoint, tensors: tuple[GgufTensor, ...], vocabulary: Vocabulary, kind: str
) -> Any:
    """Return a gguf.GGUFWriter that knows everything but the values."""
    writer = gguf.GGUFWriter(None, architecture_name(checkpoint))
    for tensor in tensors:
        type_ = gguf.GGMLQuantizationType[tensor.type]
        writer.add_tensor_info(tensor.name, tensor.shape, None, num_bytes(tensor), raw_dtype=type_)
    write_metadata(writer, checkpoint, _OWN_TYPES[kind])
    vocabulary.write(writer)
    return writer


def _require_shapes(checkpoint: Checkpoint, tensors: tuple[GgufTensor, ...], writer: Any) -> None:
    """Refuse a source whose tensors are not of the shapes that its config.json says."""
    metadata = {key: entry.value for key, entry in writer.kv_data[0].items()}
    problems = shape_problems({tensor.name: tensor.shape for tensor in tensors}, metadata)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise CheckpointError(
            f"{checkpoint.folder}: its tensors are not those of its config.json: "
            f"{problems[0]}{more}",
            hint="fetch config.json and the shards again: they must be of one model",
        )


@contextmanager
def _unfinished(target: Path) -> Iterator[tuple[Path, Path]]:
    """Yield names beside `target` for the 16-bit values, if any, and for the result.

    Neither is left, whatever happens.
    """
    names = [target.with_name(target.name + ending) for ending in (_INTERMEDIATE, PARTIAL_SUFFIX)]
    try:
        yield names[0], names[1]
    except OSError as error:
        raise disk_error(error, target) from error
    finally:
        for name in names:
            name.unlink(missing_ok=True)


def _write(
    target: Path, writer: Any, tensors: tuple[GgufTensor, ...], progress: Progress
) -> FileCheck:
    total = sum(map(num_bytes, tensors))
    with atomic_writer(target) as file:
        _write_header(file, writer)
        with progress.task(f"write {format_bytes(total)}", total) as advance:
            for tensor in tensors:
                for chunk in encoded(tensor):
                    file.write(chunk)
                    advance(len(chunk))
                file.write(bytes(-num_bytes(tensor) % writer.data_alignment))
    with progress.task("check"):
        return check_file(target, tensors, is_exact_type=True)


def _write_header(file: IO[bytes], writer: Any) -> None:
    """Write metadata and the table of tensors, and pad to where the first tensor begins."""
    writer.fout, writer.state = [file], gguf.gguf_writer.WriterState.EMPTY
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    except (struct.error, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"the model card, generation_config.json or tokenizer holds a value that GGUF cannot: "
            f"{error}",
            hint="look at the header of README.md and at generation_config.json",
        ) from error
    file.write(bytes(-file.tell() % writer.data_alignment))


def _quantized(
    tool: Path,
    whole: Path,
    partial: Path,
    kind: str,
    tensors: tuple[GgufTensor, ...],
    progress: Progress,
) -> FileCheck:
    partial.unlink(missing_ok=True)
    try:
        with progress.task(f"{tool.name} {kind}"):
            quantize(tool, whole, partial, kind)
    except FailureError:
        if shutil.disk_usage(partial.parent).free < _FULL_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        raise
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    with progress.task("check"):
        return check_file(partial, tensors, is_exact_type=False)

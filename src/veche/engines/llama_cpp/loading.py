"""Load a GGUF file into llama.cpp: its weights, a context with its cache, its tokenizer."""

import ctypes
import hashlib
import re
import weakref
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from veche.core.errors import CheckpointError, EngineError, InputError, UnsupportedError
from veche.core.files import sha256_of
from veche.core.units import format_bytes
from veche.engines.llama_cpp.library import last_complaint, library
from veche.engines.llama_cpp.router_tap import RouterTap
from veche.engines.llama_cpp.vocabulary import Vocabulary
from veche.engines.llama_cpp.worker import Worker

BATCH_TOKENS = 512
"""The most tokens that one evaluation takes."""
_LEAST_CACHE_TOKENS, _MOST_CACHE_TOKENS = 4096, 16384
"""What the cache holds where nothing is asked for: the model's own context, within these."""
_KV_TYPES = {"f32": (0, 4), "f16": (1, 2)}
"""ggml's numbers of cache types, and the bytes of a value."""
_NO_FLASH_ATTENTION = 0
"""LLAMA_FLASH_ATTN_TYPE_DISABLED."""
_INT_OVERRIDE = 0
"""LLAMA_KV_OVERRIDE_TYPE_INT."""
_MAX_META_BYTES = 1 << 20
_PART = re.compile(r"(?P<name>.+)-\d{5}-of-(?P<count>\d{5})\.gguf")
_PART_NAME = "{}-{:05}-of-{:05}.gguf"
"""How llama.cpp names the parts of a model; the first one is what is loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a model is to be loaded; see `veche.engines.llamacpp.create`."""

    top_k: int | None
    cache_tokens: int | None
    max_cache_bytes: int | None
    max_sequences: int
    kv_type: str
    threads: int
    routing: bool


class LoadedGguf:
    """A model and its context, freed exactly once: by `close`, or when nobody holds it any more.

    Args:
        file: a GGUF file.
        options: how it is loaded.
    """

    def __init__(self, file: Path, options: Options) -> None:
        self.file = file
        self.lib = library()
        self.max_sequences = options.max_sequences
        self.kv_type = options.kv_type
        self.model = _model(file, options.top_k)
        finalizer = weakref.finalize(self, self.lib.llama_model_free, self.model)
        _require_forkable(self.lib, self.model, file)
        self.trained_tokens = int(self.lib.llama_model_n_ctx_train(self.model))
        self.cache_tokens = _cache_tokens(self, options)
        self.tap = RouterTap()
        self.worker = Worker()
        self.context = _context(self, options)
        finalizer.detach()
        self._finalizer = weakref.finalize(
            self, _free, self.lib, self.context, self.model, self.worker
        )
        self.memory = self.lib.llama_get_memory(self.context)
        vocab = self.lib.llama_model_get_vocab(self.model)
        self.vocabulary = Vocabulary(vocab, self.meta("tokenizer.chat_template"))

    def meta(self, key: str) -> str | None:
        """Return a value of the file's metadata as text; "{arch}" stands for its architecture."""
        return _meta(self.lib, self.model, key)

    @cached_property
    def content_hash(self) -> str:
        """What the file is called in snapshots; see `content_hash_of`."""
        return content_hash_of(self.file)

    def close(self) -> None:
        """Free the context, the adapters and the weights."""
        self._finalizer()


def content_hash_of(file: Path) -> str:
    """Return the SHA-256 of a GGUF file; of a model in parts, of the SHA-256 of all parts."""
    parts = _PART.fullmatch(file.name)
    if parts is None:
        return sha256_of(file)
    name, count = parts["name"], int(parts["count"])
    files = [file.with_name(_PART_NAME.format(name, part + 1, count)) for part in range(count)]
    return hashlib.sha256("\n".join(map(sha256_of, files)).encode()).hexdigest()


def _free(lib: Any, context: Any, model: Any, worker: Worker) -> None:
    lib.llama_free(context)
    lib.llama_model_free(model)
    worker.close()


def _model(file: Path, top_k: int | None) -> Any:
    """Load the weights, mapped from the file."""
    lib = library()
    _require_gguf(file)
    params = lib.llama_model_default_params()
    params.n_gpu_layers = 0
    last_complaint("")  # what was said of other files
    overrides = None
    if top_k is not None:
        overrides = _expert_override(lib, file, top_k)
        params.kv_overrides = overrides
    model = lib.llama_model_load_from_file(str(file).encode(), params)
    if not model:
        raise _refused(file)
    return model


def _refused(file: Path) -> CheckpointError:
    return CheckpointError(
        f"llama.cpp can't load {file}: {last_complaint('it does not say why')}",
        hint="download or export the file again; `pip install -U llama-cpp-python` knows more "
        "architectures",
    )


def _require_gguf(file: Path) -> None:
    if file.is_dir():
        raise CheckpointError(
            f"{file} is a folder, and llama.cpp reads a GGUF file",
            hint=f"veche export gguf {file} model.gguf",
        )
    try:
        with file.open("rb") as stream:
            magic = stream.read(4)
    except OSError as error:
        raise CheckpointError(
            f"{file} cannot be read: {error.strerror}", hint="check the path"
        ) from error
    if magic != b"GGUF":
        raise CheckpointError(
            f"{file} is not a GGUF file: it begins with {magic!r}", hint="check the path"
        )


def _require_forkable(lib: Any, model: Any, file: Path) -> None:
    kinds = {
        "a recurrent state": lib.llama_model_is_recurrent,
        "a recurrent state in some layers": lib.llama_model_is_hybrid,
        "an encoder": lib.llama_model_has_encoder,
        "diffusion": lib.llama_model_is_diffusion,
    }
    for kind, has in kinds.items():
        if has(model):
            raise UnsupportedError(
                f"{file} uses {kind}: its trunk can't be forked by this engine",
                hint="serve it with llama-server, and use the openai engine",
            )


def _expert_override(lib: Any, file: Path, top_k: int) -> Any:
    """Return llama.cpp's list of overrides: the number of active experts, then its end."""
    params = lib.llama_model_default_params()
    params.vocab_only = True
    model = lib.llama_model_load_from_file(str(file).encode(), params)
    if not model:
        raise _refused(file)
    try:
        num_experts = int(_meta(lib, model, "{arch}.expert_count") or 0)
        key = f"{_meta(lib, model, 'general.architecture')}.expert_used_count"
    finally:
        lib.llama_model_free(model)
    if not num_experts:
        raise InputError(f"top_k {top_k} was given, but {file} has no experts")
    if not 1 <= top_k <= num_experts:
        raise InputError(f"top_k {top_k} is not in 1..{num_experts}, the number of experts")
    overrides = (lib.llama_model_kv_override * 2)()
    overrides[0].tag = _INT_OVERRIDE
    overrides[0].key = key.encode()
    overrides[0].value.val_i64 = top_k
    return overrides


def _meta(lib: Any, model: Any, key: str) -> str | None:
    if "{arch}" in key:
        key = key.format(arch=_meta(lib, model, "general.architecture"))
    buffer = ctypes.create_string_buffer(_MAX_META_BYTES)
    length = lib.llama_model_meta_val_str(model, key.encode(), buffer, _MAX_META_BYTES)
    return None if length < 0 else buffer.value.decode(errors="replace")


def _cache_tokens(loaded: LoadedGguf, options: Options) -> int:
    """Return how many tokens the cache holds, after it was found to fit its budget."""
    usual = max(_LEAST_CACHE_TOKENS, min(loaded.trained_tokens, _MOST_CACHE_TOKENS))
    wanted = usual if options.cache_tokens is None else options.cache_tokens
    if wanted < 1:
        raise InputError(f"cache_tokens {wanted} is not positive")
    if options.max_cache_bytes is None:
        return wanted
    per_token = _bytes_per_token(loaded)
    fitting = options.max_cache_bytes // per_token
    if wanted > fitting:
        raise InputError(
            f"a cache of {wanted} tokens takes {format_bytes(wanted * per_token)}, and "
            f"{format_bytes(options.max_cache_bytes)} are allowed",
            hint=f"allow {fitting} tokens (cache_tokens), or more memory (max_cache_bytes)",
        )
    return wanted


def _bytes_per_token(loaded: LoadedGguf) -> int:
    """Return the bytes of one token's keys and values, in all layers."""
    lib, model = loaded.lib, loaded.model
    width = lib.llama_model_n_embd(model) // lib.llama_model_n_head(model)
    widths = [
        int(loaded.meta(f"{{arch}}.attention.{kind}_length") or width) for kind in ("key", "value")
    ]
    heads = lib.llama_model_n_layer(model) * lib.llama_model_n_head_kv(model)
    return max(1, int(heads) * sum(widths) * _KV_TYPES[loaded.kv_type][1])


def _context(loaded: LoadedGguf, options: Options) -> Any:
    lib = loaded.lib
    params = lib.llama_context_default_params()
    params.n_ctx = loaded.cache_tokens
    params.n_batch = params.n_ubatch = BATCH_TOKENS
    params.n_seq_max = options.max_sequences
    params.n_outputs_max = params.n_outputs_max_per_seq = options.max_sequences
    params.n_threads = params.n_threads_batch = options.threads
    params.type_k = params.type_v = _KV_TYPES[options.kv_type][0]
    params.kv_unified = params.swa_full = True
    params.no_perf = True
    if options.kv_type == "f32":  # flash attention rounds queries to 16 bits
        params.flash_attn_type = _NO_FLASH_ATTENTION
    if options.routing:
        params.cb_eval = loaded.tap.callback
    params.abort_callback = loaded.worker.abort_callback
    params.abort_callback_data = loaded.worker.abort_data
    context = lib.llama_init_from_model(loaded.model, params)
    if not context:
        loaded.worker.close()
        raise EngineError(
            f"llama.cpp can't make a context of {loaded.cache_tokens} tokens for {loaded.file}: "
            f"{last_complaint('it does not say why')}",
            hint="ask for a smaller cache (cache_tokens)",
        )
    return context

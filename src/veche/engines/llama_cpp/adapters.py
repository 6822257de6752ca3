"""LoRA adapters in GGUF files: loaded under a name, set for one evaluation after another."""

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veche.core.errors import CheckpointError, InputError
from veche.core.files import sha256_of
from veche.engines.llama_cpp.library import last_complaint
from veche.engines.llama_cpp.loading import LoadedGguf


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedAdapter:
    """An adapter that can be set: llama.cpp's pointer, and the SHA-256 of its file."""

    pointer: Any
    content_hash: str


class Adapters:
    """The adapters of one model.

    NOTE: llama.cpp applies what is set to a whole evaluation, so rows that use different adapters
    are evaluated apart. What is loaded is freed with the model at the latest.
    """

    def __init__(self, loaded: LoadedGguf) -> None:
        self._loaded = loaded
        self._by_name: dict[str, LoadedAdapter] = {}
        self._current: str | None = None

    def load(self, name: str, path: Path) -> str:
        """Load a GGUF adapter under a name; return its content hash.

        Raises:
            InputError: the name is taken.
            CheckpointError: there is no such file, or it does not fit the model.
        """
        if name in self._by_name:
            raise InputError(
                f"an adapter {name!r} is loaded already", hint="unload it, or choose another name"
            )
        file = _gguf_of(path)
        lib = self._loaded.lib
        pointer = lib.llama_adapter_lora_init(self._loaded.model, str(file).encode())
        if not pointer:
            raise CheckpointError(
                f"llama.cpp can't load the adapter {file}: {last_complaint('it does not say why')}",
                hint="it must have been trained on this very model",
            )
        content_hash = sha256_of(file)
        self._by_name[name] = LoadedAdapter(pointer=pointer, content_hash=content_hash)
        return content_hash

    def unload(self, name: str) -> None:
        """Forget an adapter.

        Raises:
            InputError: there is none of this name.
        """
        adapter = self.named(name)
        if self._current == name:
            self.use(None)
        del self._by_name[name]
        self._loaded.lib.llama_adapter_lora_free(adapter.pointer)

    def named(self, name: str) -> LoadedAdapter:
        """Return a loaded adapter.

        Raises:
            InputError: there is none of this name.
        """
        if name not in self._by_name:
            raise InputError(
                f"no adapter {name!r} is loaded",
                hint=f"loaded: {', '.join(sorted(self._by_name)) or 'none'}",
            )
        return self._by_name[name]

    def hashes(self) -> frozenset[str]:
        """Return the content hashes of what is loaded."""
        return frozenset(adapter.content_hash for adapter in self._by_name.values())

    def use(self, name: str | None) -> None:
        """Let the next evaluations go through one adapter, or through none."""
        if name == self._current:
            return
        pointers = [] if name is None else [self.named(name).pointer]
        array = (self._loaded.lib.llama_adapter_lora_p_ctypes * 1)(*pointers)
        scale = (ctypes.c_float * 1)(1.0)
        lib = self._loaded.lib
        lib.llama_set_adapters_lora(self._loaded.context, array, len(pointers), scale)
        self._current = name


def _gguf_of(path: Path) -> Path:
    """Return the adapter's file: `path` itself, or the only one in a folder."""
    if path.is_file():
        return path
    files = sorted(path.glob("*.gguf")) if path.is_dir() else []
    if len(files) != 1:
        raise CheckpointError(
            f"{path} is not a GGUF adapter, nor a folder with one: {len(files)} files *.gguf",
            hint="llama.cpp's convert_lora_to_gguf.py makes one of a PEFT folder",
        )
    return files[0]

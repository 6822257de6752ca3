"""LoRA adapters on a model in memory, chosen row by row of a batch. PEFT does the work.

An adapter acts on a branch's own tokens only: from the first one on, or, if it was trained with
invocation tokens (aLoRA, arXiv 2504.12397), from the last place where those stand in its suffix.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

from veche.core.errors import CheckpointError, InputError, MissingExtraError
from veche.engines.embedded.adapter_files import read_adapter
from veche.surgery.loading import quiet_transformers

_UNFIT = (ValueError, RuntimeError, LookupError, TypeError, AttributeError, OSError, re.error)
"""What PEFT raises where a config's values are not what it takes them for."""
_BASE = "__base__"
"""PEFT's name for a row without an adapter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedAdapter:
    """An adapter that branches may name.

    Attributes:
        peft_name: what PEFT calls it: the user's names may hold what modules can't be called.
        content_hash: SHA-256 of its config and weights.
        invocation_ids: tokens that it waits for; empty is that it acts at once.
    """

    peft_name: str
    content_hash: str
    invocation_ids: tuple[int, ...]


class Adapters:
    """The adapters of one model.

    NOTE: they are switched off but inside `acting`, so a trunk is what it would be without them.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._loaded: dict[str, LoadedAdapter] = {}
        self._numbers = count()
        self._names: list[str] = []
        self._spans: list[int] = []
        self._behind = 0

    def load(self, name: str, folder: Path) -> str:
        """Load a PEFT folder under a name, in place of one that had it; return its content hash.

        Raises:
            MissingExtraError: peft is not installed.
            CheckpointError: the folder holds no LoRA in safetensors, or of another model; what had
                the name keeps it.
            UnsupportedError: it changes more than attention.
        """
        if find_spec("peft") is None:
            raise MissingExtraError("peft", "train")
        files = read_adapter(folder)
        peft_name = f"adapter_{next(self._numbers)}"
        try:
            with quiet_transformers(), warnings.catch_warnings():
                # That a second adapter is loaded beside the first is what is wanted.
                warnings.filterwarnings("ignore", "Already found a `peft_config`")
                self._model.load_adapter(str(folder), adapter_name=peft_name, hotswap=False)
            self._require_all(peft_name, files.num_tensors)
        except _UNFIT as error:
            self._discard(peft_name)
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise CheckpointError(
                f"the adapter in {folder} does not fit the model: {reason}",
                hint="an adapter fits the base model that it was trained on",
            ) from error
        self._model.disable_adapters()
        self._model.eval()
        if name in self._loaded:
            self.unload(name)
        self._loaded[name] = LoadedAdapter(
            peft_name=peft_name,
            content_hash=files.content_hash,
            invocation_ids=tuple(files.config.alora_invocation_tokens or ()),
        )
        return files.content_hash

    def unload(self, name: str) -> None:
        """Forget an adapter.

        Raises:
            InputError: there is none of that name.
        """
        self._discard(self.named(name).peft_name)
        del self._loaded[name]

    def named(self, name: str) -> LoadedAdapter:
        """Return a loaded adapter.

        Raises:
            InputError: there is none of that name.
        """
        if name not in self._loaded:
            raise InputError(
                f"no adapter {name!r} is loaded",
                hint=f"loaded: {', '.join(sorted(self._loaded)) or 'none'}",
            )
        return self._loaded[name]

    def span(self, name: str | None, suffix_ids: Sequence[int]) -> int:
        """Return on how many tokens at the end of a suffix an adapter acts.

        Raises:
            InputError: it waits for tokens that the suffix does not have.
        """
        invocation = () if name is None else self.named(name).invocation_ids
        if not invocation:
            return len(suffix_ids)
        for start in range(len(suffix_ids) - len(invocation), -1, -1):
            if tuple(suffix_ids[start : start + len(invocation)]) == invocation:
                return len(suffix_ids) - start
        raise InputError(
            f"adapter {name!r} waits for its invocation tokens {list(invocation)}, and the "
            "instruction has none",
            hint="write the adapter's invocation text into the instruction",
        )

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Let adapters act on the rows that `set_rows` names, until the block ends."""
        if not self._loaded:
            yield
            return
        from peft.tuners.lora import LoraLayer

        with ExitStack() as stack:
            for module in self._model.modules():
                if isinstance(module, LoraLayer):
                    handle = module.register_forward_pre_hook(self._choose, with_kwargs=True)
                    stack.callback(handle.remove)
            self._model.enable_adapters()
            stack.callback(self._model.disable_adapters)
            yield

    def set_rows(self, names: Sequence[str | None], spans: Sequence[int]) -> None:
        """Say which adapter each batch row has, and on how many tokens at the end it acts."""
        self._names = [_BASE if name is None else self.named(name).peft_name for name in names]
        self._spans = list(spans)
        self._behind = 0

    def set_behind(self, num_tokens: int) -> None:
        """Say how many tokens of the suffixes come in later passes."""
        self._behind = num_tokens

    def _choose(self, module: Any, args: Any, kwargs: Any) -> Any:
        offsets = [max(0, span - self._behind) for span in self._spans]
        return args, {**kwargs, "adapter_names": self._names, "alora_offsets": offsets}

    def _require_all(self, peft_name: str, num_tensors: int) -> None:
        """Refuse weights of which some are missing, or that the model has no place for."""
        names = [name for name, _ in self._model.named_parameters()]
        num_places = sum(f".{peft_name}." in name for name in names)
        if num_places != num_tensors:
            raise ValueError(f"it has {num_tensors} weights, where the model needs {num_places}")

    def _discard(self, peft_name: str) -> None:
        if peft_name in (getattr(self._model, "peft_config", None) or {}):
            with warnings.catch_warnings():
                # That another adapter is then the active one: here rows say which one is.
                warnings.filterwarnings("ignore", "Adapter .* was active")
                self._model.delete_adapter(peft_name)

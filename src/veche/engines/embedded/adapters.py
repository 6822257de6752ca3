"""LoRA adapters on a model in memory, chosen row by row of a batch. PEFT does the work.

An adapter acts on a branch's own tokens only: from the first one on, or, if it was trained with
invocation tokens (aLoRA, arXiv 2504.12397), from the last place where those stand in its suffix.
"""

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veche.core.errors import CheckpointError, InputError, MissingExtraError, UnsupportedError
from veche.core.files import read_json_object, sha256_of
from veche.surgery.loading import quiet_transformers

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_ATTENTION = frozenset({"q_proj", "k_proj", "v_proj", "o_proj"})
_BASE = "__base__"
"""PEFT's name for a row without an adapter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedAdapter:
    """An adapter that branches may name.

    Attributes:
        content_hash: SHA-256 of its config and weights.
        invocation_ids: tokens that it waits for; empty is that it acts at once.
    """

    content_hash: str
    invocation_ids: tuple[int, ...]


class Adapters:
    """The adapters of one model.

    NOTE: they are switched off but inside `acting`, so a trunk is what it would be without them.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._loaded: dict[str, LoadedAdapter] = {}
        self._names: list[str] = []
        self._spans: list[int] = []
        self._behind = 0

    def load(self, name: str, folder: Path) -> str:
        """Load a PEFT folder under a name, in place of one that had it; return its content hash.

        Raises:
            MissingExtraError: peft is not installed.
            CheckpointError: the folder holds no LoRA in safetensors, or of another model.
            UnsupportedError: it changes more than attention.
        """
        found = _read(folder)
        if name in self._loaded:
            self.unload(name)
        try:
            with quiet_transformers(), warnings.catch_warnings():
                # That a second adapter is loaded beside the first is what is wanted.
                warnings.filterwarnings("ignore", "Already found a `peft_config`")
                self._model.load_adapter(str(folder), adapter_name=name, hotswap=False)
        except (ValueError, RuntimeError, KeyError, TypeError, OSError) as error:
            self._discard(name)
            raise CheckpointError(
                f"the adapter in {folder} does not fit the model: {str(error).splitlines()[0]}",
                hint="an adapter fits the base model that it was trained on",
            ) from error
        self._model.disable_adapters()
        self._model.eval()
        self._loaded[name] = found
        return found.content_hash

    def unload(self, name: str) -> None:
        """Forget an adapter.

        Raises:
            InputError: there is none of that name.
        """
        self.named(name)
        self._discard(name)
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
        self._names = [_BASE if name is None else name for name in names]
        self._spans = list(spans)
        self._behind = 0

    def set_behind(self, num_tokens: int) -> None:
        """Say how many tokens of the suffixes come in later passes."""
        self._behind = num_tokens

    def _choose(self, module: Any, args: Any, kwargs: Any) -> Any:
        offsets = [max(0, span - self._behind) for span in self._spans]
        return args, {**kwargs, "adapter_names": self._names, "alora_offsets": offsets}

    def _discard(self, name: str) -> None:
        if name in (getattr(self._model, "peft_config", None) or {}):
            self._model.delete_adapter(name)


def _read(folder: Path) -> LoadedAdapter:
    """Look at an adapter's files before anything of the model is touched."""
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("peft", "train") from error
    config = read_json_object(folder / _CONFIG)
    if not (folder / _WEIGHTS).is_file():
        raise CheckpointError(
            f"{folder} has no {_WEIGHTS}; pickled adapters are refused",
            hint="save it with safe_serialization=True",
        )
    if config.get("peft_type") != "LORA" or config.get("use_dora"):
        raise UnsupportedError(
            f"the adapter in {folder} is {config.get('peft_type')}"
            f"{' with DoRA' if config.get('use_dora') else ''}: rows of a batch can't differ in it",
            hint="train a plain LoRA, or merge it into the model",
        )
    targets = config.get("target_modules")
    others = sorted(set(targets) - _ATTENTION) if isinstance(targets, list) else [str(targets)]
    others += [str(name) for name in config.get("target_parameters") or []]
    if others:
        raise UnsupportedError(
            f"the adapter in {folder} changes {', '.join(others[:3])}: only attention projections "
            "can differ from row to row",
            hint="merge it into the model, or train it on q_proj, k_proj, v_proj and o_proj",
        )
    digest = hashlib.sha256()
    for name in (_CONFIG, _WEIGHTS):
        digest.update(f"{name}\0{sha256_of(folder / name)}\n".encode())
    return LoadedAdapter(
        content_hash=digest.hexdigest(),
        invocation_ids=tuple(config.get("alora_invocation_tokens") or ()),
    )

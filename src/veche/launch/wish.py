"""What the user asks of a launch profile, checked."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from veche.core.errors import InputError
from veche.core.language import Language
from veche.launch.case import ENGINES, EngineName, Feature
from veche.launch.gpus import Gpu, find_gpu
from veche.launch.kv_cache import kv_dtype
from veche.launch.layout import Layout
from veche.launch.memory import Span
from veche.launch.overhead import StepSize
from veche.launch.quantization import quantization


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the user asks for; None leaves the choice to veche.

    Attributes:
        gpu: the card.
        num_gpus: cards in each machine.
        num_nodes: machines.
        engines: which engines to consider.
        quantizations: of the weights.
        kv_dtypes: of the KV cache.
        context_tokens: the longest sequence.
        num_sessions: sequences of that length at once.
        model_path: what the command shall load.
        utilization: share of the card's memory, in the engine's own meaning.
        step: the largest step that the engine prepares for.
        layout: how the cards share the model.
        engine_versions: installed version by engine.
        features: what the server must offer beside text: routing, lora.
        notes: what the reader must know whichever profile it is.
        spans: what this machine's logs have left of the overhead's interval, by engine.
        language: of reasons and notes.
    """

    gpu: Gpu
    num_gpus: int = 1
    num_nodes: int = 1
    engines: tuple[EngineName, ...] = ENGINES
    quantizations: tuple[str, ...] | None = None
    kv_dtypes: tuple[str, ...] | None = None
    context_tokens: int | None = None
    num_sessions: int = 1
    model_path: str = "MODEL"
    utilization: float | None = None
    step: StepSize | None = None
    layout: Layout | None = None
    engine_versions: Mapping[str, str] | None = None
    features: tuple[Feature, ...] = ()
    notes: tuple[str, ...] = ()
    spans: Mapping[str, Span] | None = None
    language: Language = "en"


def make_wish(
    *,
    gpu: str | Gpu,
    num_gpus: int = 1,
    num_nodes: int = 1,
    engines: Sequence[str] = ENGINES,
    quantizations: Sequence[str] | None = None,
    kv_dtypes: Sequence[str] | None = None,
    context_tokens: int | None = None,
    num_sessions: int = 1,
    **more: Any,
) -> Wish:
    """Check what was asked, in the user's words, and return it.

    Args:
        gpu: a card or its name.
        num_gpus: cards in each machine.
        num_nodes: machines.
        engines: names of engines, or "all".
        quantizations: what to try; by default what people use with each engine.
        kv_dtypes: what to try; by default all that the engine has.
        context_tokens: the longest sequence that must fit.
        num_sessions: how many of them at once.
        **more: further fields of `Wish`.

    Raises:
        InputError: an unknown name, or a number out of range.
    """
    return Wish(
        gpu=find_gpu(gpu) if isinstance(gpu, str) else gpu,
        num_gpus=_positive(num_gpus, "the number of cards"),
        num_nodes=_positive(num_nodes, "the number of machines"),
        engines=_engine_names(engines),
        quantizations=_each(quantizations, lambda name: quantization(name).name),
        kv_dtypes=_each(kv_dtypes, kv_dtype),
        context_tokens=None if context_tokens is None else _positive(context_tokens, "the context"),
        num_sessions=_positive(num_sessions, "the number of sessions"),
        **more,
    )


def _positive(number: int, what: str) -> int:
    """Return `number`, which counts something.

    Raises:
        InputError: it is less than one.
    """
    if number < 1:
        raise InputError(f"{what} is {number}", hint="it must be at least 1")
    return number


def _engine_names(names: Sequence[str]) -> tuple[EngineName, ...]:
    """Return the engines that are meant; "all" is every one.

    Raises:
        InputError: one is not known; the nearest is named.
    """
    if list(names) == ["all"]:
        return ENGINES
    return tuple(_engine(name) for name in names)


def _each(names: Sequence[str] | None, read: Callable[[str], str]) -> tuple[str, ...] | None:
    return None if names is None else tuple(dict.fromkeys(read(name) for name in names))


def _engine(name: str) -> EngineName:
    wanted = {"llamacpp": "llama.cpp", "llama-cpp": "llama.cpp", "hf": "transformers"}.get(
        name.lower(), name.lower()
    )
    for known in ENGINES:
        if wanted == known:
            return known
    near = difflib.get_close_matches(wanted, ENGINES, n=1, cutoff=0.4)
    raise InputError(
        f"there is no engine {name!r}",
        hint=(f"did you mean {near[0]!r}? " if near else "") + f"known: {', '.join(ENGINES)}, all",
    )

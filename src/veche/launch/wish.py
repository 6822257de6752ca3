"""What the user asks of a launch profile, checked."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from veche.core.errors import InputError
from veche.core.language import Language
from veche.launch.case import ENGINES, FEATURES, EngineName, Feature, version_of
from veche.launch.gpus import Gpu, find_gpu
from veche.launch.layout import Layout
from veche.launch.memory import Span
from veche.launch.stored_weights import StoredWeights
from veche.planning.kv_cache import kv_dtype
from veche.planning.quantization import QUANTIZATIONS, quantization

_MOST, _MOST_OF_ANYTHING = {"--gpus": 1024, "--nodes": 1024}, 2**31
_MAX_VERSION_LENGTH = 60


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
        batched_tokens: tokens of the largest prefill step.
        max_sequences: sequences of the largest decode step.
        layout: how the cards share the model.
        engine_versions: installed version by engine.
        features: what the server must offer beside text: routing, lora.
        stored: what the checkpoint says of its weights: then they are of that type only.
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
    batched_tokens: int | None = None
    max_sequences: int | None = None
    layout: Layout | None = None
    engine_versions: Mapping[str, str] | None = None
    features: tuple[Feature, ...] = ()
    stored: StoredWeights | None = None
    notes: tuple[str, ...] = ()
    spans: Mapping[str, Span] | None = None
    language: Language = "en"


def make_wish(
    *,
    gpu: str | Gpu,
    num_gpus: int = 1,
    num_nodes: int = 1,
    engines: Sequence[str] = ENGINES,
    engine_version: str | None = None,
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
        engine_version: of the one engine.
        quantizations: what to try; by default what people use with each engine.
        kv_dtypes: what to try; by default all that the engine has.
        context_tokens: the longest sequence that must fit.
        num_sessions: how many of them at once.
        **more: further fields of `Wish`.

    Raises:
        InputError: an unknown name, or a number out of range.
    """
    wish = Wish(
        gpu=find_gpu(gpu) if isinstance(gpu, str) else gpu,
        num_gpus=_positive(num_gpus, "--gpus"),
        num_nodes=_positive(num_nodes, "--nodes"),
        engines=_engine_names(engines),
        quantizations=_each(quantizations, _weights_name),
        kv_dtypes=_each(kv_dtypes, kv_dtype),
        context_tokens=None if context_tokens is None else _positive(context_tokens, "--context"),
        num_sessions=_positive(num_sessions, "--sessions"),
        **more,
    )
    if engine_version is not None:
        wish = replace(wish, engine_versions={_only_engine(wish): engine_version})
    _check_share(wish)
    _check_versions(wish)
    _check_features(wish.features)
    return wish


def _only_engine(wish: Wish) -> EngineName:
    """Return the engine that a version is of.

    Raises:
        InputError: there are several.
    """
    if len(wish.engines) != 1:
        raise InputError(
            "--engine-version is of one engine, and several are asked for",
            hint=f"add --engine {wish.engines[0]}",
        )
    return wish.engines[0]


def _check_share(wish: Wish) -> None:
    """Refuse a share of the card that is none, or that an engine cannot be given.

    Raises:
        InputError: it is not in (0, 1], or one of the engines has no such flag.
    """
    share = wish.utilization
    if share is None:
        return
    if not 0 < share <= 1:
        raise InputError(
            f"--util is {share:g}", hint="it is a share of the card's memory: 0.92 is 92 %"
        )
    for engine in wish.engines:
        if engine not in {"vllm", "sglang"}:
            raise InputError(
                f"--util: {engine} takes what it needs, and cannot be given a share",
                hint="give --engine vllm or --engine sglang, or leave it out",
            )


def _check_versions(wish: Wish) -> None:
    """Refuse what is no version.

    Raises:
        InputError: a text does not begin with a number.
    """
    for engine, version in (wish.engine_versions or {}).items():
        if len(version) > _MAX_VERSION_LENGTH or version_of(version) is None:
            raise InputError(
                f"--engine-version {version!r} is not a version of {engine}",
                hint="write it as 0.24 or 0.28.0 (of llama.cpp: b6413)",
            )


def _check_features(features: Sequence[str]) -> None:
    """Refuse what no server offers.

    Raises:
        InputError: a feature is not known.
    """
    for name in features:
        if name not in FEATURES:
            raise InputError(
                f"--feature: there is no feature {name!r}", hint=f"known: {', '.join(FEATURES)}"
            )


def _positive(number: int, flag: str) -> int:
    """Return `number`, which counts something.

    Raises:
        InputError: it is less than one, or more than anybody has.
    """
    most = _MOST.get(flag, _MOST_OF_ANYTHING)
    if not 1 <= number <= most:
        raise InputError(f"{flag} is {number}", hint=f"it must be at least 1 and at most {most:,}")
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


def _weights_name(name: str) -> str:
    """Return the quantisation that is meant.

    Raises:
        InputError: there is none; the nearest of those that are listed is named.
    """
    try:
        return quantization(name).name
    except InputError as error:
        listed = {known.lower(): known for known in QUANTIZATIONS}
        near = difflib.get_close_matches(name.lower(), listed, n=1, cutoff=0.5)
        raise InputError(
            error.message,
            hint=(f"did you mean {listed[near[0]]!r}? " if near else "")
            + f"known: {', '.join(QUANTIZATIONS)}",
        ) from error


def _engine(name: str) -> EngineName:
    wanted = {"llamacpp": "llama.cpp", "llama-cpp": "llama.cpp", "hf": "transformers"}.get(
        name.lower(), name.lower()
    )
    for known in ENGINES:
        if wanted == known:
            return known
    near = difflib.get_close_matches(wanted, ENGINES, n=1, cutoff=0.4)
    raise InputError(
        f"--engine: there is no engine {name!r}",
        hint=(f"did you mean {near[0]!r}? " if near else "") + f"known: {', '.join(ENGINES)}, all",
    )

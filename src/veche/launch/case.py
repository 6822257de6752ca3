"""One way to run a model: everything that its memory, its speed and its command follow from."""

from dataclasses import dataclass
from typing import Literal

from veche.checkpoint.spec import ModelSpec
from veche.launch.gpus import Gpu
from veche.launch.layout import Layout
from veche.launch.overhead import StepSize
from veche.launch.stored_weights import StoredWeights

EngineName = Literal["vllm", "sglang", "llama.cpp", "transformers"]
Feature = Literal["routing", "lora"]
"""The experts that each token went to, in the answer; adapters, loaded beside the model."""
FEATURES: tuple[Feature, ...] = ("routing", "lora")
PLACEHOLDER = "MODEL"
"""Stands in commands for weights that are not there yet."""
ENGINES: tuple[EngineName, ...] = ("vllm", "sglang", "llama.cpp", "transformers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One engine, one card type, one layout, one choice of data types.

    Attributes:
        engine: which server.
        spec: the model.
        gpu: the card.
        layout: how many cards share what.
        quantization: of the weights.
        kv_dtype: of the KV cache.
        utilization: share of a card's memory that the engine may take (its own meaning of it).
        context_tokens: the longest sequence that the server shall accept.
        step: the largest step that the engine prepares for.
        sessions: sequences of that length at once.
        num_nodes: machines, each with an equal share of the cards.
        model_path: folder, GGUF file or hub id.
        engine_version: as in "0.28.0"; None where it is not known.
        features: what the server must offer beside text.
        stored: what the checkpoint says of its weights; None where they are plain.
    """

    engine: EngineName
    spec: ModelSpec
    gpu: Gpu
    layout: Layout
    quantization: str
    kv_dtype: str
    utilization: float
    context_tokens: int
    step: StepSize
    sessions: int = 1
    num_nodes: int = 1
    model_path: str = PLACEHOLDER
    engine_version: str | None = None
    features: tuple[Feature, ...] = ()
    stored: StoredWeights | None = None

    @property
    def version(self) -> tuple[int, ...] | None:
        """The engine's version as numbers."""
        return version_of(self.engine_version)

    def is_at_least(self, version: str) -> bool | None:
        """Whether the engine is `version` or newer; None where its version is not known."""
        own, other = self.version, version_of(version)
        return None if own is None or other is None else own >= other


def version_of(text: str | None) -> tuple[int, ...] | None:
    """Return the leading numbers of a version: "0.15.2rc1.dev93" is (0, 15, 2), "b6413" (6413,)."""
    if text is None:
        return None
    numbers = []
    for part in text.lstrip("vb").split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers) or None

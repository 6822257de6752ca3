"""What is written of a training beside its adapter, so that it can be judged and repeated."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from veche import __version__
from veche.roles.data.example import Example
from veche.roles.role import Role
from veche.roles.training.rendering import Tokenised
from veche.roles.training.settings import ChosenSettings

RECORD_FILE = "training.json"
_PACKAGES = ("torch", "transformers", "peft", "accelerate")
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord:
    """How an adapter came about.

    Attributes:
        run: what decides the result: see `run_facts`.
        data: counts of examples and tokens.
        reasons: why dials that were not given have their values.
        num_trained: parameters of the adapter.
        num_processes: that shared the work.
        seconds: of the steps, over all runs.
        peak_memory_bytes: of this process, on the CPU.
        curve: loss, learning rate and more, step by step.
    """

    run: Mapping[str, Any]
    data: Mapping[str, int]
    reasons: Mapping[str, str]
    num_trained: int
    num_processes: int
    seconds: float
    peak_memory_bytes: int
    curve: Mapping[str, Sequence[float]]
    tokens_seen: int
    loss_tokens_seen: int

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        losses = self.curve["loss"]
        return {
            "format": _FORMAT,
            "run": dict(self.run),
            "data": dict(self.data),
            "reasons": dict(self.reasons),
            "num_trained": self.num_trained,
            "num_processes": self.num_processes,
            "steps": len(losses),
            "first_loss": losses[0],
            "last_loss": losses[-1],
            "minutes": self.seconds / 60,
            "tokens_per_s": self.tokens_seen / self.seconds,
            "loss_tokens_per_s": self.loss_tokens_seen / self.seconds,
            "peak_memory_bytes": self.peak_memory_bytes,
            "curve": {name: [*values] for name, values in self.curve.items()},
            "versions": {"veche": __version__} | {name: _version(name) for name in _PACKAGES},
        }


def run_facts(
    role: Role,
    settings: ChosenSettings,
    *,
    base: str,
    base_hash: str,
    data_hash: str,
    invocation_ids: Sequence[int],
) -> dict[str, Any]:
    """Return what decides the result of a training: two that are equal here are one."""
    return {
        "role": role.name,
        "prompt": dict(role.prompt),
        "invocation": role.invocation,
        "invocation_ids": [*invocation_ids],
        "settings": settings.as_dict(),
        "base": base,
        "base_hash": base_hash,
        "data_hash": data_hash,
    }


def data_hash_of(examples: Sequence[Example]) -> str:
    """Return the SHA-256 of what is learnt from: turns and languages, in their order."""
    digest = hashlib.sha256()
    for example in examples:
        told = [example.language, [asdict(message) for message in example.messages]]
        digest.update(json.dumps(told, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def data_counts(tokenised: Tokenised) -> dict[str, int]:
    """Return how much there is to learn from."""
    return {
        "examples": len(tokenised.examples),
        "too_long": tokenised.num_too_long,
        "tokens": tokenised.num_tokens,
        "loss_tokens": tokenised.num_loss_tokens,
        "longest": tokenised.longest,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""

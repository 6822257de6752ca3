"""Tiny models that were changed, and text to heal them with."""

import hashlib
import io
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from tests import tiny_models

from veche.roles.healing.settings import HealSettings
from veche.roles.healing.texts import HealTexts
from veche.surgery.carving.calibration import calibration_text, heldout_text
from veche.surgery.carving.carve import CarveSettings, carve
from veche.surgery.loading import load_tokenizer

CHARACTERS = 6_000
SETTINGS = HealSettings(
    steps=6, batch=2, window_tokens=32, heldout_windows=4, heldout_tokens=48, fit_tokens=2048,
    rank=4, save_every=2, experts_rate=1e-3, learning_rate=3e-3,
)  # fmt: skip


def replace_settings(**changes) -> HealSettings:
    """Return SETTINGS with changes."""
    return replace(SETTINGS, **changes)


def carved(folder: Path) -> Path:
    """Write a carved Mixtral of 4 experts, all active: its routing weights are equal."""
    tiny_models.tiny_llama(folder / "dense", intermediate_size=64)
    settings = CarveSettings(num_experts=4, calibration_tokens=512, check_tokens=64)
    carve(folder / "dense", folder / "carved", settings, text=calibration_text()[:CHARACTERS])
    return folder / "carved"


def texts(folder: Path) -> HealTexts:
    """Return veche's own texts, cut short."""
    tokenizer = load_tokenizer(folder)

    def tokens(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    return HealTexts(
        train=tokens(calibration_text()[:CHARACTERS]),
        heldout=tokens(heldout_text()[:CHARACTERS]),
        source="own",
    )


def parameters(model) -> dict[str, torch.Tensor]:
    """Return copies of a model's parameters."""
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def digest(folder: Path) -> dict[str, str]:
    """Return the hash and the time of change of every file."""
    return {
        str(file.relative_to(folder)): f"{hashlib.sha256(file.read_bytes()).hexdigest()} "
        f"{file.stat().st_mtime_ns}"
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


class StoppedAt:
    """Progress that stops the work, as Ctrl-C does, when a line begins with a text."""

    def __init__(self, beginning: str, number: int) -> None:
        self.beginning, self.left = beginning, number
        self.log = io.StringIO()

    def say(self, text: str) -> None:
        self.log.write(text + "\n")

    @contextmanager
    def task(self, label: str, total: int | None = None):
        def advance(amount: int) -> None:
            if label == self.beginning and amount:
                self.left -= 1
                if self.left == 0:
                    raise KeyboardInterrupt

        yield advance

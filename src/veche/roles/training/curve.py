"""How a training went, as a picture and as TensorBoard events."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from veche.core.files import atomic_writer
from veche.experts.figure import DPI, new_figure, png_of

PICTURE = "loss.png"
EVENTS = "tensorboard"
_LEAST_SMOOTHED = 20


def write_picture(path: Path, losses: Sequence[float], rates: Sequence[float], title: str) -> None:
    """Draw loss and learning rate over steps; write a PNG."""
    figure = new_figure(figsize=(8, 4.5), dpi=DPI)
    axes = figure.subplots()
    steps = np.arange(1, len(losses) + 1)
    axes.plot(steps, losses, color="tab:blue", alpha=0.35, linewidth=1, label="loss of each step")
    if len(losses) >= _LEAST_SMOOTHED:
        width = max(2, len(losses) // 20)
        mean = np.convolve(losses, np.ones(width) / width, mode="valid")
        axes.plot(steps[width - 1 :], mean, color="tab:blue", label=f"mean of {width} steps")
    axes.set(xlabel="step", ylabel="loss of an answer's token, nats", title=title)
    axes.grid(alpha=0.2)
    other = axes.twinx()
    other.plot(steps, rates, color="tab:gray", linewidth=1, linestyle="--", label="learning rate")
    other.set_ylabel("learning rate")
    other.set_ylim(bottom=0)
    handles = [*axes.get_lines(), *other.get_lines()]
    axes.legend(handles, [line.get_label() for line in handles], loc="upper right")
    with atomic_writer(path) as file:
        file.write(png_of(figure))


class Events:
    """TensorBoard's event files; what a resumed run repeats replaces what was there."""

    def __init__(self, folder: Path, *, first_step: int) -> None:
        """Open a file in `folder`."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of packages that TensorBoard imports
            from torch.utils.tensorboard import SummaryWriter

            self._writer: Any = SummaryWriter(str(folder), purge_step=first_step or None)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Write what was measured at a step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

"""Find the card in this machine, through NVML where it is installed."""

import importlib
from dataclasses import dataclass
from typing import Any

from veche.launch.gpus import GIB, Gpu, catalogue


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalGpu:
    """A card that is present.

    Attributes:
        title: what the driver calls it.
        visible_bytes: its memory, as the driver counts it.
        card: the catalogue's entry for it; None if there is none.
    """

    title: str
    visible_bytes: int
    card: Gpu | None


def local_gpus() -> list[LocalGpu]:
    """Return the NVIDIA cards of this machine; none without a driver or without NVML's module."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return []
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return []
    try:
        return [_read(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
    finally:
        nvml.nvmlShutdown()


def match_card(title: str, visible_bytes: int) -> Gpu | None:
    """Return the card of the catalogue that a driver's name means.

    The longest title whose words all occur wins, then the memory must agree within 10 %.
    """
    words = set(title.lower().replace("-", " ").split())
    best: tuple[int, Gpu] | None = None
    for card in catalogue().values():
        for name in (card.title, card.name, *card.aliases):
            wanted = set(name.lower().replace("-", " ").split()) - {"nvidia", "gb"}
            known = wanted - {"80", "40", "workstation", "edition", "sxm"}
            if not known <= words or not _is_near(visible_bytes, card):
                continue
            if best is None or len(wanted & words) > best[0]:
                best = (len(wanted & words), card)
    return best[1] if best else None


def _is_near(visible_bytes: int, card: Gpu) -> bool:
    low, high = card.visible_gib
    return 0.9 * low <= visible_bytes / GIB <= 1.1 * high


def _read(nvml: Any, index: int) -> LocalGpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    name = nvml.nvmlDeviceGetName(handle)
    title = name.decode() if isinstance(name, bytes) else str(name)
    total = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    return LocalGpu(title=title, visible_bytes=total, card=match_card(title, total))

"""Turn a dial through its values, one model in memory at a time, and keep what is finished."""

from dataclasses import dataclass, replace
from pathlib import Path

from veche.checkpoint.config import read_config, spec_of
from veche.checkpoint.spec import ModelSpec
from veche.core.errors import InputError
from veche.core.progress import Progress, Silent
from veche.experts.dial.bench import Bench, neighbours
from veche.experts.dial.figures import SettingFigures
from veche.experts.dial.measure import DialText
from veche.experts.dial.points import Points
from veche.experts.dial.report import DialReport, row_of
from veche.experts.dial.speed import NEW_TOKENS, Clock
from veche.experts.dial.store import DialStore, store_for
from veche.surgery.loading import load_tokenizer
from veche.surgery.verification.compare import windows
from veche.surgery.verification.verify import DeviceChoice, device_of

LONG_TOKENS = 1024
"""Of a window where neither the model nor the text is shorter: prefilling it stays affordable."""
SPREAD = 2
"""Experts; with any number of them an adaptive rule starves some tokens and loses."""
_FEWEST_WINDOWS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class DialSettings:
    """How much is measured.

    Attributes:
        num_windows: windows of text, which intervals resample.
        short_tokens: of the short context.
        long_tokens: of the long one; None is what model, text and LONG_TOKENS allow.
        rounds: of the clock; 0 leaves the speed unmeasured.
        device: where the model runs.
        spread: how far from its mean an adaptive rule may go, in experts.
    """

    num_windows: int = 16
    short_tokens: int = 256
    long_tokens: int | None = None
    rounds: int = 5
    device: DeviceChoice = "auto"
    spread: int = SPREAD


def turn(
    folder: Path,
    points: Points,
    text: str,
    *,
    settings: DialSettings | None = None,
    progress: Progress | None = None,
) -> DialReport:
    """Measure every value of a dial against the checkpoint's own.

    Args:
        folder: a checkpoint folder.
        points: the dial, and which values.
        text: to be predicted; held out from whatever the model was fitted on.
        settings: how much to measure.
        progress: where to report.

    Raises:
        InputError: the text is too short.
        CheckpointError: the folder cannot be loaded.
        UnsupportedError: the device is not there.
    """
    settings, progress = settings or DialSettings(), progress or Silent()
    spec, device = spec_of(read_config(folder)), device_of(settings.device)
    dial_text = text_of(folder, spec, text, settings)
    dial_text = replace(dial_text, tokens=dial_text.tokens.to(device))
    bench = Bench(
        folder=folder,
        spec=spec,
        text=dial_text,
        clock=Clock(folder=folder, prompt=text, rounds=settings.rounds),
        store=_store(folder, dial_text, settings),
        progress=progress,
        spread=settings.spread,
    )
    base = replace(bench.base(), value=points.base)
    turned = bench.settings(points.name, points.values)
    fixed: list[SettingFigures] = []
    if points.name == "adaptive":
        own, wanted = points.base, neighbours(turned, spec.num_experts)
        fixed = bench.settings("top_k", [value for value in wanted if value != own])
        fixed = sorted([*fixed, base], key=_value)
    rows = turned if points.name == "adaptive" else [*turned, base]
    return DialReport(
        dial=points.name,
        model=str(folder),
        base=points.base,
        reason=points.reason,
        context_tokens=dial_text.contexts,
        num_windows=len(dial_text.tokens),
        num_predictions=dial_text.num_predictions,
        rounds=settings.rounds,
        is_carved=spec.has_equal_routing_weights,
        rows=tuple(
            row_of(each, base, new_tokens=NEW_TOKENS, fixed=fixed)
            for each in sorted(rows, key=_value)
        ),
        fixed=tuple(row_of(each, base, new_tokens=NEW_TOKENS) for each in fixed),
        folder=str(bench.store.folder),
    )


def _value(figures: SettingFigures) -> float:
    return figures.value


def text_of(folder: Path, spec: ModelSpec, text: str, settings: DialSettings) -> DialText:
    """Cut the windows that every setting reads out of a text.

    Raises:
        InputError: the text is too short for two windows, or for those that were asked for.
    """
    ids = load_tokenizer(folder)(text, add_special_tokens=False, verbose=False)["input_ids"]
    short, count = settings.short_tokens, settings.num_windows
    long = settings.long_tokens
    if long is None:
        long = max(short, min(LONG_TOKENS, spec.position_limit, len(ids) // count))
    if long < short:
        raise InputError(
            f"the long context of {long} tokens is shorter than the short one of {short}",
            hint="give --long-tokens and --short-tokens the other way round",
        )
    least = _FEWEST_WINDOWS * long if settings.long_tokens is None else count * long
    if len(ids) < least:
        raise InputError(
            f"the text has {len(ids):,} tokens, and windows of {long:,} need at least {least:,}",
            hint="give a longer text with --text, or fewer or shorter windows",
        )
    tokens_WT = windows(ids, num_windows=count, window_tokens=long)
    return DialText(tokens=tokens_WT, short_tokens=short)


def _store(folder: Path, text: DialText, settings: DialSettings) -> DialStore:
    measured = {
        "tokens": text.tokens.tolist(),
        "short_tokens": text.short_tokens,
        "rounds": settings.rounds,
        "device": str(text.tokens.device),
    }
    return store_for(folder, measured)

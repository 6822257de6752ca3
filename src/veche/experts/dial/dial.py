"""Turn a dial through its values, one model in memory at a time, and keep what is finished."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from veche.checkpoint.config import read_config, spec_of
from veche.checkpoint.spec import ModelSpec
from veche.core.errors import InputError
from veche.core.progress import Advance, Progress, Silent
from veche.experts.dial.figures import SettingFigures
from veche.experts.dial.measure import DialText, States, compared, states_of
from veche.experts.dial.points import DialName, Points
from veche.experts.dial.report import DialReport, row_of
from veche.experts.dial.speed import NEW_TOKENS, paired_rounds
from veche.experts.dial.store import DialStore, store_for
from veche.experts.dial.turning import BASE, as_base, variant_of
from veche.surgery.loading import Model, load_tokenizer
from veche.surgery.verification.compare import windows
from veche.surgery.verification.variants import Variant
from veche.surgery.verification.verify import DeviceChoice, device_of
from veche.surgery.verification.whole import load_variant

_BASE_SETTING = "base"
LONG_TOKENS = 1024
"""Of a window where neither the model nor the text is shorter: prefilling it stays affordable."""
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
    """

    num_windows: int = 16
    short_tokens: int = 256
    long_tokens: int | None = None
    rounds: int = 5
    device: DeviceChoice = "auto"


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
        text=dial_text,
        prompt=text,
        rounds=settings.rounds,
        store=_store(folder, dial_text, settings),
    )
    base, turned = bench.measured(points, progress)
    every = sorted([base, *turned], key=lambda figures: figures.value)
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
        rows=tuple(row_of(each, base, new_tokens=NEW_TOKENS) for each in every),
        folder=str(bench.store.folder),
    )


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
    least = _FEWEST_WINDOWS * long if settings.long_tokens is None else count * long
    if long < short or len(ids) < least:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A model, what it reads, and where finished settings are kept.

    Attributes:
        folder: the checkpoint.
        text: the windows, on the device.
        prompt: what the clock's rounds begin with.
        rounds: of the clock.
        store: of finished settings.
    """

    folder: Path
    text: DialText
    prompt: str
    rounds: int
    store: DialStore

    def measured(
        self, points: Points, progress: Progress
    ) -> tuple[SettingFigures, list[SettingFigures]]:
        """Return the base's figures and those of each value; what is kept is not run again."""
        kept = {value: self.store.load(_setting(points.name, value)) for value in points.values}
        base = self.store.load(_BASE_SETTING)
        missing = [value for value, figures in kept.items() if figures is None]
        if found := len(kept) - len(missing):
            progress.say(
                f"{found} of {len(kept)} settings were measured before: {self.store.folder}"
            )
        if missing or base is None:
            passes = len(self.text.tokens) * len(self.text.contexts)
            per_value = 1 if points.name == "temperature" else passes + self.rounds
            with progress.task(points.name, passes + len(missing) * per_value) as advance:
                base = self._run(points.name, missing, kept, advance)
        return replace(base, value=points.base), [each for each in kept.values() if each]

    def _run(
        self,
        name: DialName,
        missing: Sequence[float],
        kept: dict[float, SettingFigures | None],
        advance: Advance,
    ) -> SettingFigures:
        """Measure the base, then what is missing, keeping each as it is finished."""
        model = self._load(BASE)
        states = states_of(model, self.text, advance)
        base = SettingFigures(value=0, contexts=compared(model, states, states, self.text))
        self.store.save(_BASE_SETTING, base)
        for value in missing:
            if name == "temperature":
                contexts = compared(model, states, states, self.text, temperature=value)
                figures = SettingFigures(value=value, contexts=contexts)
                advance(1)
            else:
                del model
                model = self._load(variant_of(self.folder, name, value))
                figures = self._turned(model, name, value, states, advance)
            self.store.save(_setting(name, value), figures)
            kept[value] = figures
        return base

    def _turned(
        self, model: Model, name: DialName, value: float, base: States, advance: Advance
    ) -> SettingFigures:
        states = states_of(model, self.text, advance)
        contexts = compared(model, base, states, self.text)
        base_s, turned_s = paired_rounds(
            model,
            self.folder,
            self.prompt,
            as_base=partial(as_base, model, self.folder, name),
            rounds=self.rounds,
            advance=advance,
        )
        return SettingFigures(value=value, contexts=contexts, base_s=base_s, turned_s=turned_s)

    def _load(self, variant: Variant) -> Model:
        gc.collect()  # the model before this one, so that two are never in memory
        return load_variant(self.folder, variant, self.text.tokens.device)


def _setting(name: DialName, value: float) -> str:
    return f"{name}-{value:.10g}"

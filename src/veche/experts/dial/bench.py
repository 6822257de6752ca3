"""Measure settings of one model on one text, one model in memory at a time. Imports torch."""

import gc
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from veche.checkpoint.spec import ModelSpec
from veche.core.progress import Advance, Progress
from veche.engines.protocol import AdaptiveExperts
from veche.experts.dial.adaptive import adaptive_states, router_counts, rule_for
from veche.experts.dial.figures import SettingFigures
from veche.experts.dial.measure import DialText, States, compared, states_of
from veche.experts.dial.points import DialName
from veche.experts.dial.speed import Clock
from veche.experts.dial.store import DialStore
from veche.experts.dial.turning import BASE, as_base, variant_of
from veche.surgery.loading import Model
from veche.surgery.verification.variants import Variant
from veche.surgery.verification.whole import load_variant

_BASE_SETTING = "base"


@dataclass(slots=True, kw_only=True)
class Bench:
    """A model, what it reads, and where finished settings are kept.

    Attributes:
        folder: the checkpoint.
        spec: of it.
        text: the windows, on the device.
        clock: of decoding.
        store: of finished settings.
        progress: where to report.
        spread: of an adaptive rule around its mean, in experts.
    """

    folder: Path
    spec: ModelSpec
    text: DialText
    clock: Clock
    store: DialStore
    progress: Progress
    spread: int
    _states: States | None = None
    _model: Model = None
    _variant: Variant | None = None

    def base(self) -> SettingFigures:
        """Return the figures of the checkpoint as it is, as value 0 of any dial."""
        if (kept := self.store.load(_BASE_SETTING)) is not None:
            return kept
        states = self._base_states()
        with self.progress.task("base", 1) as advance:
            contexts = compared(self._load(BASE), states, states, self.text)
            advance(1)
        figures = SettingFigures(value=0, contexts=contexts)
        self.store.save(_BASE_SETTING, figures)
        return figures

    def settings(self, name: DialName, values: Sequence[float]) -> list[SettingFigures]:
        """Return the figures of each value; what is kept is not measured again."""
        kept = {value: self.store.load(_setting(name, value, self.spread)) for value in values}
        missing = [value for value, figures in kept.items() if figures is None]
        if found := len(kept) - len(missing):
            where = self.store.folder
            self.progress.say(f"{name}: {found} of {len(kept)} were measured before ({where})")
        if missing:
            states = self._base_states()
            with self.progress.task(name, self._num_steps(name, len(missing))) as advance:
                measure = self._measurer(name, states, advance)
                for value in missing:
                    kept[value] = figures = measure(value)
                    self.store.save(_setting(name, value, self.spread), figures)
        return [figures for figures in kept.values() if figures is not None]

    @property
    def _passes(self) -> int:
        return len(self.text.tokens) * len(self.text.contexts)

    def _num_steps(self, name: DialName, num_values: int) -> int:
        if name == "temperature":
            return num_values
        calibration = len(self.text.tokens) if name == "adaptive" else 0
        return calibration + num_values * (self._passes + self.clock.rounds)

    def _measurer(
        self, name: DialName, base: States, advance: Advance
    ) -> Callable[[float], SettingFigures]:
        if name == "temperature":
            return partial(self._cooled, base, advance)
        if name == "adaptive":
            counts_N = router_counts(self._load(BASE), self.text, advance)

            def adapted(value: float) -> SettingFigures:
                rule = rule_for(counts_N, value, self.spec.num_experts, spread=self.spread)
                return self._adapted(value, rule, base, advance)

            return adapted
        return partial(self._turned, name, base, advance)

    def _cooled(self, base: States, advance: Advance, value: float) -> SettingFigures:
        """Divide the base's logits: no model is run again."""
        contexts = compared(self._load(BASE), base, base, self.text, temperature=value)
        advance(1)
        return SettingFigures(value=value, contexts=contexts)

    def _adapted(
        self, value: float, rule: AdaptiveExperts, base: States, advance: Advance
    ) -> SettingFigures:
        model = self._load(BASE)
        states, experts = adaptive_states(model, rule, self.text, advance)
        contexts = compared(model, base, states, self.text)
        base_s, turned_s = self.clock.paired_rounds(
            model, as_base=nullcontext, advance=advance, experts=rule
        )
        self._variant = None  # the clock's engine has changed the model: load it anew
        return SettingFigures(
            value=value,
            contexts={
                name: replace(each, experts=experts[name]) for name, each in contexts.items()
            },
            base_s=base_s,
            turned_s=turned_s,
            scale=rule.scale,
        )

    def _turned(
        self, name: DialName, base: States, advance: Advance, value: float
    ) -> SettingFigures:
        """Load the model with the dial turned, and compare it with the base."""
        model = self._load(variant_of(self.folder, name, value))
        states = states_of(model, self.text, advance)
        contexts = compared(model, base, states, self.text)
        base_s, turned_s = self.clock.paired_rounds(
            model, as_base=partial(as_base, model, self.folder, name), advance=advance
        )
        return SettingFigures(value=value, contexts=contexts, base_s=base_s, turned_s=turned_s)

    def _base_states(self) -> States:
        """Run the checkpoint as it is, once."""
        if self._states is None:
            model = self._load(BASE)
            with self.progress.task("base", self._passes) as advance:
                self._states = states_of(model, self.text, advance)
        return self._states

    @torch.no_grad()
    def _load(self, variant: Variant) -> Model:
        """Load a model in place of the one before, so that two are never in memory."""
        if variant != self._variant:
            self._model = None
            gc.collect()
            self._model = load_variant(self.folder, variant, self.text.tokens.device)
            self._variant = variant
        return self._model


def neighbours(figures: Sequence[SettingFigures], num_experts: int) -> tuple[float, ...]:
    """Return the whole numbers on both sides of each adaptive setting's mean experts.

    Args:
        figures: of adaptive settings.
        num_experts: the most.
    """
    found: set[float] = set()
    for setting in figures:
        for context in setting.contexts.values():
            mean = sum(context.experts) / len(context.experts)
            found |= {float(math.floor(mean)), float(min(num_experts, math.ceil(mean)))}
    return tuple(sorted(found))


def _setting(name: DialName, value: float, spread: int) -> str:
    within = f"-within-{spread}" if name == "adaptive" else ""
    return f"{name}{within}-{value:.10g}"

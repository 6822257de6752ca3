"""A change to be judged, and the judgement."""

from dataclasses import dataclass, replace
from typing import Any

from veche.checkpoint.spec import ModelSpec
from veche.core.language import Language
from veche.planning.field_facts import FieldFact, fact_of
from veche.planning.phrases import phrase
from veche.planning.plan import Effect, Mode
from veche.planning.steps import exact_top_k


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The effect of one change."""

    effect: Effect
    reason: str
    is_lossy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A change to be judged: field `name`, `key` in config.json, goes from `before` to `after`.

    Attributes:
        name: ModelSpec's name of the field.
        key: config.json's name of it.
        before: its value where growth starts.
        after: its wanted value.
        base: the model where growth starts.
        mode: how new units start.
        language: of the reason.
        num_experts: experts that the target will have; as many as `base` for a change that is
            judged alone.
        is_chosen: whether the recipe names the field and carries it out.
    """

    name: str
    key: str
    before: Any
    after: Any
    base: ModelSpec
    mode: Mode
    language: Language
    num_experts: int
    is_chosen: bool = True

    @property
    def fact(self) -> FieldFact | None:
        """What the field does in the base's family."""
        return fact_of(self.key, self.base.model_type)

    @property
    def exact_top_k(self) -> int:
        """The top-k that goes with the target's experts: k · m."""
        return exact_top_k(self.base, replace(self.base, num_experts=self.num_experts))

    def say(self, key: str, **values: object) -> str:
        """Return a phrase with this case's own values at hand."""
        return phrase(key, self.language, **{"before": self.before, "after": self.after, **values})

"""Choose experts for a batch whose rows are each asked to choose in their own way.

Shapes: B batch rows, S tokens of each, T = B·S tokens, L layers that route, E experts, k experts
that the checkpoint gives a token, n slots of the widest row.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad

from veche.core.errors import InputError
from veche.engines.protocol import AdaptiveExperts, Branch
from veche.surgery.carving.layer_fit import ROUTER_SPREAD

MAX_BIAS_NATS = 1e4
"""A larger bias decides no more, and costs the float32 digits that rank the other experts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingRule:
    """How a family makes weights of logits.

    Attributes:
        num_layers: L.
        num_experts: E.
        top_k: k.
        is_renormalised: the weights of a token's experts add up to 1; else they are their shares
            of the softmax over all E.
        has_equal_weights: a carved model, whose experts each weigh 1/k whatever their logits, and
            go on to do so where a token uses another number of them (decision 0003).
    """

    num_layers: int
    num_experts: int
    top_k: int
    is_renormalised: bool
    has_equal_weights: bool

    @property
    def logit_unit(self) -> float:
        """What a logit is divided by to be in nats.

        1, but where weights are equal: there carving gave each layer's logits this standard
        deviation, so that they rank experts without weighing them. In that unit they spread by 1,
        as a trained router's do.
        """
        return ROUTER_SPREAD if self.has_equal_weights else 1.0

    def scores(self, logits_TE: torch.Tensor) -> torch.Tensor:
        """Return float32 logits in nats, up to a constant a token; they rank as the router does.

        Where weights are equal, the router's float32 softmax tells logits apart only by a tenth of
        their spread, and finer differences are ties. So the scores are made of that softmax, in
        float64, where ln(E·p) = ln(1 + (E·p − 1)) loses nothing: else a row that is hardly steered
        would choose other experts than one that isn't.
        """
        logits_TE = logits_TE.float()
        if not self.has_equal_weights:
            return logits_TE
        excess_TE = logits_TE.softmax(-1).double() * self.num_experts - 1
        return (excess_TE.log1p() / self.logit_unit).float()

    def num_slots(self, branch: Branch) -> int:
        """Return how many experts one of its tokens may use."""
        asked = branch.num_experts_per_tok
        if asked is None:
            return self.top_k
        return asked.most if isinstance(asked, AdaptiveExperts) else asked

    def touches(self, branch: Branch) -> bool:
        """Whether its tokens may choose otherwise than the untouched router would."""
        is_steered = branch.steering is not None and bool(branch.steering.bias.any())
        return is_steered or branch.num_experts_per_tok not in (None, self.top_k)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowChoice:
    """What the rows of a batch ask for.

    Attributes:
        rule: of the model.
        num_slots: n.
        bias: [L, B, E], in nats; None where no row is steered.
        least: [B], fewest experts of a token.
        most: [B], most experts of a token.
        scale: [B], the adaptive rule's factor; None where every row's number is fixed.
        is_touched: [B], rows that may differ from the untouched router; the others are given back
            as they came. None where every row may.
    """

    rule: RoutingRule
    num_slots: int
    bias: torch.Tensor | None
    least: torch.Tensor
    most: torch.Tensor
    scale: torch.Tensor | None
    is_touched: torch.Tensor | None

    def choose(
        self, layer: int, logits_TE: torch.Tensor, weights_Tk: torch.Tensor, ids_Tk: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weights and expert ids, [T, n] each, best expert first.

        A slot that its token doesn't use has weight 0, and the id of the token's best expert.

        Args:
            layer: which of the layers that route.
            logits_TE: as the router computed them.
            weights_Tk: as the router answered.
            ids_Tk: as the router answered.
        """
        num_rows = len(self.most)
        scores_BSE = self.rule.scores(logits_TE).view(num_rows, -1, self.rule.num_experts)
        num_used_BS1 = self._num_used(scores_BSE)
        if self.bias is not None:
            scores_BSE = scores_BSE + self.bias[layer, :, None]
        top_BSn, ids_BSn = scores_BSE.topk(self.num_slots, dim=-1)
        is_used_BSn = torch.arange(self.num_slots, device=top_BSn.device) < num_used_BS1
        ids_BSn = torch.where(is_used_BSn, ids_BSn, ids_BSn[..., :1])
        if self.rule.has_equal_weights:
            weights_BSn = weights_Tk.mean(-1).view(num_rows, -1, 1) * is_used_BSn
        elif self.rule.is_renormalised:
            weights_BSn = top_BSn.masked_fill(~is_used_BSn, -math.inf).softmax(-1)
        else:
            weights_BSn = scores_BSE.softmax(-1).gather(-1, ids_BSn) * is_used_BSn
        return self._merged(weights_BSn.to(weights_Tk.dtype), ids_BSn, weights_Tk, ids_Tk)

    def _num_used(self, scores_BSE: torch.Tensor) -> torch.Tensor:
        """Return how many experts each token uses, [B, S, 1] or [B, 1, 1]."""
        least_B11, most_B11 = self.least[:, None, None], self.most[:, None, None]
        if self.scale is None:
            return most_B11
        entropy_BS1 = torch.special.entr(scores_BSE.softmax(-1)).sum(-1, keepdim=True)
        wished_BS1 = (self.scale[:, None, None] * entropy_BS1.exp()).round()
        return torch.minimum(torch.maximum(wished_BS1, least_B11), most_B11)

    def _merged(
        self,
        weights_BSn: torch.Tensor,
        ids_BSn: torch.Tensor,
        weights_Tk: torch.Tensor,
        ids_Tk: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put the router's own answer where a row asks for nothing."""
        weights_Tn, ids_Tn = weights_BSn.flatten(0, 1), ids_BSn.flatten(0, 1)
        if self.is_touched is None:
            return weights_Tn, ids_Tn
        surplus = self.num_slots - ids_Tk.shape[-1]
        padding_ids = ids_Tk[:, :1].expand(-1, surplus)
        is_touched_T1 = self.is_touched.repeat_interleave(ids_BSn.shape[1])[:, None]
        return (
            torch.where(is_touched_T1, weights_Tn, pad(weights_Tk, (0, surplus))),
            torch.where(is_touched_T1, ids_Tn, torch.cat([ids_Tk, padding_ids], dim=-1)),
        )


def row_choice(
    branches: Sequence[Branch], rule: RoutingRule, device: torch.device
) -> RowChoice | None:
    """Return what the rows ask for; None where every row is to be as the router answers.

    Raises:
        InputError: see `check_branch`.
    """
    for branch in branches:
        check_branch(branch, rule)
    touched = [rule.touches(branch) for branch in branches]
    if not any(touched):
        return None

    def floats(values: list[Any]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    asked = [branch.num_experts_per_tok for branch in branches]
    slots = [rule.num_slots(branch) for branch in branches]
    is_adaptive = any(isinstance(number, AdaptiveExperts) for number in asked)
    return RowChoice(
        rule=rule,
        num_slots=max(slots),
        bias=_bias(branches, rule, device),
        least=floats(
            [
                number.least if isinstance(number, AdaptiveExperts) else fixed
                for number, fixed in zip(asked, slots, strict=True)
            ]
        ),
        most=floats(slots),
        scale=floats([getattr(number, "scale", 1.0) for number in asked]) if is_adaptive else None,
        is_touched=None if all(touched) else torch.tensor(touched, device=device),
    )


def check_branch(branch: Branch, rule: RoutingRule) -> None:
    """Refuse a number of experts or a bias that the model can't follow.

    Raises:
        InputError: a number outside 1..E, least > most, a scale that is not positive, a bias of
            another shape, or one that is not finite or beyond `MAX_BIAS_NATS`.
    """
    asked = branch.num_experts_per_tok
    if isinstance(asked, AdaptiveExperts):
        _check_number(branch.voice, "least", asked.least, rule)
        _check_number(branch.voice, "most", asked.most, rule)
        if asked.least > asked.most:
            raise InputError(
                f"voice {branch.voice!r}: at least {asked.least} experts, but at most {asked.most}"
            )
        if not (math.isfinite(asked.scale) and asked.scale > 0):
            raise InputError(
                f"voice {branch.voice!r}: scale {asked.scale} is not a positive number",
                hint="1 uses as many experts as the router's entropy counts",
            )
    elif asked is not None:
        _check_number(branch.voice, "num_experts_per_tok", asked, rule)
    if branch.steering is not None:
        _check_bias(branch.voice, branch.steering.bias, rule)


def _check_number(voice: str, name: str, number: int, rule: RoutingRule) -> None:
    if not 1 <= number <= rule.num_experts:
        raise InputError(
            f"voice {voice!r}: {name} {number} is not in 1..{rule.num_experts}, "
            "the number of experts"
        )


def _check_bias(voice: str, bias: np.ndarray[Any, Any], rule: RoutingRule) -> None:
    shape = (rule.num_layers, rule.num_experts)
    if bias.shape != shape:
        raise InputError(
            f"voice {voice!r}: the steering has the shape {list(bias.shape)}, but the model has "
            f"{shape[0]} layers that route and {shape[1]} experts",
            hint="find the steering with this model: veche steer find",
        )
    if not (np.abs(bias) <= MAX_BIAS_NATS).all():
        raise InputError(
            f"voice {voice!r}: the steering holds a bias that is not a number within "
            f"±{MAX_BIAS_NATS:g} nats",
            hint=f"±{MAX_BIAS_NATS:g} already means always and never",
        )


def _bias(
    branches: Sequence[Branch], rule: RoutingRule, device: torch.device
) -> torch.Tensor | None:
    if all(branch.steering is None for branch in branches):
        return None
    nothing = np.zeros((rule.num_layers, rule.num_experts), np.float32)
    rows = [nothing if b.steering is None else b.steering.bias for b in branches]
    return torch.from_numpy(np.stack(rows, axis=1).astype(np.float32)).to(device)

"""Fit a linear router that keeps the experts whose contribution matters for the token.

Shape suffixes: N tokens, H model width, E experts.
"""

import torch
from torch import Tensor

from veche.surgery.carving.partition import kept_experts


class RidgeRouter:
    r"""Ridge regression from the normalised input to the log of each expert's contribution.

    $W = Y^\top X (X^\top X + \lambda\,\overline{\mathrm{diag}}\,I)^{-1}$ with
    $Y_{ne} = \tfrac12\log\epsilon_{ne}$ minus its mean over experts: only the ranking counts.
    The log predicts the ranking better than the norm, its root, or its square.
    The factor of X is computed once, since one layer is fitted many times.
    """

    def __init__(self, inputs_NH: Tensor, ridge: float = 0.1) -> None:
        self.inputs_NH = inputs_NH
        gram_HH = inputs_NH.T @ inputs_NH
        gram_HH.diagonal().add_(ridge * gram_HH.diagonal().mean())
        self._factor_HH = torch.linalg.cholesky(gram_HH)

    def weight(self, energies_NE: Tensor) -> Tensor:
        """Return the router's weight `[E, H]` for these experts."""
        floor = 1e-12 * energies_NE.mean() + torch.finfo(energies_NE.dtype).tiny
        target_NE = 0.5 * torch.log(energies_NE + floor)
        target_NE = target_NE - target_NE.mean(dim=1, keepdim=True)
        return torch.cholesky_solve(self.inputs_NH.T @ target_NE, self._factor_HH).T

    def scores(self, energies_NE: Tensor) -> Tensor:
        """Return the scores `[N, E]` of the router fitted to these experts."""
        return self.inputs_NH @ self.weight(energies_NE).T


def refine_router(
    weight_EH: Tensor,
    inputs_NH: Tensor,
    energies_NE: Tensor,
    top_k: int,
    *,
    seed: int,
    steps: int = 150,
    batch_tokens: int = 2048,
    temperature: float = 0.25,
    rate: float = 0.02,
) -> Tensor:
    r"""Lower the energy that the router is expected to drop, by gradient steps on batches.

    The objective is $\sum_{ne}\epsilon_{ne}\,p_{ne}$ with $p = \sigma((t_n - s_{ne})/\tau)$ the
    soft mask of dropped experts and t halfway between the scores ranked k and k+1. The threshold
    moves so that $\sum_e p_{ne}$ stays put, hence the gradient
    $\partial/\partial s_{ne} = -q_{ne}(\epsilon_{ne} - \bar\epsilon_n)/\tau$, $q = p(1-p)$,
    where the bar is the mean weighted by q. Needs no labels and nothing outside this layer.
    """
    if top_k >= weight_EH.shape[0]:
        return weight_EH
    weight_EH = weight_EH / (inputs_NH @ weight_EH.T).std()
    energies_NE = energies_NE / energies_NE.sum(dim=1).mean()
    order_N = torch.randperm(len(inputs_NH), generator=torch.Generator().manual_seed(seed))
    batches = list(
        zip(
            torch.split(inputs_NH[order_N], batch_tokens),
            torch.split(energies_NE[order_N], batch_tokens),
            strict=True,
        )
    )
    optimizer = torch.optim.Adam([weight_EH], lr=rate * float(weight_EH.std()))
    for step in range(steps):
        inputs_BH, energies_BE = batches[step % len(batches)]
        slope_BE = _slope(inputs_BH @ weight_EH.T, energies_BE, top_k, temperature)
        weight_EH.grad = slope_BE.T @ inputs_BH / len(inputs_BH)
        optimizer.step()
    return weight_EH.detach()


def scale_router(weight_EH: Tensor, inputs_NH: Tensor, spread: float) -> Tensor:
    """Return the same ranking with logits of standard deviation `spread`, centred over experts.

    With a small spread the softmax over the chosen experts is 1/k for each of them, up to
    `spread`, and the ranking alone carries the choice: floating point is scale-free.
    """
    centred_EH = weight_EH - weight_EH.mean(dim=0)
    deviation = (inputs_NH @ centred_EH.T).std()
    return centred_EH * (spread / deviation) if deviation > 0 else centred_EH


def hit_rate(scores_NE: Tensor, energies_NE: Tensor, top_k: int) -> float:
    """Return the share of kept experts that an oracle, which sees the energies, keeps too."""
    agreed_NE = kept_experts(scores_NE, top_k) * kept_experts(energies_NE, top_k)
    return float(agreed_NE.sum(dim=1).mean()) / top_k


def _slope(scores_BE: Tensor, energies_BE: Tensor, top_k: int, temperature: float) -> Tensor:
    ranked = scores_BE.topk(top_k + 1, dim=1).values
    threshold_B1 = ranked[:, -2:].mean(dim=1, keepdim=True)
    dropped_BE = torch.sigmoid((threshold_B1 - scores_BE) / temperature)
    pull_BE = dropped_BE * (1 - dropped_BE)
    mean_B1 = (pull_BE * energies_BE).sum(dim=1, keepdim=True) / pull_BE.sum(dim=1, keepdim=True)
    return -pull_BE * (energies_BE - mean_B1) / temperature

"""How good is a carved model? NLL on held-out text against the dense one, with fewer experts.

Usage: python benchmarks/carve_quality.py [dense folder] [--carved folder] [--windows 16]

Without a folder the demo's model is used; without --carved it is carved into a temporary folder.
Compared: the fitted router; an oracle, which sees each expert's contribution and keeps the largest;
a random partition with a random router. Random choices are seeded.

Shape suffixes: N tokens, E experts, C units of an expert, H model width, T tokens of a window.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from veche.demo.source import source_folder
from veche.surgery.carving.calibration import heldout_text
from veche.surgery.carving.carve import CarveSettings, carve
from veche.surgery.carving.partition import kept_experts
from veche.surgery.loading import Model, load_model, load_tokenizer
from veche.surgery.verification.compare import Comparison, windows

WINDOW_TOKENS = 512


@dataclass(slots=True)
class Router:
    """Stands in for a layer's router: chooses, and counts how often an oracle agrees."""

    gate: Any
    experts: Any
    is_oracle: bool
    top_k: int
    hits: list[float] = field(default_factory=list)

    def __call__(self, hidden_NH: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return scores, equal weights and the chosen experts."""
        norms_NE = self._contribution_norms(hidden_NH)
        scores_NE = norms_NE if self.is_oracle else hidden_NH @ self.gate.weight.T
        agreed_NE = kept_experts(scores_NE, self.top_k) * kept_experts(norms_NE, self.top_k)
        self.hits.append(float(agreed_NE.sum(dim=1).mean()) / self.top_k)
        chosen_NK = scores_NE.topk(self.top_k, dim=1).indices
        return scores_NE, torch.full(chosen_NK.shape, 1 / self.top_k), chosen_NK

    def _contribution_norms(self, hidden_NH: Tensor) -> Tensor:
        norms = []
        for gate_up_CH, down_HC in zip(
            self.experts.gate_up_proj, self.experts.down_proj, strict=True
        ):
            gate_NC, up_NC = (hidden_NH @ gate_up_CH.T).chunk(2, dim=1)
            norms.append(((self.experts.act_fn(gate_NC) * up_NC) @ down_HC.T).norm(dim=1))
        return torch.stack(norms, dim=1)


def routed(model: Model, top_k: int, *, is_oracle: bool) -> list[Router]:
    """Set every layer's k, keep its experts as loud as before, and watch its router."""
    routers = []
    for block in (layer.mlp for layer in model.model.layers):
        previous = getattr(block, "loudness_k", model.config.num_experts_per_tok)
        block.experts.down_proj.mul_(top_k / previous)
        block.loudness_k = top_k
        router = Router(block.gate, block.experts, is_oracle, top_k)
        block.gate.forward = router
        routers.append(router)
    return routers


def randomize(model: Model) -> None:
    """Give the units to experts at random, and rank the experts at random."""
    random = torch.Generator().manual_seed(0)
    for block in (layer.mlp for layer in model.model.layers):
        num_experts, hidden, size = block.experts.down_proj.shape
        order = torch.randperm(num_experts * size, generator=random)
        gate_up = block.experts.gate_up_proj.view(num_experts, 2, size, hidden)
        gate_up = gate_up.transpose(0, 1).reshape(2, -1, hidden)[:, order]
        gate_up = gate_up.view(2, num_experts, size, hidden).transpose(0, 1)
        block.experts.gate_up_proj.copy_(gate_up.reshape(num_experts, 2 * size, hidden))
        down = block.experts.down_proj.transpose(1, 2).reshape(-1, hidden)[order]
        block.experts.down_proj.copy_(down.view(num_experts, size, hidden).transpose(1, 2))
        block.gate.weight.normal_(generator=random)


def final_states(model: Model, tokens_WT: Tensor) -> Iterator[Tensor]:
    """Yield each window's last hidden states [T, H]."""
    for tokens_T in tokens_WT:
        yield model.model(tokens_T[None], use_cache=False).last_hidden_state[0]


def compare(dense_states: list[Tensor], model: Model, tokens_WT: Tensor) -> Comparison:
    """Compare predictions with those that follow from the dense model's hidden states."""
    total = Comparison()
    states = final_states(model, tokens_WT)
    for dense_TH, carved_TH, tokens_T in zip(dense_states, states, tokens_WT, strict=True):
        total.add(model.lm_head(dense_TH), model.lm_head(carved_TH), tokens_T)
    return total


@torch.no_grad()
def measure(source: Path, carved: Path, num_windows: int) -> None:
    """Print the table."""
    token_ids = load_tokenizer(source)(heldout_text(), verbose=False)["input_ids"]
    tokens_WT = windows(token_ids, num_windows=num_windows, window_tokens=WINDOW_TOKENS)
    dense_states = list(final_states(load_model(source, dtype=torch.float32), tokens_WT))
    model = load_model(carved, dtype=torch.float32)
    num_experts = model.config.num_local_experts
    top_ks = (num_experts * 3 // 4, num_experts // 2)
    print(f"{'router':<28}{'k':>4}{'NLL':>9}{'loss':>9}{'KL':>9}{'top-1':>8}{'hits':>7}{'s':>6}")
    for label, is_oracle, choices in (
        ("fitted", False, (num_experts, *top_ks)),
        ("oracle", True, top_ks),
        ("random, random partition", False, top_ks),
    ):
        if label.startswith("random"):
            randomize(model)
        for top_k in choices:
            started = time.perf_counter()
            routers = routed(model, top_k, is_oracle=is_oracle)
            result = compare(dense_states, model, tokens_WT)
            hits = sum(sum(router.hits) / len(router.hits) for router in routers) / len(routers)
            print(
                f"{label:<28}{top_k:>4}{result.nll_q:>9.4f}{result.nll_q - result.nll_p:>9.4f}"
                f"{result.kl:>9.4f}{result.top1_agreement:>8.3f}{hits:>7.3f}"
                f"{time.perf_counter() - started:>6.0f}",
                flush=True,
            )
    print(f"dense NLL {result.nll_p:.4f} on {result.num_tokens} held-out tokens")


def main() -> None:
    """Read the arguments, carve if need be, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("source", nargs="?", type=Path, help="dense checkpoint folder")
    parser.add_argument("--carved", type=Path, help="what `veche carve` made of it")
    parser.add_argument("--windows", type=int, default=16, help=f"of {WINDOW_TOKENS} tokens each")
    arguments = parser.parse_args()
    source = arguments.source or source_folder()
    with tempfile.TemporaryDirectory() as scratch:
        carved = arguments.carved
        if carved is None:
            carved = Path(scratch) / "carved"
            report = carve(source, carved, CarveSettings())
            print(f"carved in {report.seconds:.0f} s: {report.equality}")
        measure(source, carved, arguments.windows)


if __name__ == "__main__":
    main()

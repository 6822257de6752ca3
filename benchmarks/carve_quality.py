"""How good is a carved model? NLL against the dense one, with fewer experts, on several texts.

Usage: python benchmarks/carve_quality.py [dense folder] [--experts 16] [--fit 0.75] [--refit]
       [--windows 4] [--maths FILE.jsonl] [--carved folder]

Without a folder the demo's model is used; without --carved it is carved into a temporary folder.
Texts: the half of Python's help topics that was not calibrated on; source code of the standard
library; the Russian README; GSM8K's questions and answers, where the file is there.
Compared: the fitted router; an oracle, which sees each expert's contribution and keeps the largest;
a random partition with a random router. Random choices are seeded.

Shape suffixes: N tokens, E experts, C units of an expert, H model width, T tokens of a window.
"""

import argparse
import inspect
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
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
ROOT = Path(__file__).resolve().parents[1]
MATHS = ROOT.parent / "shared/data/gsm8k_solutions/example_model_solutions.jsonl"
CODE = ("argparse", "ast", "collections", "datetime", "decimal", "difflib", "json", "typing")


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
        hidden_NH = hidden_NH.reshape(-1, hidden_NH.shape[-1])
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


def texts(maths: Path) -> dict[str, str]:
    """Return the texts by kind; none was calibrated on by default."""
    modules = [__import__(name) for name in CODE]
    kinds = {
        "help": heldout_text(),
        "code": "\n\n".join(inspect.getsource(module)[:40_000] for module in modules),
        "russian": (ROOT / "README.ru.md").read_text(encoding="utf-8"),
    }
    if maths.is_file():
        rows = [json.loads(line) for line in maths.read_text(encoding="utf-8").splitlines()]
        pairs = [row["question"] + "\n" + row["ground_truth"] for row in rows]
        kinds["maths"] = re.sub(r"<<.*?>>", "", "\n\n".join(pairs))
    return kinds


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
def measure(source: Path, carved: Path, kinds: dict[str, Tensor]) -> None:
    """Print the table: the loss of NLL by kind of text, and how often the router is right."""
    dense = load_model(source, dtype=torch.float32)
    dense_states = {kind: list(final_states(dense, kinds[kind])) for kind in kinds}
    del dense
    model = load_model(carved, dtype=torch.float32)
    num_experts = model.model.layers[0].mlp.experts.down_proj.shape[0]
    top_ks = (num_experts * 3 // 4, num_experts // 2)
    print(f"{'router':<26}{'k':>4}" + "".join(f"{kind + ' (hits)':>18}" for kind in kinds))
    for label, is_oracle, choices in (
        ("fitted", False, (num_experts, *top_ks)),
        ("oracle", True, top_ks),
        ("random, random partition", False, top_ks),
    ):
        if label.startswith("random"):
            randomize(model)
        for top_k in choices:
            print(f"{label:<26}{top_k:>4}", end="", flush=True)
            for kind, tokens_WT in kinds.items():
                routers = routed(model, top_k, is_oracle=is_oracle)
                result = compare(dense_states[kind], model, tokens_WT)
                hits = sum(sum(router.hits) / len(router.hits) for router in routers) / len(routers)
                print(f"{result.nll_q - result.nll_p:>+11.3f} ({hits:.2f})", end="", flush=True)
            print()
    print_dense(model, dense_states, kinds)


def print_dense(model: Model, states: dict[str, list[Tensor]], kinds: dict[str, Tensor]) -> None:
    """Print the dense model's own NLL, to which the losses above are to be added."""
    print(f"{'dense NLL':<30}", end="")
    for kind, tokens_WT in kinds.items():
        total = Comparison()
        for state_TH, tokens_T in zip(states[kind], tokens_WT, strict=True):
            logits_TV = model.lm_head(state_TH)
            total.add(logits_TV, logits_TV, tokens_T)
        print(f"{total.nll_p:>11.3f}       ", end="")
    print(f"\n{total.num_tokens} predictions of each kind")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments, carve if need be, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("source", nargs="?", type=Path, help="dense checkpoint folder")
    parser.add_argument("--carved", type=Path, help="what `veche carve` made of it")
    parser.add_argument("--experts", type=int, default=CarveSettings().num_experts)
    parser.add_argument("--fit", type=float, default=0.75, help="share of experts fitted for")
    parser.add_argument("--refit", action="store_true", help="refit `down`, see `veche carve`")
    parser.add_argument("--windows", type=int, default=4, help=f"of {WINDOW_TOKENS} tokens, a kind")
    parser.add_argument("--maths", type=Path, default=MATHS, help="GSM8K in JSON lines")
    given = parser.parse_args(arguments)
    source = given.source or source_folder()
    tokenizer = load_tokenizer(source)
    kinds = {
        kind: windows(
            tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"],
            num_windows=given.windows,
            window_tokens=WINDOW_TOKENS,
        )
        for kind, text in texts(given.maths).items()
    }
    with tempfile.TemporaryDirectory() as scratch:
        carved = given.carved
        if carved is None:
            carved = Path(scratch) / "carved"
            settings = CarveSettings(
                num_experts=given.experts,
                fit_experts_per_tok=round(given.fit * given.experts),
                refit=given.refit,
            )
            report = carve(source, carved, settings)
            print(f"{settings}\ncarved in {report.seconds:.0f} s: {report.equality}")
        measure(source, carved, kinds)


if __name__ == "__main__":
    main()

"""The short form: whole models in memory, one at a time. This file imports torch."""

import gc
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from veche.checkpoint.config import read_config, spec_of
from veche.core.progress import Advance
from veche.surgery.loading import Model, load_model
from veche.surgery.verification.bench import Bench
from veche.surgery.verification.compare import Comparison
from veche.surgery.verification.variants import Experiment, Variant
from veche.surgery.verification.weights import scaled_in_place


def num_steps(experiment: Experiment) -> int:
    """Return how often `compare_whole` advances."""
    return len({pair.reference for pair in experiment.pairs.values()}) + len(experiment.pairs)


def compare_whole(bench: Bench, advance: Advance) -> dict[str, Comparison]:
    """Load every variant in turn and compare the pairs, by name.

    Args:
        bench: what to run, on what.
        advance: called with 1 for each model that was run.

    Raises:
        CheckpointError: a folder cannot be loaded.
    """
    experiment = bench.experiment

    def run(variant: Variant) -> Iterator[Tensor]:
        model = load_variant(bench.folders[variant.side], variant, bench.device)
        for tokens_T in bench.tokens_of(is_fp32=variant.is_fp32):
            yield model(input_ids=tokens_T[None], use_cache=False).logits[0]

    comparisons: dict[str, Comparison] = {}
    for reference in {pair.reference: None for pair in experiment.pairs.values()}:
        expected = list(run(experiment.variants[reference]))
        advance(1)
        for name, pair in experiment.pairs.items():
            if pair.reference == reference:
                gc.collect()
                variant, comparisons[name] = experiment.variants[pair.other], Comparison()
                tokens_WT = bench.tokens_of(is_fp32=variant.is_fp32)
                runs = zip(expected, run(variant), tokens_WT, strict=True)
                for reference_TV, other_TV, tokens_T in runs:
                    comparisons[name].add(reference_TV, other_TV, tokens_T)
                advance(1)
    return comparisons


def load_variant(folder: Path, variant: Variant, device: torch.device) -> Model:
    """Load a model with its dials turned, and its experts as loud as its gain says.

    Raises:
        CheckpointError: the folder cannot be loaded.
    """
    model = load_model(
        folder,
        changes=variant.changes,
        dtype=torch.float32 if variant.is_fp32 else "auto",
        attention=variant.attention,
    )
    dtype = getattr(torch, spec_of(read_config(folder)).torch_dtype)
    scaled_in_place(dict(model.named_parameters()), variant.gain, dtype)
    return model.to(device)

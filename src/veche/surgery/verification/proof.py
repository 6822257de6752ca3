"""Prove every operation on tiny random models of every family. This file imports torch.

A tiny model is exact to prove on, since nothing in it is near zero or alike by training: weights
are drawn so wide that attention, routing and the next token depend strongly on the context.
"""

import gc
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from veche.core.errors import RecipeError, UnsupportedError
from veche.core.progress import Progress, Silent
from veche.planning.plan import Mode
from veche.planning.planner import make_plan
from veche.planning.recipe import Recipe
from veche.surgery.build import build
from veche.surgery.carving.calibration import heldout_text
from veche.surgery.carving.carve import CarveSettings, carve
from veche.surgery.loading import Attention, load_model, quiet_transformers
from veche.surgery.verification.compare import Comparison
from veche.surgery.verification.verify import judged

_SHAPE: Mapping[str, Any] = {
    "vocab_size": 384, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512,
    "initializer_range": 0.35, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
_EXPERTS = {"num_experts": 8, "num_experts_per_tok": 3, "norm_topk_prob": True}
_QWEN_MOE = {**_EXPERTS, "intermediate_size": 48, "moe_intermediate_size": 24}
SOURCES: Mapping[str, Mapping[str, Any]] = {
    "qwen3_moe": {**_QWEN_MOE, "mlp_only_layers": [1]},
    "qwen2_moe": {
        **_QWEN_MOE, "norm_topk_prob": False, "mlp_only_layers": [1],
        "shared_expert_intermediate_size": 40,
    },
    "mixtral": {
        "intermediate_size": 24, "num_local_experts": 8, "num_experts_per_tok": 3,
        "sliding_window": None,
    },
    "olmoe": {**_EXPERTS, "norm_topk_prob": False, "intermediate_size": 24},
    "llama": {"intermediate_size": 64},
    "qwen2": {"intermediate_size": 64},
    "qwen3": {"intermediate_size": 64},
}  # fmt: skip
"""What each family's tiny model has besides the common shape."""
_UPCYCLE = {"num_experts": 4, "num_experts_per_tok": 2}
_HEADS = {"num_attention_heads": 12, "num_key_value_heads": 6}
_MIXTURES = ("qwen3_moe", "qwen2_moe", "mixtral", "olmoe")
_DENSE = ("llama", "qwen2", "qwen3")


CARVING = "carve, k = E"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A growth to prove.

    Attributes:
        operation: its name in the table.
        fields: what a recipe asks for.
        families: where it is tried; empty fields stand for carving into 4 experts, all at work.
        is_tied: whether the source's output is tied to its embedding.
    """

    operation: str
    fields: Mapping[str, Any]
    families: Sequence[str]
    is_tied: bool = False


CASES = (
    Case(operation="expert_width", fields={"moe_intermediate_size": 40}, families=_MIXTURES),
    Case(operation="expert_width × 3", fields={"moe_intermediate_size": 72}, families=_MIXTURES),
    Case(operation="query heads", fields={"num_attention_heads": 6}, families=_MIXTURES),
    Case(operation="KV heads", fields={"num_key_value_heads": 4}, families=_MIXTURES),
    Case(operation="query and KV heads", fields=_HEADS, families=_MIXTURES),
    Case(
        operation="experts × 2",
        fields={"num_experts": 16, "num_experts_per_tok": 6},
        families=_MIXTURES,
    ),
    Case(
        operation="experts × 3",
        fields={"num_experts": 24, "num_experts_per_tok": 9},
        families=_MIXTURES,
    ),
    Case(operation="depth", fields={"num_hidden_layers": 5}, families=_MIXTURES),
    Case(
        operation="untie",
        fields={"tie_word_embeddings": False},
        families=_MIXTURES,
        is_tied=True,
    ),
    Case(
        operation="shared_expert_width",
        fields={"shared_expert_intermediate_size": 64},
        families=("qwen2_moe",),
    ),
    Case(
        operation="dense_width",
        fields={"intermediate_size": 64},
        families=("qwen3_moe", "qwen2_moe"),
    ),
    Case(
        operation="all in one pass",
        fields={
            **_HEADS, "num_experts": 16, "num_experts_per_tok": 6, "num_hidden_layers": 4,
            "moe_intermediate_size": 40, "tie_word_embeddings": False,
        },
        families=("qwen3_moe", "qwen2_moe", "mixtral"),
        is_tied=True,
    ),
    Case(operation="upcycle", fields=_UPCYCLE, families=_DENSE),
    Case(operation=CARVING, fields={}, families=_DENSE),
    Case(
        operation="upcycle and all in one pass",
        fields={
            **_UPCYCLE, **_HEADS, "num_hidden_layers": 4, "moe_intermediate_size": 80,
            "tie_word_embeddings": False,
        },
        families=_DENSE,
        is_tied=True,
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What was measured of one operation in one family and mode.

    Attributes:
        operation: its name in the table.
        family: the source's model_type.
        mode: how new units start.
        max_abs_logit_diff: in float32, in parts of the largest logit; None where it was refused.
        kl_bf16: KL(source‖grown), both in bfloat16, nats a token.
        floor_bf16: KL of the source in bfloat16 under two attention implementations.
        passed: float32 within 1e-5, and bfloat16 under the floor and two standard errors.
        refusal: why it cannot be done in this family; empty where it can.
    """

    operation: str
    family: str
    mode: Mode
    max_abs_logit_diff: float | None = None
    kl_bf16: float | None = None
    floor_bf16: float | None = None
    passed: bool = True
    refusal: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def prove(progress: Progress | None = None) -> Iterator[Proof]:
    """Yield the proof of every case in every family and mode."""
    modes: tuple[Mode, ...] = ("zero", "split")
    jobs = [
        (case, family, mode)
        for case in CASES
        for family in case.families
        for mode in (modes if case.fields else modes[:1])
    ]
    with (
        tempfile.TemporaryDirectory() as scratch,
        (progress or Silent()).task("prove", len(jobs)) as advance,
        torch.inference_mode(),
    ):
        bench = _Bench(Path(scratch))
        for case, family, mode in jobs:
            yield bench.prove(case, family, mode)
            advance(1)


class _Bench:
    """Tiny sources, made once each, and what was measured of them."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._logits: dict[tuple[str, bool, torch.dtype, Attention], Tensor] = {}
        self._tokens_WT = torch.arange(3, 259).reshape(2, 128)

    def prove(self, case: Case, family: str, mode: Mode) -> Proof:
        """Grow one tiny model, in float32 and in bfloat16, and compare."""
        try:
            precise = self._grown(case, family, mode, torch.float32)
            rounded = self._grown(case, family, mode, torch.bfloat16)
        except (UnsupportedError, RecipeError) as error:
            return Proof(operation=case.operation, family=family, mode=mode, refusal=error.message)
        fp32 = self._compare(self._source(family, case.is_tied, torch.float32), precise)
        reference = self._source(family, case.is_tied, torch.bfloat16)
        bf16 = self._compare(reference, rounded)
        floor = self._compare(
            reference, self._source(family, case.is_tied, torch.bfloat16, "eager")
        )
        exact = judged(grown=bf16, floor=floor, fp32=fp32)
        return Proof(
            operation=case.operation,
            family=family,
            mode=mode,
            max_abs_logit_diff=exact.max_abs_logit_diff / exact.logit_scale,
            kl_bf16=exact.kl,
            floor_bf16=exact.floor_kl,
            passed=exact.passed,
        )

    def _source(
        self, family: str, is_tied: bool, dtype: torch.dtype, attention: Attention = "sdpa"
    ) -> Tensor:
        key = (family, is_tied, dtype, attention)
        if key not in self._logits:
            self._logits[key] = self._run(self._folder(family, is_tied, dtype), attention)
        return self._logits[key]

    def _grown(self, case: Case, family: str, mode: Mode, dtype: torch.dtype) -> Tensor:
        source = self._folder(family, case.is_tied, dtype)
        recipe = {"name": "proof", "base": str(source), "mode": mode, "fields": dict(case.fields)}
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            target = Path(folder) / "grown"
            if case.fields:
                build(make_plan(Recipe.model_validate(recipe)), source, target)
            else:
                settings = CarveSettings(num_experts=4, calibration_tokens=512, check_tokens=0)
                carve(source, target, settings, text=heldout_text()[:2048])
            return self._run(target, "sdpa")

    def _run(self, folder: Path, attention: Attention) -> Tensor:
        model = load_model(folder, attention=attention)
        logits: Tensor = model(input_ids=self._tokens_WT, use_cache=False).logits
        del model
        gc.collect()
        return logits

    def _compare(self, reference_WTV: Tensor, logits_WTV: Tensor) -> Comparison:
        result = Comparison()
        for reference, logits, tokens in zip(
            reference_WTV, logits_WTV, self._tokens_WT, strict=True
        ):
            result.add(reference, logits, tokens)
        return result

    def _folder(self, family: str, is_tied: bool, dtype: torch.dtype) -> Path:
        name = f"{family}-{'tied' if is_tied else 'untied'}-{str(dtype).removeprefix('torch.')}"
        folder = self._scratch / name
        if not folder.is_dir():
            write_tiny_model(folder, family, is_tied=is_tied, dtype=dtype)
        return folder


def write_tiny_model(
    folder: Path, family: str, *, is_tied: bool = False, dtype: torch.dtype = torch.float32
) -> None:
    """Write a random model of a family, below 0.4 million parameters, that reads bytes."""
    config = AutoConfig.for_model(
        family, **{**_SHAPE, **SOURCES[family], "tie_word_embeddings": is_tied}
    )
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for weight in model.parameters():
            # Norms and biases of a fresh model are ones and zeros, and would hide mistakes.
            if weight.dim() == 1:
                weight.data.add_(torch.randn_like(weight) * 0.2)
        model.to(dtype).save_pretrained(folder)
        alphabet = {letter: index for index, letter in enumerate(ByteLevel.alphabet(), start=3)}
        tokenizer = Tokenizer(BPE(vocab=alphabet, merges=[]))
        tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    file = folder / "config.json"
    written = json.loads(file.read_text())
    file.write_text(json.dumps({**written, "dtype": str(dtype).removeprefix("torch.")}))

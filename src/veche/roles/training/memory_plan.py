"""What a training needs of memory, before it begins: in closed form, from the model's shape.

Exact: weights, adapter, gradients, optimiser. What is kept for the backward pass is counted tensor
by tensor, and agrees with PyTorch within a few percent (tests/roles/training/test_memory_plan.py).

Symbols: N suffix tokens and P prefix tokens of the largest pass, A answer tokens, L layers,
H hidden size, q and kv widths, E experts, k active, I width, V vocabulary, r rank, b bytes a value.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from veche.checkpoint.families import QkNorm
from veche.checkpoint.families import TensorKind as Kind
from veche.checkpoint.spec import ModelSpec
from veche.launch.gpus import Gpu, catalogue
from veche.launch.overhead import TRANSFORMERS_GIB
from veche.planning.accounting import parameter_groups
from veche.planning.tensors import EXPERT_KINDS, Matrix, matrices_of
from veche.roles.training.batches import examples_of_step
from veche.roles.training.rendering import TokenisedExample
from veche.roles.training.settings import ChosenSettings

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_ADAPTER_BYTES = 4
"""Adapters are in float32, whatever the base model is in."""
_GIB = 1 << 30
_LEAST_SHARE = 0.5
"""Of active experts, from which all experts are computed (`frozen_experts`), on a CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassSize:
    """The tokens of one forward pass.

    Attributes:
        prefix_tokens: read without a gradient.
        suffix_tokens: kept for the backward pass.
        answer_tokens: that reach the output layer.
    """

    prefix_tokens: int
    suffix_tokens: int
    answer_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Bytes of one process that holds all of the model.

    Attributes:
        weights: of the base model.
        adapter: its parameters.
        gradients: theirs.
        optimizer: its state.
        prefix: keys and values of the prefix.
        activations: kept for the backward pass.
        logits: of the output layer, with their gradient.
        size: the largest pass.
    """

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    prefix: int
    activations: int
    logits: int
    size: PassSize

    @property
    def total(self) -> int:
        """All of it."""
        return self.shared + self.own

    @property
    def shared(self) -> int:
        """What FSDP divides among the cards."""
        return self.weights + self.adapter + self.gradients + self.optimizer

    @property
    def own(self) -> int:
        """What each card has for its share of the batch."""
        return self.prefix + self.activations + self.logits

    def num_cards(self, gpu: Gpu) -> int | None:
        """Return how many cards must share the model (FSDP); None if none suffice.

        The most that PyTorch's allocator and libraries were seen to take is left free.
        """
        room = gpu.visible_bytes[0] - round(TRANSFORMERS_GIB[1] * _GIB) - self.own
        return max(1, -(-self.shared // room)) if room > 0 else None

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return {**asdict(self), "total": self.total}


def plan_memory(spec: ModelSpec, settings: ChosenSettings, size: PassSize) -> MemoryPlan:
    """Compute the memory of a training."""
    dtype = spec.torch_dtype if settings.dtype == "auto" else settings.dtype
    width = _BYTES.get(dtype, 2)
    pairs = [*adapter_pairs(spec, settings)]
    num_adapter = settings.rank * sum(rows + columns for rows, columns in pairs)
    return MemoryPlan(
        weights=parameter_groups(spec).total * width,
        adapter=_ADAPTER_BYTES * num_adapter,
        gradients=_ADAPTER_BYTES * num_adapter,
        optimizer=_optimizer_bytes(pairs, settings, _num_tensors(spec, settings, pairs)),
        prefix=2 * size.prefix_tokens * spec.kv_size * spec.num_hidden_layers * width,
        activations=_activation_bytes(spec, settings, size, width),
        logits=size.answer_tokens * spec.vocab_size * (width + 3 * 4),
        size=size,
    )


def largest_pass(examples: tuple[TokenisedExample, ...], settings: ChosenSettings) -> PassSize:
    """Return the pass with the most suffix tokens, of all that the training will make."""
    best = PassSize(prefix_tokens=0, suffix_tokens=0, answer_tokens=0)
    for step in range(settings.num_steps):
        batch = examples_of_step(
            step, num_examples=len(examples), batch=settings.batch, seed=settings.seed
        )
        for at in range(0, len(batch), settings.micro_batch):
            part = [examples[number] for number in batch[at : at + settings.micro_batch]]
            size = PassSize(
                prefix_tokens=sum(len(example.prefix_ids) for example in part),
                suffix_tokens=sum(len(example.suffix_ids) for example in part),
                answer_tokens=sum(example.num_loss for example in part),
            )
            best = max(best, size, key=lambda found: found.suffix_tokens)
    return best


def fitting_cards(plan: MemoryPlan) -> dict[str, int | None]:
    """Return, for each known card, how many of them must share the model."""
    return {name: plan.num_cards(gpu) for name, gpu in catalogue().items()}


def adapter_pairs(spec: ModelSpec, settings: ChosenSettings) -> Iterator[tuple[int, int]]:
    """Yield rows and columns of each matrix that has a pair of factors; r (rows + columns) values.

    Of a mixture's experts, PEFT makes one pair for all gates and ups and one for all downs, with
    factors for each expert: E pairs of that shape.
    """
    for matrix in matrices_of(spec):
        if settings.method != "merged-experts":
            if matrix.kind in (Kind.Q, Kind.K, Kind.V, Kind.O):
                yield matrix.rows, matrix.columns
        elif matrix.kind is Kind.EXPERT_GATE:
            yield from [(2 * matrix.rows, matrix.columns)] * matrix.count
        elif matrix.kind is Kind.EXPERT_DOWN:
            yield from [(matrix.rows, matrix.columns)] * matrix.count


def _num_tensors(spec: ModelSpec, settings: ChosenSettings, pairs: list[tuple[int, int]]) -> int:
    """Count factors: experts of a layer share theirs."""
    return 4 * spec.num_sparse_layers if settings.method == "merged-experts" else 2 * len(pairs)


def _optimizer_bytes(
    pairs: list[tuple[int, int]], settings: ChosenSettings, num_tensors: int
) -> int:
    """AdamW: two moments a value. LoFT: (m + n)(r + r(r + 1)/2) a pair. A counter a tensor."""
    rank, lengths = settings.rank, sum(rows + columns for rows, columns in pairs)
    if settings.optimizer == "loft":
        return 4 * (lengths * (rank + rank * (rank + 1) // 2) + num_tensors)
    return 4 * (2 * lengths * rank + num_tensors)


def _activation_bytes(spec: ModelSpec, settings: ChosenSettings, size: PassSize, width: int) -> int:
    layers = [_layer_bytes(spec, layer, settings, size, width) for layer in _layers(spec)]
    last_norm = 2 * 4 * spec.hidden_size * size.suffix_tokens
    if settings.gradient_checkpointing:
        inputs = width * spec.hidden_size * size.suffix_tokens * len(layers)
        return inputs + max(layers) + last_norm
    return sum(layers) + last_norm


def _layers(spec: ModelSpec) -> range:
    return range(spec.num_hidden_layers)


def _layer_bytes(
    spec: ModelSpec, layer: int, settings: ChosenSettings, size: PassSize, width: int
) -> int:
    hidden, q_size, kv_size = spec.hidden_size, spec.q_size, spec.kv_size
    each = 2 * 4 * hidden  # both norms work in float32
    if spec.family.qk_norm is not QkNorm.NONE:
        each += 4 * (q_size + kv_size)
    if settings.method != "merged-experts":
        # Each factor A keeps its input in float32, each B what A made of it.
        each += 4 * (3 * hidden + q_size) + 4 * 4 * settings.rank
    each += width * 4 * q_size + 4 * spec.num_attention_heads  # q, k, v for all heads, the output
    total = size.suffix_tokens * (each + _mlp_bytes(spec, layer, settings, width))
    total += size.prefix_tokens * width * 2 * q_size
    if settings.method == "merged-experts" and spec.is_sparse_layer(layer):
        total += width * sum(_of_experts(spec, layer))
    return total


def _mlp_bytes(spec: ModelSpec, layer: int, settings: ChosenSettings, width: int) -> int:
    """Bytes a token: of gate, its activation, up and their product."""
    if not spec.is_sparse_layer(layer):
        return width * 3 * (spec.intermediate_size or 0)
    inner, active = spec.moe_intermediate_size or 0, spec.num_experts_per_tok
    routing = 4 * spec.num_experts + 16 * active
    shared = width * 3 * (spec.shared_expert_intermediate_size or 0)
    is_whole = active >= _LEAST_SHARE * spec.num_experts and settings.method != "merged-experts"
    if is_whole:
        return routing + shared + width * 4 * spec.num_experts * inner
    return routing + shared + width * active * (3 * inner + 2 * spec.hidden_size)


def _of_experts(spec: ModelSpec, layer: int) -> Iterator[int]:
    """Yield the values of a layer's expert matrices, which are made anew with their adapter."""
    matrices: Iterator[Matrix] = matrices_of(spec)
    yield from (m.num_values for m in matrices if m.layer == layer and m.kind in EXPERT_KINDS)

"""How a model is spread over cards: tensor, expert and data parallelism."""

from dataclasses import dataclass

from veche.checkpoint.families import TensorKind as Kind
from veche.checkpoint.spec import ModelSpec
from veche.planning.quantization import weights_by_kind
from veche.planning.tensor_parallel import can_split_fp8_blocks, can_split_heads
from veche.planning.tensors import EXPERT_KINDS

_REPLICATED = frozenset({Kind.NORM, Kind.QK_NORM, Kind.ROUTER})
_PER_KV_HEAD = frozenset({Kind.K, Kind.V, Kind.K_BIAS, Kind.V_BIAS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How many cards share what.

    Attributes:
        tensor_parallel: cards that share every matrix.
        data_parallel: replicas, each with its own requests and KV cache.
        pipeline_parallel: groups of layers, one after another.
        has_expert_parallel: whether experts are dealt out whole over all tensor and data ranks.
    """

    tensor_parallel: int = 1
    data_parallel: int = 1
    pipeline_parallel: int = 1
    has_expert_parallel: bool = False

    @property
    def num_gpus(self) -> int:
        """Cards in all."""
        return self.tensor_parallel * self.data_parallel * self.pipeline_parallel

    @property
    def expert_ranks(self) -> int:
        """Cards among which the experts of a layer are divided."""
        replicas = self.data_parallel if self.has_expert_parallel else 1
        return self.tensor_parallel * replicas

    def layer_share(self, spec: ModelSpec) -> float:
        """Share of the layers in the fullest stage of the pipeline."""
        layers = spec.num_hidden_layers
        return -(-layers // self.pipeline_parallel) / layers


def weight_bytes_per_gpu(spec: ModelSpec, quantization: str, layout: Layout) -> int:
    """Return the weights on the fullest card.

    Norms and routers are on every card; K and V are divided by at most n_kv (heads are
    replicated beyond); experts by TP, or by TP · DP with expert parallelism. A pipeline divides
    the layers; its first stage holds the embedding, its last the output head.
    """
    layers = outside = largest_outside = 0.0
    for kind, num_bytes in weights_by_kind(spec, quantization).items():
        size = num_bytes / _ranks_of(kind, spec, layout)
        if kind in {Kind.EMBEDDING, Kind.LM_HEAD}:
            outside, largest_outside = outside + size, max(largest_outside, size)
        else:
            layers += size
    if layout.pipeline_parallel == 1:
        return round(layers + outside)
    return round(layers * layout.layer_share(spec) + largest_outside)


def _ranks_of(kind: Kind, spec: ModelSpec, layout: Layout) -> int:
    """Cards among which tensors of a kind are divided."""
    if kind in _REPLICATED:
        return 1
    if kind in _PER_KV_HEAD:
        return min(layout.tensor_parallel, spec.num_key_value_heads)
    return layout.expert_ranks if kind in EXPERT_KINDS else layout.tensor_parallel


def choose_layout(
    spec: ModelSpec, quantization: str, num_gpus: int, *, num_nodes: int = 1, engine: str = "vllm"
) -> Layout:
    """Return the layout for `num_gpus` cards in each of `num_nodes` machines.

    The largest feasible tensor parallelism within a machine; experts whole (EP) only where the
    FP8 blocks cannot be divided, because EP saves no memory and costs latency over PCIe; what
    is left over of the cards becomes replicas (DP); machines become a pipeline (PP), which needs
    the least of the network between them. llama.cpp and transformers only split by layers.
    """
    if engine in {"llama.cpp", "transformers"}:
        return Layout(pipeline_parallel=num_gpus * num_nodes)
    tensor_ranks = max(n for n in divisors(num_gpus) if can_split_heads(spec, n))
    has_bad_blocks = quantization == "fp8-block" and not can_split_fp8_blocks(spec, tensor_ranks)
    return Layout(
        tensor_parallel=tensor_ranks,
        data_parallel=num_gpus // tensor_ranks,
        pipeline_parallel=num_nodes,
        has_expert_parallel=spec.is_moe and has_bad_blocks and tensor_ranks > 1,
    )


def divisors(number: int) -> list[int]:
    """Return the whole numbers that divide `number`."""
    return [n for n in range(1, number + 1) if number % n == 0]

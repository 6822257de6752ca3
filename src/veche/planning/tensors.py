"""The tensors of a model by kind, shape and layer, in closed form from its ModelSpec."""

from collections.abc import Iterator
from dataclasses import dataclass

from veche.checkpoint.families import QkNorm
from veche.checkpoint.families import TensorKind as Kind
from veche.checkpoint.spec import ModelSpec

EXPERT_KINDS = frozenset({Kind.EXPERT_GATE, Kind.EXPERT_UP, Kind.EXPERT_DOWN})
DENSE_KINDS = (Kind.DENSE_GATE, Kind.DENSE_UP, Kind.DENSE_DOWN)
SHARED_MLP = (Kind.SHARED_GATE, Kind.SHARED_UP, Kind.SHARED_DOWN)
SHARED_KINDS = frozenset({*SHARED_MLP, Kind.SHARED_ROUTER})


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """`count` tensors of one kind and shape in one place; vectors have one row.

    Attributes:
        kind: what it does in the network.
        rows: output features.
        columns: input features, the dimension along which quantised blocks lie.
        count: how many there are (the experts of a layer are one entry).
        layer: from 0; None outside the layers.
        is_down: whether it is a down projection (dense and shared MLPs have one kind for three).
    """

    kind: Kind
    rows: int
    columns: int
    count: int = 1
    layer: int | None = None
    is_down: bool = False

    @property
    def num_values(self) -> int:
        """Numbers in all of them."""
        return self.rows * self.columns * self.count

    @property
    def is_vector(self) -> bool:
        """Whether engines treat it as a one-dimensional tensor and never quantise it."""
        return self.rows == 1


def matrices_of(spec: ModelSpec) -> Iterator[Matrix]:
    """Yield every tensor of `spec`; their values add up to accounting.parameter_groups' total."""
    yield Matrix(kind=Kind.EMBEDDING, rows=spec.vocab_size, columns=spec.hidden_size)
    for layer in range(spec.num_hidden_layers):
        yield from _attention(spec, layer)
        yield Matrix(kind=Kind.NORM, rows=1, columns=spec.hidden_size, count=2, layer=layer)
        if spec.is_sparse_layer(layer):
            yield from _experts(spec, layer)
        elif spec.intermediate_size:
            yield from _mlp(spec, DENSE_KINDS, spec.intermediate_size, layer)
    yield Matrix(kind=Kind.NORM, rows=1, columns=spec.hidden_size)
    if not spec.tie_word_embeddings:
        yield Matrix(kind=Kind.LM_HEAD, rows=spec.vocab_size, columns=spec.hidden_size)


def _attention(spec: ModelSpec, layer: int) -> Iterator[Matrix]:
    hidden, q_size, kv_size = spec.hidden_size, spec.q_size, spec.kv_size
    yield Matrix(kind=Kind.Q, rows=q_size, columns=hidden, layer=layer)
    yield Matrix(kind=Kind.K, rows=kv_size, columns=hidden, layer=layer)
    yield Matrix(kind=Kind.V, rows=kv_size, columns=hidden, layer=layer)
    yield Matrix(kind=Kind.O, rows=hidden, columns=q_size, layer=layer)
    if spec.has_attention_bias:
        yield Matrix(kind=Kind.Q_BIAS, rows=1, columns=q_size, layer=layer)
        yield Matrix(kind=Kind.K_BIAS, rows=1, columns=kv_size, layer=layer)
        yield Matrix(kind=Kind.V_BIAS, rows=1, columns=kv_size, layer=layer)
        if not spec.family.has_qkv_bias:
            yield Matrix(kind=Kind.NORM, rows=1, columns=hidden, layer=layer)
    if spec.family.qk_norm is QkNorm.HEAD:
        yield Matrix(kind=Kind.QK_NORM, rows=1, columns=spec.head_dim, count=2, layer=layer)
    elif spec.family.qk_norm is QkNorm.FLAT:
        yield Matrix(kind=Kind.QK_NORM, rows=1, columns=q_size + kv_size, layer=layer)


def _experts(spec: ModelSpec, layer: int) -> Iterator[Matrix]:
    hidden, width, count = spec.hidden_size, spec.moe_intermediate_size or 0, spec.num_experts
    yield Matrix(kind=Kind.ROUTER, rows=count, columns=hidden, layer=layer)
    for kind in (Kind.EXPERT_GATE, Kind.EXPERT_UP):
        yield Matrix(kind=kind, rows=width, columns=hidden, count=count, layer=layer)
    yield Matrix(
        kind=Kind.EXPERT_DOWN, rows=hidden, columns=width, count=count, layer=layer, is_down=True
    )
    if spec.shared_expert_intermediate_size:
        yield from _mlp(spec, SHARED_MLP, spec.shared_expert_intermediate_size, layer)
        yield Matrix(kind=Kind.SHARED_ROUTER, rows=1, columns=hidden, layer=layer)


def _mlp(
    spec: ModelSpec, kinds: tuple[Kind, Kind, Kind], width: int, layer: int
) -> Iterator[Matrix]:
    for kind in kinds[:2]:
        yield Matrix(kind=kind, rows=width, columns=spec.hidden_size, layer=layer)
    yield Matrix(kind=kinds[2], rows=spec.hidden_size, columns=width, layer=layer, is_down=True)

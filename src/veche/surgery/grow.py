"""A checkpoint and a plan → the tensors of the grown model, each on its own."""

from functools import partial

import numpy as np

from veche.checkpoint.families import TensorKind, TensorRole, role_of
from veche.checkpoint.header import TensorInfo
from veche.checkpoint.reader import Checkpoint, read_tensor
from veche.checkpoint.spec import ModelSpec
from veche.checkpoint.writer import Chunks, TensorOut
from veche.core.errors import CheckpointError, RecipeError
from veche.planning.plan import BuildPlan
from veche.plugins.registry import load
from veche.surgery.operations.operation import Growth, Operation, Tensor

_COPY_BYTES = 8 << 20
_MUST_AGREE = (
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "vocab_size", "tie_word_embeddings",
    "moe_intermediate_size", "shared_expert_intermediate_size", "intermediate_size",
    "num_experts", "num_experts_per_tok", "has_equal_routing_weights",
)  # fmt: skip


def require_same_base(plan: BuildPlan, checkpoint: Checkpoint) -> None:
    """Refuse a plan that was made for another model.

    Raises:
        RecipeError: names the first field that differs.
    """
    for name in _MUST_AGREE:
        planned, found = getattr(plan.base_spec, name), getattr(checkpoint.spec, name)
        if planned != found:
            raise RecipeError(
                f"plan {plan.recipe!r} is for a base with {name} {planned!r}, but "
                f"{checkpoint.folder} has {found!r}",
                hint=f"plan for it: veche plan RECIPE --base {checkpoint.folder} --out plan.json",
            )


def growth_of(plan: BuildPlan) -> Growth:
    """Return what the plan's operations need to know."""
    return Growth(base=plan.base_spec, target=plan.target_spec, mode=plan.mode, seed=plan.seed)


def grown_tensors(plan: BuildPlan, checkpoint: Checkpoint) -> dict[str, TensorOut]:
    """Describe every tensor of the grown model; nothing is read before it is produced.

    Raises:
        CheckpointError: the checkpoint has a tensor that is unknown or of a wrong shape.
    """
    growth = growth_of(plan)
    operations = tuple(load("operations", name) for name in plan.operations)
    return {
        info.name: _grown(info, _role(info, checkpoint), operations, growth)
        for info in checkpoint.tensors.values()
    }


def transform(
    tensor: Tensor, role: TensorRole, operations: tuple[Operation, ...], growth: Growth
) -> Tensor:
    """Apply the operations that concern this kind of tensor, in the plan's order."""
    for operation in operations:
        if change := operation.transforms.get(role.kind):
            tensor = change(tensor, role, growth)
    return tensor


def shape_of(role: TensorRole, spec: ModelSpec) -> tuple[int, ...] | None:
    """Return the shape that a tensor has in a model of `spec`; None where it is not checked."""
    hidden, width = spec.hidden_size, spec.moe_intermediate_size or 0
    return {
        TensorKind.EMBEDDING: (spec.vocab_size, hidden),
        TensorKind.LM_HEAD: (spec.vocab_size, hidden),
        TensorKind.NORM: (hidden,),
        TensorKind.Q: (spec.q_size, hidden),
        TensorKind.K: (spec.kv_size, hidden),
        TensorKind.V: (spec.kv_size, hidden),
        TensorKind.O: (hidden, spec.q_size),
        TensorKind.Q_BIAS: (spec.q_size,),
        TensorKind.K_BIAS: (spec.kv_size,),
        TensorKind.V_BIAS: (spec.kv_size,),
        TensorKind.ROUTER: (spec.num_experts, hidden),
        TensorKind.EXPERT_GATE: (width, hidden),
        TensorKind.EXPERT_UP: (width, hidden),
        TensorKind.EXPERT_DOWN: (hidden, width),
        TensorKind.FUSED_GATE_UP: (spec.num_experts, 2 * width, hidden),
        TensorKind.FUSED_DOWN: (spec.num_experts, hidden, width),
    }.get(role.kind)


def _role(info: TensorInfo, checkpoint: Checkpoint) -> TensorRole:
    role = role_of(info.name, checkpoint.spec.family)
    if role is None:
        raise CheckpointError(
            f"{info.file}: veche does not know what {info.name!r} does in a "
            f"{checkpoint.spec.model_type} model, so it cannot grow around it",
            hint="is config.json of this model?",
        )
    expected = shape_of(role, checkpoint.spec)
    if expected is not None and expected != info.shape:
        raise CheckpointError(
            f"{info.file}: {info.name!r} has shape {list(info.shape)}, and config.json implies "
            f"{list(expected)}",
            hint="config.json and the weights are not of one model",
        )
    return role


def _grown(
    info: TensorInfo, role: TensorRole, operations: tuple[Operation, ...], growth: Growth
) -> TensorOut:
    concerned = tuple(op for op in operations if role.kind in op.transforms)
    if not concerned:
        return TensorOut(
            name=info.name, dtype=info.dtype, shape=info.shape, produce=partial(_copy, info)
        )
    return TensorOut(
        name=info.name,
        dtype=info.dtype,
        shape=shape_of(role, growth.target) or info.shape,
        produce=partial(_produce, info, role, concerned, growth),
    )


def _copy(info: TensorInfo) -> Chunks:
    """Yield a tensor's bytes as they lie in the file."""
    with info.file.open("rb") as file:
        file.seek(info.start)
        left = info.num_bytes
        while left:
            chunk = file.read(min(left, _COPY_BYTES))
            if not chunk:
                raise CheckpointError(
                    f"{info.file} became shorter while it was read: {info.name!r} is cut off",
                    hint="fetch this file again",
                )
            left -= len(chunk)
            yield chunk


def _produce(
    info: TensorInfo, role: TensorRole, operations: tuple[Operation, ...], growth: Growth
) -> Chunks:
    grown = np.ascontiguousarray(transform(read_tensor(info), role, operations, growth))
    yield grown.view(np.uint8).reshape(-1).data

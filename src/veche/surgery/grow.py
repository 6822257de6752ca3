"""A checkpoint and a plan → the tensors of the grown model, each on its own."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial

from veche.checkpoint.families import QkNorm, TensorKind, TensorRole, role_of
from veche.checkpoint.header import TensorInfo
from veche.checkpoint.reader import Checkpoint
from veche.checkpoint.spec import ModelSpec
from veche.checkpoint.writer import TensorOut, copied
from veche.core.errors import CheckpointError, RecipeError
from veche.planning.plan import BuildPlan
from veche.plugins.registry import load
from veche.surgery.operations.lazy import LazyTensor, as_matrix, from_file
from veche.surgery.operations.operation import Growth, Operation

_MUST_AGREE = (
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "vocab_size", "tie_word_embeddings",
    "moe_intermediate_size", "shared_expert_intermediate_size", "intermediate_size",
    "num_experts", "num_experts_per_tok", "has_equal_routing_weights",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """An operation of a plan, with all that it may know."""

    operation: Operation
    growth: Growth


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A tensor on its way through the steps; it is untouched while its bytes are the source's."""

    role: TensorRole
    tensor: LazyTensor
    is_untouched: bool = True


def require_same_base(plan: BuildPlan, checkpoint: Checkpoint) -> None:
    """Refuse a plan that was made for another model.

    Raises:
        RecipeError: names the first field that differs.
    """
    base = plan.base_spec
    for name in _MUST_AGREE:
        planned, found = getattr(base, name), getattr(checkpoint.spec, name)
        if planned != found:
            raise RecipeError(
                f"plan {plan.recipe!r} is for a base with {name} {planned!r}, but "
                f"{checkpoint.folder} has {found!r}",
                hint=f"plan for it: veche plan RECIPE --base {checkpoint.folder} --out plan.json",
            )


def steps_of_plan(plan: BuildPlan) -> tuple[PlannedStep, ...]:
    """Return the plan's operations in order, loaded, each with its own base and target.

    Raises:
        RecipeError: an operation cannot be done exactly.
        UnsupportedError: the same, because of the model's family.
    """
    steps = [(step.operation, step.before, step.after) for step in plan.steps]
    last = steps[-1][2] if steps else plan.base_spec
    steps += [(name, last, last) for name in plan.operations[len(steps) :]]
    loaded = []
    for name, before, after in steps:
        operation: Operation = load("operations", name)
        operation.require_feasible(before, after)
        growth = Growth(base=before, target=after, mode=plan.mode, seed=plan.seed)
        loaded.append(PlannedStep(operation=operation, growth=growth))
    return tuple(loaded)


def grown_tensors(plan: BuildPlan, checkpoint: Checkpoint) -> dict[str, TensorOut]:
    """Describe every tensor of the grown model by name; nothing is read before it is produced.

    Raises:
        CheckpointError: the checkpoint has a tensor that is unknown or of a wrong shape.
    """
    made = grown_by_source(plan, checkpoint)
    return {tensor.name: tensor for tensors in made.values() for tensor in tensors}


def grown_by_source(plan: BuildPlan, checkpoint: Checkpoint) -> Mapping[str, tuple[TensorOut, ...]]:
    """Describe the tensors of the grown model by the source's tensor that they are made of.

    Raises:
        CheckpointError: the checkpoint has a tensor that is unknown or of a wrong shape.
    """
    steps, target = steps_of_plan(plan), plan.target_spec
    result = {
        info.name: _grown(info, _role(info, checkpoint), steps, target)
        for info in checkpoint.tensors.values()
    }
    _refuse_duplicates(result)
    return result


def shape_of(role: TensorRole, spec: ModelSpec) -> tuple[int, ...] | None:
    """Return the shape that a tensor has in a model of `spec`; None where it is not checked."""
    if role.kind is TensorKind.QK_NORM and spec.family.qk_norm is QkNorm.FLAT:
        return (spec.q_size if role.template.endswith("q_norm.weight") else spec.kv_size,)
    return _shapes(spec).get(role.kind)


@cache
def _shapes(spec: ModelSpec) -> Mapping[TensorKind, tuple[int, ...]]:
    hidden, width = spec.hidden_size, spec.moe_intermediate_size or 0
    dense, shared = spec.intermediate_size or 0, spec.shared_expert_intermediate_size or 0
    return {
        TensorKind.EMBEDDING: (spec.vocab_size, hidden),
        TensorKind.LM_HEAD: (spec.vocab_size, hidden),
        TensorKind.NORM: (hidden,),
        TensorKind.Q: (spec.q_size, hidden),
        TensorKind.K: (spec.kv_size, hidden),
        TensorKind.V: (spec.kv_size, hidden),
        TensorKind.O: (hidden, spec.q_size),
        TensorKind.QK_NORM: (spec.head_dim,),
        TensorKind.Q_BIAS: (spec.q_size,),
        TensorKind.K_BIAS: (spec.kv_size,),
        TensorKind.V_BIAS: (spec.kv_size,),
        TensorKind.O_BIAS: (hidden,),
        TensorKind.ROUTER: (spec.num_experts, hidden),
        TensorKind.EXPERT_GATE: (width, hidden),
        TensorKind.EXPERT_UP: (width, hidden),
        TensorKind.EXPERT_DOWN: (hidden, width),
        TensorKind.FUSED_GATE_UP: (spec.num_experts, 2 * width, hidden),
        TensorKind.FUSED_DOWN: (spec.num_experts, hidden, width),
        TensorKind.SHARED_GATE: (shared, hidden),
        TensorKind.SHARED_UP: (shared, hidden),
        TensorKind.SHARED_DOWN: (hidden, shared),
        TensorKind.SHARED_ROUTER: (1, hidden),
        TensorKind.DENSE_GATE: (dense, hidden),
        TensorKind.DENSE_UP: (dense, hidden),
        TensorKind.DENSE_DOWN: (hidden, dense),
    }


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
    for number, limit, what in (
        (role.layer, checkpoint.spec.num_hidden_layers, "layers"),
        (role.expert, checkpoint.spec.num_experts, "experts"),
    ):
        if number is not None and number >= limit:
            raise CheckpointError(
                f"{info.file}: {info.name!r} is beyond the {limit} {what} of config.json",
                hint="config.json and the weights are not of one model",
            )
    return role


def _grown(
    info: TensorInfo, role: TensorRole, steps: tuple[PlannedStep, ...], target: ModelSpec
) -> tuple[TensorOut, ...]:
    made = [_Made(role=role, tensor=from_file(info))]
    for step in steps:
        made = [grown for old in made for grown in _through(step, old)]
    return tuple(_tensor_out(each, info, target) for each in made)


def _through(step: PlannedStep, old: _Made) -> list[_Made]:
    """Return what one operation makes of one tensor."""
    operation, growth, result = step.operation, step.growth, []
    for role in operation.places(old.role, growth):
        change = operation.transforms.get(role.kind)
        tensor = change(old.tensor, role, growth) if change else old.tensor
        is_untouched = old.is_untouched and tensor is old.tensor
        result.append(_Made(role=role, tensor=tensor, is_untouched=is_untouched))
    return result


def _tensor_out(made: _Made, info: TensorInfo, target: ModelSpec) -> TensorOut:
    name = made.role.name
    if made.is_untouched:
        return replace(copied(info), name=name)
    shape = shape_of(made.role, target) or info.shape
    if as_matrix(shape) != (made.tensor.num_rows, made.tensor.num_columns):
        raise AssertionError(f"{name}: made as {made.tensor}, planned as {shape}")
    return TensorOut(
        name=name, dtype=info.dtype, shape=shape, produce=partial(LazyTensor.chunks, made.tensor)
    )


def _refuse_duplicates(made: Mapping[str, tuple[TensorOut, ...]]) -> None:
    seen: dict[str, str] = {}
    for source, tensors in made.items():
        for tensor in tensors:
            if tensor.name in seen:
                raise CheckpointError(
                    f"{tensor.name!r} would be made of {seen[tensor.name]!r} and of {source!r}",
                    hint="the checkpoint holds one weight in two layouts: keep one",
                )
            seen[tensor.name] = source

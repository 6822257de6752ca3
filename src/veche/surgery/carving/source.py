"""Which dense checkpoints can be carved, into which family, and into how many experts."""

from collections.abc import Callable, Mapping
from typing import Any

from veche.checkpoint.families import FAMILIES, Family, TensorKind, role_of
from veche.checkpoint.reader import Checkpoint
from veche.checkpoint.spec import ModelSpec
from veche.core.errors import RecipeError, UnsupportedError

_TARGETS = {"llama": "mixtral", "qwen2": "qwen2_moe", "qwen3": "qwen3_moe"}
"""Dense family → the family whose attention is the same and whose MLP is a mixture."""
_WIDTH_STEP = 8
"""Grouped matrix products want rows of a multiple of 16 bytes."""
_QKV_BIASES = frozenset({TensorKind.Q_BIAS, TensorKind.K_BIAS, TensorKind.V_BIAS})


def carved_family(spec: ModelSpec) -> Family:
    """Return the family that the carved model of a carvable `spec` belongs to."""
    return FAMILIES[_TARGETS[spec.model_type]]


def shared_units(spec: ModelSpec, num_experts: int) -> int:
    """Return how many of a layer's hidden units are active for every token.

    Qwen2-MoE always has a shared expert. It takes what is left of the layer when each of E experts
    gets as many units as possible, a multiple of 8, and at least 8·E units where nothing is left.
    """
    if carved_family(spec).model_type != "qwen2_moe":
        return 0
    step = num_experts * _WIDTH_STEP
    return (spec.intermediate_size or 0) % step or step


def require_carvable(checkpoint: Checkpoint, num_experts: int, *, top_ks: tuple[int, ...]) -> None:
    """Refuse what the family of mixtures cannot hold.

    Args:
        checkpoint: the dense source.
        num_experts: E.
        top_ks: every k that will be used.

    Raises:
        UnsupportedError: no family of mixtures has room for the source's architecture.
        RecipeError: the layers' width cannot be divided so, or a k is out of range.
    """
    _require_architecture(checkpoint)
    width = checkpoint.spec.intermediate_size or 0
    can_divide = _rule(checkpoint.spec)
    if num_experts < 1 or not can_divide(num_experts):
        allowed = [count for count in range(1, width // _WIDTH_STEP + 1) if can_divide(count)]
        near = sorted(allowed, key=lambda count: (abs(count - num_experts), count))[:3]
        raise RecipeError(
            f"{width} hidden units ({checkpoint.folder / 'config.json'}: intermediate_size) cannot "
            f"be carved into {num_experts} experts of equal size, a multiple of {_WIDTH_STEP}",
            hint=f"nearest possible: {', '.join(map(str, near))}" if near else "",
        )
    for top_k in top_ks:
        if not 1 <= top_k <= num_experts:
            raise RecipeError(
                f"{top_k} experts per token cannot be chosen out of {num_experts}",
                hint=f"choose from 1 to {num_experts}",
            )


def _rule(spec: ModelSpec) -> Callable[[int], bool]:
    """Return whether the layers can be divided into a number of experts."""
    width = spec.intermediate_size or 0

    def can_divide(num_experts: int) -> bool:
        routed = width - shared_units(spec, num_experts)
        return routed > 0 and width % _WIDTH_STEP == 0 and routed % (num_experts * _WIDTH_STEP) == 0

    return can_divide


def _require_architecture(checkpoint: Checkpoint) -> None:
    spec, where = checkpoint.spec, checkpoint.folder
    if spec.model_type not in _TARGETS:
        why = "it already has experts" if spec.is_moe else "no mixture has room for all its tensors"
        raise UnsupportedError(
            f"{where}: a {spec.model_type} model cannot be carved: {why}",
            hint=f"carving works on dense models of: {', '.join(_TARGETS)} (SmolLM2, Qwen3, …)",
        )
    _require_room_for_biases(checkpoint)
    _require_full_attention(checkpoint.config, f"{where / 'config.json'}")
    if any(info.dtype == "F16" for info in checkpoint.tensors.values()):
        raise UnsupportedError(
            f"{where} is in float16, too coarse for a router of near-equal weights",
            hint="convert the checkpoint to bfloat16 first",
        )
    unknown = [name for name in checkpoint.tensors if role_of(name, spec.family) is None]
    if unknown:
        raise UnsupportedError(
            f"{where}: tensor {unknown[0]!r} has no place in a {_TARGETS[spec.model_type]} model",
            hint="is this a merged adapter or a changed architecture? use the original checkpoint",
        )


def _require_room_for_biases(checkpoint: Checkpoint) -> None:
    """Refuse biases that are lost: of an MLP in any family, of attention where it has none."""
    spec = checkpoint.spec
    family = carved_family(spec)
    room = frozenset[TensorKind]()
    if family.has_qkv_bias:
        room = _QKV_BIASES
    elif family.model_type == "qwen3_moe" and spec.has_attention_bias:
        room = _QKV_BIASES | {TensorKind.O_BIAS}
    roles = {name: role_of(name, spec.family) for name in checkpoint.tensors}
    lost = [
        name
        for name, role in roles.items()
        if name.endswith(".bias") and (role is None or role.kind not in room)
    ]
    if lost or checkpoint.config.get("mlp_bias") or (spec.has_attention_bias and not room):
        raise UnsupportedError(
            f"{checkpoint.folder}: attention or MLP has biases "
            f"({lost[0] if lost else 'config.json'}), and {family.model_type} has no room for them",
            hint="carve a model whose config.json has attention_bias and mlp_bias false",
        )


def _require_full_attention(config: Mapping[str, Any], where: str) -> None:
    """Refuse sliding windows: no text longer than one would be judged by the proof of equality."""
    kinds = set(config.get("layer_types") or ()) - {"full_attention"}
    if config.get("use_sliding_window") or kinds:
        raise UnsupportedError(
            f"{where}: attention slides "
            f"({'layer_types has ' + min(kinds) if kinds else 'use_sliding_window is true'}), and "
            "carving knows full attention only",
            hint="carve a model whose config.json has use_sliding_window false",
        )

"""Which dense checkpoints can be carved, and into how many experts."""

from veche.checkpoint.families import role_of
from veche.checkpoint.reader import Checkpoint
from veche.core.errors import RecipeError, UnsupportedError

_CARVABLE = ("llama",)
_WIDTH_STEP = 8
"""Grouped matrix products want rows of a multiple of 16 bytes."""


def require_carvable(checkpoint: Checkpoint, num_experts: int, *, top_ks: tuple[int, ...]) -> None:
    """Refuse what a Mixtral model cannot hold.

    Args:
        checkpoint: the dense source.
        num_experts: E.
        top_ks: every k that will be used.

    Raises:
        UnsupportedError: Mixtral has no room for the source's architecture.
        RecipeError: the layers' width cannot be divided so, or a k is out of range.
    """
    _require_architecture(checkpoint)
    width = checkpoint.spec.intermediate_size or 0
    allowed = [count for count in range(1, width + 1) if width % (count * _WIDTH_STEP) == 0]
    if num_experts not in allowed:
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


def _require_architecture(checkpoint: Checkpoint) -> None:
    spec = checkpoint.spec
    if spec.model_type not in _CARVABLE:
        why = "it already has experts" if spec.is_moe else "Mixtral has no room for all its tensors"
        raise UnsupportedError(
            f"{checkpoint.folder}: a {spec.model_type} model cannot be carved: {why}",
            hint=f"carving works on dense models of: {', '.join(_CARVABLE)} (SmolLM2, Llama 3, …)",
        )
    biases = [name for name in checkpoint.tensors if name.endswith(".bias")]
    if biases or spec.has_attention_bias or checkpoint.config.get("mlp_bias"):
        raise UnsupportedError(
            f"{checkpoint.folder}: attention or MLP has biases "
            f"({biases[0] if biases else 'config.json'}), and Mixtral has no room for them",
            hint="carve a model whose config.json has attention_bias and mlp_bias false",
        )
    if any(info.dtype == "F16" for info in checkpoint.tensors.values()):
        raise UnsupportedError(
            f"{checkpoint.folder} is in float16, too coarse for a router of near-equal weights",
            hint="convert the checkpoint to bfloat16 first",
        )
    unknown = [name for name in checkpoint.tensors if role_of(name, spec.family) is None]
    if unknown:
        raise UnsupportedError(
            f"{checkpoint.folder}: tensor {unknown[0]!r} has no place in a Mixtral model",
            hint="is this a merged adapter or a changed architecture? use the original checkpoint",
        )

"""The factor pairs of a PEFT model's adapter, as parameter groups of LoFT."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from peft.tuners.lora.layer import LoraLayer, ParamWrapper
from torch import nn

from veche.core.errors import InputError, UnsupportedError
from veche.roles.loft.groups import PLAIN_EPS

_SHOWN = 3
_USE_ADAMW = "or train with --optimizer adamw"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraPair:
    """Factors of one matrix: what an adapter adds to it is BA.

    Attributes:
        name: the adapted module's, in the model.
        a: A [r, n].
        b: B [m, r].
    """

    name: str
    a: nn.Parameter
    b: nn.Parameter


def lora_pairs(model: nn.Module, adapter: str | None = None) -> tuple[LoraPair, ...]:
    """Return the pairs of the adapter that is trained, in the model's order.

    Args:
        model: a PEFT model.
        adapter: which adapter; None is the one that is trained.

    Raises:
        UnsupportedError: LoFT has no step for what the adapter is.
        InputError: there is no such adapter, it is not trained, or several are.
    """
    layers = [
        (name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)
    ]
    trained = _trained_adapters(layers)
    if adapter is None:
        adapter = _only(trained)
    elif adapter not in trained:
        raise InputError(
            f"the adapter {adapter!r} is not trained in this model; trained: {_listed(trained)}",
            hint="load it with is_trainable=True, or make it active with model.set_adapter",
        )
    found = [_pair(name, module, adapter) for name, module in layers if adapter in _factors(module)]
    return tuple(found)


def parameter_groups(
    model: nn.Module,
    *,
    adapter: str | None = None,
    plain: Iterable[tuple[str, nn.Parameter]] = (),
) -> list[dict[str, Any]]:
    """Return groups for LoFT: the pairs of the trained adapter, and what AdamW is to train.

    Args:
        model: a PEFT model.
        adapter: which adapter; None is the one that is trained.
        plain: names and parameters that are trained beside it, as whole matrices.

    Raises:
        UnsupportedError: LoFT has no step for what the adapter is, or something else is trained
            that is not named in `plain`.
        InputError: there is no such adapter, it is not trained, or several are.
    """
    pairs = lora_pairs(model, adapter)
    others = list(plain)
    known = {id(param) for pair in pairs for param in (pair.a, pair.b)}
    known |= {id(param) for _, param in others}
    _require_known(model, known)
    named = [
        factor
        for pair in pairs
        for factor in ((f"{pair.name}.lora_A", pair.a), (f"{pair.name}.lora_B", pair.b))
    ]
    groups: list[dict[str, Any]] = [{"kind": "pairs", "params": named}]
    if others:
        groups.append({"kind": "plain", "params": others, "eps": PLAIN_EPS})
    return groups


def _factors(module: LoraLayer) -> set[str]:
    """Return the names of the adapters that a layer has, linear or embedded."""
    return set(module.lora_A) | set(module.lora_embedding_A)


def _trained_adapters(layers: list[tuple[str, Any]]) -> list[str]:
    found: dict[str, None] = {}
    for _, module in layers:
        for adapter, factor in [*module.lora_A.items(), *module.lora_embedding_A.items()]:
            params = [factor] if isinstance(factor, nn.Parameter) else list(factor.parameters())
            if any(param.requires_grad for param in params):
                found[adapter] = None
    return list(found)


def _only(trained: list[str]) -> str:
    if len(trained) == 1:
        return trained[0]
    if trained:
        raise InputError(
            f"several adapters are trained at once: {_listed(trained)}; LoFT trains the product of "
            "one pair a matrix",
            hint="model.set_adapter(NAME) trains one; or name it: parameter_groups(adapter=NAME)",
        )
    raise InputError(
        "the model has no LoRA adapter that is trained",
        hint="make one with peft.get_peft_model, or load it with is_trainable=True",
    )


def _pair(name: str, module: Any, adapter: str) -> LoraPair:
    """Return a layer's pair.

    Raises:
        UnsupportedError: what the adapter adds to the layer is not BA alone.
    """
    problem = _problem_of(module, adapter)
    if problem:
        why, hint = problem
        raise UnsupportedError(f"LoFT cannot train {name}: {why}", hint=f"{hint}, {_USE_ADAMW}")
    a, b = module.lora_A[adapter].weight, module.lora_B[adapter].weight
    return LoraPair(name=name, a=cast("nn.Parameter", a), b=cast("nn.Parameter", b))


def _problem_of(module: Any, adapter: str) -> tuple[str, str] | None:
    """Return why a layer has no pair whose product is what the adapter adds, and what to do."""
    if isinstance(module, ParamWrapper):
        return (
            "it is an adapter of fused experts (target_parameters), whose BA is no one matrix",
            "adapt attention (target_modules=['q_proj', 'k_proj', 'v_proj', 'o_proj'])",
        )
    factors = [of[adapter] for of in (module.lora_A, module.lora_B) if adapter in of]
    if not factors or not all(isinstance(factor, nn.Linear) for factor in factors):
        return (
            f"it is a {type(module).__name__} layer, whose factors are no matrices of a linear map",
            "adapt linear layers only (target_modules)",
        )
    variant = module.lora_variant.get(adapter)
    # With an invocation token it is the same BA, from that token on.
    if variant is not None and not type(variant).__name__.startswith("ALora"):
        return (
            f"it is a {type(variant).__name__.removesuffix('Variant')}, which adds more than BA",
            "make the adapter without it (use_dora=False)",
        )
    if getattr(module.lora_dropout[adapter], "p", 0) > 0:
        return (
            "its dropout is not 0, and noise between the factors is not in the matrix's gradient",
            "set lora_dropout=0",
        )
    if module.scaling[adapter] != 1:
        return (
            f"it adds {module.scaling[adapter]:g} BA, and a step is made for BA",
            "set lora_alpha to the rank, and use_rslora=False",
        )
    if module.lora_bias[adapter]:
        return "its B has a bias, which no pair holds", "set lora_bias=False"
    if not all(factor.weight.requires_grad for factor in factors):
        return "only one of its factors is trained", "let both be trained"
    return None


def _require_known(model: nn.Module, known: set[int]) -> None:
    """Refuse parameters that are trained, and that no group has."""
    lost = [
        name
        for name, param in model.named_parameters()
        if param.requires_grad and id(param) not in known
    ]
    if not lost:
        return
    if any("modules_to_save" in name for name in lost):
        why = "copies of whole modules (modules_to_save)"
        hint = "make the adapter without modules_to_save"
    elif any(name.endswith(".bias") for name in lost):
        why, hint = "biases", "make the adapter with bias='none'"
    else:
        why, hint = "whole parameters", "freeze them (requires_grad_(False))"
    raise UnsupportedError(
        f"beside the pairs of the adapter, {why} are trained, which LoFT was not told about: "
        f"{_listed(lost)}",
        hint=f"{hint}, or name them for AdamW: parameter_groups(model, plain=…), {_USE_ADAMW}",
    )


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) or "none"
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")

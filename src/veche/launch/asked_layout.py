"""The layout that the user asks for by --tp, --dp and --ep, checked."""

from collections.abc import Sequence
from dataclasses import dataclass

from veche.checkpoint.spec import ModelSpec
from veche.core.errors import InputError
from veche.launch.layout import Layout, divisors
from veche.planning.tensor_parallel import (
    FP8_BLOCK,
    can_split_fp8_blocks,
    can_split_heads,
    feasible_fp8_tensor_parallel,
    feasible_tensor_parallel,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutWish:
    """What the user says of the layout; None leaves it to veche.

    Attributes:
        tensor_parallel: --tp.
        data_parallel: --dp.
        has_expert_parallel: --ep.
    """

    tensor_parallel: int | None = None
    data_parallel: int | None = None
    has_expert_parallel: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether everything is left to veche."""
        return self == LayoutWish()


def asked_layout(spec: ModelSpec, wish: LayoutWish, num_gpus: int, *, num_nodes: int = 1) -> Layout:
    """Return the layout that the user asks for, on `num_gpus` cards of each machine.

    What was not said follows: --dp from --tp, --tp from --dp.

    Raises:
        InputError: the numbers do not multiply to the cards, heads do not divide, or a dense
            model's experts were to be dealt out.
    """
    possible = [n for n in divisors(num_gpus) if can_split_heads(spec, n)]
    replicas = wish.data_parallel or 1
    ranks = wish.tensor_parallel or (num_gpus // replicas if wish.data_parallel else max(possible))
    replicas = wish.data_parallel or max(1, num_gpus // max(1, ranks))
    if ranks * replicas != num_gpus or ranks < 1:
        raise InputError(
            f"--tp {ranks} x --dp {replicas} is {ranks * replicas} cards, and --gpus is {num_gpus}",
            hint=f"give --gpus {ranks * replicas}, or --tp {_list(possible)}",
        )
    if not can_split_heads(spec, ranks):
        raise InputError(
            f"--tp {ranks}: {spec.num_attention_heads} query heads and {spec.num_key_value_heads} "
            "KV heads cannot be divided among so many cards",
            hint=f"this model takes --tp {_list(feasible_tensor_parallel(spec))}",
        )
    if wish.has_expert_parallel and not spec.is_moe:
        raise InputError("--ep: this model has no experts", hint="leave --ep out")
    return Layout(
        tensor_parallel=ranks,
        data_parallel=replicas,
        pipeline_parallel=num_nodes,
        has_expert_parallel=wish.has_expert_parallel,
    )


def check_engines(engines: Sequence[str]) -> None:
    """Refuse a layout for engines that have none.

    Raises:
        InputError: one of them only splits by layers.
    """
    for engine in engines:
        if engine not in {"vllm", "sglang"}:
            raise InputError(
                f"--tp, --dp and --ep: {engine} splits a model by layers only",
                hint="give --engine vllm or --engine sglang, or leave them out",
            )


def check_fp8_blocks(spec: ModelSpec, layout: Layout) -> None:
    """Refuse block-scaled FP8 on a layout that cannot divide its blocks.

    Raises:
        InputError: the experts' blocks of 128 do not divide.
    """
    ranks = layout.tensor_parallel
    if ranks == 1 or layout.has_expert_parallel or can_split_fp8_blocks(spec, ranks):
        return
    possible = feasible_fp8_tensor_parallel(spec)
    width = spec.moe_intermediate_size or spec.intermediate_size
    way = f"--tp {_list(possible)}" if possible else "--quant fp8-tensor"
    raise InputError(
        f"--tp {ranks}: matrices of {width} units do not split into FP8 blocks of {FP8_BLOCK} on "
        f"{ranks} cards",
        hint=f"take {way}" + (", or add --ep" if spec.is_moe else ""),
    )


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)

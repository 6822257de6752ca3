"""Train on several cards or machines: what `accelerate launch` and `torchrun` need to be told.

Small models are copied to every card (DDP, torchrun alone); large ones are divided among them
(FSDP2, through accelerate's config). The command is the same one, run once for each card.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from veche.checkpoint.spec import ModelSpec
from veche.core.errors import InputError

CONFIG_FILE = "accelerate.yaml"
_MOST = 4096
_PORT = 29_500


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The machines that train together.

    Attributes:
        num_gpus: processes of each machine, one for each card.
        num_nodes: machines.
        main_address: the first machine's name or address; needed from two on.
        use_cpu: whether processes compute on CPUs, over gloo.
    """

    num_gpus: int
    num_nodes: int = 1
    main_address: str | None = None
    use_cpu: bool = False

    def __post_init__(self) -> None:
        """Refuse fleets that cannot be.

        Raises:
            InputError: says why.
        """
        for name, value in (("--gpus", self.num_gpus), ("--nodes", self.num_nodes)):
            if not 1 <= value <= _MOST:
                raise InputError(f"{name} {value} is not in 1..{_MOST}")
        if self.num_nodes > 1 and not self.main_address:
            raise InputError(
                f"{self.num_nodes} machines must know the first one's address",
                hint="--main-address HOST",
            )

    @property
    def num_processes(self) -> int:
        """Of all machines."""
        return self.num_gpus * self.num_nodes


def accelerate_config(spec: ModelSpec, fleet: Fleet) -> dict[str, Any]:
    """Return accelerate's config for FSDP2: layers are divided among all processes.

    The computing type is the model's own: autocast would only convert to it again. On machine n,
    pass `--machine_rank n`.
    """
    config: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "FSDP",
        "mixed_precision": "no",
        "use_cpu": fleet.use_cpu,
        "debug": False,
        "num_machines": fleet.num_nodes,
        "num_processes": fleet.num_processes,
        "machine_rank": 0,
        "main_training_function": "main",
        "rdzv_backend": "static",
        "same_network": True,
        "fsdp_config": {
            "fsdp_version": 2,
            "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "fsdp_transformer_layer_cls_to_wrap": _layer_class(spec),
            "fsdp_reshard_after_forward": True,
            "fsdp_state_dict_type": "FULL_STATE_DICT",
            "fsdp_cpu_ram_efficient_loading": False,
            "fsdp_offload_params": False,
            "fsdp_activation_checkpointing": False,
        },
    }
    if fleet.main_address:
        config |= {"main_process_ip": fleet.main_address, "main_process_port": _PORT}
    return config


def accelerate_command(config_file: str, training: Sequence[str], fleet: Fleet) -> str:
    """Return the line that trains with FSDP2; run it on each machine."""
    rank = ["--machine_rank", "$RANK"] if fleet.num_nodes > 1 else []
    words = ["accelerate", "launch", "--config_file", config_file, *rank, "--no_python", *training]
    return _line(words)


def torchrun_command(training: Sequence[str], fleet: Fleet) -> str:
    """Return the line that trains with a copy of the model in each process."""
    return _line(["torchrun", *torchrun_options(fleet), "--no-python", *training])


def torchrun_options(fleet: Fleet) -> list[str]:
    """Return what torchrun must know of the fleet."""
    each = ["--nproc-per-node", str(fleet.num_gpus)]
    if fleet.num_nodes == 1:
        return ["--standalone", *each]
    return [
        "--nnodes", str(fleet.num_nodes), "--node-rank", "$RANK", *each,
        "--master-addr", str(fleet.main_address), "--master-port", str(_PORT),
    ]  # fmt: skip


def _layer_class(spec: ModelSpec) -> str:
    """`MixtralForCausalLM` → MixtralDecoderLayer: transformers' name of a layer."""
    return spec.family.architecture.removesuffix("ForCausalLM") + "DecoderLayer"


def _line(words: Sequence[str]) -> str:
    return " ".join(word if word == "$RANK" else shlex.quote(word) for word in words)

"""One process of two. Run by torchrun: prints what it computed as JSON, from the first process.

`copies` trains with a copy of the model in each process, through the trainer itself. `parts` gives
each a part of every layer, as accelerate's FSDP2 does on GPUs, and goes on from a gathered state.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from tests.roles.training.dialogues import ROLE, made, sums
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from veche.checkpoint.config import read_config, spec_of
from veche.roles.training.adapter import adapter_weights
from veche.roles.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from veche.roles.training.learner import Learner
from veche.roles.training.optimizer import OPTIMIZERS, load_state, shorten_gradients
from veche.roles.training.settings import TrainingSettings, chosen
from veche.roles.training.train import model_with_adapter, train_adapter

SETTINGS = TrainingSettings(batch=4, steps=5, save_every=2, rank=4, learning_rate=2e-3)
EXAMPLES = [made(5, 20 + n, 7, seed=n) for n in range(4)]


def copies(folder: Path, out: Path) -> None:
    trained = train_adapter(folder, sums(8), SETTINGS, out, role=ROLE)
    if trained.is_main_process:
        sys.stdout.write(json.dumps({"loss": [*trained.record.curve["loss"]]}))


def parts(folder: Path, scratch: Path) -> None:
    dist.init_process_group("gloo")
    whole, divided = (_three_steps(folder, scratch, is_divided=each) for each in (False, True))
    if not dist.get_rank():
        difference = max((whole[name] - divided[name]).abs().max().item() for name in whole)
        sys.stdout.write(json.dumps({"difference": difference}))
    dist.destroy_process_group()


def _three_steps(folder: Path, scratch: Path, *, is_divided: bool) -> dict[str, torch.Tensor]:
    settings = chosen(SETTINGS, spec_of(read_config(folder)), num_examples=4)
    model = model_with_adapter(folder, settings, is_divided=True)
    learner = Learner(model, wants_balance=False)
    mine, share = EXAMPLES, 1
    if is_divided:
        mesh = init_device_mesh("cpu", (2,))
        for layer in model.get_base_model().model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(learner, mesh=mesh)
        mine, share = EXAMPLES[dist.get_rank() :: 2], 2
    optimizer = OPTIMIZERS["adamw"](model, settings)
    for _ in range(3):
        loss, _ = learner(mine)
        (loss * (share / 28)).backward()
        assert shorten_gradients(learner, settings)
        optimizer.step()
        optimizer.zero_grad()
        _gone_on(optimizer, model, scratch)
    return adapter_weights(model)


def _gone_on(optimizer: torch.optim.Optimizer, model: torch.nn.Module, scratch: Path) -> None:
    """Write the state as the trainer does, and take it from there, on each process."""
    checkpoint = Checkpoint(
        step=1,
        weights=adapter_weights(model),
        optimizer=optimizer.state_dict(),
        curve={},
        seconds=0.0,
    )
    folder = scratch / str(dist.get_rank())
    folder.mkdir(exist_ok=True)
    write_checkpoint(folder, checkpoint)
    load_state(optimizer, read_checkpoint(folder).optimizer)


if __name__ == "__main__":
    {"copies": copies, "parts": parts}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))

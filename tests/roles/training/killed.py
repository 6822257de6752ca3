"""Kill trainings with SIGKILL and resume them. Run as a program: it prints what it saw, as JSON.

A training is killed before some of its operations on files (Python's audit events); every time
`resume` must lead to the adapter of a training that nobody killed, bit by bit.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

# What each child would load for itself, slowly.
import matplotlib.backends.backend_agg  # noqa: F401
import torch.utils.tensorboard  # noqa: F401
from tests.roles.training.dialogues import ROLE, sums

from veche.roles.training.settings import TrainingSettings
from veche.roles.training.train import train_adapter

FILE_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
FILES = ("adapter_model.safetensors", "adapter_config.json")


def train(model: Path, out: Path, optimizer: str) -> None:
    settings = TrainingSettings(
        optimizer=optimizer, batch=3, steps=6, save_every=2, rank=2, learning_rate=3e-3
    )
    train_adapter(model, sums(7), settings, out, role=ROLE, resume=True)


def ended(work, last=None) -> tuple[int, int]:
    """Run `work` in a child that dies before its file event number `last`; return code, events."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        seen = 0

        def watch(event, arguments):
            nonlocal seen
            if event not in FILE_EVENTS or (event == "open" and not arguments[2] & WRITING):
                return
            seen += 1
            if seen == last:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        try:
            work()
            os.write(writer, str(seen).encode())
        finally:
            os._exit(0)
    os.close(writer)
    said = os.read(reader, 100)
    os.close(reader)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), int(said or 0)


def main(model: Path, scratch: Path, optimizer: str, num_kills: int) -> dict[str, int]:
    whole = scratch / "whole"
    _, num_events = ended(lambda: train(model, whole, optimizer))
    assert num_events, "the training failed"
    expected = [(whole / name).read_bytes() for name in FILES]
    out, resumed = scratch / "out", 0
    for part in range(num_kills):  # in the last half, where there is something to go on with
        number = num_events - num_events * part // (2 * num_kills)
        code, _ = ended(lambda: train(model, out, optimizer), number)
        assert code == -signal.SIGKILL, number
        resumed += any((scratch / "out.partial").glob("checkpoints/step-*.safetensors"))
        if not (out / FILES[0]).exists():
            code, events = ended(lambda: train(model, out, optimizer))
            assert events, f"killed before file event {number}: resuming failed"
        assert [(out / name).read_bytes() for name in FILES] == expected, number
        shutil.rmtree(out)
    return {"events": num_events, "resumed": resumed}


if __name__ == "__main__":
    model, scratch = map(Path, sys.argv[1:3])
    sys.stdout.write(json.dumps(main(model, scratch, sys.argv[3], int(sys.argv[4]))))

"""Print what a training pass of a model was planned to need, and what it needed; run alone."""

import json
import re
import sys
from pathlib import Path

from tests.roles.training.dialogues import made

from veche.checkpoint.config import read_config, spec_of
from veche.roles.training.learner import Learner
from veche.roles.training.memory_plan import PassSize, plan_memory
from veche.roles.training.optimizer import OPTIMIZERS
from veche.roles.training.settings import TrainingSettings, chosen
from veche.roles.training.train import model_with_adapter


def peak() -> int:
    """Return this program's highest memory; getrusage would count who started it, too."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])


def main(folder: Path, again: bool) -> dict[str, int]:
    spec = spec_of(read_config(folder))
    given = TrainingSettings(gradient_checkpointing=again)
    settings = chosen(given, spec, num_examples=8)
    examples = [made(70, 125, 105, seed=n, vocab=spec.vocab_size) for n in range(4)]
    before = peak()
    model = model_with_adapter(folder, settings)
    learner, optimizer = Learner(model, wants_balance=False), OPTIMIZERS["adamw"](model, settings)
    for _ in range(2):
        loss, _ = learner(examples)
        (loss / 420).backward()
        optimizer.step()
        optimizer.zero_grad()
    size = PassSize(prefix_tokens=280, suffix_tokens=500, answer_tokens=420)
    plan = plan_memory(spec, settings, size)
    return {"planned": plan.total, "needed": peak() - before}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), sys.argv[2] == "again")))

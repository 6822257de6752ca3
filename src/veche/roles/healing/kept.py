"""What an interrupted healing leaves behind, so that it goes on: safetensors and JSON.

This file imports torch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from veche.core.errors import CheckpointError
from veche.core.files import read_json_object, write_json
from veche.roles.healing.trainee import Trainee
from veche.roles.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from veche.roles.training.tensor_file import read_tensors, write_tensors

FOLDER_NAME = ".veche_heal"
_FITTED, _WRITTEN = "fitted", "generated"
_STEPS = "steps.json"


class Kept:
    """The folder in which a healing keeps what it has done."""

    def __init__(self, folder: Path) -> None:
        """Take the folder, which need not exist."""
        self.folder = folder

    def save_fit(self, moved: Mapping[str, Tensor]) -> None:
        """Keep the parameters that the fit by layers moved."""
        self._save(_FITTED, moved)

    def load_fit(self) -> dict[str, Tensor] | None:
        """Return these parameters; None where the fit was not finished."""
        return self._load(_FITTED)

    def save_text(self, tokens_WT: Tensor) -> None:
        """Keep the text that the teacher wrote."""
        self._save(_WRITTEN, {"tokens": tokens_WT})

    def load_text(self) -> Tensor | None:
        """Return that text; None where it was not finished."""
        found = self._load(_WRITTEN)
        return None if found is None else found["tokens"]

    def states_path(self, part: int) -> Path:
        """Return where the teacher's states of a part of the windows are."""
        return self.folder / f"teacher-{part:05}.safetensors"

    def save_states(self, part: int, states_WTH: Tensor) -> None:
        """Keep the teacher's states of some windows."""
        self._save(self.states_path(part).stem, {"states": states_WTH})

    def load_states(self, part: int) -> Tensor | None:
        """Return them; None where they are not there."""
        found = self._load(self.states_path(part).stem)
        return None if found is None else found["states"]

    def save_num_steps(self, num_steps: int) -> None:
        """Keep how many steps training has, which must not be timed again."""
        write_json(self.folder / _STEPS, {"num_steps": num_steps})

    def num_steps(self) -> int | None:
        """Return that number; None where it was not set yet."""
        path = self.folder / _STEPS
        return int(read_json_object(path)["num_steps"]) if path.is_file() else None

    def save_training(self, trainee: Trainee, losses: Sequence[float]) -> None:
        """Keep everything that the next steps depend on.

        Args:
            trainee: parameters and optimiser.
            losses: of each step that is done.
        """
        checkpoint = Checkpoint(
            step=len(losses),
            weights={each.name: each.master for each in trainee.moving},
            optimizer=trainee.optimizer.state_dict(),
            curve={"loss": torch.tensor(losses, dtype=torch.float64)},
        )
        write_checkpoint(self.folder, checkpoint)

    def load_training(self, trainee: Trainee) -> list[float]:
        """Put parameters and optimiser back; return the losses of the steps that are done.

        Raises:
            CheckpointError: what was kept is not of this training.
        """
        last = read_checkpoint(self.folder)
        if last is None:
            return []
        try:
            with torch.no_grad():
                for each in trainee.moving:
                    each.master.copy_(last.weights[each.name])
            trainee.show()
            trainee.optimizer.load_state_dict(dict(last.optimizer))
            losses: list[float] = last.curve["loss"].tolist()
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"{self.folder} is of another training: {error}", hint=self._hint
            ) from error
        return losses

    @property
    def _hint(self) -> str:
        return f"remove {self.folder.parent} to begin anew"

    def _save(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        write_tensors(self.folder / f"{name}.safetensors", tensors)

    def _load(self, name: str) -> dict[str, Tensor] | None:
        path = self.folder / f"{name}.safetensors"
        return read_tensors(path, hint=self._hint)[0] if path.is_file() else None

"""What an interrupted healing leaves behind, so that it goes on: safetensors and JSON.

This file imports torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from veche.core.errors import CheckpointError
from veche.core.files import atomic_writer, read_json_object, write_json
from veche.core.json_text import json_text, parse_json
from veche.roles.healing.trainee import Trainee

FOLDER_NAME = ".veche_heal"
_NOTE = "veche"
_FITTED, _TRAINED, _WRITTEN = "fitted", "trained", "generated"
_STEPS = "steps.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPoint:
    """How far training is.

    Attributes:
        step: steps that are done.
        num_steps: of the whole training.
        losses: of each step that is done.
    """

    step: int
    num_steps: int
    losses: tuple[float, ...]


class Kept:
    """The folder in which a healing keeps what it has done."""

    def __init__(self, folder: Path) -> None:
        """Take the folder, which need not exist."""
        self.folder = folder

    def save_fit(self, moved: Mapping[str, Tensor], note: Mapping[str, Any]) -> None:
        """Keep the parameters that the fit by layers moved."""
        self._save(_FITTED, moved, note)

    def load_fit(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return these parameters and the note; None where the fit was not finished."""
        return self._load(_FITTED)

    def save_text(self, tokens_WT: Tensor) -> None:
        """Keep the text that the teacher wrote."""
        self._save(_WRITTEN, {"tokens": tokens_WT}, {})

    def load_text(self) -> Tensor | None:
        """Return that text; None where it was not finished."""
        found = self._load(_WRITTEN)
        return None if found is None else found[0]["tokens"]

    def states_path(self, part: int) -> Path:
        """Return where the teacher's states of a part of the windows are."""
        return self.folder / f"teacher-{part:05}.safetensors"

    def save_states(self, part: int, states_WTH: Tensor) -> None:
        """Keep the teacher's states of some windows."""
        self._save(self.states_path(part).stem, {"states": states_WTH}, {})

    def load_states(self, part: int) -> Tensor | None:
        """Return them; None where they are not there."""
        found = self._load(self.states_path(part).stem)
        return None if found is None else found[0]["states"]

    def save_num_steps(self, num_steps: int) -> None:
        """Keep how many steps training has, which must not be timed again."""
        write_json(self.folder / _STEPS, {"num_steps": num_steps})

    def num_steps(self) -> int | None:
        """Return that number; None where it was not set yet."""
        path = self.folder / _STEPS
        return int(read_json_object(path)["num_steps"]) if path.is_file() else None

    def save_training(self, trainee: Trainee, point: TrainingPoint) -> None:
        """Keep everything that the next steps depend on."""
        tensors = {f"master.{each.name}": each.master.detach() for each in trainee.moving}
        plain: dict[str, dict[str, Any]] = {}
        for index, state in trainee.optimizer.state_dict()["state"].items():
            for key, value in state.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{index}.{key}"] = value
                else:
                    plain.setdefault(str(index), {})[key] = value
        note = {
            "step": point.step,
            "num_steps": point.num_steps,
            "losses": list(point.losses),
            "plain": plain,
        }
        self._save(_TRAINED, tensors, note)

    def load_training(self, trainee: Trainee) -> TrainingPoint | None:
        """Put parameters and optimiser back, and return how far they are; None without a point.

        Raises:
            CheckpointError: what was kept is not of this training.
        """
        found = self._load(_TRAINED)
        if found is None:
            return None
        tensors, note = found
        try:
            with torch.no_grad():
                for each in trainee.moving:
                    each.master.copy_(tensors.pop(f"master.{each.name}"))
            trainee.show()
            trainee.optimizer.load_state_dict(_optimizer_state(trainee, tensors, note["plain"]))
            return TrainingPoint(
                step=int(note["step"]),
                num_steps=int(note["num_steps"]),
                losses=tuple(map(float, note["losses"])),
            )
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise self._damaged(_TRAINED, error) from error

    def _save(self, name: str, tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> None:
        content = {key: value.detach().contiguous().cpu() for key, value in tensors.items()}
        with atomic_writer(self.folder / f"{name}.safetensors") as file:
            file.write(save(content, {_NOTE: json_text(dict(note))}))

    def _load(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        path = self.folder / f"{name}.safetensors"
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                note = parse_json((file.metadata() or {})[_NOTE].encode())
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise self._damaged(name, error) from error
        if not isinstance(note, dict):
            raise self._damaged(name, "its note is no object")
        return tensors, note

    def _damaged(self, name: str, reason: object) -> CheckpointError:
        return CheckpointError(
            f"{self.folder / name}.safetensors is not what this healing kept: {reason}",
            hint=f"remove {self.folder.parent} to begin anew",
        )


def _optimizer_state(
    trainee: Trainee, tensors: Mapping[str, Tensor], plain: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the state that `load_state_dict` takes, with this optimiser's own groups."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        _, index, key = name.split(".", 2)
        state.setdefault(int(index), {})[key] = value
    for index, values in plain.items():
        state.setdefault(int(index), {}).update(values)
    return {"state": state, "param_groups": trainee.optimizer.state_dict()["param_groups"]}

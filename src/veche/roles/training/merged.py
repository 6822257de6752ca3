"""Write a model with its adapter merged in, as a checkpoint folder."""

from pathlib import Path
from typing import Any

from veche.core.files import disk_error
from veche.surgery.companions import companions_of, copy_companion
from veche.surgery.loading import quiet_transformers


def write_merged(folder: Path, model: Any, base: Path) -> None:
    """Merge the adapter into the experts; write weights, config and the base's other files.

    Args:
        folder: that is written into.
        model: PEFT's; used up.
        base: the base model's folder.

    Raises:
        DiskError: the disk is full or refuses.
    """
    merged = model.merge_and_unload()
    try:
        with quiet_transformers():
            merged.save_pretrained(folder, max_shard_size="5GB")
        for file in companions_of(base):
            if not (folder / file.name).exists():
                copy_companion(file, folder / file.name)
    except OSError as error:
        raise disk_error(error, folder) from error

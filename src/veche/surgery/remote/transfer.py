"""Move a checkpoint between a remote folder and its stage, file by file, resumably."""

from pathlib import Path

from veche.checkpoint.reader import INDEX_NAME, SINGLE_NAME
from veche.core.errors import CheckpointError, OutputError, TransferError
from veche.core.files import read_json_object, remove_partials, require_space
from veche.core.progress import Progress
from veche.surgery.names import WEIGHT_SUFFIXES
from veche.surgery.remote.folder import RemoteFile, RemoteFolder
from veche.surgery.remote.staging import Stage


def fetch(remote: RemoteFolder, stage: Stage, progress: Progress, *, with_shards: bool) -> None:
    """Bring a checkpoint's files here; a file whose version is here already is left out.

    Args:
        remote: the folder of the checkpoint; folders inside it are left out.
        stage: where to.
        progress: where to report.
        with_shards: also the shards; the others must be here then, since the index says which.

    Raises:
        CheckpointError: it is another one than when the interrupted build began, or changes now.
        DiskError: the disk is full or refuses.
        TransferError: no answer.
    """
    listed = remote.files()
    wanted = _wanted(listed, stage.source, with_shards=with_shards)
    missing = [file for file in wanted if not _is_here(file, stage)]
    if stage.has_begun and any(stage.fetched.entries.get(file.name) for file in missing):
        raise CheckpointError(
            f"{remote.url} is not what it was when the interrupted build began",
            hint=f"remove {stage.folder} to begin anew",
        )
    stage.source.mkdir(exist_ok=True)
    remove_partials(stage.source)
    for name in set(_names(stage.source)) - listed.keys():
        (stage.source / name).unlink()
    num_bytes = sum(file.num_bytes for file in missing)
    require_space(stage.source, num_bytes, advice="free some space, or choose another --staging")
    with progress.task("fetch", num_bytes) as advance:
        for file in missing:
            remote.fetch(file, stage.source / file.name, advance)
            stage.fetched.note(file.name, file.as_dict())
    if missing and remote.files() != listed:
        raise CheckpointError(
            f"{remote.url} changed while it was fetched",
            hint="wait until whoever writes there has finished, then run the same command again",
        )


def require_ours(remote: RemoteFolder, stage: Stage, *, resume: bool) -> None:
    """Refuse a target that holds anything, except what an interrupted build left there.

    Raises:
        OutputError: names a file of somebody else's.
    """
    ours = stage.stored.entries if resume else {}
    if strangers := sorted(remote.files().keys() - ours.keys()):
        raise OutputError(
            f"{remote.url} is not empty (it holds {strangers[0]!r}), and veche overwrites nothing",
            hint="choose another folder, or remove what is in this one first",
        )


def store(folder: Path, remote: RemoteFolder, stage: Stage, progress: Progress) -> None:
    """Send a grown model, its config.json last, and check what is there then.

    Without a config.json, what is there is no model to any reader.

    Raises:
        InputError: it is refused.
        OutputError: somebody else wrote there meanwhile.
        TransferError: no answer.
    """
    require_ours(remote, stage, resume=True)
    found = {name: file.as_dict() for name, file in remote.files().items()}
    names = sorted(_names(folder), key=lambda n: (n == "config.json", n == INDEX_NAME, n))
    missing = [
        name for name in names if name not in found or stage.stored.entries.get(name) != found[name]
    ]
    remote.make()
    sizes = {name: (folder / name).stat().st_size for name in names}
    with progress.task("upload", sum(sizes[name] for name in missing)) as advance:
        for name in missing:
            stage.stored.note(name, None)
            stage.stored.note(name, remote.store(folder / name, advance).as_dict())
    if {name: file.num_bytes for name, file in remote.files().items()} != sizes:
        raise TransferError(
            f"{remote.url} does not hold what was sent",
            hint="does somebody else write there? Run the same command again, with --resume",
        )


def _wanted(listed: dict[str, RemoteFile], folder: Path, *, with_shards: bool) -> list[RemoteFile]:
    companions = [file for name, file in listed.items() if not name.endswith(WEIGHT_SUFFIXES)]
    if not with_shards:
        return companions
    shards = {SINGLE_NAME}
    if INDEX_NAME in listed:
        weight_map = read_json_object(folder / INDEX_NAME).get("weight_map")
        named = weight_map.values() if isinstance(weight_map, dict) else ()
        shards = {name for name in named if isinstance(name, str)}
    return companions + [listed[name] for name in sorted(shards & listed.keys())]


def _is_here(file: RemoteFile, stage: Stage) -> bool:
    path = stage.source / file.name
    return (
        stage.fetched.entries.get(file.name) == file.as_dict()
        and path.is_file()
        and path.stat().st_size == file.num_bytes
    )


def _names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir() if file.is_file()]

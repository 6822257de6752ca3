"""A disk that is really full: a small tmpfs."""

import pytest

_SPARE = 8 << 10


def fill(disk, leave):
    """Take all but about `leave` bytes of the disk."""
    import shutil

    with (disk / "filler").open("wb") as file:
        file.write(bytes(shutil.disk_usage(disk).free - leave))


def names(folder):
    return {file.name for file in folder.iterdir()}


@pytest.mark.parametrize("leave", [_SPARE, 100 << 10])
def test_a_build_says_so_leaves_no_target_and_goes_on_later(veche, shelf, grown, disk, leave):
    fill(disk, leave)
    arguments = ("build", shelf / "tiny.yaml", "--source", shelf / "moe", "--out", disk / "out")
    done = veche(*arguments, "--json")
    assert done.code == 1
    assert done.error["type"] == "DiskError"
    assert "the disk is full" in done.error["message"]
    assert "free some space" in done.error["hint"]
    assert names(disk) <= {"filler", "out.partial"}
    assert not (disk / "out.partial" / "config.json").exists()
    (disk / "filler").unlink()
    assert veche(*arguments, "--resume", "--json").code == 0
    weights = (disk / "out" / "model.safetensors").read_bytes()
    assert weights == (grown / "model.safetensors").read_bytes()
    assert names(disk) == {"out"}


def test_a_build_that_fails_after_its_weights_keeps_them(veche, shelf, grown, disk):
    fill(disk, (grown / "model.safetensors").stat().st_size + _SPARE)
    arguments = ("build", shelf / "tiny.yaml", "--source", shelf / "moe", "--out", disk / "out")
    done = veche(*arguments, "--json")
    assert (done.code, done.error["type"]) == (1, "DiskError")
    assert "model.safetensors" in names(disk / "out.partial")
    (disk / "filler").unlink()
    assert veche(*arguments, "--resume", "--json").json["num_resumed_shards"] == 1


def test_a_carving_says_so_and_leaves_nothing(veche, shelf, disk):
    fill(disk, _SPARE)
    done = veche(
        "carve", shelf / "dense", "--out", disk / "out", "--experts", 8, "--tokens", 256,
        "--text", shelf / "text.txt", "--json",
    )  # fmt: skip
    assert (done.code, done.error["type"]) == (1, "DiskError")
    assert "the disk is full" in done.error["message"]
    assert names(disk) == {"filler"}


def test_an_export_says_so_and_leaves_nothing(veche, shelf, disk):
    fill(disk, 100 << 10)
    arguments = ("export", "gguf", shelf / "moe", "--out", disk / "m.gguf", "--pre", "gpt-2")
    done = veche(*arguments, "--json")
    assert (done.code, done.error["type"]) == (1, "DiskError")
    assert "the disk is full" in done.error["message"]
    assert names(disk) == {"filler"}
    (disk / "filler").unlink()
    assert veche(*arguments, "--json").code == 0
    assert names(disk) == {"m.gguf"}


def test_a_plan_says_so_and_the_old_one_stays(veche, disk):
    assert veche("plan", "demo", "--out", disk / "plan.json").code == 0
    old = (disk / "plan.json").read_bytes()
    fill(disk, 0)
    done = veche("plan", "agi", "--out", disk / "plan.json", "--json")
    assert (done.code, done.error["type"]) == (1, "DiskError")
    assert (disk / "plan.json").read_bytes() == old
    assert names(disk) == {"filler", "plan.json"}


def test_without_json_it_is_said_on_stderr(veche, disk):
    fill(disk, 0)
    done = veche("plan", "agi", "--out", disk / "plan.json")
    assert done.code == 1
    assert done.out == ""
    assert "the disk is full" in done.err


@pytest.mark.parametrize("leave", [0, 1 << 12, 3 << 12, 6 << 12, 9 << 12])
@pytest.mark.parametrize("has_old", [False, True])
def test_a_plans_folder_is_written_as_a_whole_or_not_at_all(veche, disk, leave, has_old):
    out = disk / "plan"
    if has_old:
        assert veche("plan", "demo", "--out", out).code == 0
    old = {file.name: file.read_bytes() for file in out.iterdir()} if has_old else {}
    fill(disk, leave)
    done = veche("plan", "agi-fits", "--out", out, "--json")
    assert (done.code, done.error["type"]) == (1, "DiskError")
    assert {file.name: file.read_bytes() for file in out.glob("*")} == old
    (disk / "filler").unlink()
    assert veche("plan", "agi-fits", "--out", out).code == 0
    assert names(out) == {"config.json", "plan.json", "plan.md", "plan.html"}

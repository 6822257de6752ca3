"""Ctrl-C while a command is really at work: exit 130, nothing half-written, a way to go on."""

from tests.cli.interrupting import interrupt

from veche.core.transcript import read_transcript


def has_shards(folder, at_least):
    return lambda: len([*folder.glob("*.safetensors")]) >= at_least


def test_a_build_stops_and_goes_on_where_it_was(veche, large, tmp_path):
    source, recipe = large
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    arguments = ["build", recipe, "--source", source, "--out", out, "--json"]
    stopped = interrupt(arguments, has_shards(partial, 2))
    assert stopped.code == 130
    assert "Traceback" not in stopped.err
    assert not out.exists()
    kept = {file.name for file in partial.glob("*.safetensors")}
    assert 2 <= len(kept) < len(list(source.glob("*.safetensors")))
    assert not (partial / "config.json").exists()
    assert not list(partial.glob("*.partial"))

    resumed = veche(*arguments, "--resume")
    assert resumed.code == 0, resumed
    assert resumed.json["num_resumed_shards"] == len(kept)
    assert not partial.exists()
    names = {file.name for file in out.iterdir()}
    assert {file.name for file in source.iterdir()} < names


def test_a_carving_stops_and_leaves_nothing(shelf, tmp_path):
    # Equality is proved in the folder before it gets its name: a slow moment on purpose.
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    stopped = interrupt(
        ["carve", shelf / "dense", "--out", out, "--experts", 8, "--tokens", 256,
         "--text", shelf / "text.txt"],
        partial.exists,
    )  # fmt: skip
    assert stopped.code == 130
    assert "Traceback" not in stopped.err
    assert list(tmp_path.iterdir()) == []


def test_a_council_stops_with_what_was_said_on_disk(shelf, tmp_path):
    transcript = tmp_path / "run" / "transcript.jsonl"
    stopped = interrupt(
        ["ask", shelf / "moe", "Why?", "--out", tmp_path / "run"],
        lambda: transcript.is_file() and b"STEP_STARTED" in transcript.read_bytes(),
    )
    assert stopped.code == 130
    assert "Traceback" not in stopped.err
    kinds = [event.kind for event in read_transcript(transcript)]
    assert kinds[:2] == ["RUN_STARTED", "STEP_STARTED"]
    assert "RUN_FINISHED" not in kinds
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["transcript.jsonl"]

"""Builds in odd places, from odd companions, with changed plans, and when the system refuses."""

import copy
import os
import threading

import pytest
import yaml
from tiny_models import tiny_mixtral

from veche.cli.main import main
from veche.core.errors import CheckpointError, FailureError, OutputError, RecipeError
from veche.core.files import write_json
from veche.planning import depth
from veche.planning.plan import plan_from_dict
from veche.planning.planner import make_plan
from veche.planning.recipe import Recipe
from veche.surgery import shards
from veche.surgery.build import build
from veche.surgery.model_card import VERIFICATION_MARK, front_matter, model_card
from veche.surgery.names import CARD_NAME, GROWTH_NAME, HASHES_NAME, PLAN_NAME
from veche.surgery.workshop import JOURNAL_NAME


@pytest.fixture
def source(tmp_path):
    return tiny_mixtral(tmp_path / "source", num_hidden_layers=1)


@pytest.fixture
def plan(source):
    return make_plan(Recipe(name="t", base=str(source), fields={"moe_intermediate_size": 32}))


@pytest.mark.parametrize("what", ["symlink", "dangling", "fifo", "folder"])
def test_a_lock_that_is_not_veches_is_not_touched(source, plan, tmp_path, what):
    folder, thesis = tmp_path / "out.partial", tmp_path / "thesis"
    folder.mkdir()
    thesis.write_text("years of work")
    lock = folder / ".veche_lock"
    if what == "fifo":
        os.mkfifo(lock)
    elif what == "folder":
        lock.mkdir()
    else:
        lock.symlink_to(thesis if what == "symlink" else tmp_path / "new")
    with pytest.raises(OutputError, match="in the way"):
        build(plan, source, tmp_path / "out")
    assert thesis.read_text() == "years of work"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("what", ["file", "symlink", "dangling"])
def test_a_working_folder_that_is_none(source, plan, tmp_path, what):
    folder, other = tmp_path / "out.partial", tmp_path / "other"
    other.mkdir()
    if what == "file":
        folder.write_text("mine")
    else:
        folder.symlink_to(other if what == "symlink" else tmp_path / "gone")
    with pytest.raises(OutputError, match="in the way"):
        build(plan, source, tmp_path / "out")
    assert not list(other.iterdir())
    assert what != "file" or folder.read_text() == "mine"


@pytest.mark.parametrize("name", ["mine.partial", ".mine.partial"])
def test_a_users_own_partial_file_is_no_leftover(source, plan, tmp_path, name):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / name).write_text("mine")
    with pytest.raises(OutputError, match="in the way"):
        build(plan, source, tmp_path / "out")
    assert (tmp_path / "out.partial" / name).read_text() == "mine"


def test_targets_that_cannot_be_are_refused_before_the_work(source, plan, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("file", "file/under", "link", "dangling", "n" * 250, "n" * 300):
        with pytest.raises(OutputError):
            build(plan, source, tmp_path / name)
    assert {each.name for each in tmp_path.iterdir()} - {"veche-home"} == {
        "source", "file", "real", "link", "dangling",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["{", "[]", '{"key": 5}', ""])
def test_a_damaged_journal_is_told_as_another_build(source, plan, tmp_path, text):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / JOURNAL_NAME).write_text(text)
    with pytest.raises(OutputError, match="begun with another"):
        build(plan, source, tmp_path / "out", resume=True)
    build(plan, source, tmp_path / "out", resume=True, discard_stale=True)


def test_resume_onto_a_damaged_target(source, plan, tmp_path):
    build(plan, source, tmp_path / "out")
    (tmp_path / "out" / PLAN_NAME).write_text("{")
    with pytest.raises(OutputError, match="not empty"):
        build(plan, source, tmp_path / "out", resume=True)


def test_a_source_that_changes_meanwhile_makes_no_model(source, plan, tmp_path, monkeypatch):
    whole = shards.write_shards
    (shard,) = source.glob("*.safetensors")

    def write_and_touch(*arguments, **options):
        made = whole(*arguments, **options)
        os.utime(shard, ns=(1, 1))
        return made

    monkeypatch.setattr("veche.surgery.executor.write_shards", write_and_touch)
    with pytest.raises(CheckpointError, match="was changed while it was read"):
        build(plan, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_companions_named_like_veches_own(source, plan, tmp_path):
    names = (GROWTH_NAME, HASHES_NAME, PLAN_NAME, JOURNAL_NAME, ".veche_lock", "x.partial")
    for name in names:
        (source / name).write_text("of the source")
    os.mkfifo(source / "pipe")
    os.mkfifo(source / CARD_NAME)
    build(plan, source, tmp_path / "out")
    kept = {f.name for f in (tmp_path / "out").iterdir() if f.read_bytes() == b"of the source"}
    assert kept == {"x.partial"}
    assert not (tmp_path / "out" / JOURNAL_NAME).exists()


def test_a_companion_whose_name_is_no_text(source, plan, tmp_path):
    (source / os.fsdecode(b"\xff")).write_text("x")
    with pytest.raises(CheckpointError, match="not UTF-8"):
        build(plan, source, tmp_path / "out")
    assert not (tmp_path / "out.partial").exists()


def test_a_companion_does_not_carry_the_owners_other_files_along(source, plan, tmp_path):
    secret = tmp_path / "id_ed25519"
    secret.write_text("private")
    (source / "vocab.txt").symlink_to(secret)
    with pytest.raises(CheckpointError, match="leads out of its folder"):
        build(plan, source, tmp_path / "out")
    assert not (tmp_path / "out.partial").exists()


def test_links_of_the_hubs_cache_are_followed(source, tmp_path):
    cache = tmp_path / "models--org--name"
    snapshot = cache / "snapshots" / "0123"
    (cache / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for file in source.iterdir():
        file.rename(cache / "blobs" / f"hash-{file.name}")
        (snapshot / file.name).symlink_to(f"../../blobs/hash-{file.name}")
    plan = make_plan(Recipe(name="t", base=str(snapshot), fields={"moe_intermediate_size": 32}))
    build(plan, snapshot, tmp_path / "out")
    copied = tmp_path / "out" / "tokenizer.json"
    assert not copied.is_symlink()
    assert copied.read_bytes() == (cache / "blobs" / "hash-tokenizer.json").read_bytes()
    assert front_matter(tmp_path / "out")["base_model"] == "org/name"


def test_the_hubs_cache_tells_hashes_and_verify_checks_them(source, tmp_path):
    import hashlib
    import json

    from veche.surgery.verification.hashes import verify_hashes

    weights = source / "model.safetensors"
    blobs = tmp_path / "models--org--name" / "blobs"
    blobs.mkdir(parents=True)
    blob = blobs / hashlib.sha256(weights.read_bytes()).hexdigest()
    weights.rename(blob)
    snapshot = blobs.parent / "snapshots" / "0123"
    source.rename(tmp_path / "moved")
    snapshot.parent.mkdir()
    (tmp_path / "moved").rename(snapshot)
    (snapshot / "model.safetensors").symlink_to(f"../../blobs/{blob.name}")
    plan = make_plan(Recipe(name="t", base=str(snapshot), fields={"moe_intermediate_size": 32}))
    build(plan, snapshot, tmp_path / "out")
    stored = json.loads((tmp_path / "out" / HASHES_NAME).read_text())
    assert stored["source"]["model.safetensors"] == blob.name
    assert verify_hashes(tmp_path / "out", snapshot).passed
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    assert verify_hashes(tmp_path / "out", snapshot).source.changed == ("model.safetensors",)


def test_threads_that_cannot_be_had(source, plan, tmp_path, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(FailureError, match="thread"):
            build(plan, source, tmp_path / "out")
    build(plan, source, tmp_path / "out", resume=True)


def test_memory_that_is_not_enough(source, plan, tmp_path, monkeypatch, capsys):
    def refuse(*arguments, **options):
        raise MemoryError

    write_json(tmp_path / "plan.json", plan.as_dict())
    monkeypatch.setattr("veche.surgery.executor.write_shards", refuse)
    arguments = ["build", tmp_path / "plan.json", "--source", source, "--out", tmp_path / "out"]
    assert main(list(map(str, arguments))) == 1
    assert "memory is not enough" in capsys.readouterr().err


@pytest.mark.parametrize("seed", [-1, 2**63, 2**80])
def test_a_seed_that_no_recipe_may_have(plan, seed):
    with pytest.raises(RecipeError, match="seed"):
        plan_from_dict({**plan.as_dict(), "seed": seed})


def test_a_plans_texts_neither_end_lines_nor_hide_any(source, plan):
    changed = copy.deepcopy(plan.as_dict())
    changed["recipe"] = changed["base"] = "a\n---\n\x1b[31m"
    changed["fields"][0]["wish"] = VERIFICATION_MARK
    card = model_card(plan_from_dict(changed), source)
    assert "\x1b" not in card
    assert card.count("\n---\n") == 1
    assert card.count(VERIFICATION_MARK) == 2


@pytest.mark.parametrize(
    ("header", "kept"),
    [
        ("license: mit\nlanguage: [en, no]", {"license": "mit", "language": ["en", "no"]}),
        ("license: 2020-13-45", {"license": "2020-13-45"}),
        ("license: " + "9" * 5000, {"license": "9" * 5000}),
        ("license: &a [*a]", {}),
        ('license: "mit\\n---\\n# x"', {}),
        ('license: "\\ud800"', {}),
        ("license: {a: b}", {}),
        ("license:", {}),
        ("license: " + "[" * 3000, {}),
        ("license: " + "x" * 300_000, {}),
        ("- license", {}),
    ],
)
def test_headers_of_strange_source_cards(source, plan, header, kept):
    (source / CARD_NAME).write_text(f"---\n{header}\n---\n")
    made = yaml.safe_load(model_card(plan, source).split("---\n")[1])
    assert {key: made[key] for key in made if key not in ("library_name", "tags")} == kept


def test_a_header_makes_no_objects(source):
    (source / CARD_NAME).write_text("---\nlicense: !!python/object/apply:os.getcwd []\n---\n")
    assert front_matter(source) == {"license": []}


def test_layers_are_placed_once_for_all_tensors():
    depth.layer_layout.cache_clear()
    for _ in range(3):
        depth.layer_layout(3, 4096)
    assert depth.layer_layout.cache_info().misses == 1

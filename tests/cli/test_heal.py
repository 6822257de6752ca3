"""`veche heal` as its user meets it."""

import json

import pytest

TEXT = ("--heldout-windows", 3, "--heldout-tokens", 32, "--window", 16, "--batch", 2)
FEW = ("--steps", 3, "--fit-tokens", 512, *TEXT)


@pytest.fixture
def given(shelf, tmp_path):
    """A text of different passages: one alone cannot be split."""
    path = tmp_path / "given.txt"
    path.write_text("\n\n".join(f"voice {i} says that {i} and {i} are {2 * i}." for i in range(80)))
    return path


def test_json_is_the_record_and_figures_are_written(veche, shelf, tmp_path, given):
    out, figures = tmp_path / "out", tmp_path / "figures"
    done = veche(
        "heal", shelf / "moe", out, "--top-k", 2, *FEW, "--text", given, "--figures", figures,
        "--json",
    )  # fmt: skip
    assert done.code == 0, done
    assert done.json["dials"] == {"top_k": 2}
    assert done.json["num_steps"] == 3
    assert set(done.json["parts"]) == {"routers", "experts", "attention"}
    assert json.loads((figures / "heal.json").read_text()) == done.json
    assert (figures / "heal.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((out / "veche_heal.json").read_text())
    assert record.items() <= done.json.items()
    assert veche("verify", shelf / "moe", out, "--hashes").code == 0


@pytest.mark.parametrize(("language", "word"), [("en", "healed towards"), ("ru", "лечится")])
def test_people_read_plan_and_table_in_their_language(
    veche, shelf, tmp_path, given, language, word
):
    done = veche(
        "heal", shelf / "moe", tmp_path / "out", "--top-k", 2, *FEW, "--text", given,
        "--lang", language,
    )  # fmt: skip
    assert done.code == 0, done
    assert word in done.out
    assert "NLL" in done.out


def test_a_dry_run_says_what_it_needs_and_writes_nothing(veche, shelf, tmp_path, given):
    arguments = ("heal", shelf / "moe", tmp_path / "out", "--rope-theta", 20000, *FEW)
    done = veche(*arguments, "--text", given, "--dry-run", "--json")
    assert done.code == 0, done
    assert set(done.json["parts"]) == {"attention"}
    memory = done.json["memory"]
    assert memory["peak"] >= memory["weights"] > 0
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()
    assert "memory" in veche(*arguments, "--text", given, "--dry-run").out


def test_a_built_model_is_healed_towards_what_its_plan_names(veche, shelf, grown, tmp_path, given):
    done = veche("heal", grown, tmp_path / "out", *FEW, "--text", given, "--json")
    assert done.code == 0, done
    assert set(done.json["parts"]) == {"routers", "experts", "attention", "new"}
    assert {"heads", "moe_intermediate_size"} <= set(done.json["woke"])
    assert (tmp_path / "out" / "growth.json").is_file()
    assert veche("experts", "asleep", tmp_path / "out", "--json").code == 0


def test_a_source_that_is_gone_is_asked_for(veche, shelf, grown, copy, tmp_path, given):
    moved = copy("grown")
    plan = json.loads((moved / "veche_plan.json").read_text())
    (moved / "veche_plan.json").write_text(json.dumps({**plan, "base": "gone/away"}))
    arguments = ("heal", moved, tmp_path / "out", *FEW, "--text", given, "--json")
    done = veche(*arguments)
    assert (done.code, done.error["type"]) == (2, "InputError")
    assert "gone/away" in done.error["message"]
    assert "--teacher" in done.error["hint"]
    assert veche(*arguments, "--teacher", shelf / "moe").code == 0


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (("--top-k", 2, "--train", "router"), "InputError", "no parts"),
        (("--top-k", 2, "--optimizer", "sgd"), "InputError", "unknown"),
        (("--top-k", 99), "InputError", "1..8"),
        ((), "InputError", "nothing to heal"),
        (("--top-k", 2, "--text", "missing.txt"), "InputError", "missing.txt"),
        (("--top-k", 2, "--minutes", 1, "--steps", 1), "InputError", "both given"),
    ],
)
def test_bad_input_is_one_clear_error(veche, shelf, tmp_path, arguments, kind, words):
    done = veche("heal", shelf / "moe", tmp_path / "out", *arguments, "--json")
    assert (done.code, done.error["type"]) == (2, kind), done
    assert words in done.error["message"]
    assert not (tmp_path / "out").exists()


def test_a_text_without_enough_words_is_refused(veche, shelf, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("one\n\ntwo\n\nthree")
    arguments = ("heal", shelf / "moe", tmp_path / "out", "--top-k", 2, "--text", short, "--json")
    assert "too few" in veche(*arguments).error["message"]
    short.write_text("")
    assert veche(*arguments).code == 2


def test_the_source_is_never_the_target(veche, shelf):
    done = veche("heal", shelf / "moe", shelf / "moe", "--top-k", 2, "--json")
    assert (done.code, done.error["type"]) == (2, "OutputError")


def test_a_full_disk_is_said_and_the_work_goes_on_later(veche, shelf, disk, given):
    from tests.cli.test_full_disk import fill

    fill(disk, 300 << 10)
    arguments = ("heal", shelf / "moe", disk / "out", "--top-k", 2, *FEW, "--text", given, "--json")
    done = veche(*arguments)
    assert (done.code, done.error["type"]) == (1, "DiskError")
    assert "the disk is full" in done.error["message"]
    assert not (disk / "out").exists()
    (disk / "filler").unlink()
    assert veche(*arguments).code == 0


@pytest.mark.parametrize(
    ("rate", "word"), [(("--steps", 0), "reaches 0"), (("--learning-rate", 1), "WORSE")]
)
def test_a_healing_that_did_not_help_is_called_so(veche, shelf, tmp_path, given, rate, word):
    done = veche(
        "heal", shelf / "moe", tmp_path / "out", "--rope-theta", 20000, *FEW, "--fit-tokens", 0,
        "--heldout-windows", 12, "--text", given, "--train", "attention", *rate,
    )  # fmt: skip
    assert done.code == 0, done
    assert word in done.out

"""`veche verify` as its user meets it: both forms, hashes, the card, a fault that is named."""

import json
import shutil

import pytest
import safetensors.torch

SMALL = ("--windows", 1, "--window-tokens", 64)


@pytest.fixture
def built(grown, tmp_path):
    """Return a copy of the grown model that may be damaged."""
    return shutil.copytree(grown, tmp_path / "built")


def verify(veche, shelf, target, *options):
    return veche("verify", shelf / "moe", target, "--text", shelf / "text.txt", *SMALL, *options)


def damage(folder, name):
    file = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    tensors[name][1] *= 1.5
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize("form", ["long", "short"])
def test_both_forms_show_the_exact_part(veche, shelf, built, form):
    done = verify(veche, shelf, built, "--form", form, "--device", "cpu")
    assert done.code == 0
    assert "passed" in done.out
    assert ("own error" in done.out) == (form == "long")
    assert "form:" not in done.err


def test_the_form_that_was_chosen_is_said(veche, shelf, built):
    done = verify(veche, shelf, built)
    assert done.code == 0
    assert "short form: the larger model in float32 takes" in done.err


def test_the_long_form_says_every_layer_as_json(veche, shelf, built):
    done = verify(veche, shelf, built, "--form", "long", "--json")
    figures = done.json
    assert figures["form"] == "long"
    assert figures["passed"] is True
    names = [layer["name"] for layer in figures["layers"]]
    layers = [f"model.layers.{index}" for index in range(3)]
    assert names == ["model.embed_tokens", *layers, "model.norm", "lm_head"]
    for layer in figures["layers"]:
        assert layer["passed"] is True
        assert layer["own_error"] <= 1e-5
    assert figures["differences"] == figures["not_finite"] == []


@pytest.mark.parametrize("form", ["long", "short"])
def test_a_fault_is_named_in_the_error(veche, shelf, built, form):
    name = "model.layers.1.self_attn.v_proj.weight"
    damage(built, name)
    done = verify(veche, shelf, built, "--form", form)
    assert done.code == 1
    said = done.err.replace("\n", " ")
    assert "the exact part failed" in said
    assert name in said
    assert ("model.layers.1 errs" in said) == (form == "long")
    with_json = verify(veche, shelf, built, "--form", form, "--json")
    assert with_json.code == 1
    assert [each["name"] for each in with_json.json["differences"]] == [name]


def test_a_nan_is_null_in_json(veche, shelf, built):
    file = built / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    tensors["model.norm.weight"][0] = float("nan")
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})
    done = verify(veche, shelf, built, "--form", "long", "--json")
    assert done.code == 1
    assert done.json["exact"]["kl"] is None
    assert done.json["not_finite"] == ["model.norm.weight"]


def test_hashes_of_a_built_folder_and_of_its_source(veche, shelf, built, tmp_path):
    assert veche("verify", "--hashes", built).code == 0
    done = veche("verify", "--hashes", shelf / "moe", built, "--json", "--out", tmp_path / "h.json")
    assert done.code == 0
    assert done.json["passed"] is True
    assert done.json == json.loads((tmp_path / "h.json").read_text())
    assert "model.safetensors" in done.json["source"]["unchanged"]
    (built / "tokenizer.json").write_text("{}")
    (built / "model.safetensors").unlink()
    failed = veche("verify", "--hashes", built)
    assert failed.code == 1
    assert "changed: tokenizer.json" in failed.out
    assert "missing: model.safetensors" in failed.out
    assert "is not as the build left it: tokenizer.json, model.safetensors" in failed.err.replace(
        "\n", " "
    )
    as_json = veche("verify", "--hashes", built, "--json")
    assert as_json.code == 1
    assert as_json.json["target"]["missing"] == ["model.safetensors"]
    assert as_json.json["source"] is None


def test_one_folder_is_enough_for_hashes_alone(veche, built):
    done = veche("verify", built, "--json")
    assert done.code == 2
    assert "two folders" in done.error["message"]


def test_a_recipe_that_changes_no_answer_has_no_table_of_dials(veche, shelf, tmp_path):
    target, recipe = tmp_path / "wide", tmp_path / "wide.yaml"
    recipe.write_text("name: wide\nbase: nowhere\nfields: {moe_intermediate_size: 32}\n")
    assert veche("build", recipe, "--source", shelf / "moe", "--out", target).code == 0
    done = verify(veche, shelf, target)
    assert done.code == 0
    assert "whole recipe" in done.out
    assert "dial alone" not in done.out


def test_every_column_of_the_long_form_fits_a_terminal(veche, shelf, built, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = verify(veche, shelf, built, "--form", "long")
    assert "…" not in done.out
    assert "layers.2" in done.out


def test_a_folder_that_build_did_not_finish_is_called_that(veche, shelf, built):
    (built / "veche_plan.json").unlink()
    done = verify(veche, shelf, built, "--json")
    assert done.code == 2
    assert "not finished" in done.error["message"]
    assert "--resume" in done.error["hint"]


def test_the_figures_go_into_the_model_card(veche, shelf, built):
    before = (built / "README.md").read_text()
    assert "Not measured yet" in before
    for _ in range(2):
        assert verify(veche, shelf, built, "--card").code == 0
    after = (built / "README.md").read_text()
    assert "Not measured yet" not in after
    assert "| exact part | passed |" in after
    assert after.count("Measured on") == 1
    assert before.split("## Verification")[0] == after.split("## Verification")[0]
    assert veche("verify", "--hashes", built).code == 0

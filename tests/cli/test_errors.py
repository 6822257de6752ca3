"""Bad input: exit 2, one JSON error with --json, otherwise words on stderr alone."""

import json
import shlex

import pytest


def edit(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def refused(veche, *arguments, code=2):
    """Run a command that must be refused both ways; return the error of --json."""
    plain = veche(*arguments)
    assert plain.code == code, plain
    assert plain.out == ""
    assert "Traceback" not in plain.err
    told = veche(*arguments, "--json")
    assert told.code == code, told
    error = told.error
    words = " ".join(plain.err.split())
    assert " ".join(error["message"].split()) in words
    assert " ".join(error["hint"].split()) in words
    return error


class TestRecipes:
    @pytest.mark.parametrize("command", ["plan", "build"])
    def test_an_unknown_recipe_brings_the_nearest(self, veche, shelf, tmp_path, command):
        more = ("--source", shelf / "moe", "--out", tmp_path / "o") if command == "build" else ()
        error = refused(veche, command, "agy", *more)
        assert error["type"] == "RecipeError"
        assert "'agy'" in error["message"]
        assert "did you mean 'agi'?" in error["hint"]

    def test_launch_says_what_there_is(self, veche):
        error = refused(veche, "launch", "agy")
        assert "agi" in error["hint"]
        assert "qwen3-30b-a3b" in error["hint"]

    def test_an_unknown_base_brings_the_nearest(self, veche):
        error = refused(veche, "plan", "agi", "--base", "qwen3-30b")
        assert error["type"] == "ConfigError"
        assert "qwen3-30b-a3b" in error["hint"]

    def test_an_unknown_field_brings_the_nearest(self, veche):
        error = refused(veche, "plan", "agi", "--set", "num_expert_per_tok=8")
        assert error["type"] == "RecipeError"
        assert "'num_expert_per_tok'" in error["message"]
        assert error["hint"] == "did you mean 'num_experts_per_tok'?"

    def test_an_unknown_field_of_a_file_too(self, veche, tmp_path):
        (tmp_path / "r.yaml").write_text("name: r\nbase: qwen3-30b-a3b\nfields: {head_dims: 64}\n")
        error = refused(veche, "plan", tmp_path / "r.yaml")
        assert error["hint"] == "did you mean 'head_dim'?"

    def test_an_unknown_key_of_a_file_too(self, veche, tmp_path):
        (tmp_path / "r.yaml").write_text("name: r\nbase: qwen3-30b-a3b\nfeilds: {}\n")
        assert "did you mean 'fields'?" in refused(veche, "plan", tmp_path / "r.yaml")["message"]

    @pytest.mark.parametrize("text", ["{", "- a\n- b\n", "a: &a [*a]\n", "\x00", ""])
    def test_a_file_that_is_no_recipe(self, veche, tmp_path, text):
        (tmp_path / "r.yaml").write_text(text)
        assert refused(veche, "plan", tmp_path / "r.yaml")["type"] == "RecipeError"

    def test_a_recipe_that_is_not_text(self, veche, tmp_path):
        (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00")
        assert refused(veche, "plan", tmp_path / "r.yaml")["type"] == "RecipeError"

    @pytest.mark.parametrize(
        "choice",
        [
            "num_experts_per_tok=0",
            "num_experts_per_tok=many",
            "num_experts_per_tok",
            "head_dim=x1.3",
            "rope_theta=-1",
            "rope_scaling=yarn",
            "use_cache=2",
        ],
    )
    def test_an_impossible_value(self, veche, choice):
        error = refused(veche, "plan", "agi", "--set", choice)
        assert choice.split("=")[0] in error["message"]

    @pytest.mark.parametrize(
        "option",
        [("--mode", "ones"), ("--rope-length", "longer"), ("--seed", "-1"), ("--lang", "de")],
        ids=" ".join,
    )
    def test_an_impossible_choice(self, veche, option):
        refused(veche, "plan", "agi", *option)

    @pytest.mark.parametrize(("heads", "kv_heads"), [(10, 6), (12, 5), (9, 6), (13, 4)])
    def test_infeasible_heads_bring_a_pair_that_works(self, veche, heads, kv_heads):
        error = refused(
            veche, "plan", "demo",
            "--set", f"num_attention_heads={heads}", "--set", f"num_key_value_heads={kv_heads}",
        )  # fmt: skip
        assert f"{heads} on {kv_heads}" in error["message"]
        for way in error["hint"].partition(":")[2].split("; or "):
            advice = shlex.split(way)
            assert advice[::2] == ["--set", "--set"]
            assert veche("plan", "demo", *advice, "--json").code == 0

    def test_a_plan_with_an_open_conflict_is_not_built(self, veche, shelf, tmp_path):
        error = refused(
            veche, "build", shelf / "tiny.yaml", "--source", shelf / "moe",
            "--out", tmp_path / "out",
            "--set", "rope_scaling={rope_type: yarn, factor: 2, "
            "original_max_position_embeddings: 4096}",
        )  # fmt: skip
        assert error["type"] == "RecipeError"
        assert "--rope-length" in error["hint"]
        assert not (tmp_path / "out").exists()

    def test_a_finished_plan_cannot_be_changed(self, veche, shelf, tmp_path):
        veche("plan", shelf / "tiny.yaml", "--base", shelf / "moe", "--out", tmp_path / "p.json")
        refused(
            veche, "build", tmp_path / "p.json", "--source", shelf / "moe",
            "--out", tmp_path / "out", "--mode", "zero",
        )  # fmt: skip

    @pytest.mark.parametrize(
        "text", ["", "{}", "[]", '{"schema": 1}', '{"schema": 1, "fields": 3}']
    )
    def test_a_damaged_plan(self, veche, shelf, tmp_path, text):
        (tmp_path / "p.json").write_text(text)
        error = refused(
            veche, "build", tmp_path / "p.json", "--source", shelf / "moe", "--out", tmp_path / "o"
        )
        assert error["type"] == "RecipeError"


def _every_use(model, shelf, tmp_path):
    """Every command that takes a model folder, as arguments."""
    return {
        "plan": ("plan", shelf / "tiny.yaml", "--base", model),
        "launch": ("launch", model),
        "build": ("build", shelf / "tiny.yaml", "--source", model, "--out", tmp_path / "out"),
        "carve": ("carve", model, "--out", tmp_path / "out", "--experts", 8),
        "verify": ("verify", model, shelf / "grown", "--text", shelf / "text.txt"),
        "ask": ("ask", model, "Why?"),
    }


class TestModels:
    @pytest.mark.parametrize("command", ["plan", "launch", "build", "carve", "ask"])
    @pytest.mark.parametrize("text", ["{", "", "[1]", "{}", "\x00"])
    def test_a_config_that_is_none(self, veche, shelf, grown, copy, tmp_path, command, text):
        model = copy("moe")
        (model / "config.json").write_text(text)
        error = refused(veche, *_every_use(model, shelf, tmp_path)[command])
        assert error["type"] in ("ConfigError", "UnsupportedError", "CheckpointError")
        assert str(model) in error["message"] or text == "{}"
        assert list(tmp_path.iterdir()) == [model]

    @pytest.mark.parametrize("command", ["plan", "launch", "build", "carve", "verify", "ask"])
    def test_a_folder_that_is_not_there(self, veche, shelf, grown, tmp_path, command):
        error = refused(veche, *_every_use(tmp_path / "none", shelf, tmp_path)[command])
        assert str(tmp_path / "none") in error["message"]

    @pytest.mark.parametrize("command", ["build", "carve", "verify", "ask"])
    @pytest.mark.parametrize("kept", [0.9, 0.0, 100])
    def test_truncated_safetensors(self, veche, shelf, grown, copy, tmp_path, command, kept):
        model = copy("dense" if command == "carve" else "moe")
        file = model / "model.safetensors"
        content = file.read_bytes()
        file.write_bytes(content[: int(kept * len(content)) if kept < 1 else kept])
        error = refused(veche, *_every_use(model, shelf, tmp_path)[command])
        assert error["type"] == "CheckpointError"
        assert str(model) in error["message"]
        assert error["hint"]
        assert list(tmp_path.iterdir()) == [model]

    @pytest.mark.parametrize("command", ["build", "carve", "verify", "ask"])
    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
    def test_a_pickle_checkpoint_is_never_opened(
        self, veche, shelf, grown, copy, tmp_path, command, name
    ):
        model = copy("dense" if command == "carve" else "moe")
        (model / "model.safetensors").unlink()
        # Unpickled, this would make a file.
        mark = tmp_path / "opened"
        (model / name).write_bytes(b"cos\nmkdir\n(S'" + str(mark).encode() + b"'\ntR.")
        error = refused(veche, *_every_use(model, shelf, tmp_path)[command])
        assert error["type"] == "CheckpointError"
        assert "pickle" in error["message"]
        assert not mark.exists()

    @pytest.mark.parametrize("command", ["verify", "ask", "carve"])
    def test_a_model_without_a_tokenizer(self, veche, shelf, grown, copy, tmp_path, command):
        model = copy("dense" if command == "carve" else "moe")
        for file in model.glob("tokenizer*"):
            file.unlink()
        error = refused(veche, *_every_use(model, shelf, tmp_path)[command])
        assert error["type"] == "CheckpointError"
        assert "tokenizer" in error["message"]

    def test_a_dense_model_is_carved_first(self, veche, shelf):
        error = refused(veche, "plan", "demo", "--base", shelf / "dense")
        assert "veche carve" in error["hint"]

    def test_a_model_of_experts_is_not_carved(self, veche, shelf, tmp_path):
        error = refused(veche, "carve", shelf / "moe", "--out", tmp_path / "o", "--experts", 8)
        assert error["type"] == "UnsupportedError"

    def test_a_quantised_model_is_not_grown(self, veche, shelf, copy, tmp_path):
        model = copy("moe")
        edit(model, quantization_config={"quant_method": "fp8"})
        error = refused(veche, *_every_use(model, shelf, tmp_path)["build"])
        assert error["type"] == "UnsupportedError"

    def test_too_long_a_question(self, veche, shelf):
        error = refused(veche, "ask", shelf / "dense", "why? " * 400)
        assert "context" in error["message"]

    @pytest.mark.parametrize("question", ["", "  \n"])
    def test_an_empty_question(self, veche, shelf, question):
        assert "empty" in refused(veche, "ask", shelf / "moe", question)["message"]

    def test_an_unknown_engine_brings_the_nearest(self, veche, shelf):
        error = refused(veche, "ask", shelf / "moe", "Why?", "--engine", "transformer")
        assert "'transformers'" in error["hint"]

    @pytest.mark.parametrize("top_k", [0, 9])
    def test_more_experts_than_there_are(self, veche, shelf, top_k):
        assert "1..8" in refused(veche, "ask", shelf / "moe", "Why?", "--top-k", top_k)["message"]

    def test_an_unknown_card_brings_what_there_is(self, veche):
        error = refused(veche, "launch", "agi", "--gpu", "rtx-pro-9000")
        assert "rtx-pro-6000" in error["message"] + error["hint"]


class TestPlacesToWrite:
    @pytest.mark.parametrize("command", ["build", "carve"])
    def test_a_folder_with_something_in_it(self, veche, shelf, tmp_path, command):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "diary.txt").write_text("mine")
        model = shelf / ("dense" if command == "carve" else "moe")
        error = refused(veche, *_every_use(model, shelf, tmp_path)[command])
        assert error["type"] == "OutputError"
        assert "not empty" in error["message"]
        assert [file.name for file in (tmp_path / "out").iterdir()] == ["diary.txt"]

    @pytest.mark.parametrize("command", ["build", "carve"])
    def test_a_file(self, veche, shelf, tmp_path, command):
        (tmp_path / "out").write_text("mine")
        model = shelf / ("dense" if command == "carve" else "moe")
        error = refused(veche, *_every_use(model, shelf, tmp_path)[command])
        assert error["type"] == "OutputError"
        assert (tmp_path / "out").read_text() == "mine"

    def test_a_transcript_that_exists(self, veche, shelf, tmp_path):
        (tmp_path / "transcript.jsonl").write_text("mine")
        error = refused(veche, "ask", shelf / "moe", "Why?", "--out", tmp_path)
        assert error["type"] == "OutputError"
        assert (tmp_path / "transcript.jsonl").read_text() == "mine"

    def test_the_demo_keeps_off_a_folder_of_others(self, veche, tmp_path):
        pytest.importorskip("gguf")
        (tmp_path / "diary.txt").write_text("mine")
        error = refused(veche, "demo", "--out", tmp_path)
        assert error["type"] in ("OutputError", "InputError")
        assert [file.name for file in tmp_path.iterdir()] == ["diary.txt"]

    def test_a_folder_where_a_file_is_to_be(self, veche, tmp_path):
        (tmp_path / "plan.json").mkdir()
        error = refused(veche, "plan", "agi", "--out", tmp_path / "plan.json")
        assert error["type"] == "OutputError"
        assert [file.name for file in tmp_path.iterdir()] == ["plan.json"]


class TestRuns:
    def test_a_run_that_is_not_there(self, veche, tmp_path):
        for command in ("show", "report"):
            error = refused(veche, "experts", command, tmp_path / "none")
            assert error["type"] == "CheckpointError"

    @pytest.mark.parametrize("content", [b"", b"x" * 100])
    def test_routing_that_is_damaged(self, veche, tmp_path, content):
        (tmp_path / "routing.safetensors").write_bytes(content)
        assert refused(veche, "experts", "show", tmp_path)["type"] == "CheckpointError"

    def test_safetensors_that_are_no_routing(self, veche, shelf):
        error = refused(veche, "experts", "show", shelf / "moe" / "model.safetensors")
        assert error["type"] == "CheckpointError"


@pytest.mark.parametrize(
    "line",
    [
        "frobnicate",
        "plan",
        "plan agi more",
        "plan agi --colour",
        "build agi",
        "launch agi --gpus 0",
        "launch agi --gpus many",
        "verify a b --windows 0",
        "carve x --out y --experts 1",
        "experts shew x",
        "experts show",
        "--colour",
    ],
)
def test_a_mistake_on_the_command_line_is_an_error_as_every_other(veche, line):
    error = refused(veche, *line.split())
    assert error["type"] == "InputError"
    assert "--help" in error["hint"]


def test_a_failure_exits_with_1_and_still_says_what_was_measured(veche, shelf, grown, copy):
    from safetensors.numpy import load_file, save_file

    grown = copy("grown")
    tensors = load_file(grown / "model.safetensors")
    name = "model.layers.1.self_attn.v_proj.weight"
    tensors[name] = tensors[name] * 1.5
    save_file(tensors, grown / "model.safetensors", metadata={"format": "pt"})
    arguments = (
        "verify", shelf / "moe", grown, "--text", shelf / "text.txt",
        "--windows", 1, "--window-tokens", 32,
    )  # fmt: skip
    told = veche(*arguments, "--json")
    assert told.code == 1
    assert told.json["exact"]["passed"] is False
    plain = veche(*arguments)
    assert plain.code == 1
    assert "FAILED" in plain.out
    assert "is not the same function" in plain.err

"""`veche launch` as its user meets it: flags, the table, logs, and what it says of a plan."""

import json
import re

import pytest
from rich.cells import cell_len
from tests.cli.test_errors import refused
from tests.launch.logs import LLAMA_CPP_ONE_CARD, VLLM_FP8_ONE_CARD

QWEN_LOG = VLLM_FP8_ONE_CARD.replace("Q/Qwen3-FP8", "Qwen/Qwen3-30B-A3B-FP8")


def profiles(veche, *arguments):
    return veche("launch", *arguments, "--json").json["profiles"]


class TestFlags:
    def test_a_context_may_be_written_in_any_of_the_usual_ways(self, veche):
        wanted = profiles(veche, "agi", "--context", 131072)
        for text in ("128k", "131_072", "128K", "0.125m"):
            assert profiles(veche, "agi", "--context", text) == wanted

    def test_every_flag_reaches_the_command(self, veche):
        (profile,) = profiles(
            veche, "qwen3-30b-a3b", "--quant", "bf16", "--kv", "bf16", "--gpus", 4, "--tp", 2,
            "--ep", "--util", 0.85, "--batched-tokens", "4k", "--max-num-seqs", 48,
            "--feature", "routing", "--feature", "lora", "--context", "8k",
        )  # fmt: skip
        command = " ".join(profile["command"])
        for words in (
            "--tensor-parallel-size 2", "--data-parallel-size 2", "--enable-expert-parallel",
            "--gpu-memory-utilization 0.85", "--max-num-batched-tokens 4096",
            "--max-num-seqs 48", "--enable-return-routed-experts", "--enable-lora",
            "--max-model-len 8192",
        ):  # fmt: skip
            assert words in command

    @pytest.mark.parametrize(
        ("version", "sign"),
        [
            ("0.11.0", "--rope-scaling"),
            ("0.11.1", "--hf-overrides"),
            ("0.19", "--gpu-memory-utilization 0.9 "),
            ("0.22", "--gpu-memory-utilization 0.92 "),
            ("0.20", "--quantization fp8_per_block"),
        ],
    )
    def test_a_version_chooses_the_spelling(self, veche, version, sign):
        (profile,) = profiles(
            veche, "agi", "--quant", "fp8", "--kv", "bf16", "--context", "8k",
            "--engine-version", version,
        )  # fmt: skip
        assert sign in " ".join(profile["command"]) + " "

    def test_a_version_says_what_it_cannot_do(self, veche):
        old = profiles(veche, "agi", "--feature", "routing", "--engine-version", "0.20")
        assert not any(profile["fits"] for profile in old)
        assert all("0.21" in profile["reason"] for profile in old)
        trap = {"--quant": "fp8", "--kv": "bf16"}
        words = [word for pair in trap.items() for word in pair]
        for version, is_set in (("0.23", False), ("0.24", True), ("0.28", True), ("0.29", False)):
            (profile,) = profiles(veche, "agi", *words, "--engine-version", version)
            assert ("VLLM_USE_DEEP_GEMM" in profile["env"]) is is_set

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("--tp 2", ["--tp 2", "--gpus 2"]),
            ("--tp 3 --gpus 3", ["--tp 3", "1, 2, 4, 8, 16, 32"]),
            ("--tp 4 --gpus 4 --quant fp8", ["--tp 4", "--ep"]),
            ("--tp 2 --gpus 2 --engine llama.cpp", ["--tp", "llama.cpp"]),
            ("--engine-version newest", ["--engine-version", "0.28.0"]),
            ("--engine-version 0.24 --engine all", ["--engine-version", "--engine vllm"]),
            ("--util 92", ["--util", "0.92"]),
            ("--util 0.9 --engine llama.cpp", ["--util", "llama.cpp"]),
            ("--feature sight", ["--feature", "routing, lora"]),
            ("--context 12q", ["--context", "128k"]),
            ("--context 0", ["--context"]),
            ("--batched-tokens many", ["--batched-tokens"]),
            ("--quant Q4KM", ["--quant", "'Q4_K_M'"]),
            ("--quant fp8-blok", ["--quant", "'fp8-block'"]),
            ("--engine transformers --quant fp8", ["--engine transformers", "bf16 only"]),
            ("--kv fp9", ["--kv", "'fp8'"]),
            ("--engine vlm", ["--engine", "'vllm'"]),
            ("--gpu rtx6000", ["--gpu", "'rtx-pro-6000'"]),
            ("--forget", ["--forget", "veche launch calibrations"]),
        ],
    )
    def test_a_mistake_names_its_flag_and_what_is_possible(self, veche, line, words):
        error = refused(veche, "launch", "qwen3-30b-a3b", *line.split())
        told = error["message"] + " " + error["hint"]
        assert words[0] in error["message"]
        assert [word for word in words if word not in told] == []

    def test_only_types_that_are_listed_are_suggested(self, veche):
        for wrong in ("foo", "floaty8", "w8", "awqq"):
            hint = refused(veche, "launch", "agi", "--quant", wrong)["hint"]
            suggested = re.findall("did you mean '(.*)'", hint)
            assert all(name in hint.split("known: ")[1].split(", ") for name in suggested)


class TestModel:
    def test_a_misspelt_name_brings_the_nearest(self, veche):
        error = refused(veche, "launch", "qwen3-30b-a3")
        assert "did you mean 'qwen3-30b-a3b'?" in error["hint"]

    def test_a_name_with_a_slash_is_looked_up_as_a_base(self, veche):
        error = refused(veche, "launch", "nobody/no-such-model")
        assert error["type"] == "ConfigError"
        assert "nobody/no-such-model" in error["message"]

    def test_a_folder_that_is_quantised_already_is_taken_as_it_is(self, veche, tmp_path):
        fp8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
        config = {**profiles_config(), "quantization_config": fp8}
        (tmp_path / "config.json").write_text(json.dumps(config))
        found = profiles(veche, tmp_path)
        assert {profile["quantization"] for profile in found} == {"fp8-block"}
        assert not any("--quantization" in profile["command"] for profile in found)
        assert found == profiles(veche, tmp_path, "--quant", "fp8")
        error = refused(veche, "launch", tmp_path, "--quant", "bf16")
        assert "fp8-block already" in error["message"]
        assert "--quant" in error["hint"]

    def test_no_model_is_said(self, veche):
        assert "MODEL" in refused(veche, "launch")["message"]

    def test_an_undecided_plan_is_said_first_and_with_the_flags(self, veche):
        conflicts = veche("plan", "agi", "--json").json["conflicts"]
        flags = [way["flag"] for conflict in conflicts for way in conflict["resolutions"]]
        assert flags
        for language in ("en", "ru"):
            found = profiles(veche, "agi", "--lang", language)
            assert all(flag in profile["notes"][0] for profile in found for flag in flags)
            assert any(profile["recommended"] for profile in found)
        decided = profiles(veche, "demo")
        assert not any("--" in note for note in decided[0]["notes"][:1])


class TestTable:
    CASES = (
        ("agi",),
        ("qwen3-30b-a3b", "--engine", "all"),
        ("mixtral-8x7b", "--gpu", "h200", "--gpus", 8, "--engine", "all", "--context", "8k"),
        ("agi", "--gpu", "rtx-4090"),
        ("demo", "--engine", "all", "--gpu", "mi300x"),
    )

    @pytest.mark.parametrize("language", ["en", "ru"])
    @pytest.mark.parametrize("arguments", CASES, ids=str)
    def test_it_is_whole_in_80_columns(self, veche, monkeypatch, arguments, language):
        monkeypatch.setattr("veche.cli.launch_table.stdout.width", 80, raising=False)
        said = veche("launch", *arguments, "--lang", language).out
        rows = [line for line in said.splitlines() if re.match("[★✓✗] .*/", line)]
        found = profiles(veche, *arguments)
        assert len(rows) == len(found)
        assert "…" not in said
        for row, profile in zip(rows, found, strict=True):
            assert cell_len(row.rstrip()) <= 80
            assert f"{profile['quantization']}/{profile['kv_dtype']}" in row
            assert f"{profile['max_context_tokens']:,}" in row.split()
            assert f"{profile['max_sessions']:,}" in row.split()

    def test_the_recommended_row_is_marked_with_a_sign_that_survives_a_pipe(self, veche):
        said = veche("launch", "agi").out.splitlines()
        (row,) = [line for line in said if line.startswith("★ ") and "/" in line.split()[1]]
        (chosen,) = [p for p in profiles(veche, "agi") if p["recommended"]]
        assert row.split()[1] == f"{chosen['quantization']}/{chosen['kv_dtype']}"

    def test_what_fits_instead_is_in_order_and_says_what_it_costs(self, veche):
        for language, engine in (("en", "another engine"), ("ru", "другой движок")):
            said = veche(
                "launch", "qwen3-30b-a3b", "--gpu", "rtx-4080", "--context", "8k",
                "--lang", language,
            ).out  # fmt: skip
            assert f"1. {engine}: llama.cpp" in said
            assert "\n2. " in said
            assert "llama-server" in said

    def test_what_the_checkpoint_must_be_is_said_of_what_fits_instead(self, veche):
        for language, words in (("en", "must be a Q"), ("ru", "файл GGUF")):
            said = veche(
                "launch", "qwen3-30b-a3b", "--gpu", "rtx-4080", "--lang", language
            ).out  # fmt: skip
            assert words in said
            assert "awq-int4" in said.split("MODEL", 1)[1]

    @pytest.mark.parametrize(
        ("arguments", "share"),
        [
            ((), "card: vllm 0.95\n"),
            (("--util", 0.8), "card: vllm 0.8\n"),
            (("--engine", "all"), "card: vllm 0.95, sglang 0.88\n"),
            (("--engine", "llama.cpp"), "surely fits\n"),
        ],
    )
    def test_the_legend_says_at_which_share_of_the_card(self, veche, arguments, share):
        said = veche("launch", "qwen3-30b-a3b", *arguments).out
        assert share in said
        assert "доле карты до" in veche("launch", "agi", "--lang", "ru").out

    def test_what_holds_nothing_has_no_speed(self, veche):
        said = veche("launch", "qwen3-30b-a3b", "--gpu", "rtx-4080").out
        rows = [line for line in said.splitlines() if line.startswith("✗ ") and "/" in line[:20]]
        assert any(row.split()[-2:] == ["–", "–"] for row in rows)

    def test_why_it_does_not_fit_is_said(self, veche):
        said = veche("launch", "qwen3-30b-a3b", "--context", "128k").out
        assert "positions reach 40960 tokens" in " ".join(said.split())

    def test_where_nothing_fits_it_is_said(self, veche):
        said = veche("launch", "agi", "--engine", "transformers", "--gpu", "rtx-4080",
                     "--sessions", 900, "--context", "192k").out  # fmt: skip
        assert "Nothing near it fits" in said


class TestLogs:
    def test_a_log_is_enough_if_it_names_its_model(self, veche, tmp_path):
        log = tmp_path / "vllm.log"
        log.write_text(QWEN_LOG)
        report = veche("launch", "--parse-log", log, "--json").json
        assert report["model"] == "qwen3-30b-a3b"
        assert report["has_learned"]
        assert all(line["holds"] for line in report["lines"])

    def test_a_folder_that_a_log_names_is_read(self, veche, tmp_path):
        folder = tmp_path / "models/my-moe"
        folder.mkdir(parents=True)
        config = json.loads(json.dumps(profiles_config()))
        (folder / "config.json").write_text(json.dumps(config))
        log = tmp_path / "vllm.log"
        log.write_text(VLLM_FP8_ONE_CARD.replace("Q/Qwen3-FP8", str(folder)))
        assert veche("launch", "--parse-log", log, "--json").json["model"] == str(folder)

    @pytest.mark.parametrize("text", [VLLM_FP8_ONE_CARD, LLAMA_CPP_ONE_CARD])
    def test_an_unknown_model_is_asked_for(self, veche, tmp_path, text):
        log = tmp_path / "engine.log"
        log.write_text(text)
        error = refused(veche, "launch", "--parse-log", log)
        assert "veche launch MODEL --parse-log" in error["hint"]
        assert veche("launch", "qwen3-30b-a3b", "--parse-log", log, "--json").code == 0

    @pytest.mark.parametrize("language", ["en", "ru"])
    def test_it_says_where_it_keeps_things_and_forgets_them(self, veche, tmp_path, language):
        log = tmp_path / "vllm.log"
        log.write_text(QWEN_LOG)
        said = veche("launch", "--parse-log", log, "--lang", language).out
        kept = veche("launch", "calibrations", "--json").json
        assert kept["file"] in said
        assert "--forget" in said
        assert [entry["gpu"] for entry in kept["entries"]] == ["rtx-pro-6000"]
        assert "0.28.0" in veche("launch", "calibrations", "--lang", language).out
        gone = veche("launch", "calibrations", "--forget", "--json").json
        assert (gone["num_forgotten"], gone["entries"]) == (1, [])

    def test_what_a_calibration_counts_is_said(self, veche, tmp_path):
        log = tmp_path / "vllm.log"
        log.write_text(QWEN_LOG)
        veche("launch", "--parse-log", log)
        assert ": overhead " in veche("launch", "calibrations").out
        assert "накладные расходы" in veche("launch", "calibrations", "--lang", "ru").out

    @pytest.mark.parametrize(
        ("old", "new", "reason", "words"),
        [
            ("", "", "read_before", "read before"),
            ("29.05 GiB memory", "21.05 GiB memory", "other_weights", "another model"),
            ("Available KV cache memory", "x", "no_overhead", "does not say"),
            ("57.10 GiB", "17.10 GiB", "far_outside", "another program"),
        ],
    )
    def test_why_nothing_is_learned_is_said(self, veche, tmp_path, old, new, reason, words):
        log = tmp_path / "vllm.log"
        log.write_text(QWEN_LOG)
        assert veche("launch", "--parse-log", log, "--json").json["why_not"] is None
        text = QWEN_LOG.replace(old, new) if old else QWEN_LOG
        if reason == "no_overhead":
            text = "\n".join(line for line in text.splitlines() if "KV cache" not in line)
        log.write_text(text)
        report = veche("launch", "--parse-log", log, "--json").json
        assert (report["why_not"], report["has_learned"]) == (reason, False)
        assert words in veche("launch", "--parse-log", log).out

    def test_there_is_one_way_to_list_them(self, veche):
        assert refused(veche, "calibrations")["type"] == "InputError"


def profiles_config():
    from veche.planning.bases import load_base

    return load_base("qwen3-30b-a3b")


def test_numbers_of_cards_are_written_alike(veche):
    rows = [line for line in veche("gpus").out.splitlines() if "│" in line]
    assert len(rows) >= 14
    for row in rows:
        memory, bandwidth, tflops = (cell.strip() for cell in row.split("│")[1:])
        assert re.fullmatch(r"\d+\.\d\d(–\d+\.\d\d)?", memory)
        assert re.fullmatch(r"[\d,]+", bandwidth)
        assert re.fullmatch(r"[\d,]+\.\d", tflops)


@pytest.mark.parametrize(
    "words",
    [("--gpus", "1000000000"), ("--nodes", "5000"), ("--engine-version", "9" * 5000)],
    ids=["gpus", "nodes", "version"],
)
def test_numbers_beyond_reason_are_refused_at_once(veche, words):
    done = veche("launch", "agi", *words, "--json")
    assert done.code == 2
    assert words[0] in done.error["message"]

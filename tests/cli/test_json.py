"""Every command: help, exactly one JSON object, and the keys that are promised to stay."""

import re
from importlib.metadata import version
from pathlib import Path

import pytest
import typer

from veche.cli.main import app

COSTS = {"parameters", "active_parameters", "weight_bytes", "kv_bytes_per_token", "flops_per_token"}
PNG = b"\x89PNG\r\n\x1a\n"


def _commands():
    root = typer.main.get_command(app)
    yield ()
    for name, command in root.commands.items():
        yield (name,)
        yield from ((name, inner) for inner in getattr(command, "commands", ()))


@pytest.mark.parametrize("command", [*_commands()], ids=" ".join)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_explains_and_succeeds(veche, command, option):
    done = veche(*command, option)
    assert done.code == 0
    assert done.err == ""
    assert "Usage:" in done.out


@pytest.mark.parametrize("command", [(), ("experts",), ("export",)], ids=" ".join)
def test_a_bare_group_shows_its_help(veche, command):
    done = veche(*command)
    assert done.code == 0
    assert "Usage:" in done.out


def test_the_version_is_that_of_the_package(veche):
    assert veche("--version").out == f"veche {version('veche')}\n"


@pytest.mark.parametrize("recipe", ["agi", "demo"])
def test_plan(veche, recipe):
    plan = veche("plan", recipe, "--json").json
    assert plan["fields"]
    for field in plan["fields"]:
        assert {"name", "base", "target", "effect", "reason"} <= set(field)
        assert field["reason"], field["name"]
    for conflict in plan["conflicts"]:
        assert {"fields", "reason", "resolutions"} <= set(conflict)
        assert conflict["resolutions"]
    assert set(plan["before"]) >= COSTS <= set(plan["after"])


def test_the_agi_recipe_has_a_conflict_that_its_own_advice_resolves(veche):
    (conflict,) = veche("plan", "agi", "--json").json["conflicts"]
    for way in conflict["resolutions"]:
        assert veche("plan", "agi", *way["flag"].split(), "--json").json["conflicts"] == []


def test_a_plan_that_was_written_is_the_plan_that_was_shown(veche, tmp_path):
    shown = veche("plan", "demo", "--out", tmp_path / "plan.json", "--json").json
    again = veche("launch", tmp_path / "plan.json", "--json").json
    direct = veche("launch", "demo", "--json").json
    assert again["profiles"] == direct["profiles"]
    assert shown["recipe"] == "demo"


@pytest.mark.parametrize("model", ["agi", "demo", "qwen3-30b-a3b"])
def test_launch(veche, model):
    report = veche("launch", model, "--engine", "all", "--json").json
    assert report["model"] == model
    for profile in report["profiles"]:
        assert {
            "engine", "gpu", "num_gpus", "quantization", "kv_dtype", "fits", "weight_bytes",
            "kv_bytes_per_token", "kv_available_bytes", "max_context_tokens",
            "decode_tokens_per_s", "command",
        } <= set(profile)  # fmt: skip
        for interval in (profile["kv_available_bytes"], profile["decode_tokens_per_s"]):
            low, high = interval
            assert low <= high
        assert all(isinstance(word, str) for word in profile["command"])


def test_launch_takes_a_folder(veche, shelf):
    report = veche("launch", shelf / "moe", "--json").json
    assert any(str(shelf / "moe") in profile["command"] for profile in report["profiles"])


def test_build(veche, shelf, grown, tmp_path):
    plan = tmp_path / "plan.json"
    made = veche(
        "plan", shelf / "tiny.yaml", "--base", shelf / "moe", "--out", plan, "--json"
    ).json  # fmt: skip
    done = veche("build", plan, "--source", shelf / "moe", "--out", tmp_path / "out", "--json")
    assert done.code == 0
    report = done.json
    assert report["target"] == str(tmp_path / "out")
    assert report["num_resumed_shards"] == 0
    assert report["num_bytes"] == made["after"]["weight_bytes"]
    ours = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert ours == (grown / "model.safetensors").read_bytes()


def test_verify(veche, shelf, grown, tmp_path):
    done = veche(
        "verify", shelf / "moe", grown, "--text", shelf / "text.txt", "--windows", 1,
        "--window-tokens", 64, "--out", tmp_path / "verify.json", "--json",
    )  # fmt: skip
    figures = done.json
    assert done.code == 0
    assert {"kl", "floor_kl", "max_abs_logit_diff", "passed"} <= set(figures["exact"])
    assert {"nll_source", "nll_target", "kl", "top1_agreement"} <= set(figures["whole"])
    assert {dial["name"] for dial in figures["dials"]} == {"num_experts_per_tok", "rope_theta"}
    for dial in figures["dials"]:
        assert {"name", "nll_delta", "kl"} <= set(dial)
    assert figures["exact"]["passed"] is True
    assert (tmp_path / "verify.json").read_text() == done.out


def test_carve(veche, shelf, tmp_path):
    done = veche(
        "carve", shelf / "dense", "--out", tmp_path / "carved", "--experts", 8, "--tokens", 256,
        "--text", shelf / "text.txt", "--json",
    )  # fmt: skip
    assert done.code == 0
    report = done.json
    assert report["settings"]["num_experts"] == 8
    assert report["equality"]["max_abs_logit_diff"] <= 2e-5 * report["equality"]["logit_scale"]
    assert veche("plan", shelf / "tiny.yaml", "--base", tmp_path / "carved", "--json").code == 0


@pytest.mark.parametrize("type_name", ["bf16", "q8_0"])
def test_export_gguf(veche, shelf, tmp_path, type_name):
    out = tmp_path / "m.gguf"
    done = veche(
        "export", "gguf", shelf / "moe", "--out", out, "--type", type_name, "--pre", "gpt-2",
        "--json",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    report = done.json
    assert (report["target"], report["type"]) == (str(out), type_name)
    assert (report["architecture"], report["pre_tokenizer"]) == ("llama", "gpt-2")
    assert report["num_bytes"] == out.stat().st_size
    assert report["check"]["types"][type_name.upper()] > 0
    again = veche("export", "gguf", shelf / "moe", "--out", out, "--pre", "gpt-2", "--json")
    assert (again.code, again.error["type"]) == (2, "OutputError")


def test_ask(asked):
    run, done = asked
    result = done.json
    assert isinstance(result["answer"], str)
    assert {"proposer", "objector", "synthesiser", "recursia"} <= {
        voice["name"] for voice in result["voices"] if isinstance(voice["text"], str)
    }
    usage = result["usage"]
    assert set(usage) >= {"prefilled_tokens", "reused_tokens", "decoded_tokens"}
    assert all(isinstance(count, int) and count > 0 for count in usage.values())
    assert result["stopped_early"] is False
    assert (run / "transcript.jsonl").is_file()
    assert done.err == ""


def test_experts_show(veche, asked):
    summary = veche("experts", "show", asked[0], "--json").json
    assert (summary["num_experts"], summary["top_k"]) == (8, 2)
    names = {voice["name"] for voice in summary["voices"]}
    assert {"proposer", "objector", "synthesiser"} <= names
    assert summary == veche("experts", "show", asked[0] / "routing.safetensors", "--json").json


@pytest.mark.parametrize("language", ["en", "ru"])
def test_experts_report(veche, asked, tmp_path, language):
    page = tmp_path / "e.html"
    done = veche("experts", "report", asked[0], "--out", page, "--lang", language, "--json")
    assert done.json["page"] == str(page)
    assert set(done.json["pictures"]) == {"voices", "layers"}
    for picture in done.json["pictures"].values():
        assert Path(picture).read_bytes().startswith(PNG)
    assert "<html" in page.read_text()


def test_gpus(veche):
    cards = veche("gpus", "--json").json["gpus"]
    assert "rtx-pro-6000" in {card["name"] for card in cards}
    assert all(card["source"] for card in cards)


def test_doctor(veche):
    report = veche("doctor", "--json").json
    assert isinstance(report["is_ready"], bool)
    assert {"torch", "transformers", "gguf", "demo model"} <= {c["name"] for c in report["checks"]}
    assert all(check["advice"] == "" for check in report["checks"] if check["is_ok"])
    assert report["plugins"]["engines"] == ["llamacpp", "openai", "scripted", "transformers"]


class TestForPeople:
    """Without --json: results are text on stdout, and say what JSON says."""

    def test_plan_names_every_field_that_changes(self, veche):
        done = veche("plan", "demo")
        changed = {
            field["name"]
            for field in veche("plan", "demo", "--json").json["fields"]
            if field["effect"] != "unchanged"
        }
        assert done.code == 0
        assert {name for name in changed if name not in done.out} == set()

    def test_launch_ends_with_a_command_line(self, veche):
        assert "vllm serve" in veche("launch", "qwen3-30b-a3b").out

    def test_an_export_says_what_it_wrote_and_checked(self, veche, shelf, tmp_path):
        out = tmp_path / "m.gguf"
        done = veche("export", "gguf", shelf / "dense", "--out", out, "--pre", "gpt-2")
        assert done.code == 0
        assert str(out) in done.out
        assert "names and shapes are those that llama.cpp expects" in done.out

    def test_build_and_verify(self, veche, shelf, tmp_path):
        out = tmp_path / "out"
        built = veche("build", shelf / "tiny.yaml", "--source", shelf / "moe", "--out", out)
        assert built.code == 0
        assert str(out) in re.sub(r"\n", "", built.out)
        verified = veche(
            "verify", shelf / "moe", out, "--text", shelf / "text.txt",
            "--windows", 1, "--window-tokens", 32,
        )  # fmt: skip
        assert verified.code == 0
        assert "passed" in verified.out
        assert "rope_theta" in verified.out

    def test_ask_shows_voices_answer_and_bill(self, veche, shelf):
        done = veche("ask", shelf / "moe", "Why?", "--max-tokens", 8, "--lang", "en")
        assert done.code == 0
        assert "Answer" in done.out
        assert "Token bill" in done.out

    def test_the_question_may_come_from_stdin(self, veche, shelf, tmp_path, monkeypatch):
        import io
        import json

        monkeypatch.setattr("sys.stdin", io.StringIO("Из ввода?\n"))
        run = tmp_path / "run"
        assert veche("ask", shelf / "moe", "-", "--max-tokens", 8, "--out", run).code == 0
        first = (run / "transcript.jsonl").read_text().splitlines()[0]
        assert json.loads(first)["data"]["question"] == "Из ввода?"

    def test_experts_and_doctor(self, veche, asked, tmp_path):
        assert "proposer" in veche("experts", "show", asked[0]).out
        page = tmp_path / "e.html"
        assert veche("experts", "report", asked[0], "--out", page).code == 0
        assert page.is_file()
        assert "torch" in veche("doctor").out


class TestRussian:
    def test_a_plan_gives_its_reasons_in_russian(self, veche):
        russian = veche("plan", "agi", "--lang", "ru", "--json").json
        english = veche("plan", "agi", "--lang", "en", "--json").json
        for ours, theirs in zip(russian["fields"], english["fields"], strict=True):
            assert re.search("[а-яё]", ours["reason"]), ours["name"]
            assert not re.search("[а-яё]", theirs["reason"]), theirs["name"]
            words = {"reason": "", "wish": ""}
            assert {**ours, **words} == {**theirs, **words}
            assert bool(ours["wish"]) == bool(theirs["wish"])

    def test_a_launch_gives_its_reasons_in_russian(self, veche):
        profiles = veche("launch", "agi", "--lang", "ru", "--json").json["profiles"]
        assert all(re.search("[а-яё]", profile["reason"]) for profile in profiles)

    @pytest.mark.parametrize(("command", "word"), [("plan", "план"), ("launch", "веса")])
    def test_headings_are_russian(self, veche, command, word):
        assert word in veche(command, "agi", "--lang", "ru").out.lower()

    def test_a_council_ends_in_russian(self, veche, shelf):
        done = veche("ask", shelf / "moe", "Почему?", "--max-tokens", 8, "--lang", "ru")
        assert "Ответ" in done.out
        assert "Счёт в токенах" in done.out

    @pytest.mark.parametrize(
        ("locale", "is_russian"),
        [("ru_RU.UTF-8", True), ("ru", True), ("C.UTF-8", False), ("de_DE.UTF-8", False)],
    )
    def test_the_locale_chooses_the_language(self, veche, monkeypatch, locale, is_russian):
        monkeypatch.setenv("LC_ALL", locale)
        assert bool(re.search("[а-яё]", veche("launch", "qwen3-30b-a3b").out)) is is_russian

"""What is inside a model, by command: what sleeps, what heads do, where voices part."""

import json

import numpy as np
import pytest


def refused(veche, *arguments):
    done = veche(*arguments, "--json")
    assert done.code == 2, done
    return done.error


class TestAsleep:
    def test_all_that_growth_added_is_asleep(self, veche, grown):
        told = veche("experts", "asleep", grown, "--json").json
        assert told["mode"] == "split"
        counts = {name: dict(found) for name, found in told["totals"].items()}
        assert set(counts) == {"heads", "moe_intermediate_size"}
        for found in counts.values():
            assert found["twins"] == found["new"] > 0
        table = veche("experts", "asleep", grown)
        assert table.code == 0
        assert f"{counts['moe_intermediate_size']['new']:,}" in table.out
        assert "двойники" in veche("experts", "asleep", grown, "--lang", "ru").out

    def test_a_folder_that_was_not_grown_is_refused(self, veche, shelf):
        error = refused(veche, "experts", "asleep", shelf / "moe")
        assert error["type"] == "CheckpointError"
        assert "veche build" in error["hint"]


class TestHeads:
    @pytest.mark.parametrize("model", ["moe", "dense"])
    def test_a_text_is_read_and_drawn(self, veche, shelf, tmp_path, model):
        picture = tmp_path / "heads.png"
        told = veche(
            "experts", "heads", shelf / model, "--text", shelf / "text.txt", "--max-tokens", 40,
            "--out", picture, "--json",
        ).json  # fmt: skip
        assert 30 <= told["tokens"] <= 40
        assert (told["num_layers"], told["num_heads"]) == (3, 4)
        assert told["picture"] == str(picture)
        assert picture.read_bytes().startswith(b"\x89PNG")
        for layer in told["layers"]:
            assert 1 <= layer["effective_heads"] <= 4
            assert all(0 <= value <= np.log(41) for value in layer["entropy_nats"])
            assert all(0 <= value <= 40 for value in layer["distance_tokens"])

    def test_prompts_are_answered(self, veche, grown):
        done = veche("experts", "heads", grown, "What is four?", "Что?", "--max-tokens", 6)
        assert done.code == 0
        assert "/ 6" in done.out

    def test_neither_and_both_are_refused(self, veche, shelf):
        for arguments in ([], ["what?", "--text", shelf / "text.txt"]):
            error = refused(veche, "experts", "heads", shelf / "moe", *arguments)
            assert "either" in error["message"]


class TestDisagree:
    def test_a_map_of_two_voices_is_written(self, veche, shelf, tmp_path):
        out = tmp_path / "map"
        done = veche(
            "experts", "disagree", shelf / "moe", "What is four?", "--answer", "Четыре is four.",
            "--out", out, "--json",
        )  # fmt: skip
        told = done.json
        assert told == json.loads((out / "disagreement.json").read_text(encoding="utf-8"))
        assert (out / "disagreement.png").read_bytes().startswith(b"\x89PNG")
        assert told["voices"] == ["logician", "objector"]
        assert "".join(told["tokens"]) == "Четыре is four."
        assert told["hidden_layers"] == [1, 2, 3]
        assert 0 < told["mean_js_bits"] < 1
        assert told["routing_by_chance"] == pytest.approx(3 / 8)

    def test_prompts_of_ones_own_read_what_the_first_answers(self, veche, shelf):
        done = veche(
            "experts", "disagree", shelf / "dense", "What is four?", "--as", "Коротко.",
            "--as", "At length, please, and with every word that there is.", "--max-tokens", 8,
        )  # fmt: skip
        assert done.code == 0
        assert "surprise of 1: Коротко." in done.out
        assert "experts in common" not in done.out

    def test_russian_is_spoken_throughout(self, veche, shelf):
        told = veche(
            "experts", "disagree", shelf / "moe", "Что?", "--answer", "Четыре.", "--lang", "ru"
        ).out
        assert "общие эксперты" in told
        assert "surprise" not in told
        heads = veche("experts", "heads", shelf / "moe", "Что?", "--max-tokens", 4, "--lang", "ru")
        assert "энтропия" in heads.out
        assert "entropy" not in heads.out

    def test_the_same_prompt_twice_is_no_disagreement(self, veche, shelf):
        told = veche(
            "experts", "disagree", shelf / "moe", "What?", "--as", "Да.", "--as", "Да.",
            "--answer", "the council hears every voice", "--json",
        ).json  # fmt: skip
        assert told["mean_js_bits"] == pytest.approx(0, abs=1e-9)
        assert np.abs(told["hidden_distance"]).max() < 1e-9
        assert told["mean_routing_overlap"] == 1

    def test_an_unknown_voice_and_a_single_one_are_refused(self, veche, shelf):
        error = refused(
            veche, "experts", "disagree", shelf / "moe", "?", "--voices", "poet,logician"
        )
        assert "'poet'" in error["message"]
        assert "proposer" in error["hint"]
        error = refused(veche, "experts", "disagree", shelf / "moe", "?", "--voices", "logician")
        assert "two voices" in error["message"]

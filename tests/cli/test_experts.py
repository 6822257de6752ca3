"""`veche experts` as its user meets it: record, look, compare, watch."""

import io
import json

import pytest

TEXTS = [
    {"text": "the council hears every voice", "domain": "prose"},
    {"text": "совет слышит каждый голос и ответ 4", "domain": "prose"},
    {"text": "if x == 4: return every(voice)", "domain": "code"},
    {"text": "for y in range(12): print(y)", "domain": "code"},
]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    path.write_text("\n".join(json.dumps(text, ensure_ascii=False) for text in TEXTS))
    return path


@pytest.fixture(scope="module")
def recorded(veche, shelf, texts, tmp_path_factory):
    out = tmp_path_factory.mktemp("recorded") / "store"
    done = veche("experts", "record", shelf / "moe", texts, "--out", out, "--json")
    assert done.code == 0, done
    return out, done


def test_record_says_what_it_did_and_goes_on(veche, shelf, texts, recorded):
    out, done = recorded
    assert done.json["recording"] == str(out)
    assert done.json["documents"] == 4
    assert done.json["documents_kept"] == 0
    assert done.json["tokens_added"] > 20
    again = veche("experts", "record", shelf / "moe", texts, "--out", out, "--json").json
    assert (again["documents"], again["documents_kept"], again["tokens_added"]) == (4, 4, 0)
    assert (
        "4 were there already" in veche("experts", "record", shelf / "moe", texts, "--out", out).out
    )


def test_prompts_of_a_plain_file_are_answered(veche, shelf, tmp_path):
    prompts = tmp_path / "p.txt"
    prompts.write_text("What is four?\nЧто такое вече?\n")
    done = veche(
        "experts", "record", shelf / "moe", prompts, "--out", tmp_path / "s", "--max-tokens", 5,
        "--limit", 1, "--weights", "--router-logits", "--json",
    )  # fmt: skip
    assert (done.json["documents"], done.json["tokens_added"]) in ((1, 4), (1, 5))
    layers = veche("experts", "show", tmp_path / "s", "--json").json["layers"]
    assert all(layer["top_k_mass"] > 3 / 8 for layer in layers)


def test_show_tests_every_axis_and_says_what_so_few_documents_cannot_tell(veche, recorded):
    found = veche("experts", "show", recorded[0], "--json").json["axes"]
    axes = {axis["axis"]: axis for axis in found if axis["only"] is None}
    assert {"domain", "token class"} <= set(axes)
    domain = axes["domain"]
    assert domain["groups"][0]["documents"] == [2, 2]
    assert domain["smallest_p"] == pytest.approx(2 / 6)
    assert domain["needed_together"] > domain["tests"]
    assert domain["groups"][0]["experts"] == []
    told = veche("experts", "show", recorded[0], "--lang", "en").out
    assert "nothing can be found here" in told


def test_show_and_report_name_figures_and_kinds_in_russian(veche, recorded, tmp_path):
    shown = veche("experts", "show", recorded[0], "--lang", "ru").out
    page = tmp_path / "e.html"
    veche("experts", "report", recorded[0], "--out", page, "--lang", "ru")
    for told in (shown, page.read_text()):
        assert "энтропия нагрузки" in told
        assert "load_entropy" not in told
        assert "cyrillic" not in told


def test_report_is_a_page_with_its_pictures_inside(veche, recorded, tmp_path):
    done = veche("experts", "report", recorded[0], "--json")
    assert done.json["page"] == str(recorded[0] / "experts.html")
    page = (recorded[0] / "experts.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    # What lies beside the recording is no obstacle to reading it.
    assert veche("experts", "show", recorded[0], "--json").code == 0
    wrong = veche("experts", "report", recorded[0], "--out", tmp_path / "e.png", "--json")
    assert wrong.code == 2
    assert "e.html" in wrong.error["hint"]


def test_new_experts_of_a_grown_model(veche, recorded, grown):
    done = veche("experts", "show", recorded[0], "--grown", grown, "--json")
    assert done.json["asleep"]["new_experts"] == 0


def test_compare_two_recordings_and_two_voices_of_a_run(veche, recorded, asked, tmp_path):
    same = veche("experts", "compare", recorded[0], recorded[0], "--json").json
    assert same["saturation"] == 1
    assert same["changed_experts"] == 0
    page = tmp_path / "c.html"
    done = veche(
        "experts", "compare", asked[0], asked[0], "--first-voice", "proposer", "--second-voice",
        "objector", "--out", page, "--lang", "ru",
    )  # fmt: skip
    assert done.code == 0, done
    assert "по случайности" not in done.out
    assert "objector" in page.read_text()
    wrong = veche("experts", "compare", asked[0], asked[0], "--first-voice", "poet", "--json")
    assert "proposer" in wrong.error["hint"]


def test_a_dense_model_has_no_experts_to_record_or_watch(veche, shelf, texts, tmp_path):
    for command in (
        ("record", shelf / "dense", texts, "--out", tmp_path / "s", "--json"),
        ("watch", shelf / "dense"),
    ):
        done = veche("experts", *command)
        assert done.code == 2
    assert not (tmp_path / "s").exists()


def test_watch_answers_line_after_line_and_prints_plain_lines_without_a_terminal(
    veche, shelf, monkeypatch
):
    monkeypatch.setattr("sys.stdin", io.StringIO("What is four?\nА пять?\n\nnot asked\n"))
    done = veche("experts", "watch", shelf / "moe", "--max-tokens", 6, "--window", 4)
    assert done.code == 0, done
    rows = [line for line in done.out.splitlines() if line.startswith("  ") and "| H " in line]
    assert len(rows) in (3, 6)
    assert all(len(row.split("|")[1]) == 8 for row in rows)
    assert "not asked" not in done.out


def test_a_recording_is_no_place_for_something_else(veche, shelf, texts, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    done = veche("experts", "record", shelf / "moe", texts, "--out", tmp_path, "--json")
    assert done.code == 2
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".txt") == ["mine.txt"]

"""`veche dial` as its user meets it: tables, JSON, a picture, and one clear error each."""

import pytest

SMALL = ("--windows", 3, "--short-tokens", 24, "--long-tokens", 64, "--device", "cpu")


def dial(veche, shelf, *arguments, model="moe"):
    text = ("--text", shelf / "text.txt", "--model", shelf / model)
    return veche("dial", *arguments, *text, *SMALL)


def test_a_dial_is_shown_as_tables_and_a_picture(veche, shelf, tmp_path):
    done = dial(veche, shelf, "top_k", "2..4", "--rounds", 1, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert "a few values of 2..4" in done.err
    for word in ("short context", "long context", "3 *", "ΔNLL", "tok/s", "paired bootstrap"):
        assert word in done.out
    picture = (tmp_path / "out" / "dial-top_k.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert (tmp_path / "out" / "dial-top_k.json").exists()


@pytest.mark.parametrize(
    ("name", "values"), [("temperature", "2"), ("yarn", "2"), ("adaptive", "3")]
)
def test_a_dial_speaks_russian(veche, shelf, name, values):
    done = dial(veche, shelf, name, values, "--rounds", 0, "--lang", "ru")
    assert done.code == 0, done.err
    for word in ("короткий контекст", "длинный контекст", "парный бутстрап", "Рисунок"):
        assert word in done.out
    assert ("при равном среднем" in done.out or "Разницы не видно" in done.out) == (
        name == "adaptive"
    )


def test_json_has_every_figure_with_its_interval(veche, shelf, tmp_path):
    out = tmp_path / "совет"
    done = dial(veche, shelf, "adaptive", "2,4", "--rounds", 0, "--out", out, "--json")
    report = done.json
    assert report["dial"] == "adaptive"
    assert report["base"] == 3
    assert report["context_tokens"] == {"short": 24, "long": 64}
    assert report["num_predictions"] == 23
    assert [row["value"] for row in report["rows"]] == [2, 4]
    for each in report["rows"][0]["contexts"].values():
        for key in ("nll", "nll_delta", "kl", "top1_agreement", "experts", "over_fixed"):
            low, high = each[f"{key}_interval"]
            assert low <= each[key] <= high
    assert report["picture"] == str(out / "dial-adaptive.png")
    base = next(row for row in report["fixed"] if row["is_base"])
    assert base["contexts"]["long"]["nll_delta"] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("top_k", "4..9"), "top_k 9 is not a whole number in 1..8"),
        (("top_k", "nan"), "'nan' is no number"),
        (("yarn", "4..1"), "reversed"),
        (("volume", "11"), "there is no dial 'volume'"),
        (("top_k", "2", "--short-tokens", "2000", "--long-tokens", "2000"), "need at least"),
        (("top_k", "2", "--windows", "1"), "--windows"),
        (("top_k", "2", "--lang", "tlh"), "does not speak"),
    ],
)
def test_what_cannot_be_is_one_clear_error(veche, shelf, arguments, said):
    name, values, *options = arguments
    text = ("--text", shelf / "text.txt", "--model", shelf / "moe")
    done = veche("dial", name, values, *text, *options, "--json")
    assert done.code == 2
    assert said in done.error["message"]
    assert done.error["hint"] or "--" in said


def test_a_model_or_a_text_that_is_not_there_is_named(veche, shelf):
    done = veche("dial", "top_k", "--model", shelf / "nowhere", "--json")
    assert done.code == 2
    assert "nowhere" in done.error["message"]
    done = veche("dial", "top_k", "--model", shelf / "moe", "--text", "нет.txt", "--json")
    assert done.code == 2
    assert "нет.txt" in done.error["message"]


def test_a_dense_model_is_told_what_it_can_do(veche, shelf):
    done = dial(veche, shelf, "top_k", "--json", model="dense")
    assert done.code == 2
    assert "dense" in done.error["message"]
    assert "temperature" in done.error["hint"]

"""The catalogue of cards, and the user's own file."""

import json
from importlib import resources

import pytest

from veche.core.errors import InputError
from veche.launch.gpus import catalogue, find_gpu
from veche.launch.local_gpu import local_gpus, match_card

WANTED_NAMES = {
    "rtx-pro-6000", "rtx-pro-6000-max-q", "rtx-pro-6000-server", "rtx-5090", "rtx-4090",
    "rtx-3090", "l40s", "a100-40", "a100-80", "h100-pcie", "h100-sxm", "h200", "b200", "mi300x",
}  # fmt: skip


def test_the_catalogue_has_the_cards_with_sources():
    cards = catalogue()
    assert set(cards) >= WANTED_NAMES
    assert all(card.source and card.title for card in cards.values())
    assert find_gpu("rtx-pro-6000").visible_gib == (94.97, 94.97)
    assert find_gpu("rtx-pro-6000-server").bandwidth_gb_s == 1597


def test_every_card_is_plausible():
    for card in catalogue().values():
        assert 0 < card.visible_gib[0] <= card.visible_gib[1] < 300
        assert card.tflops["bf16"] <= card.tflops.get("fp8", 1e9)
        assert json.loads(json.dumps(card.as_dict()))["name"] == card.name


def test_names_are_forgiving_and_mistakes_name_the_nearest():
    assert find_gpu("NVIDIA GeForce RTX 4090").name == "rtx-4090"
    assert find_gpu("H100").name == "h100-sxm"
    with pytest.raises(InputError) as caught:
        find_gpu("rtx-pro-600")
    assert "rtx-pro-6000" in caught.value.hint


@pytest.mark.parametrize("name", ["RTX PRO 6000", "rtxpro6000", "rtx_pro_6000", "pro 6000"])
def test_hyphens_do_not_matter(name):
    assert find_gpu(name).name == "rtx-pro-6000"


def test_a_name_of_several_cards_brings_them_all_the_newest_first():
    with pytest.raises(InputError) as caught:
        find_gpu("rtx6000")
    assert "'rtx-pro-6000', 'rtx-6000-ada', 'rtx-a6000'" in caught.value.hint
    assert "--gpu" in caught.value.message


def test_the_users_file_adds_and_overrides(tmp_path, monkeypatch):
    monkeypatch.setenv("VECHE_HOME", str(tmp_path))
    (tmp_path / "gpus.yaml").write_text(
        "my-card: {visible_gib: 40, bandwidth_gb_s: 500, tflops: {bf16: 50},"
        " compute_capability: '8.6'}\n"
    )
    assert find_gpu("my-card").visible_gib == (40, 40)
    assert len(catalogue()) == 1 + len(_shipped())


_CARD = "x: {visible_gib: 40, bandwidth_gb_s: 500, tflops: {bf16: 50}, compute_capability: '8.6'}"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("x: {visible_gib: 40}", "bandwidth_gb_s"),
        ("x: {visible_gb: 40}", "visible_gib"),
        ("- 1", "mapping"),
        ("x: [", "YAML"),
        ("x: 3", "x"),
        ("x: " + "[" * 5000, "YAML"),
        ("x: {visible_gib: 2024-99-99}", "YAML"),
        ("x: {visible_gib: .inf}", "visible_gib"),
        (_CARD.replace("500", ".inf"), "bandwidth_gb_s"),
        (_CARD.replace("500", ".nan"), "bandwidth_gb_s"),
        (_CARD.replace("500", "2024-01-01"), "bandwidth_gb_s"),
        (_CARD.replace("50}", "1e300}"), "tflops.bf16"),
        (_CARD.replace("bf16: 50", "2024-01-01: 50"), "tflops"),
        (_CARD.replace("8.6", "8888888.6"), "compute_capability"),
        ("x: &a {visible_gib: *a}", "visible_gib"),
    ],
    ids=lambda value: value[:24],
)
def test_a_bad_file_is_one_clear_error(tmp_path, monkeypatch, text, word):
    monkeypatch.setenv("VECHE_HOME", str(tmp_path))
    (tmp_path / "gpus.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        catalogue()
    assert word in caught.value.message


def test_a_drivers_name_is_matched_with_the_memory():
    gib = 1 << 30
    cases = {
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 94.97): "rtx-pro-6000",
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", 94.97): "rtx-pro-6000-max-q",
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 94.97): "rtx-pro-6000-server",
        ("NVIDIA A100-SXM4-80GB", 79.2): "a100-80",
        ("NVIDIA A100-SXM4-40GB", 39.4): "a100-40",
        ("NVIDIA H100 80GB HBM3", 79.2): "h100-sxm",
        ("NVIDIA H100 PCIe", 79.2): "h100-pcie",
        ("NVIDIA GeForce RTX 3090", 23.6): "rtx-3090",
    }
    for (title, size), name in cases.items():
        card = match_card(title, round(size * gib))
        assert card is not None, title
        assert card.name == name
    assert match_card("NVIDIA Quadro K2000", 2 * gib) is None


def test_a_machine_without_nvml_has_no_local_card():
    assert isinstance(local_gpus(), list)


def _shipped():
    return json.loads((resources.files("veche.launch") / "gpus.json").read_text())

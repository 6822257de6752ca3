"""The report of a real run, on a tiny model that went the whole way."""

import base64
import json
import re
from html.parser import HTMLParser

import pytest
from tests import tiny_models

from veche.core.files import write_json
from veche.core.transcript import read_transcript
from veche.core.units import format_bytes, format_count
from veche.council.deliberation import deliberate
from veche.council.settings import CouncilSettings
from veche.demo.chain import Chain, Stage
from veche.demo.report import write_report
from veche.demo.report_phrases import PHRASES
from veche.engines.transformers import create
from veche.experts.plots import voices_png
from veche.experts.recording import recording_of_run
from veche.experts.summary import summarise
from veche.launch.profiles import profiles_for
from veche.planning.planner import make_plan
from veche.planning.recipe import Recipe, load_recipe
from veche.roles.registry import Registry
from veche.surgery.build import build
from veche.surgery.carving.calibration import calibration_text, heldout_text
from veche.surgery.carving.carve import CarveSettings, carve
from veche.surgery.verification.verify import VerifySettings, verify

QUESTION = "Is <b>1 & 1</b> two? <script>alert('x')</script> {{ 7 * 7 }}"
FIELDS = {
    "num_experts_per_tok": 6,
    "moe_intermediate_size": 16,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "attention_dropout": 0.01,
    "rope_theta": {"value": "x2", "apply": False},
}
VOID = {"meta", "br", "img", "link", "input", "hr"}


def _carve(folder, made):
    made["dense"] = tiny_models.tiny_llama(
        folder / "dense", intermediate_size=64, max_position_embeddings=4096
    )
    settings = CarveSettings(num_experts=8, calibration_tokens=256, check_tokens=64)
    report = carve(made["dense"], folder / "carved", settings, text=calibration_text()[:4000])
    write_json(folder / "carve.json", report.as_dict())


def _plan(folder, made):
    recipe = Recipe(name="tiny", base=str(folder / "carved"), allow_lossy=True, fields=FIELDS)
    made["plan"] = make_plan(recipe)
    write_json(folder / "plan.json", made["plan"].as_dict())


def _verify(folder, made):
    figures = verify(
        folder / "carved", folder / "model", made["plan"], heldout_text()[:3000],
        settings=VerifySettings(num_windows=1, window_tokens=64, fp32_tokens=64),
    )  # fmt: skip
    write_json(folder / "verify.json", figures.as_dict())


def _launch(folder, made):
    spec = make_plan(load_recipe("agi")).target_spec
    profiles = profiles_for(spec, gpu="rtx-pro-6000", engines=["vllm"])
    write_json(folder / "launch.json", {"profiles": [item.as_dict() for item in profiles]})


def _ask(folder, made):
    result = deliberate(
        create(folder / "model"),
        QUESTION,
        settings=CouncilSettings(max_tokens_per_voice=8, early_stop=False),
        transcript=folder / "transcript.jsonl",
    )
    made["routing"] = recording_of_run(result.routing)
    write_json(folder / "ask.json", result.as_dict())


def _see(folder, made):
    titles = Registry().titles("en")
    (folder / "experts.png").write_bytes(voices_png(made["routing"], titles))
    write_json(folder / "experts.json", summarise(made["routing"]))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with all that the stages make, each of them really run."""
    folder, made = tmp_path_factory.mktemp("report") / "demo", {}
    chain = Chain(folder)

    def grow(folder, made):
        build(made["plan"], folder / "carved", folder / "model")

    for name, work in (
        ("carve", _carve), ("plan", _plan), ("build", grow), ("verify", _verify),
        ("launch", _launch), ("ask", _ask), ("see", _see),
    ):  # fmt: skip
        step = Stage(name=name, outputs=(), settings=None, run=lambda work=work: work(folder, made))
        chain.run(step)
    return folder


@pytest.fixture(scope="module", params=["en", "ru"])
def page(run, request):
    write_report(run, QUESTION, request.param)
    return (run / "report.html").read_text(encoding="utf-8"), request.param


class Page(HTMLParser):
    """Tags must be balanced; text, scripts and addresses are kept."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.tags, self.addresses = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def test_it_is_one_page_that_needs_nothing_else(page, run):
    parsed = Page(page[0])
    assert not {"script", "link", "iframe"} & set(parsed.tags)
    assert "@import" not in page[0]
    assert "url(" not in page[0]
    for address in parsed.addresses:
        assert address.startswith("data:image/png;base64,") or address == "experts.png"
    (picture,) = re.findall(r"data:image/png;base64,([^\"]+)", page[0])
    assert base64.b64decode(picture, validate=True) == (run / "experts.png").read_bytes()


def test_it_is_made_for_a_phone_and_says_its_language(page):
    assert f'<html lang="{page[1]}">' in page[0]
    assert 'name="viewport" content="width=device-width' in page[0]
    assert '<meta charset="utf-8">' in page[0]


def test_what_a_user_or_a_model_wrote_is_text_and_never_markup(page, run):
    parsed = Page(page[0])
    assert "{{ 7 * 7 }}" in parsed.text
    assert "<script>alert('x')</script>" in parsed.text
    assert "script" not in parsed.tags
    for event in read_transcript(run / "transcript.jsonl"):
        if event.kind == "TEXT_MESSAGE_CONTENT":
            assert " ".join(event.data["text"].split()) in parsed.text


def test_its_numbers_are_those_of_the_run(page, run):
    text = Page(page[0]).text
    plan = json.loads((run / "plan.json").read_text())
    verified = json.loads((run / "verify.json").read_text())
    asked = json.loads((run / "ask.json").read_text())
    for costs in (plan["before"], plan["after"]):
        assert format_count(costs["parameters"]) in text
        assert format_bytes(costs["weight_bytes"]) in text
    assert f"{verified['whole']['nll_source']:.3f}" in text
    assert f"{verified['whole']['nll_target']:.3f}" in text
    assert f"{verified['exact']['max_abs_logit_diff']:.1e}" in text
    for count in asked["usage"].values():
        assert str(count) in text
    for field in plan["fields"]:
        shown = field["effect"] != "unchanged"
        assert (f"{field['name']}" in text) or not shown
    for dial in verified["dials"]:
        assert f"{dial['nll_delta']:+.3f}" in text


def test_its_headings_are_in_its_language(page):
    text = Page(page[0]).text
    other = "ru" if page[1] == "en" else "en"
    for key in ("title", "verify", "council", "stages"):
        assert PHRASES[key][page[1]] in text
        assert PHRASES[key][other] not in text


def test_a_failed_verification_is_not_hidden(run, tmp_path):
    import shutil

    folder = shutil.copytree(run, tmp_path / "demo")
    verified = json.loads((folder / "verify.json").read_text())
    verified["exact"]["passed"] = False
    (folder / "verify.json").write_text(json.dumps(verified))
    write_report(folder, QUESTION, "en")
    assert PHRASES["failed"]["en"] in (folder / "report.html").read_text()

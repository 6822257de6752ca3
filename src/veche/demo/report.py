"""One self-contained HTML page with everything that the demo found."""

import base64
from importlib import resources
from pathlib import Path
from typing import Any

from veche import __version__
from veche.core.files import read_json_object, write_text
from veche.core.language import Language
from veche.core.transcript import read_transcript
from veche.core.units import format_bytes, format_count
from veche.council.readout import messages_of, observation_text
from veche.demo.chain import RECORD_NAME
from veche.demo.report_phrases import PHRASES
from veche.planning import phrases as planning
from veche.roles.registry import Registry

_RESULTS = ("carve", "plan", "verify", "launch", "ask", "experts")


def write_report(folder: Path, question: str, language: Language) -> None:
    """Write report.html from the results in `folder`.

    Nothing in it comes from the network, and every text of a model or a user is escaped.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(bytes=format_bytes, count=format_count, value=_short)
    source = resources.files("veche.demo") / "report.html.j2"
    template = environment.from_string(source.read_text(encoding="utf-8"))
    write_text(folder / "report.html", template.render(_content(folder, question, language)))


def _content(folder: Path, question: str, language: Language) -> dict[str, Any]:
    results = {name: read_json_object(folder / f"{name}.json") for name in _RESULTS}
    events = read_transcript(folder / "transcript.jsonl")
    stages = read_json_object(folder / RECORD_NAME)
    return {
        **results,
        "say": {key: words[language] for key, words in {**planning.PHRASES, **PHRASES}.items()},
        "language": language,
        "version": __version__,
        "question": question,
        "stages": stages,
        "total_s": sum(stage["seconds"] for stage in stages.values()),
        "peak_bytes": max(stage["peak_memory_bytes"] for stage in stages.values()),
        "titles": Registry().titles(language),
        "observer": next((event.voice for event in events if event.kind == "STATE_DELTA"), ""),
        "messages": messages_of(events),
        "observations": [
            observation_text([event.data], language)
            for event in events
            if event.kind == "STATE_DELTA"
        ],
        "picture": base64.b64encode((folder / "experts.png").read_bytes()).decode(),
    }


def _short(value: object) -> str:
    if isinstance(value, dict):
        return f"{value.get('rope_type')} × {value.get('factor'):g}"
    if isinstance(value, float):
        return f"{value:g}"
    return "–" if value is None else str(value)

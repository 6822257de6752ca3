"""What a recording, or a comparison of two, has to tell, as one page that loads nothing."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from veche import __version__
from veche.core.errors import MissingExtraError
from veche.core.language import Language, spoken
from veche.experts.phrases import PHRASES, axis_title, name_of
from veche.experts.significance import SIGNIFICANCE

_MOST_ROWS = 20
_NEXT_TO_NOTHING = 1e-6
"""Shown as 0: chance gives 1e-288 dead experts, which nobody needs to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the page: texts, then a table, then a picture."""

    title: str = ""
    texts: tuple[str, ...] = ()
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    picture: bytes | None = None


def recording_page(
    summary: Mapping[str, Any],
    *,
    names: Mapping[str, str],
    pictures: Mapping[str, bytes],
    language: Language,
) -> str:
    """Return the page of a recording.

    Args:
        summary: of `summary.summarise`, with `axes` and maybe `asleep`.
        names: what to call a voice, where not by its name.
        pictures: PNGs: `voices`, `layers`, and maybe `specialisation`.
        language: of the page.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    say = _Speaker(language)
    sections = [
        _lead(summary, say),
        _voices(summary, names, pictures["voices"], say),
        Section(title=say("layers"), texts=(say("layers_text"),), picture=pictures["layers"]),
        *_axes(summary["axes"], pictures.get("specialisation"), say),
        *_asleep(summary.get("asleep"), say),
        *_pairs(summary, say),
    ]
    return _page(say("title"), sections, say)


def comparison_page(
    summary: Mapping[str, Any], *, titles: tuple[str, str], picture: bytes, language: Language
) -> str:
    """Return the page of a comparison.

    Args:
        summary: of `summary.comparison_summary`.
        titles: what the user called the two.
        picture: of `layer_plots.comparison_png`.
        language: of the page.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    say = _Speaker(language)
    sections = [
        Section(texts=tuple(comparison_lines(summary, titles, language)), picture=picture),
        Section(
            title=say("layers"),
            head=say.columns("layer", "js", "null_js", "p", "saturation", "changed"),
            rows=tuple(
                (
                    str(layer["layer"]),
                    _number(layer["js_divergence"]),
                    _number(layer["null_js_divergence"]),
                    _number(layer["p_adjusted"]),
                    _share(layer["saturation"]),
                    str(layer["changed_experts"]),
                )
                for layer in summary["layers"]
            ),
        ),
    ]
    if summary["experts"]:
        sections.append(changed_section(summary, language))
    return _page(say("compare_title"), sections, say)


def comparison_lines(
    summary: Mapping[str, Any], titles: tuple[str, str], language: Language
) -> list[str]:
    """Return a comparison in sentences."""
    say = _Speaker(language)
    overlap, layers = summary["overlap"], summary["layers"]
    null = _share(overlap["null"])
    saturation = (
        say("no_saturation")
        if summary["saturation"] is None
        else say(
            "saturation_text",
            tokens=summary["same_tokens"], share=_share(summary["saturation"]), null=null,
        )
    )  # fmt: skip
    return [
        say(
            "lead_compare",
            first=titles[0], second=titles[1],
            first_tokens=summary["first"]["tokens"], second_tokens=summary["second"]["tokens"],
        ),
        say(
            "overlap_text",
            both=_share(overlap["overlap"]), one=_share(overlap["first"]),
            two=_share(overlap["second"]), null=null,
        ),
        saturation,
        say(
            "js_text",
            count=sum(layer["p_adjusted"] <= SIGNIFICANCE for layer in layers),
            layers=len(layers),
        ),
        *_changed_lines(summary, say),
    ]  # fmt: skip


def voice_rows(summary: Mapping[str, Any], language: Language) -> tuple[tuple[str, ...], ...]:
    """Return what is told of each voice: rows of a name, then a figure of every voice."""
    say = _Speaker(language)
    voices = summary["voices"]
    keys = [key for key in voices[0] if key not in ("name", "tokens")]
    rows = [(say("row_tokens"), *(str(voice["tokens"]) for voice in voices))]
    rows += [(say(f"row_{key}"), *(_number(voice[key]) for voice in voices)) for key in keys]
    return tuple(rows)


def overlap_rows(summary: Mapping[str, Any], language: Language) -> tuple[tuple[str, ...], ...]:
    """Return how many experts voices have in common: a row a voice, then chance."""
    say = _Speaker(language)
    rows = [
        (say("row_overlap", voice=voice["name"]), *(_share(value) for value in shares))
        for voice, shares in zip(summary["voices"], summary["overlap"], strict=True)
    ]
    null = _share(summary["null_overlap"])
    return (*rows, (say("row_null_overlap"), *(null for _ in summary["voices"])))


def axis_sections(axis: Mapping[str, Any], language: Language) -> Iterator[Section]:
    """Give how an axis was tested and what it could find, then what it found, group by group."""
    say = _Speaker(language)
    title = say("axis", axis=axis_title(axis["axis"], axis["only"], language))
    yield Section(title=title, texts=tuple(_power_lines(axis, say)))
    for group in axis["groups"]:
        if group["experts"]:
            head, rows = _expert_table(group["experts"], axis["null_rate"], say)
            yield Section(texts=(_found_line(group, say),), head=head, rows=rows)


def changed_section(summary: Mapping[str, Any], language: Language) -> Section:
    """Return the experts that two recordings choose with different frequency."""
    say = _Speaker(language)
    head, rows = _expert_table(
        summary["experts"], summary["overlap"]["null"], say, pair=("second", "first")
    )
    return Section(title=say("col_changed"), texts=(say("no_topics"),), head=head, rows=rows)


def asleep_text(found: Mapping[str, Any], language: Language) -> str:
    """Return in a sentence how many new experts are asleep."""
    say = _Speaker(language)
    if not found["new_experts"]:
        return say("asleep_none")
    return say(
        "asleep_text",
        new=found["new_experts"], never=found["never_chosen"],
        asleep=found["asleep"], share=_share(found["rarely_is_below"]),
    )  # fmt: skip


class _Speaker:
    """Says phrases in one language."""

    def __init__(self, language: Language) -> None:
        self.language = language

    def __call__(self, key: str, **values: object) -> str:
        return spoken(PHRASES, key, self.language, **values)

    def columns(self, *names: str) -> tuple[str, ...]:
        return tuple(self(f"col_{name}") for name in names)


def _page(title: str, sections: Sequence[Section], say: _Speaker) -> str:
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError("jinja2", "plots") from error
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["base64"] = lambda png: base64.b64encode(png).decode()
    source = resources.files("veche.experts") / "report.html.j2"
    template = environment.from_string(source.read_text(encoding="utf-8"))
    return template.render(
        title=title,
        sections=sections,
        language=say.language,
        footer=say("footer", version=__version__),
    )


def _lead(summary: Mapping[str, Any], say: _Speaker) -> Section:
    texts = [
        say(
            "lead",
            tokens=summary["tokens"], documents=summary["documents"], layers=summary["num_layers"],
            k=summary["top_k"], experts=summary["num_experts"], model=summary["model"] or "?",
        ),
        say("no_topics"),
    ]  # fmt: skip
    if summary["weights_say_nothing"]:
        texts.append(say("equal_weights"))
    if summary["identity"]:
        texts.append(say("identity", identity=summary["identity"]))
    return Section(texts=tuple(texts))


def _voices(
    summary: Mapping[str, Any], names: Mapping[str, str], picture: bytes, say: _Speaker
) -> Section:
    voices = summary["voices"]
    return Section(
        title=say("voices"),
        texts=(say("voices_text"),),
        head=("", *(names.get(voice["name"], voice["name"]) for voice in voices)),
        rows=voice_rows(summary, say.language),
        picture=picture,
    )


def _axes(
    axes: Sequence[Mapping[str, Any]], picture: bytes | None, say: _Speaker
) -> Iterator[Section]:
    for axis in axes:
        yield from axis_sections(axis, say.language)
    if picture is not None:
        yield Section(texts=(say("no_topics"),), picture=picture)


def _power_lines(axis: Mapping[str, Any], say: _Speaker) -> list[str]:
    tested = [group for group in axis["groups"] if group["design"]]
    if not tested:
        return [say("not_tested")]
    documents, others = max(group["documents"] for group in tested)
    design = "within" if tested[0]["design"] == "within documents" else "between"
    lines = [say(design, documents=documents, others=others), _power_line(axis, say)]
    if not any(group["significant"] for group in tested):
        lines.append(say("none_found"))
    return lines


def _power_line(axis: Mapping[str, Any], say: _Speaker) -> str:
    needed, tests = axis["needed_together"], axis["tests"]
    key = "power" if needed <= 1 else "little_power" if needed <= tests else "no_power"
    return say(key, tests=tests, smallest=_number(axis["smallest_p"]), needed=needed)


def _found_line(group: Mapping[str, Any], say: _Speaker) -> str:
    value, against = (name_of(group[key], say.language) for key in ("value", "against"))
    return say("found", value=value, against=against, count=group["significant"])


def _changed_lines(summary: Mapping[str, Any], say: _Speaker) -> list[str]:
    if summary["design"] is None:
        return [say("not_tested")]
    num_tests = len(summary["layers"]) * summary["num_experts"]
    axis = {
        "tests": num_tests,
        "smallest_p": summary["smallest_p"],
        "needed_together": summary["needed_together"],
        "groups": [
            {
                "design": summary["design"],
                "documents": summary["documents"],
                "significant": summary["changed_experts"],
            }
        ],
    }
    return _power_lines(axis, say)


def _expert_table(
    experts: Sequence[Mapping[str, Any]],
    null: float,
    say: _Speaker,
    *,
    pair: tuple[str, str] = ("rate", "rest"),
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    head = say.columns("layer", "expert", *pair, "null", "difference", "p")
    rows = tuple(
        (
            str(expert["layer"]),
            str(expert["expert"]),
            _share(expert["rate"]),
            _share(expert["rest"]),
            _share(null),
            f"{100 * expert['difference']:+.1f} %",
            _number(expert["p_adjusted"]),
        )
        for expert in experts[:_MOST_ROWS]
    )
    return head, rows


def _asleep(found: Mapping[str, Any] | None, say: _Speaker) -> Iterator[Section]:
    if found is not None:
        yield Section(
            title=say("asleep"),
            texts=(asleep_text(found, say.language),),
            head=say.columns("layer", "expert", "tokens", "relative"),
            rows=tuple(
                (
                    str(expert["layer"]),
                    str(expert["expert"]),
                    str(expert["tokens"]),
                    _number(expert["relative_load"]),
                )
                for expert in found["experts"][:_MOST_ROWS]
            ),
        )


def _pairs(summary: Mapping[str, Any], say: _Speaker) -> Iterator[Section]:
    if summary["coactivation"]:
        yield Section(
            title=say("pairs"),
            texts=(say("pairs_text", null=_share(summary["null_coactivation"])),),
            head=say.columns("layer", "experts", "share", "lift"),
            rows=tuple(
                (
                    str(pair["layer"]),
                    "{} → {}".format(*pair["experts"]),
                    _share(pair["share"]),
                    _number(pair["lift"]),
                )
                for pair in summary["coactivation"]
            ),
        )


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    if abs(value) < _NEXT_TO_NOTHING:
        return "0"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"

"""What `veche steer` prints for people."""

from itertools import islice
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from veche.cli.interval_cell import interval_cell
from veche.cli.terminal import stderr, stdout
from veche.core.language import Language
from veche.experts.bootstrap import Interval
from veche.experts.steering.apply import AnswerPair
from veche.experts.steering.basis import Finding, SteeringBasis
from veche.experts.steering.contrast import Contrast
from veche.experts.steering.figures import Evaluation
from veche.experts.steering.phrases import phrase
from veche.experts.steering.report import steered_experts

_MOST_NAMED = 12
_ENOUGH_TEXTS = 8
"""A bootstrap over fewer texts says more than they can tell: of two, any that agree exclude 0."""


def show_found(steering: SteeringBasis, found: Contrast, path: Path, language: Language) -> None:
    """Print the clearest experts, and how sure they are."""
    finding = steering.finding
    said = phrase(
        "found",
        language,
        significant=finding.num_significant,
        experts=found.q_values.size,
        num_for=finding.num_for,
        num_against=finding.num_against,
        towards=finding.towards,
        away_from=finding.away_from,
        favoured=int((steering.basis > 0).sum()),
        muted=int((steering.basis < 0).sum()),
    )
    stdout.print(said, soft_wrap=True)
    keys = ("col_layer", "col_expert", "col_basis", "col_difference", "col_rates")
    table = _table(*(phrase(key, language) for key in keys))
    for each in islice(steered_experts(steering, found), _MOST_NAMED):
        table.add_row(
            str(each.layer),
            str(each.expert),
            f"{each.basis:+.2f}",
            f"{each.difference:+.3f} [{each.low:+.3f}, {each.high:+.3f}]",
            f"{each.rate_for:.2f} / {each.rate_against:.2f}",
        )
    stdout.print(table)
    if (more := int((steering.basis != 0).sum()) - _MOST_NAMED) > 0:
        stdout.print(phrase("others", language, count=more))
    if found.needed_together > 1:
        smallest = f"{found.smallest_p:.2g}"
        few = phrase("few", language, smallest_p=smallest, needed=found.needed_together)
        stdout.print(few, soft_wrap=True)
    stdout.print(phrase("written", language, path=path), soft_wrap=True)
    stdout.print(phrase("next", language), soft_wrap=True)
    stderr.print(phrase("safety", language), soft_wrap=True)


def show_pair(pair: AnswerPair, strength: float, language: Language) -> None:
    """Print two answers side by side."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(phrase("plain", language), ratio=1)
    table.add_column(phrase("steered", language, strength=f"{strength:g}"), ratio=1)
    table.add_row(pair.plain.strip(), pair.steered.strip())
    stdout.print(table)
    stdout.print(phrase("common", language, common=pair.common_tokens), soft_wrap=True)
    stderr.print(phrase("safety", language), soft_wrap=True)


def show_evaluation(
    figures: Evaluation, finding: Finding, picture: Path, language: Language
) -> None:
    """Print effect and collateral over strengths, and what they say."""
    names = {"towards": finding.towards, "away_from": finding.away_from}
    said = phrase(
        "effect",
        language,
        num_for=figures.num_for,
        num_against=figures.num_against,
        nll_for=f"{figures.nll_for.mean:.3f}",
        nll_against=f"{figures.nll_against.mean:.3f}",
        **names,
    )
    stdout.print(said, soft_wrap=True)
    effect = ("nll_for", "nll_against", "preference", "favoured_rate", "muted_rate")
    stdout.print(_figures(figures, "effect", effect, language))
    nll = f"{figures.nll_neutral.mean:.3f}"
    collateral = phrase("collateral", language, pieces=figures.num_neutral, nll=nll)
    stdout.print(collateral, soft_wrap=True)
    stdout.print(_figures(figures, "collateral", ("nll", "agreement", "kl"), language))
    stdout.print(phrase("legend", language), soft_wrap=True)
    for line in verdicts(figures, language):
        stdout.print(line, soft_wrap=True)
    stdout.print(phrase("picture", language, path=picture), soft_wrap=True)
    stderr.print(phrase("safety", language), soft_wrap=True)


def verdicts(figures: Evaluation, language: Language) -> list[str]:
    """Say plainly which strengths lean as asked: a negative one is asked to lean the other way.

    Whether there were texts enough to tell is said first.
    """
    held_out = min(figures.num_for, figures.num_against)
    few = phrase("few_held_out", language, count=held_out, enough=_ENOUGH_TEXTS)
    found: dict[str, list[str]] = {}
    for row in figures.rows:
        preference = row.effect.preference
        is_up, is_down = preference.is_above_zero, preference.is_below_zero
        as_asked, backwards = (is_up, is_down) if row.strength > 0 else (is_down, is_up)
        kind = "works" if as_asked else "backwards" if backwards else "nothing"
        found.setdefault(kind, []).append(f"{row.strength:g}")
    said = [
        phrase(f"verdict_{kind}", language, strengths=", ".join(strengths))
        for kind, strengths in found.items()
    ]
    return [few, *said] if held_out < _ENOUGH_TEXTS else said


def _figures(figures: Evaluation, part: str, keys: tuple[str, ...], language: Language) -> Table:
    table = _table(*(phrase(f"col_{key}", language) for key in ("strength", *keys)))
    named = [(phrase("floor", language), figures.floor)]
    named += [(f"{row.strength:g}", row) for row in figures.rows]
    for name, row in named:
        values: Any = getattr(row, part)
        table.add_row(name, *(_cell(getattr(values, key), key) for key in keys))
    return table


def _cell(interval: Interval | None, key: str) -> str:
    form = ".1%" if key == "agreement" else ".3f" if key == "kl" else "+.3f"
    if interval is not None and key.endswith("_rate"):
        return format(interval.mean, form)  # its interval is in the JSON: there are 80 columns
    return interval_cell(interval, form)


def _table(first: str, *others: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(first, justify="right")
    for name in others:
        table.add_column(name, justify="right")
    return table

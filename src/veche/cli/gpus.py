"""`veche gpus`: the cards that veche knows, and those in this machine."""

from typing import TYPE_CHECKING

from veche.cli.terminal import JsonOption, LanguageOption, chosen_language, print_json, stdout

if TYPE_CHECKING:
    from veche.core.language import Language
    from veche.launch.gpus import Gpu


def gpus(lang: LanguageOption = None, as_json: JsonOption = False) -> None:
    """List the cards that `veche launch` knows, with their sources, and those in this machine."""
    from veche.launch.gpus import catalogue, user_file
    from veche.launch.local_gpu import local_gpus

    language = chosen_language(lang)
    cards, present = catalogue(), local_gpus()
    if not as_json:
        _show([*cards.values()], {each.card.name for each in present if each.card}, language)
        return
    print_json(
        {
            "gpus": [card.as_dict() for card in cards.values()],
            "local": [
                {
                    "title": each.title,
                    "visible_bytes": each.visible_bytes,
                    "name": each.card.name if each.card else None,
                }
                for each in present
            ],
            "user_file": str(user_file()),
        }
    )


def _show(cards: "list[Gpu]", present: set[str], language: "Language") -> None:
    from rich.table import Table

    from veche.cli.phrases import phrase
    from veche.launch.gpus import user_file

    table = Table(show_edge=False, pad_edge=False)
    table.add_column(phrase("col_gpu", language))
    for key in ("memory", "bandwidth", "bf16"):
        table.add_column(phrase(f"col_{key}", language), justify="right")
    for card in cards:
        low, high = card.visible_gib
        table.add_row(
            f"{card.name} ★" if card.name in present else card.name,
            f"{low:.2f}" if low == high else f"{low:.2f}–{high:.2f}",
            f"{card.bandwidth_gb_s:,.0f}",
            f"{card.tflops['bf16']:,.1f}",
        )
    stdout.print(table)
    stdout.print(phrase("more_gpus", language, path=user_file()), markup=False, soft_wrap=True)

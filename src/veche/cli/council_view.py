"""A council on the terminal: voices grow side by side while they speak, and stay when they end."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from veche.cli.phrases import phrase

if TYPE_CHECKING:
    from veche.core.language import Language
    from veche.core.transcript import Event
    from veche.council.result import CouncilResult
    from veche.roles.role import Role

_STYLES = ("cyan", "green", "magenta", "yellow", "blue")


class CouncilView:
    """Prints a council's events; on a terminal, every voice's words as they are decoded."""

    def __init__(self, console: Console, voices: "Sequence[Role]", language: "Language") -> None:
        from veche.council.readout import observation_text

        self._console, self._language = console, language
        self._titles = {voice.name: voice.title[language] for voice in voices}
        self._observation_text = observation_text
        self._growing: dict[str, str] = {}
        self._live: Live | None = None

    def on_token(self, label: str, piece: str) -> None:
        """Show the next piece of a voice's text."""
        if not self._console.is_terminal:
            return
        self._growing[label] = self._growing.get(label, "") + piece
        if self._live is None:
            self._live = Live(console=self._console, transient=True, refresh_per_second=8)
            self._live.start()
        panels = [self._panel(label, text) for label, text in self._growing.items()]
        self._live.update(Group(*panels))

    def on_event(self, event: "Event") -> None:
        """Show a finished text or a measurement."""
        self.stop()
        if event.kind == "TEXT_MESSAGE_CONTENT" and event.data["step"] != "synthesis":
            target = event.data.get("target")
            label = f"{event.voice} → {target}" if target else str(event.voice)
            self._console.print(self._panel(label, event.data["text"]))
        elif event.kind == "STATE_DELTA":
            text = self._observation_text([event.data], self._language)
            name = self._titles.get(str(event.voice), str(event.voice))
            self._console.print(f"{name}: {text}", style="dim", markup=False)
            self._console.print()

    def stop(self) -> None:
        """Take the growing texts off the screen."""
        if self._live is not None:
            self._live.stop()
        self._live, self._growing = None, {}

    def _panel(self, label: str, text: str) -> Panel:
        name, arrow, target = label.partition(" → ")
        style = (
            _STYLES[list(self._titles).index(name) % len(_STYLES)] if name in self._titles else ""
        )
        title = Text(self._titles.get(name, name) + arrow + target)
        return Panel(Text(text.strip() or "…"), title=title, title_align="left", border_style=style)


def show_end(console: Console, result: "CouncilResult", language: "Language") -> None:
    """Print the answer and the token bill."""
    if result.stopped_early:
        console.print(phrase("stopped_early", language), style="dim", markup=False)
    title = Text(phrase("answer", language), style="bold")
    console.print(Panel(Text(result.answer.strip()), title=title, title_align="left"))
    usage: Any = result.usage
    bill = phrase(
        "token_bill",
        language,
        prefilled=usage.prefilled_tokens,
        reused=usage.reused_tokens,
        decoded=usage.decoded_tokens,
        samples=result.bill.self_consistency_samples,
    )
    console.print(bill, style="dim", markup=False)

"""The texts that a steering is found with, or judged on."""

import hashlib
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from veche.core.errors import InputError
from veche.experts.inputs import read_items


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSet:
    """Texts of one kind.

    Attributes:
        name: what to call them: their file's stem.
        texts: without repetitions.
    """

    name: str
    texts: tuple[str, ...]

    def without(self, digests: Container[str]) -> "TextSet":
        """Return the texts whose digest is not among these."""
        left = tuple(text for text in self.texts if digest_of(text) not in digests)
        return TextSet(name=self.name, texts=left)

    def without_share(self, share: float, seed: int) -> "TextSet":
        """Return all but a random share of the texts, which stay unseen until they judge."""
        num_kept = len(self.texts) - round(share * len(self.texts))
        order = np.random.default_rng(seed).permutation(len(self.texts))[:num_kept]
        return TextSet(name=self.name, texts=tuple(self.texts[n] for n in sorted(order)))


def read_texts(path: Path) -> TextSet:
    """Read a file of texts: one a line, or JSONL with "text" or "prompt".

    Raises:
        InputError: it is missing, empty, or a line is a dialogue of several turns.
    """
    texts: dict[str, None] = {}
    for item in read_items(path):
        if item.text is None and len(item.messages) != 1:
            raise InputError(
                f"{path} holds dialogues, and steering is found with texts",
                hint='write {"text": "…"} a line',
            )
        texts[item.text if item.text is not None else item.messages[0].text] = None
    return TextSet(name=path.stem, texts=tuple(texts))


def pieces_of(text: str, *, num_pieces: int, characters: int) -> tuple[str, ...]:
    """Return pieces of a long text, evenly spaced, each of about so many characters.

    Raises:
        InputError: the text is shorter than two pieces.
    """
    possible = len(text) // characters
    if possible < 2:
        raise InputError(
            f"the neutral text has {len(text)} characters, and {2 * characters} are needed"
        )
    number = min(num_pieces, possible)
    starts = np.linspace(0, len(text) - characters, number).astype(int)
    return tuple(text[start : start + characters] for start in starts)


def digest_of(text: str) -> str:
    """Return a text's SHA-256, by which it is recognised."""
    return hashlib.sha256(text.encode()).hexdigest()


def digests_of(sets: Sequence[TextSet]) -> tuple[str, ...]:
    """Return the digests of all texts of some sets."""
    return tuple(digest_of(text) for each in sets for text in each.texts)

"""The words that a council's model reads, in English and Russian.

Short on purpose: a model of 135 M parameters must be able to follow them.
"""

import re
from collections.abc import Sequence

from veche.core.language import Language, Phrase

_SYSTEM: Phrase = {
    "en": "You are a helpful assistant. You answer questions truthfully.",
    "ru": "Ты полезный помощник. Ты правдиво отвечаешь на вопросы по-русски.",
}
_QUESTION: Phrase = {"en": "Question: {question}", "ru": "Вопрос: {question}"}
_DRAFT: Phrase = {
    "en": "{persona} Answer the question in one to three sentences.",
    "ru": "{persona} Ответь на вопрос одним-тремя предложениями.",
}
_DRAFTS_TITLE: Phrase = {"en": "Draft answers:", "ru": "Черновики ответов:"}
_DRAFT_LABEL: Phrase = {"en": "Draft {letter}", "ru": "Черновик {letter}"}
_OBJECT: Phrase = {
    "en": (
        'Draft {letter} says: "{draft}" Is this correct? If not, say in one sentence '
        "which claim is wrong and why. If it is, say: No fault."
    ),
    "ru": (
        "Черновик {letter} говорит: «{draft}» Верно ли это? Если нет, скажи одним "
        "предложением, какое утверждение неверно и почему. Если да, скажи: Ошибок нет."
    ),
}
_OBJECTIONS_TITLE: Phrase = {"en": "Objections:", "ru": "Возражения:"}
_OBJECTION_LABEL: Phrase = {"en": "To draft {letter}", "ru": "К черновику {letter}"}
_REVISE: Phrase = {
    "en": (
        '{persona} Your draft was: "{draft}" If the objection to draft {letter} is right, correct '
        "your answer; if not, keep it. Write only your answer to the question, in one to three "
        "sentences."
    ),
    "ru": (
        "{persona} Твой черновик: «{draft}» Если возражение к черновику {letter} верно, исправь "
        "свой ответ; если нет, оставь его. Напиши только ответ на вопрос, одним-тремя "
        "предложениями."
    ),
}
_REVISIONS_TITLE: Phrase = {"en": "Revised drafts:", "ru": "Исправленные черновики:"}
_AGREE: Phrase = {
    "en": "Before the objections, drafts {letters} agreed.",
    "ru": "До возражений черновики {letters} были согласны.",
}
_NONE_AGREE: Phrase = {
    "en": "Before the objections, no two drafts agreed.",
    "ru": "До возражений никакие два черновика не были согласны.",
}
_SYNTHESISE: Phrase = {
    "en": (
        "{persona} Weigh the drafts and the objections, which may be wrong. Answer the question "
        "yourself, in one to three sentences. If a draft that disagrees may be right, say so. "
        "Question: {question}"
    ),
    "ru": (
        "{persona} Взвесь черновики и возражения, которые могут быть неверны. Ответь на вопрос "
        "сам, одним-тремя предложениями. Если несогласный черновик может быть прав, скажи об этом. "
        "Вопрос: {question}"
    ),
}
_LABEL = re.compile(
    r"^(?:(?:to |revised )?draft|answer|question|к? ?черновик\w*|ответ|вопрос)(?: [A-Z])?: *",
    re.IGNORECASE,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_STOP: dict[Language, tuple[str, ...]] = {
    "en": ("\nDraft ", "\nTo draft ", "\nRevised drafts", "\nObjections:", "\nQuestion:"),
    "ru": ("\nЧерновик ", "\nК черновику ", "\nИсправленные", "\nВозражения:", "\nВопрос:"),
}


def stop_texts(language: Language) -> tuple[str, ...]:
    """Return the labels of our own layout: a voice that writes one has begun to imitate it."""
    return _STOP[language]


def without_label(text: str) -> str:
    """Strip blanks, and a label of our layout that a voice put before its answer."""
    return _LABEL.sub("", printable(text).strip()).strip()


def printable(text: str) -> str:
    """Drop control characters: what a model says must not steer the user's terminal."""
    return _CONTROL.sub("", text)


def system(language: Language) -> str:
    """Return the system message."""
    return _SYSTEM[language]


def question(text: str, language: Language) -> str:
    """Return the beginning of the trunk's user turn."""
    return _QUESTION[language].format(question=text)


def draft_task(persona: str, language: Language) -> str:
    """Ask a voice for its first draft."""
    return _DRAFT[language].format(persona=persona)


def objection_task(letter: str, draft: str, language: Language) -> str:
    """Ask the objector about one draft; its own prompt would be one task more."""
    return _OBJECT[language].format(letter=letter, draft=draft)


def revision_task(persona: str, letter: str, draft: str, language: Language) -> str:
    """Ask a voice to look at its own draft again."""
    return _REVISE[language].format(persona=persona, letter=letter, draft=draft)


def synthesis_task(persona: str, text: str, language: Language) -> str:
    """Ask for the final answer."""
    return _SYNTHESISE[language].format(persona=persona, question=text)


def drafts(texts: Sequence[tuple[str, str]], language: Language) -> str:
    """Lay out drafts as (letter, text), without their authors."""
    return _block(_DRAFTS_TITLE, _DRAFT_LABEL, texts, language)


def objections(texts: Sequence[tuple[str, str]], language: Language) -> str:
    """Lay out objections as (letter of the draft, text)."""
    return _block(_OBJECTIONS_TITLE, _OBJECTION_LABEL, texts, language)


def revisions(texts: Sequence[tuple[str, str]], language: Language) -> str:
    """Lay out revised drafts as (letter, text)."""
    return _block(_REVISIONS_TITLE, _DRAFT_LABEL, texts, language)


def vote(letters: Sequence[str], language: Language) -> str:
    """Say which drafts agreed before anyone objected; `letters` is the largest group."""
    if len(letters) < 2:
        return "\n\n" + _NONE_AGREE[language]
    return "\n\n" + _AGREE[language].format(letters=", ".join(letters))


def _block(
    title: Phrase, label: Phrase, texts: Sequence[tuple[str, str]], language: Language
) -> str:
    lines = [f"{label[language].format(letter=letter)}: {text}" for letter, text in texts]
    return "\n\n" + "\n".join([title[language], *lines])

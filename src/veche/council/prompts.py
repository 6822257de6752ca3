"""The words that a council's model reads, in English and Russian.

Short on purpose: a model of 135 M parameters must be able to follow them.
"""

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
        "Check draft {letter}. If one of its claims is wrong, quote the claim and say what is "
        "right, in one sentence. If it has no error, say: No fault."
    ),
    "ru": (
        "Проверь черновик {letter}. Если в нём есть неверное утверждение, процитируй его и скажи, "
        "как верно, одним предложением. Если ошибок нет, скажи: Ошибок нет."
    ),
}
_OBJECTIONS_TITLE: Phrase = {"en": "Objections:", "ru": "Возражения:"}
_OBJECTION_LABEL: Phrase = {"en": "To draft {letter}", "ru": "К черновику {letter}"}
_REVISE: Phrase = {
    "en": (
        "{persona} Draft {letter} is yours. If the objection to it is right, correct the draft; "
        "if not, repeat it. Write only the answer, in one to three sentences."
    ),
    "ru": (
        "{persona} Черновик {letter} твой. Если возражение к нему верно, исправь черновик; если "
        "нет, повтори его. Напиши только ответ, одним-тремя предложениями."
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
        "{persona} Using the drafts and the objections that are right, write the final answer to "
        "the question: {question} Do not mention the drafts. If a draft that disagrees may be "
        "right, say so in one sentence."
    ),
    "ru": (
        "{persona} По черновикам и верным возражениям напиши окончательный ответ на вопрос: "
        "{question} Не упоминай черновики. Если несогласный черновик может быть прав, скажи об "
        "этом одним предложением."
    ),
}


def system(language: Language) -> str:
    """Return the system message."""
    return _SYSTEM[language]


def question(text: str, language: Language) -> str:
    """Return the beginning of the trunk's user turn."""
    return _QUESTION[language].format(question=text)


def draft_task(persona: str, language: Language) -> str:
    """Ask a voice for its first draft."""
    return _task(_DRAFT[language].format(persona=persona))


def objection_task(letter: str, language: Language) -> str:
    """Ask the objector about one draft."""
    return _task(_OBJECT[language].format(letter=letter))


def revision_task(persona: str, letter: str, language: Language) -> str:
    """Ask a voice to look at its own draft again."""
    return _task(_REVISE[language].format(persona=persona, letter=letter))


def synthesis_task(persona: str, text: str, language: Language) -> str:
    """Ask for the final answer."""
    return _task(_SYNTHESISE[language].format(persona=persona, question=text))


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


def _task(text: str) -> str:
    return "\n\n" + text.strip()


def _block(
    title: Phrase, label: Phrase, texts: Sequence[tuple[str, str]], language: Language
) -> str:
    lines = [f"{label[language].format(letter=letter)}: {text}" for letter, text in texts]
    return "\n\n" + "\n".join([title[language], *lines])

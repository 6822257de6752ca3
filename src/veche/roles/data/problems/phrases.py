"""What is said of made problems and of answers to them."""

from veche.core.language import Language, Phrase, spoken

_PHRASES: dict[str, Phrase] = {
    "generated": {
        "en": "{file}: {examples:,} examples of {problems:,} problems",
        "ru": "{file}: примеров — {examples:,}, задач — {problems:,}",
    },
    "collected": {
        "en": "{file}: {answers:,} answers to {questions:,} questions, {share:.1%} right",
        "ru": "{file}: ответов — {answers:,}, вопросов — {questions:,}, верных — {share:.1%}",
    },
    "col_kind": {"en": "kind", "ru": "вид"},
    "col_language": {"en": "language", "ru": "язык"},
    "col_difficulty": {"en": "difficulty", "ru": "трудность"},
    "col_right": {"en": "right", "ru": "верно"},
    "col_interval": {"en": "95 % interval", "ru": "интервал 95 %"},
    "col_voice": {"en": "voice", "ru": "голос"},
    "col_answers": {"en": "answers", "ru": "ответов"},
    "found": {"en": "in the band", "ru": "в полосе"},
    "too hard": {
        "en": "too hard for this model, even at difficulty 1",
        "ru": "слишком трудно для этой модели даже при трудности 1",
    },
    "too easy": {
        "en": "too easy for this model, even at the highest difficulty",
        "ru": "слишком легко для этой модели даже при наибольшей трудности",
    },
    "gap": {
        "en": "above the band at one difficulty, below it at the next",
        "ru": "выше полосы при одной трудности, ниже при следующей",
    },
    "as_chance": {
        "en": "no better than guessing, which gets {chance:.0%}",
        "ru": "не лучше угадывания, при котором верно {chance:.0%}",
    },
}


def phrase(key: str, language: Language, **values: object) -> str:
    """Return a phrase in `language`, with its placeholders filled."""
    return spoken(_PHRASES, key, language, **values)

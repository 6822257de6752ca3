"""Headings and lines that commands print around their results, in English and Russian."""

from functools import partial

from veche.core.language import Phrase, spoken

PHRASES: dict[str, Phrase] = {
    "col_engine": {"en": "engine", "ru": "движок"},
    "col_weights_type": {"en": "weights as", "ru": "веса как"},
    "col_kv_type": {"en": "KV as", "ru": "KV как"},
    "col_fits": {"en": "fits", "ru": "помещается"},
    "col_weights": {"en": "weights", "ru": "веса"},
    "col_kv_left": {"en": "left for KV", "ru": "остаётся для KV"},
    "col_context": {"en": "context, tokens", "ru": "контекст, токены"},
    "col_speed": {"en": "tokens/s", "ru": "токенов/с"},
    "answer": {"en": "Answer", "ru": "Ответ"},
    "stopped_early": {
        "en": "The blind drafts agreed: no debate was needed.",
        "ru": "Черновики, написанные вслепую, сошлись: спорить было не о чем.",
    },
    "token_bill": {
        "en": "Token bill: {prefilled} prefilled, {reused} read from the shared trunk instead of "
        "being prefilled, {decoded} decoded. The same tokens buy {samples} independent samples.",
        "ru": "Счёт в токенах: {prefilled} обработано, {reused} прочитано из общего начала вместо "
        "повторной обработки, {decoded} порождено. За столько же — независимых ответов: {samples}.",
    },
    "answering": {"en": "{voice} speaks", "ru": "говорит {voice}"},
}

phrase = partial(spoken, PHRASES)
"""Return the phrase `key` in `language`, with its placeholders filled."""

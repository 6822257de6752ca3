"""Headings and lines that commands print around their results, in English and Russian."""

from functools import partial

from veche.core.language import Phrase, spoken

PHRASES: dict[str, Phrase] = {
    "col_engine": {"en": "engine", "ru": "движок"},
    "col_types": {"en": "weights / KV", "ru": "веса / KV"},
    "col_fits": {"en": "fits", "ru": "войдёт"},
    "col_weights": {"en": "weights, GiB", "ru": "веса, ГиБ"},
    "col_kv_left": {"en": "left for KV, GiB", "ru": "остаётся KV, ГиБ"},
    "col_context": {"en": "context, tokens", "ru": "контекст, токены"},
    "col_speed": {"en": "tokens/s", "ru": "токенов/с"},
    "nearest": {"en": "What fits instead:", "ru": "Что поместится вместо этого:"},
    "col_quantity": {"en": "quantity", "ru": "величина"},
    "col_predicted": {"en": "predicted", "ru": "предсказано"},
    "col_fact": {"en": "in the log", "ru": "в журнале"},
    "col_holds": {"en": "holds", "ru": "верно"},
    "log_learned": {
        "en": "Kept: predictions for this machine and engine are now narrower "
        "(veche calibrations).",
        "ru": "Сохранено: предсказания для этой машины и движка стали уже (veche calibrations).",
    },
    "log_not_learned": {
        "en": "Nothing kept: this log was read before, or it does not say what the engine took, "
        "or it is of another model or a shared card.",
        "ru": "Ничего не сохранено: этот журнал уже прочитан, или в нём нет того, сколько занял "
        "движок, или он о другой модели или о занятой карте.",
    },
    "no_calibrations": {
        "en": "Nothing yet: veche launch MODEL --parse-log FILE reads an engine's start-up log.",
        "ru": "Пока ничего: veche launch MODEL --parse-log FILE читает журнал запуска движка.",
    },
    "col_gpu": {"en": "card", "ru": "карта"},
    "col_memory": {"en": "memory, GiB", "ru": "память, ГиБ"},
    "col_bandwidth": {"en": "GB/s", "ru": "ГБ/с"},
    "col_bf16": {"en": "TFLOP/s bf16", "ru": "TFLOP/s bf16"},
    "more_gpus": {
        "en": "★ is in this machine. Sources: --json. More cards: describe them in {path}",
        "ru": "★ есть в этой машине. Источники: --json. Новые карты: опишите их в {path}",
    },
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

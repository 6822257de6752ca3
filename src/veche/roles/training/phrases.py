"""What is said of trainings, in English and Russian."""

from functools import partial

from veche.core.language import Phrase, spoken

PHRASES: dict[str, Phrase] = {
    "learnt_from": {
        "en": "{examples} examples: {tokens} tokens, of which {loss_tokens} are learnt",
        "ru": "Примеров: {examples}; токенов: {tokens}, из них изучаются {loss_tokens}",
    },
    "too_long": {
        "en": "left out, because they have more than {max_length} tokens: {count} (the longest has "
        "{longest})",
        "ru": "пропущено, потому что в них больше {max_length} токенов: {count} (в самом длинном "
        "{longest})",
    },
    "wrong": {
        "en": "left out, because their answers are known to be wrong: {count}",
        "ru": "пропущено, потому что их ответы заведомо неверны: {count}",
    },
    "col_dial": {"en": "dial", "ru": "параметр"},
    "col_value": {"en": "value", "ru": "значение"},
    "col_reason": {"en": "why", "ru": "почему"},
    "given": {"en": "given, or the default", "ru": "задано или по умолчанию"},
    "col_memory": {"en": "memory", "ru": "память"},
    "weights": {"en": "weights of the base model", "ru": "веса исходной модели"},
    "adapter": {"en": "adapter", "ru": "адаптер"},
    "gradients": {"en": "gradients", "ru": "градиенты"},
    "optimizer": {"en": "optimiser's state", "ru": "состояние оптимизатора"},
    "prefix": {"en": "keys and values of the prefix", "ru": "ключи и значения префикса"},
    "activations": {"en": "kept for the backward pass", "ru": "хранится для обратного прохода"},
    "logits": {"en": "output layer", "ru": "выходной слой"},
    "total": {"en": "in all, besides the libraries", "ru": "всего, не считая библиотек"},
    "one_card": {"en": "fits one card: {cards}", "ru": "хватит одной карты: {cards}"},
    "shared": {
        "en": "divided among several (FSDP): {cards}",
        "ru": "с делением на несколько (FSDP): {cards}",
    },
    "no_card": {
        "en": "too small at any number: {cards} (a smaller --micro-batch or --max-length helps)",
        "ru": "мало при любом числе: {cards} (поможет меньше --micro-batch или --max-length)",
    },
    "emitted": {"en": "Written: {path}", "ru": "Записано: {path}"},
    "done": {
        "en": "Trained in {minutes} min: loss {first} → {last} nats a token, {speed} tokens/s",
        "ru": "Обучено за {minutes} мин: потери {first} → {last} ната на токен, {speed} ток/с",
    },
    "files": {
        "en": "Adapter, record and loss curve: {path}",
        "ru": "Адаптер, запись и кривая потерь: {path}",
    },
    "saved": {
        "en": "Role {name}: version {number} is in use",
        "ru": "Роль {name}: используется версия {number}",
    },
    "merged": {
        "en": "A whole checkpoint, with the adapter merged into its experts: {path}",
        "ru": "Целый чекпойнт, адаптер влит в его экспертов: {path}",
    },
    "probe_done": {"en": "Probe and record: {path}", "ru": "Зонд и запись: {path}"},
    "scored": {
        "en": "{reads}: on problems that were left out AUROC {auroc}, above what the text alone "
        "shows by {gain}",
        "ru": "{reads}: на отложенных задачах AUROC {auroc}, больше того, что видно по одному "
        "тексту, на {gain}",
    },
    "reads_answer": {"en": "Is the answer right?", "ru": "Верен ли ответ?"},
    "reads_step": {"en": "Which step is the first wrong one?", "ru": "Какой шаг первый неверный?"},
    "told_apart": {
        "en": "{intents} intents of {examples} questions; of known ones that were left out, "
        "{share} were told right",
        "ru": "Намерений: {intents}, вопросов: {examples}; из отложенных с известным намерением "
        "верно узнано {share}",
    },
    "next": {
        "en": "Next, on examples that it has not learnt from: {command}",
        "ru": "Далее, на примерах, на которых она не училась: {command}",
    },
}
"""`{placeholders}` are the same in both languages."""

phrase = partial(spoken, PHRASES)
"""Call it as `phrase(key, language, **values)`."""

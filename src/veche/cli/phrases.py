"""Headings and lines that commands print around their results, in English and Russian."""

from functools import partial

from veche.core.language import Phrase, spoken

PHRASES: dict[str, Phrase] = {
    "col_types": {"en": "weights/KV", "ru": "веса/KV"},
    "col_weights": {"en": "GiB", "ru": "ГиБ"},
    "col_kv_left": {"en": "KV left", "ru": "для KV"},
    "col_context": {"en": "context", "ru": "контекст"},
    "col_sessions": {"en": "sess.", "ru": "сесс."},
    "col_first_token": {"en": "1st, s", "ru": "1-й, с"},
    "col_speed": {"en": "tok/s", "ru": "ток/с"},
    "launch_legend": {
        "en": "★ recommended, ✓ fits, ✗ does not fit; GiB: the weights\n"
        "KV left: GiB of a card for its KV cache; context: the longest that surely fits{largest}\n"
        "sess.: sessions of the served length; tok/s: of one, behind a short context\n"
        "1st: seconds to the first token after a prompt of 4,096 tokens",
        "ru": "★ лучший, ✓ входит, ✗ не входит; ГиБ — веса\n"
        "для KV — ГиБ карты под KV-кэш; контекст — самый длинный, что точно войдёт{largest}\n"
        "сесс. — сессий подаваемой длины; ток/с — у одной, с коротким контекстом\n"
        "1-й — секунд до первого токена после запроса в 4096 токенов",
    },
    "launch_share": {
        "en": ",\nat up to this share of the card: {shares}",
        "ru": ",\nпри доле карты до: {shares}",
    },
    "nearest": {
        "en": "What fits instead, the nearest first:",
        "ru": "Что поместится вместо этого, начиная с ближайшего:",
    },
    "nothing_nearest": {
        "en": "Nothing near it fits: no other data types, no shorter context, no 8 cards.",
        "ru": "Ничто близкое не входит: ни другие типы, ни короче контекст, ни 8 карт.",
    },
    "placeholder_base": {
        "en": "MODEL is the folder or hub name of the weights of {base}",
        "ru": "MODEL — папка или имя на хабе с весами {base}",
    },
    "placeholder_plan": {
        "en": "MODEL is the folder that veche build makes of this plan",
        "ru": "MODEL — папка, которую veche build сделает по этому плану",
    },
    "undecided": {
        "en": "undecided: {fields} contradict each other, and veche build refuses that; decide "
        "with veche plan {model} --out plan.json and {flags} — the numbers here are of the target "
        "as it is written",
        "ru": "не решено: {fields} противоречат друг другу, и veche build откажет; решите: veche "
        "plan {model} --out plan.json и {flags} — числа здесь для цели, как она записана",
    },
    "col_quantity": {"en": "quantity", "ru": "величина"},
    "col_predicted": {"en": "predicted", "ru": "предсказано"},
    "col_fact": {"en": "in the log", "ru": "в журнале"},
    "col_holds": {"en": "holds", "ru": "верно"},
    "log_learned": {
        "en": "Kept in {file}: predictions for this machine, card and engine are now narrower. "
        "List it: veche launch calibrations; forget it: veche launch calibrations --forget.",
        "ru": "Сохранено в {file}: предсказания для этой машины, карты и движка стали уже. "
        "Список: veche launch calibrations; забыть: veche launch calibrations --forget.",
    },
    "log_not_learned": {
        "en": "Nothing kept: {why}.",
        "ru": "Ничего не сохранено: {why}.",
    },
    "read_before": {
        "en": "this log was read before",
        "ru": "этот журнал уже прочитан",
    },
    "no_overhead": {
        "en": "the log does not say what the engine took beside weights and KV cache",
        "ru": "в журнале нет того, сколько движок занял кроме весов и KV-кэша",
    },
    "other_weights": {
        "en": "the log's weights are not the predicted ones: it is of another model or "
        "quantisation (say which: MODEL, --quant)",
        "ru": "веса в журнале не те, что предсказаны: он о другой модели или другом квантовании "
        "(назовите их: MODEL, --quant)",
    },
    "far_outside": {
        "en": "what the engine took is far outside the interval: another program was on the card, "
        "or --gpu is another card",
        "ru": "движок занял намного больше или меньше предсказанного: карту занимала другая "
        "программа, или --gpu — другая карта",
    },
    "no_calibrations": {
        "en": "Nothing yet: veche launch --parse-log FILE reads an engine's start-up log.",
        "ru": "Пока ничего: veche launch --parse-log FILE читает журнал запуска движка.",
    },
    "calibration": {
        "en": "{where}: overhead {size} a card (what the engine takes beside weights and KV cache)",
        "ru": "{where}: накладные расходы {size} на карту (что движок берёт кроме весов и KV-кэша)",
    },
    "calibrations_kept": {
        "en": "Kept in {file}; forget it: veche launch calibrations --forget",
        "ru": "Хранится в {file}; забыть: veche launch calibrations --forget",
    },
    "forgotten": {
        "en": "Logs forgotten: {count} ({file})",
        "ru": "Журналов забыто: {count} ({file})",
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
    "js_mean": {
        "en": "next token, JS: {bits:.4f} bits on average (0 is alike, 1 nothing in common)",
        "ru": "следующий токен, JS: в среднем {bits:.4f} бит (0 — одно и то же, 1 — ничего общего)",
    },
    "surprise_mean": {
        "en": "surprise of {voice}: {nats:.3f} nats a token",
        "ru": "неожиданность для {voice}: {nats:.3f} нат на токен",
    },
    "states_part": {
        "en": "states: furthest apart in layer {layer}: 1 − cos = {distance:.4f}, CKA = {cka:.3f}",
        "ru": "состояния: дальше всего в слое {layer}: 1 − cos = {distance:.4f}, CKA = {cka:.3f}",
    },
    "experts_in_common": {
        "en": "experts in common: {share:.1%} (by chance {null:.1%})",
        "ru": "общие эксперты: {share:.1%} (случайно {null:.1%})",
    },
    "col_disputed": {"en": "most disputed", "ru": "спорнее всего"},
    "col_js_bits": {"en": "JS, bits", "ru": "JS, бит"},
    "col_surprise": {"en": "surprise of {voice}", "ru": "неожид. для {voice}"},
    "col_layer": {"en": "layer", "ru": "слой"},
    "col_entropy": {"en": "entropy", "ru": "энтропия"},
    "col_distance": {"en": "distance", "ru": "расстояние"},
    "col_norm": {"en": "output norm", "ru": "норма"},
    "col_effective": {"en": "effective", "ru": "действ."},
    "col_alike": {"en": "most alike", "ru": "схожи"},
    "col_cosine": {"en": "cosine", "ru": "косинус"},
    "heads_legend": {
        "en": "means over {tokens} tokens, least – most of the heads; entropy in nats, distance in "
        "tokens; effective: how many heads would do the same if they had nothing in common",
        "ru": "средние по токенам ({tokens}), от наименьшей до наибольшей головы; энтропия — наты, "
        "расстояние в токенах, норма — вывода; действ. — сколько голов делали бы то же, не имея "
        "ничего общего",
    },
    "col_new": {"en": "new", "ru": "новое"},
    "col_count": {"en": "how many", "ru": "сколько"},
    "col_awake": {"en": "awake", "ru": "работают"},
    "col_silent": {"en": "silent", "ru": "молчат"},
    "col_twins": {"en": "twins", "ru": "двойники"},
    "awake_in_layer": {
        "en": "layer {layer}: awake: {parts}",
        "ru": "слой {layer}: работают: {parts}",
    },
    "awake_head": {"en": "head {number}", "ru": "голова {number}"},
    "awake_expert": {"en": "expert {number}", "ru": "эксперт {number}"},
    "asleep_legend": {
        "en": "silent: adds next to nothing yet; twin: computes what an old part computes; both "
        "are asleep until training wakes them",
        "ru": "молчат — пока почти ничего не добавляют; двойники — вычисляют то же, что старая "
        "часть; те и другие спят, пока их не разбудит обучение",
    },
    "answering": {"en": "{voice} speaks", "ru": "говорит {voice}"},
}

phrase = partial(spoken, PHRASES)
"""Return the phrase `key` in `language`, with its placeholders filled."""

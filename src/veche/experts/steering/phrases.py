"""What is said of steerings, in English and Russian."""

from functools import partial

from veche.core.language import Phrase, spoken

PHRASES: dict[str, Phrase] = {
    "found": {
        "en": "{significant} of {experts} experts are active more or less often in {num_for} texts "
        "of {towards} than in {num_against} of {away_from} (false discovery rate 5 %, texts dealt "
        "out anew). {favoured} are favoured, {muted} muted; the clearest:",
        "ru": "Экспертов, которые в текстах {towards} ({num_for}) активны чаще или реже, чем в "
        "{away_from} ({num_against}): {significant} из {experts} (доля ложных открытий 5 %, тексты "
        "пересданы). Усиливаются: {favoured}, глушатся: {muted}; самые явные:",
    },
    "few": {
        "en": "So few texts: no p-value is below {smallest_p}, so {needed} experts had to differ "
        "that clearly at once. More texts find weaker differences.",
        "ru": "Текстов мало: p не бывает ниже {smallest_p}, так что столь же явно должны были "
        "различаться сразу {needed} экспертов. Больше текстов — видны слабые различия.",
    },
    "others": {"en": "… and {count} more", "ru": "… и ещё {count}"},
    "col_layer": {"en": "layer", "ru": "слой"},
    "col_expert": {"en": "expert", "ru": "эксп."},
    "col_basis": {"en": "basis", "ru": "вес"},
    "col_difference": {"en": "difference [95 %]", "ru": "разность [95 %]"},
    "col_rates": {"en": "rates", "ru": "частоты"},
    "written": {"en": "Written: {path}", "ru": "Записано: {path}"},
    "next": {
        "en": "Rates say where tokens go, not what an answer becomes: measure it with "
        "veche steer evaluate, on the same files (the held-out texts are kept apart).",
        "ru": "Частоты говорят, куда идут токены, а не каким станет ответ: измерьте это командой "
        "veche steer evaluate на тех же файлах (отложенные тексты не смешаны).",
    },
    "safety": {
        "en": "Steering goes around what a model was trained to do, safety behaviour included: an "
        "unsteered refusal may become an answer. Never serve it unmeasured. On small models "
        "effects are small.",
        "ru": "Управление экспертами обходит то, чему модель учили, в том числе осторожность: "
        "вместо отказа может прозвучать ответ. Не применяйте его без замеров. На малых моделях "
        "эффект мал.",
    },
    "other_model": {
        "en": "warning: this steering was found with other weights ({model}); experts have numbers "
        "only, and these may be others",
        "ru": "внимание: это управление найдено на других весах ({model}); у экспертов есть лишь "
        "номера, и это могут быть не те эксперты",
    },
    "plain": {"en": "Without steering", "ru": "Без управления"},
    "steered": {"en": "Steered, strength {strength}", "ru": "С управлением, сила {strength}"},
    "common": {
        "en": "Same seed; the first {common} tokens are the same.",
        "ru": "Одно зерно; одинаковых токенов в начале: {common}.",
    },
    "effect": {
        "en": "Effect, on {num_for} + {num_against} held-out texts (NLL unsteered: {towards} "
        "{nll_for}, {away_from} {nll_against})",
        "ru": "Эффект на отложенных текстах, {num_for} + {num_against} (NLL без управления: "
        "{towards} {nll_for}, {away_from} {nll_against})",
    },
    "collateral": {
        "en": "Collateral, on {pieces} pieces of neutral text (NLL unsteered: {nll})",
        "ru": "Побочное действие на кусках нейтрального текста, {pieces} (NLL без управления: "
        "{nll})",
    },
    "col_strength": {"en": "strength", "ru": "сила"},
    "few_held_out": {
        "en": "Only {count} texts of a set were held out: intervals over so few are too narrow, "
        "and one over two texts misses 0 by chance half of the time. Hold out {enough} or more.",
        "ru": "Для оценки отложено текстов: {count}. Интервалы по столь немногим слишком узки; на "
        "двух текстах интервал без нуля выходит случайно в половине случаев. Отложите хотя бы "
        "{enough}.",
    },
    "floor": {"en": "floor", "ru": "порог"},
    "col_nll_for": {"en": "ΔNLL for", "ru": "ΔNLL за"},
    "col_nll_against": {"en": "ΔNLL against", "ru": "ΔNLL против"},
    "col_preference": {"en": "preference", "ru": "перевес"},
    "col_favoured_rate": {"en": "favoured", "ru": "усил."},
    "col_muted_rate": {"en": "muted", "ru": "заглуш."},
    "col_nll": {"en": "ΔNLL", "ru": "ΔNLL"},
    "col_agreement": {"en": "same token", "ru": "тот же токен"},
    "col_kl": {"en": "KL", "ru": "KL"},
    "legend": {
        "en": "Nats a token; [ ]: 95 % intervals, bootstrap over texts. preference: how much more "
        "the texts to steer against cost than those to steer for, compared with the unsteered "
        "model; above 0 is what was asked for. favoured, muted: change of the share of tokens. "
        "floor: a strength of 0.001, which only breaks ties; what is no larger is noise.",
        "ru": "Наты на токен; [ ] — интервалы 95 %, бутстрап по текстам. Перевес: насколько больше "
        "подорожали тексты «против», чем тексты «за», по сравнению с моделью без управления; "
        "выше 0 — то, о чём просили. Усиленные, заглушённые: изменение доли токенов. "
        "порог: сила 0,001, она лишь решает между равными; всё, что не больше, — шум.",
    },
    "caption": {
        "en": "Bands: 95 % intervals, bootstrap over texts. Dotted: the floor (strength 0.001).",
        "ru": "Полосы — интервалы 95 %, бутстрап по текстам. Пунктир — порог шума, сила 0,001.",
    },
    "verdict_works": {
        "en": "Leans as asked, beyond the intervals, at strength {strengths}.",
        "ru": "Склоняет, куда просили, вне пределов погрешности, при силе {strengths}.",
    },
    "verdict_backwards": {
        "en": "Leans the OTHER way, beyond the intervals, at strength {strengths}: where tokens go "
        "is not what the model says.",
        "ru": "Склоняет в ДРУГУЮ сторону, вне пределов погрешности, при силе {strengths}: куда "
        "идут токены — ещё не то, что модель говорит.",
    },
    "verdict_nothing": {
        "en": "No leaning beyond the intervals at strength {strengths}.",
        "ru": "Нет склонения вне пределов погрешности при силе {strengths}.",
    },
    "picture": {"en": "Picture: {path}", "ru": "Рисунок: {path}"},
    "title": {
        "en": "Steering for {towards}, against {away_from}",
        "ru": "Управление: за {towards}, против {away_from}",
    },
    "axis_strength": {"en": "strength, nats", "ru": "сила, наты"},
    "axis_effect": {"en": "Effect: ΔNLL, nats a token", "ru": "Эффект: ΔNLL, нат на токен"},
    "axis_preference": {"en": "Effect: preference, nats a token", "ru": "Эффект: перевес, нат"},
    "axis_neutral": {
        "en": "Collateral: neutral text, nats a token",
        "ru": "Побочно: нейтральный текст, нат на токен",
    },
    "axis_agreement": {"en": "Collateral: same next token", "ru": "Побочно: тот же токен"},
}
"""`{placeholders}` are the same in both languages."""

phrase = partial(spoken, PHRASES)
"""Call it as `phrase(key, language, **values)`."""

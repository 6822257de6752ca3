"""What healing says, in English and Russian."""

from functools import partial

from veche.core.language import Phrase, spoken

PHRASES: dict[str, Phrase] = {
    "towards": {
        "en": "{student}{dials} is healed towards {teacher}",
        "ru": "{student}{dials} лечится по образцу {teacher}",
    },
    "trained": {"en": "trained: {parts}", "ru": "обучаются: {parts}"},
    "part": {"en": "{part} ({count})", "ru": "{part} ({count})"},
    "routers": {"en": "routers", "ru": "маршрутизаторы"},
    "experts": {"en": "experts' outputs", "ru": "выходы экспертов"},
    "attention": {"en": "low-rank attention", "ru": "внимание малого ранга"},
    "new": {"en": "new units", "ru": "новые части"},
    "fitted_first": {
        "en": "first, routers and experts are fitted layer by layer on {tokens} tokens",
        "ru": "сначала маршрутизаторы и эксперты подбираются по слоям на токенах: {tokens}",
    },
    "amount_minutes": {
        "en": "then it is distilled for the rest of {minutes:g} minutes, by {optimizer}",
        "ru": "затем дистилляция до конца отведённых минут ({minutes:g}), {optimizer}",
    },
    "amount_steps": {
        "en": "then it is distilled for {steps} steps, by {optimizer}",
        "ru": "затем дистилляция, шагов: {steps}, {optimizer}",
    },
    "text": {
        "en": "text: {train} tokens to learn from, {heldout} to measure on ({source})",
        "ru": "текст: токенов для обучения {train}, для измерения {heldout} ({source})",
    },
    "own_text": {
        "en": "Python's help topics and sources",
        "ru": "справка и исходники Python",
    },
    "memory": {
        "en": "memory: about {peak} (weights {weights}, states {states}, activations "
        "{activations}, fit {fitting}); free: {free}; disk: {disk}",
        "ru": "память: около {peak} (веса {weights}, состояния {states}, активации {activations}, "
        "подбор {fitting}); свободно: {free}; диск: {disk}",
    },
    "unknown": {"en": "unknown", "ru": "неизвестно"},
    "done": {
        "en": "{target}: {steps} steps in {minutes:.1f} minutes",
        "ru": "{target}: шагов {steps} за {minutes:.1f} мин",
    },
    "col_figure": {"en": "held-out text", "ru": "отложенный текст"},
    "col_before": {"en": "before", "ru": "до"},
    "col_fitted": {"en": "fitted", "ru": "после подбора"},
    "col_after": {"en": "healed", "ru": "после"},
    "row_delta": {"en": "NLL above the source", "ru": "NLL выше исходной"},
    "row_kl": {"en": "KL(source‖model)", "ru": "KL(исходная‖модель)"},
    "row_top1": {"en": "same next token", "ru": "тот же токен"},
    "row_recovered": {"en": "recovered", "ru": "возвращено"},
    "legend": {
        "en": "The source's own NLL is {nll:.3f}. Nats a token; [ ]: 95 % intervals, paired "
        "bootstrap over {windows} windows that nothing was learnt from.",
        "ru": "NLL исходной модели {nll:.3f}. Наты на токен; [ ] — интервалы 95 %, парный бутстрап "
        "по окнам, на которых ничего не училось: {windows}.",
    },
    "not_lost": {
        "en": "The interval of what was lost reaches 0: there was hardly anything to heal.",
        "ru": "Интервал потери доходит до 0: лечить было почти нечего.",
    },
    "worse": {
        "en": "The healed model is WORSE than before, in NLL or KL. Learn from text of the kind "
        "that is measured on (--text), take a lower --learning-rate, or keep the model as it was.",
        "ru": "После лечения модель стала ХУЖЕ по NLL или KL. Возьмите для обучения текст того же "
        "рода, что и для измерения (--text), или меньший --learning-rate, или оставьте всё как "
        "было.",
    },
    "no_gain": {
        "en": "The gain's interval reaches 0, in NLL and KL: nothing shows that healing helped. "
        "More minutes may, or more windows to measure on (--heldout-windows).",
        "ru": "Интервал выигрыша доходит до 0 и по NLL, и по KL: не видно, что лечение помогло. "
        "Попробуйте больше минут или больше окон для измерения (--heldout-windows).",
    },
    "woke": {
        "en": "{name}: awake {before} → {after} of {new} new",
        "ru": "{name}: проснулись {before} → {after} из {new} новых",
    },
    "picture": {"en": "picture: {path}", "ru": "рисунок: {path}"},
    "title": {"en": "Healing {model}", "ru": "Лечение {model}"},
    "axis_step": {"en": "step", "ru": "шаг"},
    "axis_loss": {"en": "KL(source‖model), nats a token", "ru": "KL(исходная‖модель), нат/токен"},
    "curve_step": {"en": "each step", "ru": "каждый шаг"},
    "curve_mean": {"en": "mean of {count} steps", "ru": "среднее по {count} шагам"},
    "panel_training": {"en": "Training", "ru": "Обучение"},
    "panel_heldout": {"en": "Held-out text", "ru": "Отложенный текст"},
    "caption": {
        "en": "bars: 95 % intervals over {windows} windows; recovered {share}",
        "ru": "отрезки: интервалы 95 % по окнам ({windows}); возвращено {share}",
    },
}

phrase = partial(spoken, PHRASES)
"""Return a phrase in a language, with its placeholders filled."""

"""What is said of a role's figures, in English and Russian."""

from functools import partial

from veche.core.language import Phrase, spoken

PHRASES: dict[str, Phrase] = {
    "title_answer": {
        "en": "Which answers are right? {rows} answers, {groups} problems",
        "ru": "Какие ответы верны? Ответов: {rows}, задач: {groups}",
    },
    "title_step": {
        "en": "Which step is the first wrong one? {rows} steps, {groups} problems",
        "ru": "Какой шаг ошибочен первым? Шагов: {rows}, задач: {groups}",
    },
    "title_question": {
        "en": "What is being asked? {rows} questions",
        "ru": "О чём спрашивают? Вопросов: {rows}",
    },
    "title_report": {
        "en": "What does the observer report? {rows} reports, {groups} problems",
        "ru": "Что сообщает наблюдатель? Отчётов: {rows}, задач: {groups}",
    },
    "title_speech": {
        "en": "How does it speak? {rows} answers, {groups} problems",
        "ru": "Как роль говорит? Ответов: {rows}, задач: {groups}",
    },
    "method_none": {"en": "none is wrong", "ru": "ошибок нет"},
    "method_commonest": {"en": "the commonest step, or none", "ru": "частый шаг или нет"},
    "method_commonest_step": {"en": "the commonest step", "ru": "самый частый шаг"},
    "method_last_step": {"en": "the last step", "ru": "последний шаг"},
    "col_method": {"en": "method", "ru": "чем"},
    "col_gain": {"en": "role is better by", "ru": "роль лучше на"},
    "method_role": {"en": "the role", "ru": "роль"},
    "method_model": {"en": "the model, untrained", "ru": "модель без обучения"},
    "method_majority": {"en": "always the commonest", "ru": "всегда частое"},
    "figure_auroc": {"en": "AUROC", "ru": "AUROC"},
    "figure_auprc": {"en": "AUPRC", "ru": "AUPRC"},
    "figure_accuracy": {"en": "accuracy", "ru": "точность"},
    "figure_ece": {"en": "ECE-10", "ru": "ECE-10"},
    "figure_brier": {"en": "Brier", "ru": "Брайер"},
    "figure_aurc": {"en": "AURC", "ru": "AURC"},
    "figure_same_question_pairs": {"en": "pairs of one problem", "ru": "пары одной задачи"},
    "figure_first_error": {"en": "first error found", "ru": "первая ошибка найдена"},
    "figure_oos_auroc": {"en": "AUROC, out of scope", "ru": "AUROC, вне тем"},
    "figure_oos_recall_at_90": {
        "en": "recall, out of scope, 90 % kept",
        "ru": "полнота вне тем при 90 %",
    },
    "figure_oos_recall": {"en": "recall, out of scope", "ru": "полнота вне тем"},
    "figure_kept": {"en": "known ones kept", "ru": "известных оставлено"},
    "figure_nll": {"en": "NLL", "ru": "NLL"},
    "figure_validity": {"en": "valid JSON", "ru": "верный JSON"},
    "figure_intent": {"en": "intent", "ru": "намерение"},
    "legend": {
        "en": "[ ]: 95 % intervals, bootstrap over whole problems. ECE, Brier, AURC and NLL are "
        "better when lower. What gains are of: {headline}, on the same resamples.",
        "ru": "[ ] — интервалы 95 %, бутстрап по задачам целиком. ECE, Брайер, AURC и NLL — чем "
        "меньше, тем лучше. Выигрыш считается по величине «{headline}» на тех же выборках.",
    },
    "note_folds": {
        "en": "The baselines learnt from this very data, by folds; the role did not. "
        "With --learn-from FILE they learn from what the role learnt from.",
        "ru": "Эталоны учились на этих же данных (по блокам), роль — нет. С --learn-from ФАЙЛ они "
        "учатся на том же, что и роль.",
    },
    "note_no_baselines": {
        "en": "Without --learn-from FILE there is nothing for the baselines to learn intents from.",
        "ru": "Без --learn-from ФАЙЛ эталонам не на чем учиться намерениям.",
    },
    "note_one_class": {
        "en": "All of them are {label!r}: AUROC and AUPRC are undefined.",
        "ru": "Все они одного вида ({label!r}): AUROC и AUPRC не определены.",
    },
    "note_unseen_labels": {
        "en": "{count} questions have one of {labels} labels that the reader never saw ({named}): "
        "for it they are out of scope, and are counted as such.",
        "ru": "Вопросов с метками, которых читатель не видел: {count}, таких меток: {labels} "
        "({named}). Для него это вне тем; так они и считаются.",
    },
    "note_all_in_scope": {
        "en": "Every question is of a known intent: nothing can be said of recognising others.",
        "ru": "Все вопросы — известных тем: о распознавании прочих сказать нечего.",
    },
    "note_shared": {
        "en": "{count} problems are in the data and in --learn-from: no baseline learns from them. "
        "Whether the role did, only who trained it knows.",
        "ru": "Задач и в данных, и в --learn-from: {count}. Эталоны на них не учатся; училась ли "
        "роль, знает лишь тот, кто её обучал.",
    },
    "note_few_groups": {
        "en": "Only {count} problems: intervals over fewer than {enough} are too narrow.",
        "ru": "Задач всего {count}: интервалы по менее чем {enough} слишком узки.",
    },
    "note_read": {
        "en": "NLL: {count} answers of the data.",
        "ru": "NLL: ответов данных — {count}.",
    },
    "note_answered": {
        "en": "Accuracy: {count} answers of its own, greedy.",
        "ru": "Точность: собственных ответов (жадно) — {count}.",
    },
    "note_unused": {
        "en": "{count} examples have no answer to know or to check.",
        "ru": "Примеров без ответа, который можно знать или проверить: {count}.",
    },
    "note_own_commonest": {
        "en": "Without --learn-from FILE the commonest first wrong step is that of this data.",
        "ru": "Без --learn-from ФАЙЛ самый частый первый ошибочный шаг взят из этих же данных.",
    },
    "undefined": {"en": "undefined", "ru": "не определено"},
    "picture": {"en": "Picture: {path}", "ru": "Рисунок: {path}"},
    "plot_reliability": {"en": "Reliability", "ru": "Надёжность уверенности"},
    "plot_roc": {"en": "ROC", "ru": "ROC"},
    "axis_confidence": {"en": "confidence", "ru": "уверенность"},
    "axis_share": {"en": "share that is so", "ru": "доля верных"},
    "axis_false": {"en": "false positive rate", "ru": "доля ложных срабатываний"},
    "axis_true": {"en": "true positive rate", "ru": "доля верных срабатываний"},
    "caption": {
        "en": "Size of a dot: how many; bars: 95 % Wilson intervals, as if rows were independent.",
        "ru": "Размер точки — сколько; отрезки — интервалы Уилсона 95 %, будто строки независимы.",
    },
    "compared": {
        "en": "{second} minus {first}, {measures}: {rows} rows, {groups} problems. Above 0 is "
        "better, whatever the figure.",
        "ru": "{second} минус {first}, {measures}: строк — {rows}, задач — {groups}. Больше 0 — "
        "лучше, какой бы ни была величина.",
    },
    "better": {"en": "better", "ru": "лучше"},
    "worse": {"en": "worse", "ru": "хуже"},
    "no_difference": {"en": "no difference beyond the interval", "ru": "в пределах погрешности"},
    "measures_answer": {"en": "right answers", "ru": "верные ответы"},
    "measures_step": {"en": "first wrong steps", "ru": "первые ошибочные шаги"},
    "measures_question": {"en": "intents", "ru": "намерения"},
    "measures_report": {"en": "reports", "ru": "отчёты"},
    "measures_speech": {"en": "speech", "ru": "речь"},
}
phrase = partial(spoken, PHRASES)
"""One of `PHRASES` in a language, with its values."""


def method_name(name: str, language: str) -> str:
    """Return how a method is called; the names of features are the same in all languages."""
    found = PHRASES.get(f"method_{name}")
    return name if found is None else found[language]  # type: ignore[index]  # a language

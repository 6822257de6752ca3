"""What reports about experts say, in both languages."""

from collections.abc import Mapping

from veche.core.language import Language, Phrase

PHRASES: Mapping[str, Phrase] = {
    "title": {"en": "Which experts spoke", "ru": "Какие эксперты говорили"},
    "compare_title": {"en": "Two recordings compared", "ru": "Сравнение двух записей"},
    "lead": {
        "en": "{tokens} tokens of {documents} documents; {layers} layers, each token has {k} of "
        "{experts} experts in each of them. Model: {model}.",
        "ru": "Токенов: {tokens}, документов: {documents}; слоёв: {layers}, в каждом у токена {k} "
        "из {experts} экспертов. Модель: {model}.",
    },
    "identity": {"en": "Content of the model: {identity}", "ru": "Содержание модели: {identity}"},
    "no_topics": {
        "en": "Experts have numbers, no topics. Most of what looks like a topic is syntax, so a "
        "kind of tokens is named here only with its null, its effect and an adjusted p-value.",
        "ru": "У экспертов есть номера, а не темы. Почти всё, что похоже на тему, — синтаксис, "
        "поэтому вид токенов назван здесь только вместе с нулевой гипотезой, размером эффекта и "
        "p-значением с поправкой.",
    },
    "equal_weights": {
        "en": "This model's routing weights are all equal, 1/k, as those of carved models are: "
        "the weights, the token entropy made of them, and the router's mass and margin say "
        "nothing. The choice of experts does.",
        "ru": "Веса маршрутизации этой модели все равны 1/k, как у вырезанных моделей: веса, "
        "энтропия токена из них, масса и отрыв маршрутизатора не говорят ничего. Говорит выбор "
        "экспертов.",
    },
    "voices": {"en": "By voice", "ru": "По голосам"},
    "voices_text": {
        "en": "Means over layers. CV and dead experts stand beside their null: what uniform, "
        "independent routing of as many tokens would give.",
        "ru": "Средние по слоям. Рядом с CV и мёртвыми экспертами — нулевая гипотеза: что дала бы "
        "равномерная независимая маршрутизация стольких же токенов.",
    },
    "layers": {"en": "By layer", "ru": "По слоям"},
    "layers_text": {
        "en": "Dotted: the null. Tokens of a text are no independent draws, so a line somewhat "
        "above its null is no finding.",
        "ru": "Пунктир — нулевая гипотеза. Токены текста не независимы, поэтому линия чуть выше "
        "неё — ещё не находка.",
    },
    "pairs": {"en": "Experts that go together", "ru": "Эксперты, которые идут вместе"},
    "pairs_text": {
        "en": "N_ij/N_i: of expert i's tokens, how many had j too; by chance {null}. Lift: how "
        "many times as often as their loads alone would give. The largest of very many pairs, and "
        "not tested.",
        "ru": "N_ij/N_i: доля токенов эксперта i, у которых был и j; случайно {null}. Lift: во "
        "сколько раз чаще, чем дали бы одни нагрузки. Это наибольшие из очень многих пар, они не "
        "проверены.",
    },
    "axis": {"en": "By {axis}", "ru": "По признаку: {axis}"},
    "only": {"en": "{axis}, {kind} only", "ru": "{axis}, только {kind}"},
    "within": {
        "en": "Compared within {documents} documents that have tokens of both; for the null the "
        "two change places in whole documents.",
        "ru": "Сравнение внутри документов, где есть токены обоих видов ({documents}); для нулевой "
        "гипотезы виды меняются местами в целых документах.",
    },
    "between": {
        "en": "Compared between documents, {documents} against {others}; for the null whole "
        "documents are dealt out anew.",
        "ru": "Сравнение между документами, {documents} против {others}; для нулевой гипотезы "
        "целые документы раздаются заново.",
    },
    "power": {
        "en": "{tests} tests, Benjamini–Hochberg at 5 %. So many documents are enough to find even "
        "a lone expert, if its difference is large: p-values go down to {smallest}.",
        "ru": "Проверок: {tests}, поправка Бенджамини — Хохберга, 5 %. Стольких документов "
        "хватает, чтобы найти даже одного эксперта, если отличие велико: p-значение бывает до "
        "{smallest}.",
    },
    "little_power": {
        "en": "{tests} tests, Benjamini–Hochberg at 5 %. With so few documents no p-value is below "
        "{smallest}: an expert can be found significant only if at least {needed} are at once.",
        "ru": "Проверок: {tests}, поправка Бенджамини — Хохберга, 5 %. При стольких документах "
        "p-значение не бывает ниже {smallest}: значимым эксперт может оказаться, только если таких "
        "сразу не меньше {needed}.",
    },
    "no_power": {
        "en": "{tests} tests, but with so few documents no p-value is below {smallest}: nothing "
        "can be found here. Record more documents.",
        "ru": "Проверок: {tests}, но при стольких документах p-значение не бывает ниже {smallest}: "
        "найти здесь нельзя ничего. Запишите больше документов.",
    },
    "not_tested": {
        "en": "Not tested: no two documents can be compared.",
        "ru": "Не проверено: нет документов, которые можно сравнить.",
    },
    "none_found": {
        "en": "No expert differs significantly. That is no proof that none does.",
        "ru": "Ни один эксперт не отличается значимо. Это не доказывает, что отличий нет.",
    },
    "found": {
        "en": "{value} against {against}: {count} experts differ significantly; those with the "
        "largest difference:",
        "ru": "{value} против {against}: значимо отличаются {count}; с наибольшей разностью:",
    },
    "asleep": {"en": "New experts", "ru": "Новые эксперты"},
    "asleep_text": {
        "en": "{new} are new, counted in each layer. {never} were never chosen here, {asleep} got "
        "less than {share} of what uniform routing would give them. Of another text that may "
        "differ.",
        "ru": "Новых, считая в каждом слое: {new}. Ни разу не выбраны здесь: {never}; получили "
        "меньше {share} от равномерной доли: {asleep}. На другом тексте может быть иначе.",
    },
    "asleep_none": {
        "en": "No expert of this model is new.",
        "ru": "Новых экспертов у этой модели нет.",
    },
    "lead_compare": {
        "en": "First: {first} ({first_tokens} tokens). Second: {second} ({second_tokens} tokens).",
        "ru": "Первая: {first} (токенов: {first_tokens}). Вторая: {second} (токенов: "
        "{second_tokens}).",
    },
    "overlap_text": {
        "en": "A token of one and a token of the other share {both} of their experts; two tokens "
        "of the first {one}, of the second {two}; by chance {null}.",
        "ru": "У токена первой и токена второй общие {both} экспертов; у двух токенов первой "
        "{one}, второй {two}; случайно {null}.",
    },
    "saturation_text": {
        "en": "The same token, {tokens} times, had {share} of its experts in common; by chance "
        "{null}. Between two checkpoints of one model this is saturation.",
        "ru": "У одного и того же токена ({tokens} раз) общие {share} экспертов; случайно {null}. "
        "Между двумя состояниями одной модели это насыщение.",
    },
    "no_saturation": {
        "en": "They have no text in common token for token, so saturation is not defined.",
        "ru": "Общего текста токен в токен у них нет, поэтому насыщение не определено.",
    },
    "js_text": {
        "en": "Layers whose loads differ more than chance would have it: {count} of {layers}.",
        "ru": "Слоёв, нагрузки которых различаются сильнее, чем случайно: {count} из {layers}.",
    },
    "footer": {
        "en": "Written by veche {version}. This page loads nothing.",
        "ru": "Написано veche {version}. Страница ничего не загружает.",
    },
    "row_tokens": {"en": "tokens", "ru": "токены"},
    "row_load_entropy": {
        "en": "load entropy (1 = uniform)",
        "ru": "энтропия нагрузки (1 = ровно)",
    },
    "row_load_cv": {"en": "load CV (0 = uniform)", "ru": "CV нагрузки (0 = ровно)"},
    "row_expected_load_cv": {"en": "… by chance", "ru": "… случайно"},
    "row_max_violation": {"en": "MaxVio (0 = uniform)", "ru": "MaxVio (0 = ровно)"},
    "row_dead_experts": {"en": "dead experts a layer", "ru": "мёртвых экспертов в слое"},
    "row_expected_dead_experts": {"en": "… by chance", "ru": "… случайно"},
    "row_token_entropy": {
        "en": "token entropy (1 = k alike)",
        "ru": "энтропия токена (1 = k равны)",
    },
    "row_overlap": {"en": "overlap with {voice}", "ru": "общее с {voice}"},
    "row_null_overlap": {"en": "… by chance", "ru": "… случайно"},
    "col_layer": {"en": "layer", "ru": "слой"},
    "col_expert": {"en": "expert", "ru": "эксперт"},
    "col_experts": {"en": "experts", "ru": "эксперты"},
    "col_rate": {"en": "its tokens", "ru": "у него"},
    "col_rest": {"en": "the others", "ru": "у других"},
    "col_first": {"en": "first", "ru": "первая"},
    "col_second": {"en": "second", "ru": "вторая"},
    "col_difference": {"en": "difference", "ru": "разность"},
    "col_p": {"en": "p, adjusted", "ru": "p с поправкой"},
    "col_null": {"en": "by chance", "ru": "случайно"},
    "col_share": {"en": "N_ij/N_i", "ru": "N_ij/N_i"},
    "col_lift": {"en": "lift", "ru": "lift"},
    "col_tokens": {"en": "tokens", "ru": "токены"},
    "col_relative": {"en": "load, × uniform", "ru": "нагрузка, × равномерной"},
    "col_js": {"en": "JS", "ru": "JS"},
    "col_null_js": {"en": "JS, if one", "ru": "JS, если одно"},
    "col_saturation": {"en": "same token shares", "ru": "общие у того же токена"},
    "col_changed": {"en": "experts changed", "ru": "изменились"},
}
"""Every text by its key; columns begin with `col_`, rows with `row_`."""

NAMES: Mapping[str, Phrase] = {
    "voice": {"en": "voice", "ru": "голос"},
    "token class": {"en": "token class", "ru": "вид токена"},
    "the rest": {"en": "the rest", "ru": "остальных"},
    "latin": {"en": "latin", "ru": "латиница"},
    "cyrillic": {"en": "cyrillic", "ru": "кириллица"},
    "other letters": {"en": "other letters", "ru": "другие буквы"},
    "digits": {"en": "digits", "ru": "цифры"},
    "punctuation": {"en": "punctuation", "ru": "пунктуация"},
    "symbols": {"en": "symbols", "ru": "символы"},
    "space": {"en": "space", "ru": "пробелы"},
    "control": {"en": "control", "ru": "служебные"},
}
"""What veche itself calls axes and groups; labels are the user's words."""


def name_of(word: str, language: Language) -> str:
    """Return veche's own names in `language`, anything else as it is."""
    return NAMES[word][language] if word in NAMES else word


def axis_title(name: str, only: str | None, language: Language) -> str:
    """Return what an axis is called, with the class of tokens that it is restricted to."""
    title = name_of(name, language)
    if only is None:
        return title
    return PHRASES["only"][language].format(axis=title, kind=name_of(only, language))

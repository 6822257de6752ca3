"""What the dial says, in English and Russian."""

from functools import partial

from veche.core.language import Phrase, spoken

PHRASES: dict[str, Phrase] = {
    "default_top_k": {
        "en": "from half to twice the checkpoint's {base}, at most its {experts} experts",
        "ru": "от половины до двойного числа в чекпойнте ({base}), не больше экспертов: {experts}",
    },
    "default_adaptive": {
        "en": "mean experts a token, from half to twice the checkpoint's {base} of {experts}",
        "ru": "среднее число экспертов на токен: от половины до двойного {base} из {experts}",
    },
    "default_rope_theta": {
        "en": "half, twice and four times the checkpoint's {base}",
        "ru": "половина, двойное и четверное значение чекпойнта ({base})",
    },
    "default_yarn": {
        "en": "twice and four times the checkpoint's factor {base}",
        "ru": "двойной и четверной множитель чекпойнта ({base})",
    },
    "default_temperature": {
        "en": "the usual range of sampling around {base}",
        "ru": "обычный диапазон выборки вокруг {base}",
    },
    "few_between": {
        "en": "a few values of {range}; a step may be given: a..b:step",
        "ru": "несколько значений из {range}; шаг можно задать: a..b:шаг",
    },
    "dial_top_k": {"en": "active experts a token", "ru": "активных экспертов на токен"},
    "dial_adaptive": {"en": "mean experts a token", "ru": "экспертов на токен в среднем"},
    "dial_rope_theta": {"en": "rope_theta", "ru": "rope_theta"},
    "dial_yarn": {"en": "YaRN factor", "ru": "множитель YaRN"},
    "dial_temperature": {"en": "temperature", "ru": "температура"},
    "col_nll": {"en": "NLL", "ru": "NLL"},
    "col_nll_delta": {"en": "ΔNLL", "ru": "ΔNLL"},
    "col_kl": {"en": "KL", "ru": "KL"},
    "col_top1": {"en": "same token", "ru": "тот же токен"},
    "col_speed": {"en": "tok/s", "ru": "ток/с"},
    "col_speed_ratio": {"en": "× base", "ru": "× базы"},
    "col_ece": {"en": "ECE", "ru": "ECE"},
    "col_experts": {"en": "experts", "ru": "эксп."},
    "col_over_fixed": {"en": "ΔNLL to fixed", "ru": "Δ к пост."},
    "short": {
        "en": "short context: the last {predictions} tokens of {windows} windows of {tokens}",
        "ru": "короткий контекст: последние токены ({predictions}) окон: {windows} по {tokens}",
    },
    "long": {
        "en": "long context: the same {predictions} tokens of {windows} windows of {tokens}",
        "ru": "длинный контекст: те же токены ({predictions}) окон: {windows} по {tokens}",
    },
    "legend": {
        "en": "*: the checkpoint's own {base}. NLL and KL in nats a token; [ ]: 95 % intervals, "
        "paired bootstrap over {windows} windows.",
        "ru": "* — своё значение чекпойнта, {base}. NLL и KL в натах на токен; [ ] — интервалы "
        "95 %, парный бутстрап по окнам: {windows}.",
    },
    "legend_speed": {
        "en": "Speed: median of {rounds} paired rounds; rows were measured one after the other, so "
        "compare × base rather than tok/s.",
        "ru": "Скорость — медиана парных замеров: {rounds}; строки измерены в разное время, "
        "поэтому сравнивайте × базы, а не ток/с.",
    },
    "carved": {
        "en": "This model was carved: its experts are rescaled by k'/k with every top-k, as veche "
        "plan does; num_experts_per_tok changed by hand would also make them louder or quieter.",
        "ru": "Модель нарезана из плотной: с каждым top-k её эксперты умножены на k'/k, как делает "
        "veche plan; num_experts_per_tok, изменённое вручную, меняет и их громкость.",
    },
    "picture": {"en": "Picture: {path}", "ru": "Рисунок: {path}"},
    "title": {"en": "The dial {name} of {model}", "ru": "Настройка {name} модели {model}"},
    "axis_nll": {"en": "ΔNLL to base, nats a token", "ru": "ΔNLL к базе, нат на токен"},
    "axis_kl": {"en": "KL to base, nats a token", "ru": "KL к базе, нат на токен"},
    "axis_top1": {"en": "same next token as base", "ru": "тот же токен, что у базы"},
    "axis_speed": {"en": "decode speed, × base", "ru": "скорость декодирования, × базы"},
    "axis_ece": {"en": "calibration error (ECE)", "ru": "ошибка калибровки (ECE)"},
    "axis_over_fixed": {
        "en": "ΔNLL to fixed",
        "ru": "ΔNLL к постоянному",
    },
    "caption": {
        "en": "Bands: 95 % intervals, paired bootstrap over {windows} windows; dotted: {base}, the "
        "checkpoint's own. Short context: {short} tokens, long: {long}.",
        "ru": "Полосы — интервалы 95 %, парный бутстрап по окнам: {windows}; пунктир — {base}, "
        "значение чекпойнта. Короткий контекст — {short} токенов, длинный — {long}.",
    },
    "curve_short": {"en": "short context", "ru": "короткий контекст"},
    "curve_long": {"en": "long context", "ru": "длинный контекст"},
    "curve_fixed": {"en": "fixed, {context}", "ru": "постоянно, {context}"},
    "curve_adaptive": {"en": "adaptive, {context}", "ru": "по энтропии, {context}"},
    "adaptive_wins": {
        "en": "Adaptive beats fixed at equal mean experts at {count} of {total} points.",
        "ru": "По энтропии лучше, чем постоянно, при равном среднем: точек {count} из {total}.",
    },
    "adaptive_loses": {
        "en": "Adaptive is worse than fixed at equal mean experts at {count} of {total} points.",
        "ru": "По энтропии хуже, чем постоянно, при равном среднем: точек {count} из {total}.",
    },
    "adaptive_ties": {
        "en": "No difference can be told at {count} of {total} points.",
        "ru": "Разницы не видно: точек {count} из {total}.",
    },
}

phrase = partial(spoken, PHRASES)
"""Return the phrase `key` in `language`, with its placeholders filled."""

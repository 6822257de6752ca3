"""Headings and explanations of the demo's report, in English and Russian."""

from veche.core.language import Phrase

PHRASES: dict[str, Phrase] = {
    "title": {"en": "veche: the whole chain, measured", "ru": "veche: вся цепочка, измерено"},
    "lead": {
        "en": "A real small model (SmolLM2-135M-Instruct) was carved into a mixture of experts, "
        "grown by the recipe demo, checked against itself, and asked by a council of voices. "
        "Every number on this page was measured in this run, on this machine.",
        "ru": "Настоящую маленькую модель (SmolLM2-135M-Instruct) разрезали на смесь экспертов, "
        "вырастили по рецепту demo, сверили с самой собой и спросили советом голосов. Каждое число "
        "на этой странице измерено в этом запуске, на этой машине.",
    },
    "answer": {"en": "The council's answer", "ru": "Ответ совета"},
    "exact": {"en": "exact part", "ru": "точная часть"},
    "passed": {"en": "passed", "ru": "пройдена"},
    "failed": {"en": "FAILED", "ru": "НЕ ПРОЙДЕНА"},
    "noise": {"en": "KL {kl}, noise floor {floor}", "ru": "KL {kl}, уровень шума {floor}"},
    "whole": {"en": "whole recipe, NLL", "ru": "рецепт целиком, NLL"},
    "tokens_saved": {
        "en": "prompt tokens not prefilled again",
        "ru": "токенов не обработано заново",
    },
    "time": {"en": "time, all stages", "ru": "время, все стадии"},
    "peak": {"en": "peak memory", "ru": "пик памяти"},
    "carve": {"en": "1 · Carving", "ru": "1 · Вырезание"},
    "carve_text": {
        "en": "Each feed-forward layer's hidden units were split into {experts} experts, and a "
        "linear router was fitted on activations, without training. With all {experts} experts the "
        "carved model is the dense one; with {fit} the router keeps {kept} of the output energy.",
        "ru": "Скрытые нейроны каждого слоя разделены на {experts} экспертов, линейный "
        "маршрутизатор подобран по активациям, без обучения. Со всеми {experts} экспертами это "
        "исходная модель; с {fit} маршрутизатор сохраняет {kept} энергии выхода.",
    },
    "plan": {"en": "2 · Plan", "ru": "2 · План"},
    "plan_text": {
        "en": "The recipe demo mirrors, ratio for ratio, the recipe agi. What each field really "
        "does:",
        "ru": "Рецепт demo повторяет рецепт agi в тех же отношениях. Что на деле делает каждое "
        "поле:",
    },
    "field": {"en": "field", "ru": "поле"},
    "change": {"en": "change", "ru": "изменение"},
    "effect": {"en": "effect", "ru": "действие"},
    "lossy": {"en": "lossy", "ru": "с потерей"},
    "not_applied": {"en": "not applied", "ru": "не применяется"},
    "before": {"en": "before", "ru": "до"},
    "after": {"en": "after", "ru": "после"},
    "parameters": {"en": "parameters", "ru": "параметры"},
    "active_parameters": {"en": "active a token", "ru": "активных на токен"},
    "weight_bytes": {"en": "weights", "ru": "веса"},
    "kv_bytes_per_token": {"en": "KV cache a token", "ru": "KV-кэш на токен"},
    "flops_per_token": {"en": "FLOPs a token", "ru": "FLOP на токен"},
    "verify": {"en": "3 · Verification", "ru": "3 · Проверка"},
    "verify_text": {
        "en": "Exact part: the grown model under the source's dials must differ from the source by "
        "no more than the source differs from itself under another attention implementation. The "
        "rest is measured on text that nothing was fitted on, never judged.",
        "ru": "Точная часть: выращенная модель при ручках исходной должна отличаться от неё не "
        "больше, чем исходная от себя самой при другой реализации внимания. Остальное измерено на "
        "тексте, по которому ничего не подбиралось, и не оценивается.",
    },
    "dial": {"en": "one lossy dial alone", "ru": "одна ручка с потерей"},
    "nll_delta": {"en": "ΔNLL", "ru": "ΔNLL"},
    "same_token": {"en": "same next token", "ru": "тот же токен"},
    "whole_row": {"en": "whole recipe", "ru": "рецепт целиком"},
    "launch": {"en": "4 · The real thing", "ru": "4 · По-настоящему"},
    "launch_text": {
        "en": "Recipe agi (40.7 B parameters) on one RTX PRO 6000 Blackwell with vLLM. Computed "
        "from weights, KV cache and an interval for overhead; not run here.",
        "ru": "Рецепт agi (40,7 млрд параметров) на одной RTX PRO 6000 Blackwell с vLLM. Вычислено "
        "из весов, KV-кэша и интервала накладных расходов; здесь не запускалось.",
    },
    "weights_as": {"en": "weights", "ru": "веса"},
    "kv_as": {"en": "KV", "ru": "KV"},
    "fits": {"en": "fits", "ru": "помещается"},
    "context": {"en": "context", "ru": "контекст"},
    "speed": {"en": "tokens/s", "ru": "токенов/с"},
    "council": {"en": "5 · Council", "ru": "5 · Совет"},
    "council_text": {
        "en": "One question, one prefilled trunk, several voices. Blind drafts first; they stop "
        "early if they agree. The observer reports measured signals and never writes the answer.",
        "ru": "Один вопрос, одно общее начало, несколько голосов. Сначала черновики вслепую; если "
        "они сошлись, совет закончен. Наблюдатель сообщает измеренное и ответа не пишет.",
    },
    "small": {
        "en": "A model of 135 M parameters that lost part of its experts knows little: read the "
        "answer as a test of the machinery, not of the model.",
        "ru": "Модель в 135 млн параметров, лишённая части экспертов, знает мало: читайте ответ "
        "как проверку механизма, а не модели.",
    },
    "stopped_early": {
        "en": "The blind drafts agreed; no debate was needed.",
        "ru": "Черновики сошлись; спорить не понадобилось.",
    },
    "drafts": {"en": "blind drafts", "ru": "черновики вслепую"},
    "objections": {"en": "objections", "ru": "возражения"},
    "revisions": {"en": "revisions", "ru": "исправления"},
    "synthesis": {"en": "synthesis", "ru": "сведение"},
    "bill": {
        "en": "Token bill: {prefilled} prefilled, {reused} read from the shared trunk, {decoded} "
        "decoded. The same tokens buy {samples} independent samples.",
        "ru": "Счёт в токенах: {prefilled} обработано, {reused} прочитано из общего начала, "
        "{decoded} порождено. За столько же — независимых ответов: {samples}.",
    },
    "experts": {"en": "6 · Experts", "ru": "6 · Эксперты"},
    "experts_text": {
        "en": "Which experts spoke for which voice, captured in this very run.",
        "ru": "Какие эксперты говорили за какой голос; записано в этом самом запуске.",
    },
    "stages": {"en": "Stages", "ru": "Стадии"},
    "seconds": {"en": "seconds", "ru": "секунды"},
    "footer": {
        "en": "Made by veche {version}. Again: veche demo",
        "ru": "Сделано veche {version}. Повторить: veche demo",
    },
}

"""What a plan says to its reader, in English and Russian."""

from functools import partial

from veche.core.language import Phrase, spoken

PHRASES: dict[str, Phrase] = {
    "unchanged": {
        "en": "left as it is",
        "ru": "остаётся как есть",
    },
    "top_k": {
        "en": "no weight changes, every answer does: compute follows k ({before} → {after} experts "
        "a token), memory does not; quality must be measured",
        "ru": "веса не меняются, меняется каждый ответ: вычисления пропорциональны k "
        "({before} → {after} экспертов на токен), память та же; качество надо измерить",
    },
    "top_k_gain": {
        "en": "this checkpoint was carved with equal routing weights, so each rises from "
        "1/{before} to 1/{after}: down_proj is scaled by {after}/{before} to keep every expert as "
        "loud as it was",
        "ru": "эта модель вырезана с равными весами маршрутизации, и каждый растёт с "
        "1/{before} до 1/{after}: down_proj умножается на {after}/{before}, "
        "чтобы громкость каждого осталась прежней",
    },
    "expert_width": {
        "en": "needs new weights: {before} → {after} hidden units in each expert ({growth:+.0%} "
        "expert weights); exact at step 0, and the new units are {start} until trained",
        "ru": "нужны новые веса: {before} → {after} скрытых нейронов в каждом эксперте "
        "({growth:+.0%} весов экспертов); на шаге 0 функция та же, новые нейроны {start} "
        "до обучения",
    },
    "query_heads": {
        "en": "needs new weights: {before} → {after} query heads, placed beside copies of the key/"
        "value heads that they read; exact at step 0, and the new heads are {start} until trained",
        "ru": "нужны новые веса: {before} → {after} голов запроса, рядом с копиями своих голов "
        "ключей и значений; на шаге 0 функция та же, новые головы {start} до обучения",
    },
    "kv_heads": {
        "en": "exact by replication: {before} → {after} key/value heads; the KV cache grows "
        "{ratio:.3g}-fold, {kv_before} → {kv_after} a token in {dtype}",
        "ru": "точно, повторением: {before} → {after} голов ключей и значений; KV-кэш растёт в "
        "{ratio:.3g} раза, {kv_before} → {kv_after} на токен в {dtype}",
    },
    "start_zero": {"en": "silent", "ru": "молчат"},
    "start_split": {"en": "twins of old ones", "ru": "близнецы старых"},
    "router_aux_loss_coef": {
        "en": "acts only in training, and only with output_router_logits; it balances the load, "
        "it adds no diversity at inference",
        "ru": "действует только в обучении и только с output_router_logits; выравнивает нагрузку, "
        "разнообразия при выводе не добавляет",
    },
    "attention_dropout": {
        "en": "acts only in training; at inference it is inert: variability comes from sampling",
        "ru": "действует только в обучении; при выводе ни на что не влияет: изменчивость даёт "
        "сэмплирование",
    },
    "max_position_embeddings": {
        "en": "a limit, not a weight: no number changes; how far the model really reads is "
        "decided by rope",
        "ru": "предел, а не вес: ни одно число не меняется; как далеко модель читает, решает rope",
    },
    "rope_scaling": {
        "en": "no weight changes; static scaling shifts every position, short texts included: it "
        "must be measured and healed by training",
        "ru": "веса не меняются; статическое масштабирование сдвигает каждую позицию, и в коротких "
        "текстах: надо измерить и долечить обучением",
    },
    "rope_theta": {
        "en": "not a free dial: every rotation changes, and without healing the model is damaged: "
        "measure it",
        "ru": "не бесплатная ручка: меняется каждый поворот, и без долечивания модель повреждена: "
        "измерьте",
    },
    "dense_width_inert": {
        "en": "nothing reads it: every layer of this model is a mixture of experts, no dense MLP "
        "exists (decoder_sparse_step {step}, mlp_only_layers {layers})",
        "ru": "его никто не читает: в этой модели каждый слой — смесь экспертов, плотного MLP нет "
        "(decoder_sparse_step {step}, mlp_only_layers {layers})",
    },
    "output_router_logits": {
        "en": "serving engines ignore it; veche captures the routing itself, whatever it says",
        "ru": "серверные движки его не читают; veche сам записывает маршрутизацию, что бы "
        "там ни стояло",
    },
    "use_cache": {
        "en": "changes speed, not answers; to compare states, fork and capture them",
        "ru": "меняет скорость, а не ответы; чтобы сравнить состояния, их надо ветвить и записать",
    },
    "changes_answers": {
        "en": "no weight changes, every answer does; the model was trained with the old value",
        "ru": "веса не меняются, меняется каждый ответ; модель обучена со старым значением",
    },
    "not_applied": {
        "en": "planned and measured, not carried out",
        "ru": "запланировано и измерено, не применяется",
    },
    "rope_conflict": {
        "en": "rope factor {factor:g} × {original} = {reach}, but max_position_embeddings is "
        "{length}: engines take the first, readers believe the second",
        "ru": "множитель rope {factor:g} × {original} = {reach}, а max_position_embeddings — "
        "{length}: движки берут первое, читатель верит второму",
    },
    "resolve_extend": {
        "en": "max_position_embeddings becomes {reach}",
        "ru": "max_position_embeddings становится {reach}",
    },
    "resolve_keep": {
        "en": "the factor becomes {factor:g}, which reaches {length}",
        "ru": "множитель становится {factor:g}, он достигает {length}",
    },
    "resolve_as_written": {
        "en": "both are written as they stand; engines will allow {reach}",
        "ru": "записать оба как есть; движки допустят {reach}",
    },
    "lossy_conflict": {
        "en": "the recipe does not agree to what changes every answer: {fields}",
        "ru": "{fields} меняют каждый ответ, а согласия на это в рецепте нет",
    },
    "resolve_lossy": {
        "en": "agree; the loss is measured by veche verify",
        "ru": "согласиться; потерю измерит veche verify",
    },
    # what the table around the fields says
    "title": {"en": "Plan {recipe} on {base}", "ru": "План {recipe} на {base}"},
    "col_field": {"en": "field", "ru": "поле"},
    "col_effect": {
        "en": "what it does, and what was hoped",
        "ru": "что это делает и на что надеялись",
    },
    "effect_unchanged": {"en": "unchanged", "ru": "без изменений"},
    "effect_inert": {"en": "does nothing", "ru": "ничего не делает"},
    "effect_training_only": {"en": "training only", "ru": "только обучение"},
    "effect_config_only": {"en": "config only", "ru": "только конфиг"},
    "effect_exact": {"en": "exact surgery", "ru": "точная операция"},
    "effect_conflict": {"en": "conflict", "ru": "противоречие"},
    "lossy_mark": {"en": "lossy", "ru": "с потерей"},
    "moves": {
        "en": "Operations on weights, in order: {operations}",
        "ru": "Операции с весами по порядку: {operations}",
    },
    "moves_nothing": {"en": "No weight moves.", "ru": "Ни один вес не меняется."},
    "unchanged_rest": {"en": "Left as they are: {fields}", "ru": "Остаются как есть: {fields}"},
    "cost_title": {"en": "cost", "ru": "цена"},
    "cost_before": {"en": "before", "ru": "до"},
    "cost_after": {"en": "after", "ru": "после"},
    "cost_parameters": {"en": "parameters", "ru": "параметры"},
    "cost_active_parameters": {
        "en": "active parameters a token",
        "ru": "активные параметры на токен",
    },
    "cost_weight_bytes": {"en": "weights", "ru": "веса"},
    "cost_kv_bytes_per_token": {"en": "KV cache a token", "ru": "KV-кэш на токен"},
    "cost_flops_per_token": {
        "en": "FLOPs a token (at {context} tokens of context)",
        "ru": "FLOP на токен (при контексте {context})",
    },
    "conflict_title": {"en": "To be decided", "ru": "Надо решить"},
    "cannot_build": {
        "en": "This plan cannot be built until that is decided.",
        "ru": "Пока это не решено, план нельзя построить.",
    },
    "written": {"en": "Plan written to {path}", "ru": "План записан в {path}"},
}


phrase = partial(spoken, PHRASES)
"""Return the phrase `key` in `language`, with its placeholders filled."""

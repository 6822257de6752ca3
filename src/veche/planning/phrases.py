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
    "start_copies": {
        "en": "mode split does not concern it",
        "ru": "режим split здесь ни при чём",
    },
    "split_experts": {
        "en": "in mode split two copies share what down_proj would add unevenly, so that training "
        "tells them apart sooner",
        "ru": "в режиме split две копии делят вклад down_proj неровно, чтобы обучение скорее их "
        "различило",
    },
    "shared_expert_width": {
        "en": "needs new weights: {before} → {after} hidden units in the expert that every token "
        "passes; exact at step 0, and the new units are {start} until trained",
        "ru": "нужны новые веса: {before} → {after} скрытых нейронов в эксперте, через которого "
        "проходит каждый токен; на шаге 0 функция та же, новые нейроны {start} до обучения",
    },
    "dense_width": {
        "en": "needs new weights: {before} → {after} hidden units in the MLPs of dense layers "
        "({layers} of them); exact at step 0, and the new units are {start} until trained",
        "ru": "нужны новые веса: {before} → {after} скрытых нейронов в MLP плотных слоёв (их "
        "{layers}); на шаге 0 функция та же, новые нейроны {start} до обучения",
    },
    "experts": {
        "en": "needs new weights, and is exact with a top-k of {top_k}: each expert and its router "
        "row are there {times} times, and share the routing weight that the one had; training "
        "makes them differ",
        "ru": "нужны новые веса; точно при top-k {top_k}: каждый эксперт и его строка "
        "маршрутизатора повторены, всего их {times}, и делят вес маршрутизации, который был у "
        "одного; разнит их обучение",
    },
    "top_k_times": {
        "en": "exact with the copies of the experts: a token that visited an expert visits all of "
        "its copies; compute grows ({before} → {after} experts a token)",
        "ru": "точно при копиях экспертов: токен, приходивший к эксперту, приходит ко всем его "
        "копиям; вычислений больше ({before} → {after} экспертов на токен)",
    },
    "top_k_of_copies": {
        "en": "every answer changes: with copies of the experts {exact} of them do what {before} "
        "did, and {after} are chosen; quality must be measured",
        "ru": "меняется каждый ответ: при копиях экспертов то же, что {before}, делают {exact}, а "
        "выбирается {after}; качество надо измерить",
    },
    "experts_conflict": {
        "en": "{experts} experts are {times} copies of each: they answer as before with "
        "num_experts_per_tok {exact}, and the recipe leaves it at {top_k}",
        "ru": "экспертов {experts} — это копии каждого, их {times}: ответы прежние при "
        "num_experts_per_tok {exact}, а рецепт оставляет {top_k}",
    },
    "experts_conflict_field": {
        "en": "num_experts_per_tok must be chosen too",
        "ru": "надо выбрать и num_experts_per_tok",
    },
    "resolve_times": {
        "en": "all copies of an expert are visited: exact, and more compute",
        "ru": "токен приходит ко всем копиям эксперта: точно, но вычислений больше",
    },
    "resolve_keep_k": {
        "en": "compute as before, and every answer changes",
        "ru": "вычислений столько же, но меняется каждый ответ",
    },
    "depth": {
        "en": "needs new weights: {before} → {after} layers; copies that add nothing until they "
        "are trained (o_proj and down projections zero) follow old layers {layers}; the KV cache "
        "grows, {kv_before} → {kv_after} a token in {dtype}, and FLOPs a token {flops:.3g}-fold",
        "ru": "нужны новые веса: слоёв {before} → {after}; копии, которые до обучения ничего не "
        "добавляют (o_proj и down — нули), идут за старыми слоями {layers}; KV-кэш растёт, "
        "{kv_before} → {kv_after} на токен в {dtype}, а FLOP на токен — в {flops:.3g} раза",
    },
    "follows_depth": {
        "en": "follows num_hidden_layers: each new layer is of the kind of the one that it copies",
        "ru": "следует за num_hidden_layers: новый слой того же рода, что и скопированный",
    },
    "untie": {
        "en": "needs new weights: the output layer becomes a copy of the embedding, and may differ "
        "from it from now on; {size} more in {dtype}",
        "ru": "нужны новые веса: выходной слой становится копией эмбеддинга и дальше может от него "
        "отличаться; на {size} больше в {dtype}",
    },
    "copies_model_type": {
        "en": "a dense model becomes a mixture of copies of its MLPs, with the tensors of this "
        "family",
        "ru": "плотная модель становится смесью копий своих MLP, с тензорами этого семейства",
    },
    "copies_num_experts": {
        "en": "needs new weights: {after} copies of each layer's MLP and a new random router; "
        "exact with any router, since the chosen copies' weights sum to 1; training makes them "
        "differ",
        "ru": "нужны новые веса: копии MLP каждого слоя, их {after}, и новый случайный "
        "маршрутизатор; точно при любом: веса выбранных копий в сумме 1; разнит их обучение",
    },
    "copies_num_experts_per_tok": {
        "en": "exact for any number of copies: compute follows it ({after} MLPs a token instead of "
        "one)",
        "ru": "точно при любом числе копий: вычисления ему пропорциональны ({after} MLP на токен "
        "вместо одного)",
    },
    "copies_moe_intermediate_size": {
        "en": "each expert is as wide as the dense MLP that it copies",
        "ru": "каждый эксперт той же ширины, что и плотный MLP, который он копирует",
    },
    "copies_intermediate_size": {
        "en": "no dense MLP is left: its width is that of each expert",
        "ru": "плотных MLP не остаётся: их ширина — это ширина каждого эксперта",
    },
    "copies_shared_expert_intermediate_size": {
        "en": "this family always has an expert that every token passes: a narrow one that adds "
        "nothing (down projection zero) until it is trained",
        "ru": "в этом семействе всегда есть эксперт, через которого проходит каждый токен: узкий, "
        "до обучения он ничего не добавляет (down — нули)",
    },
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
    "dense_width_inert": {
        "en": "nothing reads it: every layer of this model is a mixture of experts, no dense MLP "
        "exists (decoder_sparse_step {step}, mlp_only_layers {layers})",
        "ru": "его никто не читает: в этой модели каждый слой — смесь экспертов, плотного MLP нет "
        "(decoder_sparse_step {step}, mlp_only_layers {layers})",
    },
    "output_router_logits": {
        "en": "in training it adds the load-balancing loss; at inference answers stay the same and "
        "serving engines do not read it: veche captures the routing itself, whatever it says",
        "ru": "в обучении добавляет выравнивающую функцию потерь; при выводе ответы те же, "
        "серверные движки его не читают: veche сам записывает маршрутизацию, что бы там ни стояло",
    },
    "not_applied": {
        "en": "planned and measured, not carried out",
        "ru": "запланировано и измерено, не применяется",
    },
    "rope_conflict": {
        "en": "rope factor {factor:g} × {original} = {reach}, but max_position_embeddings is "
        "{length}: vLLM before 0.30 takes the first for its limit; vLLM since, SGLang and "
        "llama.cpp take the second",
        "ru": "множитель rope {factor:g} × {original} = {reach}, а max_position_embeddings — "
        "{length}: vLLM до 0.30 берёт пределом первое; vLLM с 0.30, SGLang и llama.cpp — второе",
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
        "en": "both are written as they stand; the limit is then {reach} or {length}, as the "
        "engine reads it",
        "ru": "записать оба как есть; предел тогда {reach} или {length}, смотря по движку",
    },
    "native_conflict": {
        "en": "rope factor {factor:g} × {original} reaches {reach}, and the base reads {native} "
        "without any scaling: every position would shift, to reach less",
        "ru": "множитель rope {factor:g} × {original} достигает {reach}, а исходная модель без "
        "растяжения читает {native}: сдвинутся все позиции, а достанет она ближе",
    },
    "resolve_no_rope": {"en": "no scaling, as in the base", "ru": "без растяжения, как в исходной"},
    "resolve_shorter": {
        "en": "as written; {reach} is enough",
        "ru": "как написано; {reach} довольно",
    },
    "lossy_field": {
        "en": "changes answers, and the recipe does not agree to that",
        "ru": "меняет ответы, а согласия на это в рецепте нет",
    },
    "vocab_conflict": {
        "en": "{field} {token} is outside the vocabulary: vocab_size {size} has tokens 0 to {last}",
        "ru": "{field} {token} вне словаря: в vocab_size {size} токены от 0 до {last}",
    },
    "resolve_token": {
        "en": "the base's own {field}",
        "ru": "{field} как в исходной модели",
    },
    "tp_conflict": {
        "en": "{ranks} cards cannot share {heads} query heads on {kv} key/value heads: the first "
        "must divide by the number of cards, and the second by it or it by the second",
        "ru": "{ranks} карт не могут поделить {heads} голов запроса на {kv} голов ключей и "
        "значений: первое должно делиться на число карт, а второе — на него или оно на второе",
    },
    "tp_width_conflict": {
        "en": "{ranks} cards cannot share experts of {width} hidden units: it does not divide",
        "ru": "{ranks} карт не могут поделить экспертов шириной {width}: не делится",
    },
    "resolve_tp": {"en": "{ranks} cards can", "ru": "{ranks} карт могут"},
    "resolve_field": {
        "en": "with {field} {value} they can",
        "ru": "при {field} {value} могут",
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
        "en": "active parameters a token (without the input embedding)",
        "ru": "активные параметры на токен (без входного эмбеддинга)",
    },
    "cost_weight_bytes": {"en": "weights", "ru": "веса"},
    "cost_kv_bytes_per_token": {"en": "KV cache a token", "ru": "KV-кэш на токен"},
    "cost_flops_per_token": {
        "en": "FLOPs a token (at {context} tokens of context)",
        "ru": "FLOP на токен (при контексте {context})",
    },
    "instead_of": {"en": "asked for was {wanted}", "ru": "просили {wanted}"},
    "by_group": {"en": "parameters by group", "ru": "параметры по группам"},
    "by_quantization": {"en": "weights by type", "ru": "веса по типам"},
    "kv_cache": {
        "en": "KV cache of a sequence (type, tokens)",
        "ru": "KV-кэш последовательности (тип, токены)",
    },
    "flops": {
        "en": "FLOPs a token, by tokens before it",
        "ru": "FLOP на токен, по числу токенов до него",
    },
    "group_embeddings": {
        "en": "embeddings and output head",
        "ru": "эмбеддинги и выходной слой",
    },
    "group_attention": {"en": "attention", "ru": "внимание"},
    "group_experts": {"en": "experts", "ru": "эксперты"},
    "group_shared_experts": {"en": "shared experts", "ru": "общие эксперты"},
    "group_router": {"en": "routers", "ru": "маршрутизаторы"},
    "group_dense_mlp": {"en": "dense MLPs", "ru": "плотные MLP"},
    "group_norms": {"en": "norms", "ru": "нормировки"},
    "cards": {
        "en": "Cards that can share it (tensor parallel): {before} → {after}; with FP8 blocks of "
        "128: {fp8_before} → {fp8_after}",
        "ru": "Карт, которые могут её поделить (tensor parallel): {before} → {after}; с блоками "
        "FP8 по 128: {fp8_before} → {fp8_after}",
    },
    "read_by": {"en": "read by", "ru": "кто читает"},
    "read_by_nobody": {
        "en": "nobody was found to read it",
        "ru": "никого, кто его читает, не нашли",
    },
    "nobody": {"en": "nobody was found to", "ru": "никого не нашли"},
    "col_recipe": {"en": "recipe", "ru": "рецепт"},
    "col_base": {"en": "base", "ru": "исходная модель"},
    "col_description": {"en": "what it is", "ru": "что это"},
    "col_class": {"en": "effect", "ru": "действие"},
    "col_wish": {"en": "what was hoped", "ru": "на что надеялись"},
    "col_values": {"en": "change", "ru": "изменение"},
    "col_reason": {"en": "why", "ru": "почему"},
    "config_title": {"en": "config.json of the result", "ru": "config.json результата"},
    "chart_parameters": {
        "en": "Where the parameters are",
        "ru": "Где параметры",
    },
    "chart_bytes": {
        "en": "Where the bytes are: weights in each type, and a KV cache of {tokens} tokens",
        "ru": "Где байты: веса в каждом типе и KV-кэш на {tokens} токенов",
    },
    "chart_before": {"en": "{name}, before", "ru": "{name}, до"},
    "chart_after": {"en": "{name}, after", "ru": "{name}, после"},
    "chart_kv": {"en": "KV cache, {dtype}", "ru": "KV-кэш, {dtype}"},
    "chart_cache": {"en": "KV cache", "ru": "KV-кэш"},
    "template_fields": {
        "en": "Take the # off a line and change its value: a number, or a factor of the base's "
        "such as x1.5; or write {{value: …, reason: …, apply: …}}.",
        "ru": "Уберите # перед строкой и измените значение: число или множитель исходного, "
        "например x1.5; или напишите {{value: …, reason: …, apply: …}}.",
    },
    "template_empty": {
        "en": "Then remove the {{}} at the end.",
        "ru": "Тогда уберите {{}} в конце.",
    },
    "recipe_written": {
        "en": "{path}: see it with veche plan {path}",
        "ru": "{path}: посмотреть — veche plan {path}",
    },
    "recipe_good": {
        "en": "{recipe}: plans, nothing is left to decide",
        "ru": "{recipe}: планируется, решать больше нечего",
    },
    "recipe_undecided": {
        "en": "{recipe}: plans, and leaves this to decide: {reason}; choose: {flags}",
        "ru": "{recipe}: планируется, но осталось решить: {reason}; выбор: {flags}",
    },
    "diff_title": {"en": "{a} against {b}", "ru": "{a} и {b}"},
    "diff_same": {
        "en": "No field of the two results differs.",
        "ru": "Поля обоих результатов одинаковы.",
    },
    "conflict_title": {"en": "To be decided", "ru": "Надо решить"},
    "cannot_build": {
        "en": "This plan cannot be built until that is decided.",
        "ru": "Пока это не решено, план нельзя построить.",
    },
}


phrase = partial(spoken, PHRASES)
"""Return the phrase `key` in `language`, with its placeholders filled."""

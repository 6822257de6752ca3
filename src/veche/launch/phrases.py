"""What a launch profile says to its reader, in English and Russian."""

from functools import partial

from veche.core.language import Phrase, spoken

PHRASES: dict[str, Phrase] = {
    # why a flag is there
    "why_utilization": {
        "en": "the share of the card that vLLM may take for everything: {utilization:g}; its own "
        "default is 0.90 up to version 0.19 and 0.92 from 0.20",
        "ru": "доля карты, которую vLLM займёт целиком: {utilization:g}; его умолчание — 0,90 до "
        "версии 0.19 и 0,92 с 0.20",
    },
    "why_length": {
        "en": "the longest sequence; where rope is scaled, vLLM's limit is factor × original "
        "length up to 0.29 and max_position_embeddings from 0.30",
        "ru": "самая длинная последовательность; при растянутом rope предел vLLM — множитель × "
        "исходная длина до 0.29 и max_position_embeddings с 0.30",
    },
    "why_batched_tokens": {
        "en": "tokens of one prefill step; vLLM's overhead grows with it, not with the context",
        "ru": "токенов в одном шаге prefill; расходы vLLM растут с ним, а не с контекстом",
    },
    "why_quantization_fp8": {
        "en": "quantises a bf16 checkpoint to FP8 while it loads; an FP8 checkpoint needs no flag",
        "ru": "квантует модель bf16 в FP8 при загрузке; готовой модели FP8 флаг не нужен",
    },
    "why_prepared": {
        "en": "must be a checkpoint already quantised to {quantization} (llm-compressor, ModelOpt)",
        "ru": "должна быть моделью, уже квантованной в {quantization} (llm-compressor, ModelOpt)",
    },
    "why_kv_fp8": {
        "en": "halves the KV cache; without calibrated scales (the usual case) it costs a little "
        "accuracy, more in long contexts: measure it",
        "ru": "вдвое уменьшает KV-кэш; без калиброванных масштабов (обычный случай) стоит немного "
        "точности, на длинном контексте больше: измерьте",
    },
    "why_tensor_parallel": {
        "en": "{ranks} cards share every matrix: query heads divide by it, KV heads divide by it "
        "or it by them",
        "ru": "{ranks} карт делят каждую матрицу: головы запроса делятся на это число, головы KV "
        "делятся на него или оно на них",
    },
    "why_pipeline": {
        "en": "machines follow each other layer by layer: that asks least of the network",
        "ru": "машины следуют друг за другом по слоям: так сеть нагружена меньше всего",
    },
    "why_rope": {
        "en": "vLLM has no --rope-scaling since 0.11.1; this pins what the model was made with, "
        "whichever spelling its config.json has",
        "ru": "--rope-scaling в vLLM нет с 0.11.1; так закреплено то, с чем модель сделана, как бы "
        "ни был написан её config.json",
    },
    "why_rope_old": {
        "en": "vLLM before 0.11.1 reads rope_scaling",
        "ru": "vLLM до 0.11.1 читает rope_scaling",
    },
    "why_sglang_length": {
        "en": "SGLang takes the length from here, not from the rope scaling",
        "ru": "SGLang берёт длину отсюда, а не из растяжения rope",
    },
    "why_mem_fraction": {
        "en": "covers weights and KV cache only; 0.95 runs out of memory",
        "ru": "только веса и KV-кэш; при 0,95 памяти не хватает",
    },
    "why_ctx_size": {
        "en": "one pool for all slots: with a unified cache it is not multiplied by --parallel",
        "ru": "общий запас на все слоты: при едином кэше он не умножается на --parallel",
    },
    "why_kv_unified": {
        "en": "slots share one cache, and a common prefix is kept once",
        "ru": "слоты делят один кэш, общее начало хранится один раз",
    },
    "why_cache_type": {
        "en": "a quantised KV cache; it needs flash attention",
        "ru": "квантованный KV-кэш; ему нужно flash attention",
    },
    "why_llama_rope": {
        "en": "the model's own scaling, said again: a GGUF made without it loses it silently",
        "ru": "собственное растяжение модели, сказанное ещё раз: GGUF без него молча его потеряет",
    },
    "why_split_layer": {
        "en": "cards follow each other layer by layer: memory adds up, speed does not",
        "ru": "карты следуют друг за другом по слоям: память складывается, скорость нет",
    },
    "why_transformers": {
        "en": "for trying out: one request at a time costs many small kernels",
        "ru": "для пробы: каждый запрос — множество мелких ядер",
    },
    # traps
    "deep_gemm_off": {
        "en": "block FP8 with the DeepGEMM of vLLM 0.24 breaks on this card (fixed in August 2026)",
        "ru": "блочный FP8 с DeepGEMM из vLLM 0.24 на этой карте ломается (исправлен в 08.2026)",
    },
    "fp8_needs_checkpoint": {
        "en": "needs a checkpoint that is FP8 already: its bf16 weights do not fit this card, and "
        "quantising while loading may hold them first",
        "ru": "нужна модель уже в FP8: её веса bf16 на карту не помещаются, а квантование при "
        "загрузке может сначала держать их",
    },
    "nvfp4_moe_marlin": {
        "en": "NVFP4 experts gave garbage on this card with the default kernels",
        "ru": "эксперты в NVFP4 с ядрами по умолчанию давали на этой карте мусор",
    },
    "no_flash_attn_fp8_kv": {
        "en": "FLASH_ATTN has no FP8 KV cache on this card: vLLM takes another attention kernel",
        "ru": "FLASH_ATTN на этой карте не умеет KV-кэш FP8: vLLM возьмёт другое ядро внимания",
    },
    "untuned_moe": {
        "en": "vLLM's expert kernels fall back to Triton here, and a shape without a tuned table "
        "is 3–6 times slower: E={experts}, N={width} — run benchmarks/kernels/benchmark_moe.py "
        "--tune once",
        "ru": "ядра экспертов vLLM здесь идут через Triton, и форма без настроенной таблицы в 3–6 "
        "раз медленнее: E={experts}, N={width} — один раз запустите "
        "benchmarks/kernels/benchmark_moe.py --tune",
    },
    "fp8_moe_triton": {
        "en": "FP8 experts on this card run through Triton",
        "ru": "эксперты FP8 на этой карте идут через Triton",
    },
    "expert_parallel": {
        "en": "experts are dealt out whole, because their FP8 blocks of 128 cannot be divided by "
        "{ranks}; saves no memory, costs about 10 % of latency over PCIe",
        "ru": "эксперты раздаются целиком, потому что их блоки FP8 по 128 не делятся на {ranks}; "
        "памяти не экономит, стоит около 10 % задержки по PCIe",
    },
    "longer_context_allowed": {
        "en": "SGLang refuses a length above config.json's max_position_embeddings otherwise",
        "ru": "иначе SGLang откажет длине больше max_position_embeddings из config.json",
    },
    "yarn_static": {
        "en": "static YaRN (factor {factor:g}) shifts every position, short texts included; "
        "serving with another factor than the model was tuned with changes every token",
        "ru": "статический YaRN (множитель {factor:g}) сдвигает каждую позицию, и в коротких "
        "текстах; запуск с другим множителем, чем при настройке, меняет каждый токен",
    },
    "length_contradicts": {
        "en": "config.json says max_position_embeddings {length}, but rope reaches {factor:g} × "
        "{original} = {reach}: the command goes by the second",
        "ru": "в config.json max_position_embeddings {length}, а rope достигает {factor:g} × "
        "{original} = {reach}: команда следует второму",
    },
    "return_routing": {
        "en": "answers carry the experts that each token went to (vLLM from 0.21, SGLang)",
        "ru": "в ответах — эксперты, к которым шёл каждый токен (vLLM с 0.21, SGLang)",
    },
    "serve_lora": {
        "en": "roles' adapters are loaded beside the model (on experts: vLLM from 0.11.2)",
        "ru": "адаптеры ролей загружаются рядом с моделью (на экспертах: vLLM с 0.11.2)",
    },
    # why a profile does not run or fit
    "no_routing_over_http": {
        "en": "this server does not say which experts it used",
        "ru": "этот сервер не сообщает, каких экспертов использовал",
    },
    "routing_too_old": {
        "en": "vLLM says which experts it used from version 0.21",
        "ru": "vLLM сообщает об экспертах с версии 0.21",
    },
    "lora_too_old": {
        "en": "vLLM runs adapters on a mixture of experts from version 0.11.2",
        "ru": "vLLM применяет адаптеры к смеси экспертов с версии 0.11.2",
    },
    "card_too_old": {
        "en": "{gpu} has no kernels for {quantization} (they need compute capability 8.0)",
        "ru": "у {gpu} нет ядер для {quantization} (нужна compute capability 8.0)",
    },
    "no_nvfp4_on_amd": {
        "en": "NVFP4 needs an NVIDIA card",
        "ru": "для NVFP4 нужна карта NVIDIA",
    },
    "heads_do_not_split": {
        "en": "{ranks} cards cannot divide this model's attention heads",
        "ru": "{ranks} карт не могут поделить головы внимания этой модели",
    },
    "fp8_blocks_do_not_split": {
        "en": "an expert of {width} units does not split into FP8 blocks of 128 on {ranks} cards",
        "ru": "эксперт шириной {width} не делится на блоки FP8 по 128 на {ranks} карт",
    },
    "fits": {
        "en": "fits: {context} tokens × {sessions}, {left} of the KV cache left",
        "ru": "помещается: {context} токенов × {sessions}, в KV-кэше остаётся {left}",
    },
    "fits_maybe": {
        "en": "may fit: {context} tokens × {sessions} need {needed}, and {low}–{high} are left; "
        "a start-up log will tell (veche launch --parse-log)",
        "ru": "может поместиться: {context} токенов × {sessions} требуют {needed}, остаётся "
        "{low}–{high}; покажет журнал запуска (veche launch --parse-log)",
    },
    "no_room_for_weights": {
        "en": "does not fit: weights take {weights} of the card's {visible}",
        "ru": "не помещается: веса занимают {weights} из {visible} карты",
    },
    "no_room_for_context": {
        "en": "does not fit: {context} tokens × {sessions} need {needed} of KV cache, and at least "
        "{low} are left (at most {high}), enough for {possible} tokens each",
        "ru": "не помещается: {context} токенов × {sessions} требуют {needed} KV-кэша, остаётся не "
        "меньше {low} (не больше {high}), хватит на {possible} токенов каждому",
    },
    "beyond_positions": {
        "en": "does not fit: the model's positions reach {reach} tokens, {context} were asked for",
        "ru": "не помещается: позиции модели достигают {reach} токенов, запрошено {context}",
    },
    "raised_utilization": {
        "en": "needs {utilization:g} of the card: nothing else may use it",
        "ru": "нужно {utilization:g} карты: больше её никто не должен занимать",
    },
    "learned": {
        "en": "the overhead is this machine's own, learned from its start-up logs",
        "ru": "накладные расходы — этой машины, выучены из её журналов запуска",
    },
    # recommendation
    "recommended_best": {
        "en": "the least lossy that fits: {quantization} weights and a {kv_dtype} KV cache hold "
        "{context} tokens × {sessions} on {cards}, at {slow}–{fast} tokens a second",
        "ru": "наименьшая потеря из того, что помещается: веса {quantization} и KV-кэш {kv_dtype} "
        "держат {context} токенов × {sessions} на {cards}, {slow}–{fast} токенов в секунду",
    },
    "nearest_other_types": {
        "en": "the nearest that fits: {engine}, {quantization} weights, {kv_dtype} KV cache",
        "ru": "ближайшее, что помещается: {engine}, веса {quantization}, KV-кэш {kv_dtype}",
    },
    "nearest_more_cards": {
        "en": "the nearest that fits: {cards}, {quantization} weights, {kv_dtype} KV cache",
        "ru": "ближайшее, что помещается: {cards}, веса {quantization}, KV-кэш {kv_dtype}",
    },
    "nearest_shorter": {
        "en": "the nearest that fits: {context} tokens × {sessions} on {cards}, {quantization} "
        "weights, {kv_dtype} KV cache",
        "ru": "ближайшее, что помещается: {context} токенов × {sessions} на {cards}, веса "
        "{quantization}, KV-кэш {kv_dtype}",
    },
    # emitted files
    "file_title": {
        "en": "{engine} on {cards}, written by {program}",
        "ru": "{engine} на {cards}, написано {program}",
    },
    "ray_head": {
        "en": "The first of {nodes} machines; run ray-worker.sh on each of the others.",
        "ru": "Первая из {nodes} машин; на каждой из остальных запустите ray-worker.sh.",
    },
    "ray_worker": {
        "en": "Every machine but the first: joins the address of the first one.",
        "ru": "Каждая машина, кроме первой: присоединяется к адресу первой.",
    },
    "nothing_fits": {
        "en": "nothing in the catalogue's reach fits this model",
        "ru": "ничего из доступного эту модель не вмещает",
    },
}

phrase = partial(spoken, PHRASES)
"""Return the phrase `key` in `language`, with its placeholders filled."""

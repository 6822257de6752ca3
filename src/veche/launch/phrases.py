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
        "en": "makes {quantization} of a bf16 checkpoint while it loads; leave it out for a "
        "checkpoint that is FP8 already",
        "ru": "делает {quantization} из модели bf16 при загрузке; для готовой модели FP8 уберите",
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
        "en": "pins what the model was made with; vLLM dropped this flag at 0.11.1",
        "ru": "закрепляет то, с чем модель сделана; в vLLM 0.11.1 этого флага уже нет",
    },
    "why_sglang_length": {
        "en": "SGLang takes the length from here, not from the rope scaling",
        "ru": "SGLang берёт длину отсюда, а не из растяжения rope",
    },
    "why_mem_fraction": {
        "en": "covers weights and KV cache only; 0.95 has run out of memory: leave room for the "
        "rest",
        "ru": "только веса и KV-кэш; при 0,95 памяти уже не хватало: оставьте место остальному",
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
    "why_override_kv": {
        "en": "llama-server caps a slot at the GGUF's context_length, which is config.json's "
        "{length}: rope reaches {reach}",
        "ru": "llama-server ограничивает слот числом context_length из GGUF, а это {length} из "
        "config.json: rope достигает {reach}",
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
    "quantized_checkpoint": {
        "en": "{model} must be a checkpoint already quantised to {quantization} (llm-compressor, "
        "ModelOpt, or the publisher's own): this command does not quantise",
        "ru": "{model} — уже квантованная в {quantization} модель (llm-compressor, ModelOpt или от "
        "издателя): сама эта команда не квантует",
    },
    "stored_known": {
        "en": "the checkpoint's weights are {quantization} already (its config.json says "
        "{stored}): the engine reads that itself, and no flag needs to say it",
        "ru": "веса модели уже {quantization} (в её config.json: {stored}): движок прочтёт это "
        "сам, флаг не нужен",
    },
    "stored_near": {
        "en": "the checkpoint's weights are quantised already (its config.json says {stored}): the "
        "engine reads that itself; they are counted as {quantization}, and scales, groups or "
        "layers left out may make them a little larger or smaller",
        "ru": "веса модели уже квантованы (в её config.json: {stored}): движок прочтёт это сам; "
        "посчитаны как {quantization}, а из-за масштабов, групп и пропущенных слоёв могут быть "
        "немного больше или меньше",
    },
    "stored_unknown": {
        "en": "the checkpoint's weights are quantised (its config.json says {stored}), in a way "
        "that veche cannot count: every number here is that of bf16, and MODEL is likely "
        "smaller; --quant NAME counts it as what it resembles",
        "ru": "веса модели квантованы (в её config.json: {stored}), но так veche считать не умеет: "
        "все числа здесь — для bf16, а модель, вероятно, меньше; --quant ИМЯ посчитает её как "
        "похожую",
    },
    "gguf_file": {
        "en": "{model} must be a {quantization} GGUF file: convert_hf_to_gguf.py makes one in "
        "16 bits, llama-quantize the rest (both are llama.cpp's)",
        "ru": "{model} — файл GGUF {quantization}: в 16 битах его делает convert_hf_to_gguf.py, "
        "остальные — llama-quantize (оба из llama.cpp)",
    },
    "sglang_nodes": {
        "en": "run it on every machine, each with --dist-init-addr FIRST_MACHINE:50000 and "
        "--node-rank 0 … {last_node} added; {model} must be at the same path on each",
        "ru": "запустите на каждой машине, добавив --dist-init-addr ПЕРВАЯ_МАШИНА:50000 и "
        "--node-rank 0 … {last_node}; {model} должна лежать на каждой по тому же пути",
    },
    "fp8_needs_checkpoint": {
        "en": "{model} must be a checkpoint that is FP8 already: its bf16 weights do not fit this "
        "card, and quantising while loading may hold them first",
        "ru": "{model} — модель уже в FP8: её веса bf16 на карту не помещаются, а квантование при "
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
    "expert_parallel_asked": {
        "en": "experts are dealt out whole over all cards, as was asked; costs about 10 % of "
        "latency over PCIe",
        "ru": "эксперты раздаются целиком по всем картам, как запрошено; стоит около 10 % задержки "
        "по PCIe",
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
        "{original} = {reach}: the command goes by {reach}",
        "ru": "в config.json max_position_embeddings {length}, а rope достигает {factor:g} × "
        "{original} = {reach}: команда исходит из {reach}",
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
    "more_with_a_larger_share": {
        "en": "up to {possible} tokens with {larger:g} of the card, where nothing else may use it",
        "ru": "до {possible} токенов, если занять {larger:g} карты: тогда больше её никому нельзя",
    },
    "one_machine_only": {
        "en": "this engine runs on one machine: vLLM and SGLang join several",
        "ru": "этот движок работает на одной машине: несколько объединяют vLLM и SGLang",
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
        "en": "other data types: {engine} with {quantization} weights and a {kv_dtype} KV cache "
        "holds {context} tokens × {sessions}; costs some accuracy",
        "ru": "другие типы данных: {engine} с весами {quantization} и KV-кэшем {kv_dtype} держит "
        "{context} токенов × {sessions}; стоит некоторой точности",
    },
    "nearest_other_engine": {
        "en": "another engine: {engine} with {quantization} weights and a {kv_dtype} KV cache "
        "holds {context} tokens × {sessions}; it has smaller weights, and is slower with many "
        "sessions",
        "ru": "другой движок: {engine} с весами {quantization} и KV-кэшем {kv_dtype} держит "
        "{context} токенов × {sessions}; веса у него меньше, но со многими сессиями он медленнее",
    },
    "nearest_shorter": {
        "en": "less context: {context} tokens × {sessions} with the same {engine}, {quantization} "
        "weights and {kv_dtype} KV cache",
        "ru": "короче контекст: {context} токенов × {sessions} с тем же {engine}, весами "
        "{quantization} и KV-кэшем {kv_dtype}",
    },
    "nearest_shorter_other": {
        "en": "less context and other data types: {context} tokens × {sessions} with {engine}, "
        "{quantization} weights and a {kv_dtype} KV cache",
        "ru": "короче контекст и другие типы данных: {context} токенов × {sessions} с {engine}, "
        "весами {quantization} и KV-кэшем {kv_dtype}",
    },
    "nearest_more_cards": {
        "en": "more cards: {cards} with {engine}, {quantization} weights and a {kv_dtype} KV cache "
        "hold {context} tokens × {sessions}",
        "ru": "больше карт: {cards} с {engine}, весами {quantization} и KV-кэшем {kv_dtype} держат "
        "{context} токенов × {sessions}",
    },
    # emitted files
    "file_title": {
        "en": "{engine} on {cards}, written by {program}",
        "ru": "{engine} на {cards}, написано {program}",
    },
    "unit_place": {
        "en": "Copy it to ~/.config/systemd/user, then systemctl --user daemon-reload and "
        "systemctl --user enable --now its name. A program in a virtual environment needs its "
        "whole path after ExecStart=, in place of /usr/bin/env and its name.",
        "ru": "Скопируйте в ~/.config/systemd/user, затем systemctl --user daemon-reload и "
        "systemctl --user enable --now с его именем. Программе из виртуального окружения нужен "
        "полный путь после ExecStart= вместо /usr/bin/env и имени.",
    },
    "ray_head": {
        "en": "The first of {nodes} machines; run ray-worker.sh on each of the others. "
        "{model} must be at the same path on every machine.",
        "ru": "Первая из {nodes} машин; на каждой из остальных запустите ray-worker.sh. "
        "{model} должна лежать на каждой машине по тому же пути.",
    },
    "compose_folder": {
        "en": "A model on this machine: mount its folder so, and write /models/… in place of "
        "{model} above.",
        "ru": "Модель на этой машине: подключите её папку так и напишите выше /models/… вместо "
        "{model}.",
    },
    "compose_latest": {
        "en": "The newest image at the time of the pull; --engine-version names one that stays.",
        "ru": "Самый новый образ на момент загрузки; --engine-version назовёт неизменный.",
    },
    "ray_worker": {
        "en": "Every machine but the first: joins the address of the first one.",
        "ru": "Каждая машина, кроме первой: присоединяется к адресу первой.",
    },
}

phrase = partial(spoken, PHRASES)
"""Return the phrase `key` in `language`, with its placeholders filled."""

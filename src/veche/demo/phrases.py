"""What the demo says while it works, in English and Russian."""

from functools import partial

from veche.core.language import Phrase, spoken

PHRASES: dict[str, Phrase] = {
    "source": {
        "en": "real weights: SmolLM2-135M-Instruct from a Python package, as a Hugging Face folder",
        "ru": "настоящие веса: SmolLM2-135M-Instruct из пакета Python, в виде папки Hugging Face",
    },
    "carve": {
        "en": "carve: every dense MLP becomes 16 experts and a router; with all 16 it is the same "
        "function",
        "ru": "вырезание: каждый плотный MLP становится 16 экспертами с маршрутизатором; со всеми "
        "16 функция та же",
    },
    "plan": {
        "en": "plan: what the recipe would do, field by field, before a weight moves",
        "ru": "план: что сделает рецепт, поле за полем, прежде чем сдвинется хоть один вес",
    },
    "build": {
        "en": "build: more heads and wider experts, written as a stream; exact at step 0",
        "ru": "сборка: больше голов и шире эксперты, потоком на диск; на шаге 0 функция та же",
    },
    "verify": {
        "en": "verify: the exact part against the noise floor, the lossy dials on unseen text",
        "ru": "проверка: точная часть против шума, ручки с потерей — на незнакомом тексте",
    },
    "launch": {
        "en": "launch: what the recipe agi needs on one RTX PRO 6000 Blackwell",
        "ru": "запуск: что нужно рецепту agi на одной RTX PRO 6000 Blackwell",
    },
    "ask": {
        "en": "ask: a council of voices over one prefilled trunk",
        "ru": "вопрос: совет голосов над одним общим началом",
    },
    "see": {
        "en": "see: which experts spoke, for which voice",
        "ru": "обзор: какие эксперты говорили и за какой голос",
    },
    "report": {
        "en": "report: all of it on one page",
        "ru": "отчёт: всё на одной странице",
    },
    "question": {
        "en": "What is the capital of France, and what is it known for?",
        "ru": "Какой город — столица Франции и чем он известен?",
    },
    "unchanged": {"en": "unchanged, kept", "ru": "без изменений, оставлено"},
    "stage_done": {"en": "{seconds:.1f} s", "ru": "{seconds:.1f} с"},
    "summary_verify": {
        "en": "Exact part: KL {kl:.1e} under the noise floor {floor:.1e}. Whole recipe: NLL "
        "{source:.3f} → {target:.3f} nats a token.",
        "ru": "Точная часть: KL {kl:.1e} под уровнем шума {floor:.1e}. Рецепт целиком: NLL "
        "{source:.3f} → {target:.3f} нат на токен.",
    },
    "summary_answer": {"en": "Answer: {answer}", "ru": "Ответ: {answer}"},
    "summary_bill": {
        "en": "Token bill: {prefilled} prefilled, {reused} read from the shared trunk, {decoded} "
        "decoded.",
        "ru": "Счёт в токенах: {prefilled} обработано, {reused} прочитано из общего начала, "
        "{decoded} порождено.",
    },
    "look": {"en": "Look at {path}", "ru": "Откройте {path}"},
}


phrase = partial(spoken, PHRASES)
"""Return the phrase `key` in `language`, with its placeholders filled."""

"""A council over tiny random models: nothing is prefilled twice, and routing is each voice's."""

import pytest
from tests import tiny_models

from veche.council.deliberation import deliberate
from veche.council.settings import CouncilSettings
from veche.engines.transformers import create

SETTINGS = CouncilSettings(max_tokens_per_voice=10, early_stop=False)


@pytest.fixture(scope="module", params=["tiny_mixtral", "tiny_qwen3_moe", "tiny_llama"])
def engine(request, tmp_path_factory):
    make = getattr(tiny_models, request.param)
    folder = make(tmp_path_factory.mktemp(request.param), max_position_embeddings=8192)
    return create(folder, dtype="float32")


@pytest.mark.parametrize("language", ["en", "ru"])
def test_usage_equals_the_tokens_that_really_ran_through_the_model(engine, language):
    ran = {"prefill": 0, "decode": 0}

    def count(module, args, kwargs):
        ids, what = kwargs["input_ids"], kwargs["forward_pass"]
        is_real = what.is_real
        real = ids.numel() if is_real is None else int(is_real[:, -ids.shape[1] :].sum())
        ran["decode" if ids.shape[1] == 1 and what.prefix else "prefill"] += real

    handle = engine._model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        result = deliberate(engine, "Сколько будет 2 + 2?", settings=SETTINGS, language=language)
    finally:
        handle.remove()
    assert ran["prefill"] == result.usage.prefilled_tokens
    turns = [event for event in result.events if event.kind == "TEXT_MESSAGE_CONTENT"]
    assert ran["decode"] == result.usage.decoded_tokens - len(turns)


def test_each_voice_has_the_routing_of_all_that_it_said(engine):
    result = deliberate(engine, "What is four?", settings=SETTINGS)
    if engine.name.startswith("tiny_llama"):
        assert result.routing == {}
        return
    for voice, routing in result.routing.items():
        fed_back = sum(
            event.data["decoded_tokens"] - 1
            for event in result.events
            if event.kind == "TEXT_MESSAGE_CONTENT" and event.voice == voice
        )
        assert routing.expert_ids.shape == (fed_back, 3, 3)
    assert set(result.routing) == {"proposer", "logician", "objector", "synthesiser"}
    assert "routing_entropy" in result.observations[0]


def test_the_same_seed_gives_the_same_run(engine):
    runs = [deliberate(engine, "Why?", settings=SETTINGS).events for _ in range(2)]
    assert runs[0] == runs[1]

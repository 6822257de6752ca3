"""Adapters come and go while the engine serves; the trunk is what it is without any."""

import shutil
from dataclasses import replace
from threading import Thread

import numpy as np
import pytest
import torch
from tests import tiny_models
from tests.roles.adapters import a_steering, an_adapter

from veche.core.errors import CheckpointError, InputError, RoleError, UnsupportedError
from veche.council.deliberation import deliberate
from veche.council.seats import default_council
from veche.council.settings import CouncilSettings
from veche.engines.protocol import Branch, Capture, Sampling
from veche.engines.scripted import ScriptedEngine
from veche.engines.transformers import create
from veche.roles.host import host_of, unproven
from veche.roles.hot_swap import HotSwap
from veche.roles.registry import Registry
from veche.roles.role import RoleSteering
from veche.roles.role_file import parse_role

CAPTURE = Capture(logits=True)
PREFIX_ERROR = 1e-6
ROUNDING = 1e-5
"""Of float32, where rows of a batch are summed in another order than alone."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_models.tiny_qwen3_moe(
        tmp_path_factory.mktemp("swap") / "m", max_position_embeddings=4096
    )


@pytest.fixture(scope="module")
def folders(model, tmp_path_factory):
    place = tmp_path_factory.mktemp("adapters")
    return [an_adapter(place / str(seed), model, seed=seed) for seed in (1, 2)]


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "roles")


@pytest.fixture
def roles(registry, folders):
    """Two roles with different adapters, and one without."""
    made = [
        a_role(name, adapter=registry.keep(folder, "adapter"))
        for name, folder in zip(("one", "two"), folders, strict=True)
    ]
    return [*made, a_role("plain")]


@pytest.fixture
def engine(model):
    return create(model, dtype="float32")


def a_role(name, **changes):
    told = f"{{name: {name}, kind: drafter, title: T, prompt: Speak.}}"
    return replace(parse_role(told, where=name), **changes)


def opened(engine):
    return engine.open_trunk(system="You answer.", user="Question: how much is four, слово?")


def said(engine, trunk, *speakers):
    sampling = Sampling(max_new_tokens=6)
    branches = [
        speaker.branch(
            voice=f"{speaker.role.name} {number}", instruction="\n\nSpeak.", sampling=sampling,
            capture=CAPTURE, keep=True,
        )
        for number, speaker in enumerate(speakers)
    ]  # fmt: skip
    return engine.decode(trunk, branches)


def cache_of(trunk):
    return [
        (layer.keys[:, :, : layer.length].clone(), layer.values[:, :, : layer.length].clone())
        for layer in trunk.rows.cache.layers
    ]


def is_bit_equal(first, second):
    return all(
        torch.equal(one, other)
        for pair, rival in zip(first, second, strict=True)
        for one, other in zip(pair, rival, strict=True)
    )


def error_between(first, second):
    """The largest difference of two logits, in parts of the largest logit."""
    return np.abs(first.logits - second.logits).max() / np.abs(second.logits).max()


def test_two_roles_in_one_batch_over_one_trunk_equal_each_alone(engine, model, registry, roles):
    swap = HotSwap(engine, registry)
    trunk = opened(engine)
    before = cache_of(trunk)
    with swap.holding(roles) as speakers:
        assert swap.loaded == {roles[0].adapter.content_hash, roles[1].adapter.content_hash}
        together = said(engine, trunk, *speakers)
        assert is_bit_equal(before, cache_of(trunk))
    for role, result in zip(roles, together, strict=True):
        alone = create(model, dtype="float32")
        with HotSwap(alone, registry).holding([role]) as speakers:
            expected = said(alone, opened(alone), *speakers)[0]
        assert result.token_ids == expected.token_ids
        assert error_between(result, expected) <= ROUNDING
    assert error_between(together[0], together[1]) > 0.01
    assert error_between(together[0], together[2]) > 0.01


def test_the_trunk_that_adapters_share_is_that_of_an_engine_without_any(
    engine, model, registry, roles
):
    bare = create(model, dtype="float32")
    expected = cache_of(opened(bare))
    with HotSwap(engine, registry).holding(roles) as speakers:
        trunk = opened(engine)
        said(engine, trunk, *speakers)
        for pair, rival in zip(cache_of(trunk), expected, strict=True):
            for found, wanted in zip(pair, rival, strict=True):
                assert (found - wanted).abs().max() <= PREFIX_ERROR * wanted.abs().max()


def test_a_role_is_switched_while_a_trunk_is_open(engine, registry, roles):
    """The trunk stays as it is to the bit, and nothing of the old adapter is read."""
    swap = HotSwap(engine, registry)
    trunk = opened(engine)
    before = cache_of(trunk)
    first = said(engine, trunk, swap.load(roles[0]))[0]
    other = replace(roles[0], adapter=roles[1].adapter)
    switched = said(engine, trunk, swap.load(other))[0]
    assert swap.loaded == {roles[1].adapter.content_hash}
    assert is_bit_equal(before, cache_of(trunk))
    expected = said(engine, opened(engine), swap.load(roles[1]))[0]
    assert error_between(switched, expected) <= PREFIX_ERROR
    assert error_between(switched, first) > 0.01
    back = said(engine, trunk, swap.load(roles[0]))[0]
    assert error_between(back, first) <= PREFIX_ERROR


def test_what_was_kept_of_a_role_says_with_which_adapter(engine, registry, roles):
    swap = HotSwap(engine, registry)
    trunk = opened(engine)
    kept = said(engine, trunk, swap.load(roles[0]))[0].trunk
    swap.load(replace(roles[0], adapter=roles[1].adapter))
    assert kept.lineage == (roles[0].adapter.content_hash,)
    gone = Branch(voice="v", instruction="", adapter=roles[0].adapter.content_hash)
    with pytest.raises(InputError, match="no adapter"):
        engine.decode(kept, [gone])


class CountingEngine:
    """The engine that it stands before, with a count of what was loaded."""

    def __init__(self, engine):
        self._engine, self.calls = engine, []

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def load_adapter(self, name, folder):
        self.calls.append(("load", name))
        return self._engine.load_adapter(name, folder)

    def unload_adapter(self, name):
        self.calls.append(("unload", name))
        self._engine.unload_adapter(name)


class TestWhatIsLoaded:
    def test_an_adapter_that_two_roles_share_is_loaded_once_and_stays_for_the_other(
        self, engine, registry, roles
    ):
        counting = CountingEngine(engine)
        swap = HotSwap(counting, registry)
        twin = replace(roles[0], name="twin")
        swap.load(roles[0])
        swap.load(twin)
        assert [verb for verb, _ in counting.calls] == ["load"]
        assert not swap.unload("one")
        assert swap.unload("twin")
        assert [verb for verb, _ in counting.calls] == ["load", "unload"]
        assert swap.loaded == frozenset()

    def test_one_in_use_leaves_when_the_last_who_speaks_with_it_has_ended(
        self, engine, registry, roles
    ):
        swap = HotSwap(engine, registry)
        trunk = opened(engine)
        with swap.holding(roles) as speakers:
            with swap.holding(roles[:1]):
                assert not swap.unload("one")
            assert said(engine, trunk, *speakers)[0].text is not None
            assert roles[0].adapter.content_hash in swap.loaded
        assert swap.loaded == {roles[1].adapter.content_hash}

    def test_a_version_that_is_switched_under_a_run_stays_until_it_ends(
        self, engine, registry, roles
    ):
        swap = HotSwap(engine, registry)
        trunk = opened(engine)
        with swap.holding(roles[:1]) as (old,):
            expected = said(engine, trunk, old)[0]
            new = swap.load(replace(roles[0], adapter=roles[1].adapter))
            again, other = said(engine, trunk, old, new)
            assert error_between(again, expected) <= ROUNDING
            assert error_between(other, expected) > 0.01
        assert swap.loaded == {roles[1].adapter.content_hash}

    def test_a_role_that_has_lost_its_adapter_speaks_without(self, engine, registry, roles):
        swap = HotSwap(engine, registry)
        swap.load(roles[0])
        assert swap.load(replace(roles[0], adapter=None)).adapter is None
        assert swap.loaded == frozenset()
        with pytest.raises(InputError, match="no adapter of role 'one'"):
            swap.unload("one")

    def test_many_threads_may_load_and_speak_at_once(self, engine, registry, roles):
        swap, trunk, failures, texts = HotSwap(engine, registry), opened(engine), [], []

        def serve(role):
            try:
                for _ in range(4):
                    with swap.holding([role]) as speakers:
                        texts.append((role.name, said(engine, trunk, *speakers)[0].token_ids))
                    if role.name in swap._meant:
                        swap.unload(role.name)
            except (InputError, RoleError) as error:
                failures.append(error)

        threads = [Thread(target=serve, args=(role,)) for role in roles[:2]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(set(texts)) == 2
        assert swap.loaded == frozenset()


class TestRefusals:
    def test_an_engine_without_adapters_names_the_role(self, registry, roles):
        with pytest.raises(UnsupportedError, match="role 'one' needs its adapter"):
            HotSwap(ScriptedEngine({}), registry).load(roles[0])
        few = a_role("few", num_experts_per_tok=1)
        with pytest.raises(UnsupportedError, match="role 'few' needs its own number"):
            HotSwap(ScriptedEngine({}), registry).load(few)

    def test_an_adapter_of_another_shape_is_refused_and_what_was_there_stays(
        self, engine, registry, roles, tmp_path
    ):
        wide = tiny_models.tiny_qwen3_moe(tmp_path / "wide", hidden_size=48)
        kept = registry.keep(an_adapter(tmp_path / "a", wide), "adapter")
        swap = HotSwap(engine, registry)
        swap.load(roles[0])
        with pytest.raises(CheckpointError, match="does not fit the model"):
            swap.load(replace(roles[0], adapter=kept))
        assert swap.loaded == {roles[0].adapter.content_hash}

    def test_an_adapter_that_says_another_model_is_refused(self, engine, model, registry, roles):
        other = replace(roles[0].adapter, base_hash="0" * 64)
        role = replace(roles[0], adapter=other)
        host = host_of(str(model), [role])
        with pytest.raises(InputError, match="made with the model 000000000000") as caught:
            HotSwap(engine, registry, host=host).load(role)
        assert "veche role import" in caught.value.hint
        mine = replace(other, base_hash=host.content_hash)
        assert HotSwap(engine, registry, host=host).load(replace(role, adapter=mine)).adapter

    def test_the_weights_are_read_only_where_a_role_says_what_it_was_made_for(self, model, roles):
        host = host_of(str(model), roles)
        assert host.content_hash is None
        assert host.num_experts == 8
        assert unproven(roles, host) == [("one", "adapter"), ("two", "adapter")]
        assert host_of("http://127.0.0.1:1/v1", roles) is None

    def test_a_role_whose_object_is_gone_is_refused(self, engine, registry, roles):
        shutil.rmtree(registry.folder(roles[0].adapter))
        with pytest.raises(RoleError, match="is not in the registry"):
            HotSwap(engine, registry).load(roles[0])

    def test_a_steering_of_another_model_is_refused(self, engine, model, registry, tmp_path):
        mixtral = tiny_models.tiny_mixtral(tmp_path / "deep", num_hidden_layers=4)
        kept = registry.keep(a_steering(tmp_path / "s.safetensors", mixtral), "steering")
        role = a_role("steered", steering=RoleSteering(artefact=kept))
        with pytest.raises(InputError, match="this steering was found with deep"):
            HotSwap(engine, registry, host=host_of(str(model), [role])).load(role)


def test_a_council_of_roles_with_adapter_steering_and_experts_of_their_own(
    engine, model, registry, folders, tmp_path
):
    """Everything that a role may have reaches its branches, and the trunk is prefilled once."""
    steering = registry.keep(a_steering(tmp_path / "s.safetensors", model), "steering")
    adapters = [registry.keep(folder, "adapter") for folder in folders]
    base = default_council(registry)
    voices = [
        replace(base[0], adapter=adapters[0]),
        replace(base[1], steering=RoleSteering(artefact=steering, strength=50.0)),
        replace(base[2], adapter=adapters[1], num_experts_per_tok=1),
        replace(base[3], invocation="Итог", adapter=adapters[0]),
        base[4],
    ]
    settings = CouncilSettings(max_tokens_per_voice=8, early_stop=False)
    swap = HotSwap(engine, registry)
    result = deliberate(engine, "What is four?", settings=settings, voices=voices, swap=swap)
    plain = deliberate(engine, "What is four?", settings=settings, voices=base)
    drafts = {m.voice: m.text for m in messages_of(result) if m.step == "drafts"}
    others = {m.voice: m.text for m in messages_of(plain) if m.step == "drafts"}
    assert all(drafts[name] != others[name] for name in drafts)
    assert (result.routing["logician"].expert_ids == 0).any(axis=-1).all()
    assert result.routing["objector"].expert_ids.shape[-1] == 1
    told = result.events[0].data["voices"]
    assert [voice.get("adapter") for voice in told] == [
        None if role.adapter is None else role.adapter.content_hash for role in voices
    ]
    assert result.usage.reused_tokens > 0
    assert swap.loaded == {adapter.content_hash for adapter in adapters}
    again = deliberate(engine, "What is four?", settings=settings, voices=voices, swap=swap)
    assert messages_of(again) == messages_of(result)


def messages_of(result):
    from veche.council import readout

    return readout.messages_of(result.events)

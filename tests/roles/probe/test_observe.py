"""What is noted of a text is what the whole model computes of it in one plain pass."""

import numpy as np
import pytest
import torch
from tests.tiny_models import tiny_llama, tiny_mixtral

from veche.core.errors import CheckpointError, InputError, UnsupportedError
from veche.engines.scripted import ScriptedEngine
from veche.engines.transformers import create
from veche.roles.data.example import Example, Message
from veche.roles.probe.observation_cache import ObservationCache
from veche.roles.probe.observe import observe
from veche.roles.probe.scalars import LOGPROB_SCALARS, ROUTER_SCALARS

LAYERS = (0, 1, 3)
ENGLISH = ("the council hears 12 voices", "so the answer is 4")
RUSSIAN = ("совет слышит 12 голосов", "ответ: четыре ☂", "и всё")


def example(steps, question="how many?", group="one"):
    messages = (
        Message(role="user", content=question),
        Message(role="assistant", content=" ".join(steps)),
    )
    return Example(messages=messages, group=group, task="test", steps=tuple(steps))


def question(text):
    return Example(messages=(Message(role="user", content=text),), group=text, task="test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_mixtral(tmp_path_factory.mktemp("mixtral"))


@pytest.fixture(scope="module")
def engine(folder):
    return create(folder, dtype="float32")


def reference(engine, prompt_ids, steps):
    """One forward pass of transformers' own model, cut by what each prefix of bytes tokenises to.

    The tokenizer is byte-level, so a token belongs to the step in which its last byte lies.
    """
    tokenizer = engine._tokenizer
    text = "".join(f"{step}\n" for step in steps)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    decoder = {letter: byte for byte, letter in _byte_letters().items()}
    sizes = [len(tokenizer.convert_ids_to_tokens(i)) for i in ids]
    data = bytes(decoder[c] for i in ids for c in tokenizer.convert_ids_to_tokens(i))
    assert data == text.encode()
    owners = [n for n, step in enumerate(steps) for _ in range(len(step.encode()))]
    owner_of_byte = []
    for n, step in enumerate(steps):
        owner_of_byte += [n] * len(step.encode()) + [-1]
    assert len(owners) + len(steps) == len(data)
    ends = np.cumsum(sizes)
    owner = np.array([owner_of_byte[end - 1] for end in ends])
    with torch.inference_mode(), engine._runner.watched():
        rows = engine._runner.rows((), 1, 512)
        whole = [*prompt_ids, *ids]
        out = engine._runner.feed(
            rows, torch.tensor([whole]), logits_to_keep=len(whole), hidden_layers=LAYERS
        )
    start = len(prompt_ids)
    hidden = out.hidden[0, start:].numpy()
    logprobs = out.logits[0].log_softmax(-1)
    chosen = logprobs[torch.arange(start - 1, len(whole) - 1), whole[start:]].numpy()
    return owner, hidden, chosen


def _byte_letters():
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return bytes_to_unicode()


@pytest.mark.parametrize("steps", [ENGLISH, RUSSIAN, ("один шаг",)])
def test_states_and_logprobs_are_means_over_the_tokens_of_each_step_of_one_whole_pass(
    engine, steps
):
    seen = observe(engine, [example(steps)], LAYERS)[0]
    prompt = engine._format.head_ids("", "how many?") + engine._format.suffix_ids("")
    owner, hidden, chosen = reference(engine, prompt, steps)
    names = seen.scalar_names
    for step in range(len(steps)):
        at = owner == step
        np.testing.assert_allclose(seen.hidden[step], hidden[at].mean(0), rtol=2e-3, atol=2e-3)
        mine = seen.scalars[step]
        assert mine[names.index("logprob_mean")] == pytest.approx(chosen[at].mean(), abs=1e-4)
        assert mine[names.index("logprob_sum")] == pytest.approx(chosen[at].sum(), abs=1e-3)
        assert mine[names.index("logprob_min")] == pytest.approx(chosen[at].min(), abs=1e-4)
        assert seen.num_tokens[step] == at.sum()


def test_answers_of_one_group_read_together_are_what_each_is_alone(engine):
    many = [example(ENGLISH), example(RUSSIAN), example(ENGLISH[:1]), question("what? почему")]
    together = observe(engine, many, LAYERS)
    for one, seen in zip(many, together, strict=True):
        alone = observe(engine, [one], LAYERS)[0]
        np.testing.assert_allclose(seen.hidden, alone.hidden, rtol=5e-3, atol=5e-3)
        np.testing.assert_allclose(seen.scalars, alone.scalars, rtol=1e-3, atol=1e-3)
        np.testing.assert_array_equal(seen.load, alone.load)


def test_each_step_s_load_adds_up_to_one_in_every_layer(engine):
    seen = observe(engine, [example(RUSSIAN)], LAYERS)[0]
    assert seen.scalar_names == (*LOGPROB_SCALARS, *ROUTER_SCALARS)
    assert seen.load.shape == (3, 3, 8)
    np.testing.assert_allclose(seen.load.sum(-1), 1, rtol=1e-6)


def test_a_question_without_an_answer_is_one_step(engine):
    seen = observe(engine, [question("two lines\nof one question")], LAYERS)[0]
    assert seen.hidden.shape == (1, len(LAYERS), 32)


def test_earlier_turns_are_part_of_what_an_answer_is_read_behind(engine):
    last = example(ENGLISH).messages
    past = (
        Message(role="system", content="be brief"),
        Message(role="user", content="who?"),
        Message(role="assistant", content="the council"),
    )
    short, long = (
        Example(messages=messages, group="g", task="t", steps=ENGLISH)
        for messages in (last, past + last)
    )
    first, second = observe(engine, [short, long], LAYERS)
    assert first.num_tokens.tolist() == second.num_tokens.tolist()
    assert np.abs(first.hidden - second.hidden).max() > 0.01


def test_a_dense_model_has_no_load_and_no_router_scalars(tmp_path):
    seen = observe(create(tiny_llama(tmp_path), dtype="float32"), [example(ENGLISH)], LAYERS)[0]
    assert seen.load is None
    assert seen.scalar_names == LOGPROB_SCALARS


def test_an_engine_that_cannot_look_inside_is_refused():
    with pytest.raises(UnsupportedError, match="hidden_states"):
        observe(ScriptedEngine({}), [example(ENGLISH)], LAYERS)


def test_an_empty_text_is_refused_by_name(engine):
    with pytest.raises(InputError, match="'blank' is empty"):
        observe(engine, [example((), group="blank")], LAYERS)


def test_a_text_longer_than_the_context_is_refused_by_name(engine):
    with pytest.raises(InputError, match=r"a text of 'long' has .* tokens, but .* 512"):
        observe(engine, [example(("x " * 600,), group="long")], LAYERS)


class _Refusing:
    """The engine, which reads no more."""

    def __init__(self, engine):
        self._engine = engine
        self.capabilities = engine.capabilities
        self.identity = engine.identity
        self.base_hash = engine.base_hash
        self.name = engine.name


def test_what_is_in_the_cache_is_not_read_again_and_is_the_same(engine, tmp_path):
    many = [example(ENGLISH), example(RUSSIAN)]
    first = observe(engine, many[:1], LAYERS, cache=tmp_path)
    both = observe(engine, many, LAYERS, cache=tmp_path)
    assert len(list(tmp_path.rglob("part-*.safetensors"))) == 2
    again = observe(_Refusing(engine), many, LAYERS, cache=tmp_path)
    for one, other in zip([first[0], both[1]], again, strict=True):
        np.testing.assert_array_equal(one.hidden, other.hidden)
        np.testing.assert_array_equal(one.scalars, other.scalars)
        np.testing.assert_array_equal(one.load, other.load)


def test_other_layers_and_other_models_have_caches_of_their_own(engine, tmp_path):
    observe(engine, [example(ENGLISH)], LAYERS, cache=tmp_path)
    observe(engine, [example(ENGLISH)], (1,), cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_part_is_named(engine, tmp_path):
    observe(engine, [example(ENGLISH)], LAYERS, cache=tmp_path)
    part = next(tmp_path.rglob("part-*.safetensors"))
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"part-00000\.safetensors is damaged"):
        ObservationCache(tmp_path, identity=engine.identity, layers=LAYERS)

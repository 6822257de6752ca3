"""Branches of branches: whatever the tree, a leaf computes what it would compute alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from veche.core.errors import CheckpointError, InputError
from veche.engines.embedded.engine import EmbeddedEngine
from veche.engines.protocol import Branch, Capture, Sampling
from veche.engines.transformers import create

SYSTEM = "You hear every voice."
WORDS = ["", " Why", " Отвечай кратко", " the council and the answer, слово за словом", " да"]


@pytest.fixture(scope="module")
def exact_engine(folder):
    return create(folder, dtype="float64")


def a_branch(voice="v", instruction=" Why", max_new_tokens=4, **given):
    return Branch(
        voice=voice,
        instruction=instruction,
        sampling=Sampling(max_new_tokens=max_new_tokens),
        capture=Capture(logits=True),
        keep=True,
        **given,
    )


def logits_without_cache(engine: EmbeddedEngine, ids: list[int], num_last: int) -> torch.Tensor:
    """The reference: one pass of the model over all tokens, no cache, no branches."""
    with torch.inference_mode():
        logits = engine._model(torch.tensor([ids]), use_cache=False).logits[0].float()
    return logits[len(ids) - num_last - 1 : -1]


def require_as_alone(engine, result):
    ids = result.trunk.token_ids
    expected = logits_without_cache(engine, ids, len(result.token_ids))
    # In float64 nothing but the law is left; in float32 these random models amplify rounding.
    bound = 1e-5 if engine._model.dtype == torch.float64 else 3e-5 * float(expected.abs().max())
    assert np.abs(result.logits - expected.numpy()).max() <= bound
    assert list(result.token_ids) == expected.argmax(-1).tolist()


TREES = st.recursive(
    st.lists(st.sampled_from(WORDS[1:]), min_size=1, max_size=3),
    lambda children: st.lists(
        st.tuples(st.sampled_from(WORDS), st.booleans(), children), min_size=1, max_size=3
    ),
    max_leaves=5,
)


def grow(engine, trunk, tree, depth=0):
    """Decode a level as one batch, check every branch, and go on behind each of them."""
    nodes = [node if isinstance(node, tuple) else (node, False, []) for node in tree]
    # A trunk that ends in the user's words takes any instruction; "" behind an answer goes on.
    branches = [
        a_branch(str(index), instruction, max_new_tokens=1 + (index + depth) % 4)
        for index, (instruction, _, _) in enumerate(nodes)
    ]
    before = list(trunk.token_ids)
    results = engine.decode(trunk, branches)
    assert trunk.token_ids == before
    for result, (_, is_extended, children) in zip(results, nodes, strict=True):
        require_as_alone(engine, result)
        if is_extended:
            engine.extend_trunk(result.trunk, " И ещё: да")
        if children:
            grow(engine, result.trunk, children, depth + 1)
            engine.close_trunk(result.trunk)


@settings(max_examples=25)
@given(tree=TREES)
def test_every_branch_of_a_random_tree_equals_a_pass_without_cache(exact_engine, tree):
    trunk = exact_engine.open_trunk(system=SYSTEM, user="Вопрос: the answer is four?")
    grow(exact_engine, trunk, tree)
    exact_engine.close_trunk(trunk)


@pytest.mark.parametrize("num_branches", [1, 2, 3, 5, 8])
def test_any_number_of_branches_equals_unbranched_ones(engine, exact_engine, num_branches):
    instructions = [WORDS[1 + index % 4] * (1 + index // 4) for index in range(num_branches)]
    branches = [a_branch(str(i), text, 8) for i, text in enumerate(instructions)]
    for each in (engine, exact_engine):
        trunk = each.open_trunk(system=SYSTEM, user="Вопрос")
        for result in each.decode(trunk, branches):
            require_as_alone(each, result)


def test_a_cut_answer_goes_on_as_if_it_had_not_been_cut(engine):
    trunk = engine.open_trunk(system=SYSTEM, user="Вопрос")
    whole = engine.decode(trunk, [a_branch(max_new_tokens=9)])[0]
    first = engine.decode(trunk, [a_branch(max_new_tokens=4)])[0]
    rest = engine.decode(first.trunk, [a_branch(instruction="", max_new_tokens=5)])[0]
    assert first.token_ids + rest.token_ids == whole.token_ids
    assert np.allclose(np.concatenate([first.logits, rest.logits]), whole.logits, atol=1e-4)


def test_a_kept_branch_is_answered_in_the_users_next_turn(engine):
    trunk = engine.open_trunk(system=SYSTEM, user="Вопрос")
    kept = engine.decode(trunk, [a_branch()])[0].trunk
    engine.extend_trunk(kept, "Второй")
    result = engine.decode(kept, [a_branch(instruction=" вопрос?")])[0]
    text = engine._tokenizer.decode(kept.token_ids)
    assert text.endswith("<|im_end|>\n<|im_start|>user\nВторой")
    assert "<|im_end|>\n<|im_start|>assistant\n" in engine._tokenizer.decode(result.trunk.token_ids)
    require_as_alone(engine, result)


def test_a_kept_branch_outlives_its_trunk_and_does_not_see_its_later_words(engine):
    trunk = engine.open_trunk(system=SYSTEM, user="Вопрос")
    kept = engine.decode(trunk, [a_branch()])[0].trunk
    expected = engine.decode(kept, [a_branch()])[0]
    engine.extend_trunk(trunk, " что-то совсем другое" * 4)
    assert engine.decode(kept, [a_branch()])[0].token_ids == expected.token_ids
    engine.close_trunk(trunk)
    again = engine.decode(kept, [a_branch()])[0]
    assert np.array_equal(again.logits, expected.logits)


def test_a_long_prompt_in_chunks_equals_one_pass(moe_folder, monkeypatch):
    monkeypatch.setattr("veche.engines.embedded.engine.CHUNK_TOKENS", 7)
    monkeypatch.setattr("veche.engines.embedded.decoding.CHUNK_TOKENS", 5)
    engine = create(moe_folder, dtype="float32")
    trunk = engine.open_trunk(system=SYSTEM, user="Вопрос за вопросом " * 3)
    engine.extend_trunk(trunk, " и ещё, и ещё раз" * 2)
    branches = [a_branch("a", " Why"), a_branch("b", " слово за словом" * 4)]
    for result in engine.decode(trunk, branches):
        require_as_alone(engine, result)


# --- reading what was not decoded -----------------------------------------------------------------


def test_a_given_answer_is_read_as_it_would_be_decoded(engine):
    trunk = engine.open_trunk(system=SYSTEM, user="Вопрос")
    capture = Capture(logits=True, logprobs=3, hidden_layers=(0, 2, 3), router_logits=False)
    answers = ["Четыре, says the council.", "да"]
    branches = [
        Branch(voice=str(i), instruction=text, capture=capture, keep=True)
        for i, text in enumerate([" Why", " Отвечай кратко, слово за словом"])
    ]
    for result, answer in zip(engine.score(trunk, branches, answers), answers, strict=True):
        assert result.text == answer
        ids = [*result.trunk.token_ids]
        num_answer = len(result.token_ids)
        with torch.inference_mode():
            output = engine._model(torch.tensor([ids]), use_cache=False, output_hidden_states=True)
        expected = output.logits[0, -num_answer - 1 : -1].float()
        assert np.allclose(result.logits, expected.numpy(), rtol=0, atol=1e-4)
        logprobs = torch.log_softmax(expected, -1)
        chosen = logprobs[torch.arange(num_answer), torch.tensor(result.token_ids)]
        assert np.allclose(result.logprobs.chosen, chosen.numpy(), atol=1e-4)
        assert (result.logprobs.top_ids == logprobs.topk(3).indices.numpy()).all()
        for column, layer in enumerate(capture.hidden_layers):
            states = output.hidden_states[layer][0, -num_answer - 1 : -1].float().numpy()
            assert np.allclose(result.hidden_states[:, column], states, atol=1e-4)
        if result.routing is not None:
            assert len(result.routing.expert_ids) == num_answer


def test_reading_in_chunks_changes_nothing(moe_engine, monkeypatch):
    trunk = moe_engine.open_trunk(system=SYSTEM, user="Вопрос")
    branches = [
        Branch(voice=str(i), instruction=" Why" * i, capture=Capture(logits=True, heads=True))
        for i in (1, 3)
    ]
    answers = ["слово за словом, every voice and the answer", "да"]
    whole = moe_engine.score(trunk, branches, answers)
    monkeypatch.setattr("veche.engines.embedded.reading.CHUNK_TOKENS", 3)
    for first, second in zip(whole, moe_engine.score(trunk, branches, answers), strict=True):
        assert np.allclose(first.logits, second.logits, atol=1e-4)
        assert np.array_equal(first.routing.expert_ids, second.routing.expert_ids)
        assert first.heads.entropy.shape == (len(first.token_ids), 3, 4)
        assert np.allclose(first.heads.entropy, second.heads.entropy, atol=1e-4)
        assert np.allclose(first.heads.similarity, second.heads.similarity, atol=1e-4)


def test_what_was_decoded_reads_the_same(engine):
    trunk = engine.open_trunk(system=SYSTEM, user="Вопрос")
    said = engine.decode(trunk, [a_branch(max_new_tokens=8)])[0]
    text = said.text
    read = engine.score(trunk, [a_branch()], [text])[0]
    if read.token_ids == said.token_ids:  # some texts have shorter spellings
        assert np.allclose(read.logits, said.logits, atol=1e-4)


def test_a_plain_text_has_no_markup_and_its_first_token_is_predicted(engine):
    trunk = engine.open_text("")
    result = engine.score(trunk, [a_branch(instruction="")], ["Слово за словом"])[0]
    assert engine._tokenizer.decode(result.trunk.token_ids).endswith("Слово за словом")
    assert "im_start" not in engine._tokenizer.decode(result.trunk.token_ids)
    require_scored = logits_without_cache(engine, result.trunk.token_ids, len(result.token_ids))
    assert np.allclose(result.logits, require_scored.numpy(), atol=1e-4)
    longer = engine.open_text("Слово")
    engine.extend_trunk(longer, " за словом")
    require_as_alone(engine, engine.decode(longer, [a_branch(instruction="")])[0])


# --- snapshots ------------------------------------------------------------------------------------


def test_a_snapshot_opens_to_the_same_trunk(engine, tmp_path):
    trunk = engine.open_trunk(system=SYSTEM, user="Вопрос")
    kept = engine.decode(trunk, [a_branch()])[0].trunk
    for one, instruction in ((trunk, " Why"), (kept, ""), (kept, " Ещё?")):
        path = tmp_path / "trunk.safetensors"
        engine.save_trunk(one, path)
        again = engine.load_trunk(path)
        assert again.token_ids == one.token_ids
        first, second = (
            engine.decode(each, [a_branch(instruction=instruction)])[0] for each in (one, again)
        )
        assert np.allclose(first.logits, second.logits, rtol=0, atol=1e-4)
        engine.extend_trunk(again, " дальше")
        require_as_alone(engine, engine.decode(again, [a_branch()])[0])


def test_a_snapshot_of_another_model_or_another_top_k_is_refused(moe_engine, moe_folder, tmp_path):
    path = tmp_path / "trunk.safetensors"
    moe_engine.save_trunk(moe_engine.open_trunk(system=SYSTEM, user="Вопрос"), path)
    other = create(moe_folder, dtype="float32", top_k=2)
    with pytest.raises(CheckpointError, match="another model"):
        other.load_trunk(path)


@pytest.mark.parametrize("keep", [0, 4, 200, -1])
def test_a_cut_snapshot_is_named(moe_engine, tmp_path, keep):
    path = tmp_path / "trunk.safetensors"
    moe_engine.save_trunk(moe_engine.open_trunk(system=SYSTEM, user="Вопрос"), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="is damaged"):
        moe_engine.load_trunk(path)
    with pytest.raises(CheckpointError, match="does not exist"):
        moe_engine.load_trunk(tmp_path / "nothing")


# --- limits ---------------------------------------------------------------------------------------


def test_a_tiny_budget_refuses_before_memory_is_taken_and_nothing_leaks(moe_folder):
    per_token = create(moe_folder, dtype="float32").memory.bytes_per_token
    assert per_token == 2 * 3 * 2 * 8 * 4
    engine = create(moe_folder, dtype="float32", memory_bytes=256 * per_token + 60 * per_token)
    trunk = engine.open_trunk(system=SYSTEM, user="Вопрос")
    assert engine.memory.used_bytes == 256 * per_token
    with pytest.raises(InputError, match="decoding 9 branches needs"):
        engine.decode(trunk, [a_branch(str(index), max_new_tokens=9) for index in range(9)])
    with pytest.raises(InputError, match="the trunk needs"):
        engine.open_trunk(system=SYSTEM, user="ещё")
    result = engine.decode(trunk, [a_branch(max_new_tokens=2)])[0]
    assert engine.memory.used_bytes > 256 * per_token
    engine.close_trunk(result.trunk)
    engine.close_trunk(trunk)
    assert engine.memory.used_bytes == 0


def test_branches_share_the_trunks_memory(moe_engine):
    trunk = moe_engine.open_trunk(system=SYSTEM, user="Вопрос " * 10)
    results = moe_engine.decode(trunk, [a_branch(str(index)) for index in range(5)])
    buffers = {
        segment.layers[0][0].untyped_storage().data_ptr()
        for result in results
        for segment in result.trunk.segments[:-1]
    }
    assert buffers == {trunk.rows.cache.layers[0].keys.untyped_storage().data_ptr()}

"""growth.json of real builds says what is new; the weights themselves agree."""

import json

import numpy as np
import pytest
from tests import tiny_models
from tests.experts.routings import document, random_routing

from veche.checkpoint.reader import open_checkpoint, read_tensor
from veche.core.errors import CheckpointError, InputError
from veche.core.files import read_json_object, write_json
from veche.experts.asleep import new_experts
from veche.experts.folding import folded
from veche.experts.growth import new_capacity
from veche.planning.planner import make_plan
from veche.planning.recipe import Recipe
from veche.surgery.build import build

FIELDS = {
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "moe_intermediate_size": 32,
    "num_experts": 16,
    "num_experts_per_tok": 6,
}


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    folder = tmp_path_factory.mktemp("growth")
    base = tiny_models.tiny_mixtral(folder / "base", max_position_embeddings=4096)
    recipe = Recipe(name="all", base=str(base), mode="zero", allow_lossy=True, fields=FIELDS)
    build(make_plan(recipe), base, folder / "grown")
    return folder / "grown"


def test_new_parts_are_where_the_weights_are_silent_or_copied(grown):
    capacity = new_capacity(grown)
    assert len(capacity.layers) == 4
    assert capacity.has_experts
    assert capacity.has_heads
    (inserted,) = [layer for layer in capacity.layers if layer.is_new]
    assert inserted.heads == tuple(range(6))
    assert inserted.experts == tuple(range(16))
    assert inserted.units == {"moe_intermediate_size": range(32)}
    for layer in capacity.layers:
        if not layer.is_new:
            assert layer.experts == tuple(range(8, 16))
            assert layer.units == {"moe_intermediate_size": range(24, 32)}
            assert _silent_heads(grown, layer.layer) == layer.heads
            assert len(layer.heads) == 2


def _silent_heads(folder, layer):
    """Return the query heads whose columns of o_proj are all zero."""
    name = f"model.layers.{layer}.self_attn.o_proj.weight"
    output = read_tensor(open_checkpoint(folder).tensors[name])
    heads = np.asarray(output, np.float32).reshape(len(output), 6, -1)
    return tuple(int(head) for head in np.flatnonzero(np.abs(heads).sum((0, 2)) == 0))


def test_a_new_expert_that_no_token_is_sent_to_is_asleep(grown):
    routing = random_routing(tokens=200, layers=4, experts=16, top_k=6)
    ids = routing.expert_ids.copy()
    # Expert 9 of layer 0 is never chosen, expert 10 once: another one has their tokens.
    for expert in (9, 10):
        ids[:, 0][ids[:, 0] == expert] = 0
    ids[0, 0, 0] = 10
    recording = document(
        "d", type(routing)(expert_ids=ids, weights=routing.weights, num_experts=16)
    )
    found = new_experts(recording, new_capacity(grown))
    assert len(found) == 3 * 8 + 16
    asleep = {(expert.layer, expert.expert) for expert in found if expert.is_asleep}
    assert asleep == {(0, 9), (0, 10)}
    by_place = {(expert.layer, expert.expert): expert for expert in found}
    assert by_place[0, 9].is_never_chosen
    assert (by_place[0, 10].num_tokens, by_place[0, 10].is_never_chosen) == (1, False)
    used = by_place[1, 12]
    assert used.num_tokens == (ids[:, 1] == 12).sum()
    assert used.relative_load == pytest.approx(used.num_tokens * 16 / (200 * 6))


def test_a_recording_of_another_model_is_refused(grown):
    for shape in ({"layers": 3}, {"experts": 8}):
        recording = document("d", random_routing(**{"layers": 4, "experts": 16, **shape}))
        with pytest.raises(InputError, match="not of this grown model"):
            new_experts(recording, new_capacity(grown))


def test_a_dense_model_made_a_mixture_has_all_experts_but_one_new(tmp_path):
    base = tiny_models.tiny_llama(tmp_path / "base", max_position_embeddings=4096)
    fields = {"num_experts": 4, "num_experts_per_tok": 2}
    recipe = Recipe(name="up", base=str(base), allow_lossy=True, fields=fields)
    build(make_plan(recipe), base, tmp_path / "grown")
    capacity = new_capacity(tmp_path / "grown")
    assert [layer.experts for layer in capacity.layers] == [(1, 2, 3)] * 3
    with pytest.raises(InputError, match="base was dense"):
        folded(document("d", random_routing(experts=4)), capacity)


def _copy(grown, tmp_path, change):
    for name in ("config.json", "growth.json"):
        (tmp_path / name).write_text((grown / name).read_text())
    record = read_json_object(tmp_path / "growth.json")
    change(record)
    write_json(tmp_path / "growth.json", record)
    return tmp_path


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda r: r.update(schema=2), "schema"),
        (lambda r: r.pop("operations"), "operations"),
        (lambda r: r["operations"][0].update(experts={"new": ["x"], "source": []}), "experts.new"),
        (lambda r: r["operations"][0].update(experts={"new": [99], "source": []}), "expert 99"),
    ],
)
def test_what_is_no_growth_record_is_named(grown, tmp_path, change, told):
    with pytest.raises(CheckpointError, match=told):
        new_capacity(_copy(grown, tmp_path, change))


def test_a_model_that_was_not_grown_is_told(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(CheckpointError, match="nothing says what of it is new"):
        new_capacity(tmp_path)

"""Right after growth every new part is asleep; what training moves is awake, nothing else."""

import json

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_models import tiny_llama, tiny_mixtral, tiny_qwen2, tiny_qwen3_moe

from veche.core.errors import CheckpointError
from veche.experts.dormancy import nearest_distance, relative, squared_distances
from veche.experts.new_parts import find_asleep
from veche.planning.planner import make_plan
from veche.planning.recipe import Recipe
from veche.surgery.build import build

HEADS = {"num_attention_heads": 6, "num_key_value_heads": 6}
GROWTHS = {
    "mixtral": (tiny_mixtral, {**HEADS, "moe_intermediate_size": 32, "num_experts": 16}),
    "qwen3_moe": (tiny_qwen3_moe, {**HEADS, "moe_intermediate_size": 60}),
    "a mixture of copies of qwen2": (
        tiny_qwen2,
        {"num_attention_heads": 8, "num_experts": 8, "shared_expert_intermediate_size": 72},
    ),
}


def grown(make, fields, mode, folder):
    source = make(folder / "source")
    fields = dict(fields)
    if "num_experts" in fields:
        fields["num_experts_per_tok"] = fields["num_experts"] * 3 // 8
    recipe = Recipe(name="t", base=str(source), fields=fields, mode=mode)
    build(make_plan(recipe), source, folder / "grown")
    return folder / "grown"


@pytest.fixture(
    scope="module",
    params=[(name, mode) for name in GROWTHS for mode in ("zero", "split")],
    ids="-".join,
)
def folder(request, tmp_path_factory):
    name, mode = request.param
    return grown(*GROWTHS[name], mode, tmp_path_factory.mktemp("grown"))


def mode_of(folder):
    return json.loads((folder / "growth.json").read_text())["mode"]


def trained(folder, tmp_path, change):
    """Copy a checkpoint with some tensors changed: `change(name, array)` writes into the array."""
    import shutil

    target = tmp_path / "trained"
    shutil.copytree(folder, target)
    file = target / "model.safetensors"
    tensors = {name: array.copy() for name, array in safetensors.numpy.load_file(file).items()}
    for name, array in tensors.items():
        change(name, array)
    safetensors.numpy.save_file(tensors, file, metadata={"format": "pt"})
    return target


def test_right_after_growth_everything_new_is_asleep_and_all_of_it_is_counted(folder):
    told = find_asleep(folder)
    json.dumps(told.as_dict(), allow_nan=False)
    totals = told.totals()
    config = json.loads((folder / "config.json").read_text())
    num_heads = config["num_attention_heads"] - 4
    assert totals["heads"]["new"] == 3 * num_heads
    kind = "twins" if mode_of(folder) == "split" else "silent"
    for name, counts in totals.items():
        assert counts["awake"] == 0, name
        expected = {"experts": "twins", "shared_expert_intermediate_size": "silent"}.get(name, kind)
        assert counts[expected] == counts["new"], name
    if "experts" in totals:
        num_new = 7 if config["model_type"] == "qwen2_moe" else 8
        assert totals["experts"]["new"] == 3 * num_new


def test_one_head_that_moved_is_the_only_one_awake(folder, tmp_path):
    told = find_asleep(folder)
    head = told.layers[1].head_numbers[-1]
    is_zero = mode_of(folder) == "zero"

    def change(name, array):
        if is_zero and name == "model.layers.1.self_attn.o_proj.weight":
            array[:, head * 8 : head * 8 + 8] += 0.1
        if not is_zero and name == "model.layers.1.self_attn.q_proj.weight":
            array[head * 8 : head * 8 + 8] += 0.1

    after = find_asleep(trained(folder, tmp_path, change))
    assert [layer.awake_heads for layer in after.layers] == [(), (head,), ()]
    untouched = {name: counts for name, counts in told.totals().items() if name != "heads"}
    assert {name: after.totals()[name] for name in untouched} == untouched


def test_one_unit_that_moved_is_the_only_one_awake(folder, tmp_path):
    told = find_asleep(folder)
    (width, first), *_ = told.layers[2].first_unit.items()
    is_shared = width == "shared_expert_intermediate_size"
    expert, unit = (0 if is_shared else 5), first + 1
    down, gate = f"experts.{expert}.down_proj", f"experts.{expert}.gate_proj"
    if is_shared:
        down, gate = "shared_expert.down_proj", "shared_expert.gate_proj"
    if "mixtral" in json.loads((folder / "config.json").read_text())["model_type"]:
        down, gate = f"experts.{expert}.w2", f"experts.{expert}.w1"
    is_zero = is_shared or mode_of(folder) == "zero"

    def change(name, array):
        if name.startswith("model.layers.2.") and is_zero and name.endswith(f"{down}.weight"):
            array[:, unit] += 0.1
        if name.startswith("model.layers.2.") and not is_zero and name.endswith(f"{gate}.weight"):
            array[unit] += 0.1

    after = find_asleep(trained(folder, tmp_path, change))
    awake = [layer.awake_units(width) for layer in after.layers]
    assert awake == [(), (), ((expert, unit),)]
    assert after.totals()["heads"] == told.totals()["heads"]


@pytest.mark.parametrize(
    ("mode", "part"),
    [
        ("zero", "experts.11.w1.weight"),
        ("split", "experts.11.w3.weight"),
        ("split", "gate.weight"),
    ],
)
def test_one_expert_that_moved_is_the_only_one_awake(mode, part, tmp_path):
    folder = grown(tiny_mixtral, {"num_experts": 16}, mode, tmp_path)

    def change(name, array):
        if name == f"model.layers.0.block_sparse_moe.{part}":
            array[11 if part == "gate.weight" else slice(None)] += 0.1

    told = find_asleep(trained(folder, tmp_path, change))
    assert [layer.awake_experts for layer in told.layers] == [(11,), (), ()]


@pytest.mark.parametrize("part", ["gate.weight", "experts.11.w2.weight"])
def test_a_copy_that_is_only_routed_or_only_weighed_otherwise_is_still_a_twin(part, tmp_path):
    folder = grown(tiny_mixtral, {"num_experts": 16}, "zero", tmp_path)

    def change(name, array):
        if name.endswith(f"block_sparse_moe.{part}"):
            array[11 if part == "gate.weight" else slice(None)] += 3

    assert find_asleep(trained(folder, tmp_path, change)).totals()["experts"]["awake"] == 0


def test_a_new_layer_is_asleep_by_the_measure_of_the_old_ones(tmp_path):
    folder = grown(tiny_mixtral, {"num_hidden_layers": 4}, "zero", tmp_path)
    told = find_asleep(folder)
    assert len(told.layers) == 1
    assert told.layers[0].is_new
    assert all(counts["silent"] == counts["new"] for counts in told.totals().values())
    layer = told.layers[0].layer

    def change(name, array):
        if name == f"model.layers.{layer}.self_attn.o_proj.weight":
            array[:, 16:24] += 0.1

    assert find_asleep(trained(folder, tmp_path, change)).layers[0].awake_heads == (2,)


def test_a_folder_that_was_not_grown_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="nothing says what"):
        find_asleep(tiny_llama(tmp_path / "m"))


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_the_nearest_old_part_is_that_of_a_slow_search(num_new, num_old, seed):
    rng = np.random.default_rng(seed)
    old = rng.normal(size=(num_old, 3)).astype(np.float32)
    new = rng.normal(size=(num_new, 3)).astype(np.float32)
    new[0] = old[-1]
    apart = nearest_distance(new, old)
    assert apart[0] == 0
    squared = squared_distances(new, old)
    for row, part in enumerate(new.astype(float)):
        slow = [((part - other) ** 2).sum() for other in old.astype(float)]
        assert squared[row] == pytest.approx(slow, rel=1e-5, abs=1e-12)
        nearest = int(np.argmin(slow))
        expected = np.sqrt(slow[nearest]) / np.linalg.norm(old[nearest])
        assert apart[row] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_parts_without_weights_are_alike_and_nothing_is_near_where_nothing_is_old():
    assert relative(np.zeros(2), np.array([0.0, 1.0])).tolist() == [0, 0]
    assert nearest_distance(np.ones((2, 3)), np.ones((0, 3))).tolist() == [np.inf, np.inf]

"""Every way in which a checkpoint is damaged: a function that changes a draft, by its name.

Each says what must come of it: "refused", "built", or "either" where the damage may hit something
that does not matter.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from hypothesis import strategies as st
from tests.checkpoint.hostile_drafts import INDEX, SHARDS, SINGLE, Draft
from tests.checkpoint.hostile_drafts import draft as make_draft

Outcome = Literal["refused", "built", "either"]
Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass(frozen=True)
class Damage:
    """One way of damaging a draft."""

    name: str
    outcome: Outcome
    needs_index: bool
    do: Callable[[Draft, Draw], None]


DAMAGES: dict[str, Damage] = {}


def damage(outcome: Outcome = "refused", *, needs_index: bool = False) -> Callable[..., Any]:
    def register(do: Callable[[Draft, Draw], None]) -> Callable[[Draft, Draw], None]:
        DAMAGES[do.__name__] = Damage(do.__name__, outcome, needs_index, do)
        return do

    return register


JUNK = st.sampled_from(
    [None, True, False, -1, 0, 1.5, 2**31, 2**63, 2**64, 10**40, "", "1", "\x1b[31m", [], [1], {}]
)
DEEP = st.sampled_from([65, 200, 900, 5000, 100_000])
NESTS = st.sampled_from([("[", "]"), ('{"a":', "}")])


def nested(draw: Draw) -> str:
    depth, (opening, closing) = draw(DEEP), draw(NESTS)
    return opening * depth + ("1" if opening != "[" else "") + closing * depth


def any_shard(draft: Draft, draw: Draw) -> Any:
    return draft.shards[draw(st.sampled_from(sorted(draft.shards)))]


def any_tensor(draft: Draft, draw: Draw) -> tuple[Any, str]:
    shard = any_shard(draft, draw)
    return shard, draw(st.sampled_from([name for name in shard.entries if name[0] != "_"]))


def any_entry(draft: Draft, draw: Draw) -> dict[str, Any]:
    shard, name = any_tensor(draft, draw)
    return shard.entries[name]


# --- headers --------------------------------------------------------------------------------------


@damage()
def header_length(draft: Draft, draw: Draw) -> None:
    shard = any_shard(draft, draw)
    near = st.integers(-12, -1).map(lambda less: len(shard.text()) + less)
    far = st.sampled_from([0, 1, 2**31, 2**40, 2**63, -1, -8, 2**63 - 1, 100_000_000])
    shard.length = draw(near | far)


@damage()
def header_longer_than_it_is(draft: Draft, draw: Draw) -> None:
    shard = any_shard(draft, draw)
    shard.length = len(shard.text()) + draw(st.integers(1, len(shard.body) + 100))


@damage()
def header_not_utf8(draft: Draft, draw: Draw) -> None:
    shard = any_shard(draft, draw)
    text = shard.text()
    place = draw(st.integers(0, len(text)))
    bad = draw(st.sampled_from([b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"]))
    shard.raw_header = text[:place] + bad + text[place:]


@damage()
def header_not_json(draft: Draft, draw: Draw) -> None:
    shard = any_shard(draft, draw)
    words = [b"", b"null", b"[]", b"1", b'"a"', b"NaN", b"{", b"\x80\x04cos\nsystem\n", b"{}" * 2]
    shard.raw_header = draw(st.sampled_from(words) | st.binary(max_size=64))


@damage()
def header_deeply_nested(draft: Draft, draw: Draw) -> None:
    shard = any_shard(draft, draw)
    shard.raw_header = b'{"a":' + nested(draw).encode() + b"}"


@damage()
def header_names_a_tensor_twice(draft: Draft, draw: Draw) -> None:
    shard, name = any_tensor(draft, draw)
    again = json.dumps({name: shard.entries[name]})[1:-1]
    shard.raw_header = shard.text()[:-1] + b"," + again.encode() + b"}"


@damage()
def header_gives_a_key_twice(draft: Draft, draw: Draw) -> None:
    shard = any_shard(draft, draw)
    key = draw(st.sampled_from([b'"dtype": "F32"', b'"shape": [', b'"data_offsets": [']))
    extra = {b'"dtype": "F32"': b'"dtype": "U8", '}.get(key, key + b"0], ")
    shard.raw_header = shard.text().replace(key, extra + key, 1)


@damage()
def entry_of_another_type(draft: Draft, draw: Draw) -> None:
    shard, name = any_tensor(draft, draw)
    shard.entries[name] = draw(JUNK)


@damage()
def entry_without_a_key(draft: Draft, draw: Draw) -> None:
    any_entry(draft, draw).pop(draw(st.sampled_from(["dtype", "shape", "data_offsets"])))


@damage()
def dtype(draft: Draft, draw: Draw) -> None:
    words = st.sampled_from(["F9", "f32", "F4", "", "U8", "I64", "BF16", "F64", "F8_E4M3"])
    any_entry(draft, draw)["dtype"] = draw(words | JUNK)


@damage()
def dtype_of_no_weight(draft: Draft, draw: Draw) -> None:
    any_entry(draft, draw)["dtype"] = draw(st.sampled_from(["I32", "U32"]))


@damage()
def shape(draft: Draft, draw: Draw) -> None:
    entry = any_entry(draft, draw)
    size = st.sampled_from([-1, 0, 2**31, 2**32, 2**33, 2**63, 2**64, 10**30, 1.0, True, "8", None])
    entry["shape"] = draw(st.lists(size, min_size=1, max_size=9))


@damage()
def shape_that_overflows_to_the_right_size(draft: Draft, draw: Draw) -> None:
    """Whose product modulo 2^64 is what the offsets say."""
    entry = any_entry(draft, draw)
    start, end = entry["data_offsets"]
    factor = 2 ** draw(st.integers(1, 63))
    entry["shape"] = [2**64 // factor, factor, (end - start) // 4 or 1]


@damage()
def shape_of_another_order(draft: Draft, draw: Draw) -> None:
    """The right number of values in the wrong shape."""
    matrices = [
        entry
        for shard in draft.shards.values()
        for name, entry in shard.entries.items()
        if name[0] != "_" and len(set(entry["shape"])) > 1
    ]
    entry = draw(st.sampled_from(matrices))
    wrong = [entry["shape"][::-1], [1, *entry["shape"]], [int(np.prod(entry["shape"]))]]
    entry["shape"] = draw(st.sampled_from([each for each in wrong if each != entry["shape"]]))


@damage()
def offsets(draft: Draft, draw: Draw) -> None:
    entry = any_entry(draft, draw)
    number = st.integers(-100, 10_000) | JUNK
    old = entry["data_offsets"]
    new = draw(st.lists(number, min_size=0, max_size=3).filter(lambda given: given != old))
    entry["data_offsets"] = new


@damage()
def offsets_backwards(draft: Draft, draw: Draw) -> None:
    entry = any_entry(draft, draw)
    entry["data_offsets"] = entry["data_offsets"][::-1]


@damage()
def offsets_beyond_the_file(draft: Draft, draw: Draw) -> None:
    entry = any_entry(draft, draw)
    far = draw(st.sampled_from([10**4, 2**31, 2**62, 2**63 - 2**20, 2**64]))
    entry["data_offsets"] = [far + offset for offset in entry["data_offsets"]]


@damage()
def offsets_that_overlap(draft: Draft, draw: Draw) -> None:
    shard = any_shard(draft, draw)
    names = [name for name in shard.entries if name[0] != "_"]
    entry = shard.entries[draw(st.sampled_from(names[1:]))]
    less = draw(st.integers(1, entry["data_offsets"][0]))
    entry["data_offsets"] = [offset - less for offset in entry["data_offsets"]]


@damage()
def a_gap_between_tensors(draft: Draft, draw: Draw) -> None:
    shard, name = any_tensor(draft, draw)
    gap, place = draw(st.integers(1, 200)), shard.entries[name]["data_offsets"][0]
    for other, entry in shard.entries.items():
        if other[0] != "_" and entry["data_offsets"][0] >= place:
            entry["data_offsets"] = [offset + gap for offset in entry["data_offsets"]]
    shard.body = shard.body[:place] + b"\0" * gap + shard.body[place:]


@damage("built")
def tensors_in_another_order_of_the_header(draft: Draft, draw: Draw) -> None:
    shard = any_shard(draft, draw)
    order = draw(st.permutations(list(shard.entries)))
    shard.entries = {name: shard.entries[name] for name in order}


@damage()
def a_tensor_without_values(draft: Draft, draw: Draw) -> None:
    shard, name = any_tensor(draft, draw)
    entry, zero = shard.entries[name], draw(st.integers(0, 1))
    start, end = entry["data_offsets"]
    entry["shape"] = [0 if place == zero % len(entry["shape"]) else size
                      for place, size in enumerate(entry["shape"])]  # fmt: skip
    entry["data_offsets"] = [start, start]
    shard.body = shard.body[:start] + shard.body[end:]
    for other, each in shard.entries.items():
        if other not in ("__metadata__", name) and each["data_offsets"][0] >= end:
            each["data_offsets"] = [offset - (end - start) for offset in each["data_offsets"]]


@damage()
def name_of_a_tensor(draft: Draft, draw: Draw) -> None:
    shard, old = any_tensor(draft, draw)
    strange = [
        "", "\x1b[2J", "a\nb", "a\0b", "\ud800", "a" * 1_000_000, "../../x", "model.layers.0",
        "model.layers.999999999999.input_layernorm.weight", "model.layers.00.mlp.gate.weight",
        "\u202e" + old, old + " ", old.upper(), "__metadata__", old.replace(".", "/"),
        old.replace("layers.0", "layers.7"), old.replace("experts.0", "experts.7"),
    ]  # fmt: skip
    new = draw(st.sampled_from([each for each in strange if each != old]))
    shard.entries = {new if name == old else name: e for name, e in shard.entries.items()}
    if draft.index:
        draft.weight_map[new] = draft.weight_map.pop(old)


@damage("either")
def metadata(draft: Draft, draw: Draw) -> None:
    any_shard(draft, draw).entries["__metadata__"] = draw(JUNK)


@damage()
def a_file_cut_short(draft: Draft, draw: Draw) -> None:
    name = draw(st.sampled_from(sorted(draft.shards)))
    whole = draft.shards[name].bytes()
    draft.raw[name] = whole[: draw(st.integers(0, len(whole) - 1))]


@damage()
def bytes_after_the_end(draft: Draft, draw: Draw) -> None:
    any_shard(draft, draw).body += b"\0" * draw(st.integers(1, 5000))


@damage("either")
def bytes_anywhere(draft: Draft, draw: Draw) -> None:
    name = draw(st.sampled_from(sorted(draft.shards)))
    content = bytearray(draft.shards[name].bytes())
    header = 8 + len(draft.shards[name].text())
    for _ in range(draw(st.integers(1, 6))):
        content[draw(st.integers(0, header - 1))] = draw(st.integers(0, 255))
    draft.raw[name] = bytes(content)


@damage()
def a_header_of_100_mb(draft: Draft, draw: Draw) -> None:
    name = draw(st.sampled_from(sorted(draft.shards)))
    size = draw(st.sampled_from([17 << 20, 99_999_999, 100_000_000, 1 << 32]))
    draft.shards[name].length = size
    draft.after.append(lambda folder: os.truncate(folder / name, size + 8))


# --- which files ----------------------------------------------------------------------------------

OUTSIDE = (
    "../outside.safetensors", "/etc/passwd", "/dev/zero", "a/b.safetensors", "..", ".", "", "/",
    "..\\outside.safetensors", "C:\\x.safetensors", "x\0.safetensors", "x\n.safetensors",
    "\x1b]0;x\x07.safetensors", "a" * 300 + ".safetensors", "config.json", "tokenizer.json",
    "./" + SHARDS[0], SHARDS[0] + "/", "//" + SHARDS[0], "pytorch_model.bin", ".safetensors/..",
    "veche_plan.json", "README.md", "\u202e" + SHARDS[0], "~/x.safetensors", "file:///etc/passwd",
)  # fmt: skip


@damage(needs_index=True)
def a_name_in_the_index(draft: Draft, draw: Draw) -> None:
    tensor = draw(st.sampled_from(sorted(draft.weight_map)))
    draft.weight_map[tensor] = draw(st.sampled_from(OUTSIDE))


@damage(needs_index=True)
def all_names_in_the_index(draft: Draft, draw: Draw) -> None:
    """Every tensor of a shard is said to be in a file outside, which is there."""
    shard, place = draw(st.sampled_from(SHARDS)), draw(st.sampled_from(["..", "/{}", "sub"]))

    def move(folder: Path) -> None:
        target = folder / place / "moved.safetensors" if place != "/{}" else folder / "m"
        target.parent.mkdir(exist_ok=True)
        shutil.move(folder / shard, target)

    said = {"..": "../moved.safetensors", "sub": "sub/moved.safetensors"}.get(place, "/m")
    draft.index["weight_map"] = {
        tensor: said if file == shard else file for tensor, file in draft.weight_map.items()
    }
    draft.after.append(move)


@damage(needs_index=True)
def no_name_in_the_index(draft: Draft, draw: Draw) -> None:
    tensor = draw(st.sampled_from(sorted(draft.weight_map)))
    draft.weight_map[tensor] = draw(JUNK)


@damage(needs_index=True)
def weight_map(draft: Draft, draw: Draw) -> None:
    if draw(st.booleans()):
        draft.index["weight_map"] = draw(JUNK)
    else:
        del draft.index["weight_map"]


@damage(needs_index=True)
def index_text(draft: Draft, draw: Draw) -> None:
    deep = nested(draw)
    whole = json.dumps(draft.index)
    words = ["", "{", "[]", "null", "NaN", deep, '{"weight_map": ' + deep + "}", whole + whole,
             whole[:-1] + ', "x": Infinity}', whole[:-1] + ', "x": -1e999}',
             whole[:-1] + ', "weight_map": {"a": "b.safetensors"}}']  # fmt: skip
    draft.raw[INDEX] = draw(st.sampled_from(words)).encode()


@damage(needs_index=True)
def index_names_a_tensor_twice(draft: Draft, draw: Draw) -> None:
    tensor = draw(st.sampled_from(sorted(draft.weight_map)))
    other = draw(st.sampled_from(SHARDS))
    text = json.dumps(draft.index)
    draft.raw[INDEX] = text.replace(f'"{tensor}":', f'"{tensor}": "{other}", "{tensor}":').encode()


@damage(needs_index=True)
def a_missing_shard(draft: Draft, draw: Draw) -> None:
    del draft.shards[draw(st.sampled_from(SHARDS))]


@damage(needs_index=True)
def a_tensor_in_the_other_shard(draft: Draft, draw: Draw) -> None:
    tensor = draw(st.sampled_from(sorted(draft.weight_map)))
    (other,) = set(SHARDS) - {draft.weight_map[tensor]}
    draft.weight_map[tensor] = other


@damage(needs_index=True)
def a_tensor_that_is_nowhere(draft: Draft, draw: Draw) -> None:
    name = draw(st.sampled_from(["x", "model.layers.0.input_layernorm.bias", "\x1b[31m", ""]))
    draft.weight_map[name] = draw(st.sampled_from(SHARDS))


@damage(needs_index=True)
def a_tensor_that_the_index_does_not_name(draft: Draft, draw: Draw) -> None:
    del draft.weight_map[draw(st.sampled_from(sorted(draft.weight_map)))]


@damage(needs_index=True)
def a_tensor_in_two_shards(draft: Draft, draw: Draw) -> None:
    shard, name = any_tensor(draft, draw)
    (other,) = [each for each in draft.shards.values() if each is not shard]
    size, entry = len(other.body), shard.entries[name]
    start, end = entry["data_offsets"]
    other.entries[name] = {**entry, "data_offsets": [size, size + end - start]}
    other.body += shard.body[start:end]


@damage("built", needs_index=True)
def total_size(draft: Draft, draw: Draw) -> None:
    choice = draw(st.sampled_from([0, 1, -5, 10**30, "many", None, [], {}]))
    draft.index["metadata"] = draw(st.sampled_from([{"total_size": choice}, {}, choice]))


@damage(needs_index=True)
def a_single_file_beside_the_index(draft: Draft, draw: Draw) -> None:
    draft.shards[SINGLE] = draft.shards[draw(st.sampled_from(SHARDS))]


@damage()
def a_tensor_that_is_not_there(draft: Draft, draw: Draw) -> None:
    shard, name = any_tensor(draft, draw)
    start, end = shard.entries.pop(name)["data_offsets"]
    shard.body = shard.body[:start] + shard.body[end:]
    for other, entry in shard.entries.items():
        if other[0] != "_" and entry["data_offsets"][0] >= end:
            entry["data_offsets"] = [offset - (end - start) for offset in entry["data_offsets"]]
    if draft.index:
        del draft.weight_map[name]


@damage()
def experts_in_two_layouts(draft: Draft, draw: Draw) -> None:
    """A fused checkpoint becomes one of single experts that still has a layer's fused ones."""
    family = draft.config["model_type"]
    fused = make_draft(family, is_fused=True, is_sharded=False).shards[SINGLE]
    whole = make_draft(family, is_fused=False, is_sharded=False)
    shard = whole.shards[SINGLE]
    layer = draw(st.integers(0, 1))
    for name, entry in fused.entries.items():
        if f"layers.{layer}." in name and "experts." in name and name not in shard.entries:
            start, end = entry["data_offsets"]
            place = len(shard.body)
            shard.entries[name] = {**entry, "data_offsets": [place, place + end - start]}
            shard.body += fused.body[start:end]
    draft.shards, draft.index = whole.shards, None


@damage()
def only_pickles(draft: Draft, draw: Draw) -> None:
    draft.shards, draft.index = {}, None
    name = draw(st.sampled_from(["pytorch_model.bin", "model.pt", "x.ckpt", "a.pth", "a.pkl"]))
    draft.raw[name] = b"cos\nmkdir\n(S'" + b"OPENED" + b"'\ntR."


# --- what kind of file ----------------------------------------------------------------------------

KINDS = ("folder", "pipe", "no target", "loop", "device", "pipe behind a link", "endless")


def replace_by(folder: Path, name: str, kind: str) -> None:
    path = folder / name
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "pipe behind a link":
        os.mkfifo(folder / "pipe")
        path.symlink_to("pipe")
    else:
        targets = {"no target": "gone", "loop": name, "device": "/dev/null", "endless": "/dev/zero"}
        path.symlink_to(targets[kind])


@damage()
def a_shard_that_is_no_file(draft: Draft, draw: Draw) -> None:
    name, kind = draw(st.sampled_from(sorted(draft.shards))), draw(st.sampled_from(KINDS))
    draft.after.append(lambda folder: replace_by(folder, name, kind))


@damage()
def a_json_that_is_no_file(draft: Draft, draw: Draw) -> None:
    names = ["config.json", *([INDEX] if draft.index else [])]
    name, kind = draw(st.sampled_from(names)), draw(st.sampled_from(KINDS))
    draft.after.append(lambda folder: replace_by(folder, name, kind))


@damage("built")
def a_companion_that_is_no_file(draft: Draft, draw: Draw) -> None:
    kind = draw(st.sampled_from(KINDS))
    draft.after.append(lambda folder: replace_by(folder, "tokenizer.json", kind))


@damage("built")
def a_hub_cache(draft: Draft, draw: Draw) -> None:
    """Every file is a symlink to ../blobs/HASH, as huggingface_hub lays them out, or further."""
    is_relative, is_chain = draw(st.booleans()), draw(st.booleans())

    def link(folder: Path) -> None:
        blobs = folder.parent / "blobs"
        blobs.mkdir()
        for number, file in enumerate(sorted(folder.iterdir())):
            blob = blobs / f"{number:064x}"
            shutil.move(file, blob)
            if is_chain:
                (blobs / f"{number}").symlink_to(blob)
                blob = blobs / f"{number}"
            file.symlink_to(Path("..") / "blobs" / blob.name if is_relative else blob)

    draft.after.append(link)


# --- config.json ----------------------------------------------------------------------------------

SIZES = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "num_key_value_heads",
    "num_experts_per_tok", "head_dim",
)  # fmt: skip


@damage()
def config_of_wrong_types(draft: Draft, draw: Draw) -> None:
    key = draw(st.sampled_from([*SIZES, "model_type"]))
    wrong = [True, -1, 0, 1.5, "8", [], {}, 10**40, "\x1b[31m", [8], 2**31 + 1]
    draft.config[key] = draw(st.sampled_from(wrong))


@damage("either")
def config_with_junk(draft: Draft, draw: Draw) -> None:
    key = st.sampled_from([
        *draft.config, "rope_scaling", "rope_parameters", "dtype", "mlp_only_layers", "veche",
        "quantization_config", "tie_word_embeddings", "norm_topk_prob", "decoder_sparse_step",
        "layer_types", "attention_bias", "qkv_bias", "use_cache", "strange",
    ])  # fmt: skip
    for _ in range(draw(st.integers(1, 3))):
        draft.config[draw(key)] = draw(JUNK)


@damage()
def config_without_a_key(draft: Draft, draw: Draw) -> None:
    experts = [key for key in ("num_experts", "num_local_experts") if key in draft.config]
    needed = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    del draft.config[draw(st.sampled_from([*needed, *experts, "num_experts_per_tok"]))]


@damage()
def config_with_numbers_that_are_none(draft: Draft, draw: Draw) -> None:
    key = draw(st.sampled_from([*SIZES, "rope_theta", "rms_norm_eps", "unknown"]))
    number = draw(st.sampled_from(["NaN", "Infinity", "-Infinity", "1e999", "-1e400", "9" * 5000]))
    text = json.dumps({**draft.config, key: "HERE"})
    draft.raw["config.json"] = text.replace('"HERE"', number).encode()


@damage()
def config_gives_a_key_twice(draft: Draft, draw: Draw) -> None:
    key = draw(st.sampled_from(sorted(draft.config)))
    text = json.dumps(draft.config)
    draft.raw["config.json"] = (
        text[:-1] + f', "{key}": {json.dumps(draft.config[key])}}}'
    ).encode()


@damage()
def config_text(draft: Draft, draw: Draw) -> None:
    deep = nested(draw)
    whole = json.dumps(draft.config)
    words = ["", "{", "[1]", "null", "\0", deep, whole[:-1] + ', "deep": ' + deep + "}",
             whole + "x", whole[:-1] + ', "a": "\\ud800"}']  # fmt: skip
    draft.raw["config.json"] = draw(st.sampled_from([word.encode() for word in words]))


@damage()
def config_of_100_mb(draft: Draft, draw: Draw) -> None:
    size = draw(st.sampled_from([9 << 20, 100_000_000, 1 << 40]))
    draft.after.append(lambda folder: os.truncate(folder / "config.json", size))


@damage()
def config_of_terabytes(draft: Draft, draw: Draw) -> None:
    sizes = [key for key in SIZES if key != "num_experts_per_tok"]
    for key in draw(st.lists(st.sampled_from(sizes), min_size=1, max_size=4)):
        draft.config[key] *= 2 ** draw(st.integers(1, 24))


@damage()
def config_of_another_model(draft: Draft, draw: Draw) -> None:
    count = next(key for key in ("num_experts", "num_local_experts") if key in draft.config)
    width = next(key for key in ("moe_intermediate_size", "intermediate_size")
                 if key in draft.config)  # fmt: skip
    key = draw(st.sampled_from(["num_hidden_layers", count, width, "vocab_size", "head_dim"]))
    draft.config[key] += draw(st.sampled_from([-1, 1, 2, 100]))


@damage()
def config_of_quantised_weights(draft: Draft, draw: Draw) -> None:
    entry = [{"quant_method": "fp8"}, {"quant_method": []}, {"a": 1}, "fp8", [1], 7, True]
    draft.config["quantization_config"] = draw(st.sampled_from(entry))


@damage("either")
def config_of_another_rope(draft: Draft, draw: Draw) -> None:
    number = st.sampled_from([1e308, 1e18, 1e300, 0, -1, 5e-324, 10**400, 2**53, 1.0, 4])
    scaling = {
        "rope_type": draw(st.sampled_from(["yarn", "linear", "", "default", "\x1b[31m", None, 3])),
        "factor": draw(number),
        "original_max_position_embeddings": draw(number),
        "rope_theta": draw(number),
    }
    draft.config[draw(st.sampled_from(["rope_scaling", "rope_parameters"]))] = scaling


@damage("built")
def config_with_control_characters(draft: Draft, draw: Draw) -> None:
    """In what nobody reads: it is kept, and nothing of it reaches the terminal."""
    draft.config["_name_or_path"] = draw(st.sampled_from(["\x1b[2J\x07", "[/red]", "\u202e", "\r"]))


# --- weights --------------------------------------------------------------------------------------


def poison(draft: Draft, draw: Draw, wanted: Callable[[str], bool]) -> None:
    shard, name = draw(st.sampled_from([
        (shard, name)
        for shard in draft.shards.values() for name in shard.entries
        if name[0] != "_" and wanted(name)
    ]))  # fmt: skip
    start, end = shard.entries[name]["data_offsets"]
    values = np.frombuffer(shard.body[start:end], np.float32).copy()
    number = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    values[draw(st.integers(0, len(values) - 1)) :] = number
    shard.body = shard.body[:start] + values.tobytes() + shard.body[end:]


def is_measured(name: str) -> bool:
    """Whether a growth in width measures this tensor's standard deviation."""
    return "experts." in name and any(part in name for part in ("gate", "up", "w1", "w3"))


@damage()
def nan_where_new_units_are_made_alike(draft: Draft, draw: Draw) -> None:
    poison(draft, draw, is_measured)


@damage("built")
def nan_where_nothing_is_measured(draft: Draft, draw: Draw) -> None:
    poison(draft, draw, lambda name: not is_measured(name))

"""config.json and model card → the keys of a GGUF file that say what the model is."""

import logging
from pathlib import Path
from typing import Any

import gguf
import yaml

from veche.checkpoint.reader import Checkpoint
from veche.core.errors import CheckpointError
from veche.surgery.gguf.architectures import ARCHITECTURES
from veche.surgery.gguf.rope import yarn_attention_scale


def write_metadata(writer: Any, checkpoint: Checkpoint, file_type: str) -> None:
    """Add general.* and the architecture's keys to a gguf.GGUFWriter that knows its tensors.

    Args:
        writer: of the model's architecture.
        checkpoint: a model that `require_exportable` let pass.
        file_type: of gguf.LlamaFileType, e.g. "MOSTLY_BF16".

    Raises:
        CheckpointError: the model card's header or generation_config.json cannot be read.
    """
    _write_general(writer, checkpoint.folder)
    writer.add_file_type(gguf.LlamaFileType[file_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _write_shape(writer, checkpoint)
    _write_rope(writer, checkpoint)


def _write_general(writer: Any, folder: Path) -> None:
    """Write name, licence, base models, languages and tags, as llama.cpp's converter finds them."""
    total, shared, expert, num_experts = writer.get_total_parameter_count()
    log = logging.getLogger("metadata")
    level, log.level = log.level, logging.CRITICAL  # it says in several lines what we say in one
    try:
        general = gguf.Metadata.load(None, folder.resolve(), None, total)
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{folder}: the header of README.md, or generation_config.json, cannot be read: "
            f"{str(error).splitlines()[0]}",
            hint="correct the header between the two lines of ---",
        ) from error
    finally:
        log.level = level
    general.size_label = general.size_label or gguf.size_label(total, shared, expert, num_experts)
    general.name = general.name or folder.resolve().name
    writer.add_type(gguf.GGUFType.MODEL)
    general.set_gguf_meta_model(writer)


def _write_shape(writer: Any, checkpoint: Checkpoint) -> None:
    spec = checkpoint.spec
    writer.add_vocab_size(spec.vocab_size)
    # llama-server gives a session no more than this, so it must be what YaRN reaches.
    is_yarn = spec.rope.rope_type == "yarn"
    reach = spec.position_limit if is_yarn else spec.max_position_embeddings
    writer.add_context_length(reach)
    writer.add_embedding_length(spec.hidden_size)
    writer.add_block_count(spec.num_hidden_layers)
    writer.add_head_count(spec.num_attention_heads)
    writer.add_head_count_kv(spec.num_key_value_heads)
    writer.add_key_length(spec.head_dim)
    writer.add_value_length(spec.head_dim)
    writer.add_layer_norm_rms_eps(spec.rms_norm_eps)
    # Mixtral and OLMoE spell an expert's width as a dense MLP's, in config.json and in GGUF.
    is_spelt_as_dense = spec.family.expert_width_key == "intermediate_size"
    dense_width = spec.moe_intermediate_size if is_spelt_as_dense else spec.intermediate_size
    writer.add_feed_forward_length(dense_width or spec.moe_intermediate_size)
    if spec.is_moe:
        writer.add_expert_count(spec.num_experts)
        writer.add_expert_used_count(spec.num_experts_per_tok)
        if not is_spelt_as_dense:
            writer.add_expert_feed_forward_length(spec.moe_intermediate_size)
    if spec.shared_expert_intermediate_size:
        writer.add_expert_shared_feed_forward_length(spec.shared_expert_intermediate_size)


def _write_rope(writer: Any, checkpoint: Checkpoint) -> None:
    spec, rope = checkpoint.spec, checkpoint.spec.rope
    writer.add_rope_dimension_count(spec.head_dim)
    writer.add_rope_freq_base(rope.rope_theta)
    if rope.rope_type not in ("linear", "yarn"):
        return
    writer.add_rope_scaling_type(gguf.RopeScalingType(rope.rope_type))
    writer.add_rope_scaling_factor(rope.factor)
    if rope.rope_type == "yarn":
        original = rope.original_max_position_embeddings or spec.max_position_embeddings
        writer.add_rope_scaling_orig_ctx_len(original)
        scale = yarn_attention_scale(spec, checkpoint.config)
        if abs(scale - 1.0) > 1e-6:
            writer.add_rope_scaling_attn_factors(scale)


def architecture_name(checkpoint: Checkpoint) -> str:
    """Return general.architecture."""
    return ARCHITECTURES[checkpoint.spec.model_type].name

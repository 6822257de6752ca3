"""What llama.cpp fixes for each architecture, where a config.json leaves a choice.

Source: ggml-org/llama.cpp as vendored in llama-cpp-python 0.3.36: src/models/*.cpp (tensors and
graphs), llama_model_rope_type in src/llama-model.cpp, limits in src/llama-hparams.h.
"""

from dataclasses import dataclass

MAX_LAYERS = 512
"""LLAMA_MAX_LAYERS."""
MAX_EXPERTS = 1024
"""LLAMA_MAX_EXPERTS; 512 in older versions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One of llama.cpp's architectures.

    Attributes:
        name: general.architecture.
        normalises_top_k: whether the chosen experts' weights are divided by their sum; None for
            dense models. The graph's code says so, no metadata does.
        rotates_pairs: whether rope turns neighbours (2i, 2i+1), so that rows of q and k must be
            reordered, rather than halves (i, i + head_dim/2) as in transformers.
        has_free_query_width: whether heads · head_dim may differ from hidden_size.
        ties_output: whether a file without output.weight uses the embedding.
        has_output_bias: whether o_proj may have a bias.
        reads_rope_freqs: whether it reads rope_freqs.weight, the table of llama3's scaling.
    """

    name: str
    normalises_top_k: bool | None = None
    rotates_pairs: bool = False
    has_free_query_width: bool = True
    ties_output: bool = True
    has_output_bias: bool = False
    reads_rope_freqs: bool = False


ARCHITECTURES: dict[str, Architecture] = {
    "qwen3_moe": Architecture(name="qwen3moe", normalises_top_k=True),
    "qwen2_moe": Architecture(
        name="qwen2moe", normalises_top_k=False, has_free_query_width=False, ties_output=False
    ),
    "mixtral": Architecture(
        name="llama",
        normalises_top_k=True,
        rotates_pairs=True,
        has_output_bias=True,
        reads_rope_freqs=True,
    ),
    "olmoe": Architecture(
        name="olmoe", normalises_top_k=False, has_free_query_width=False, ties_output=False
    ),
    "llama": Architecture(
        name="llama", rotates_pairs=True, has_output_bias=True, reads_rope_freqs=True
    ),
    "qwen2": Architecture(name="qwen2", has_free_query_width=False),
    "qwen3": Architecture(name="qwen3"),
}
"""By model_type."""

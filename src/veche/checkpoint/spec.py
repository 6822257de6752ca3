"""What a config.json says, family-neutral, in Hugging Face's spelling."""

from dataclasses import dataclass

from veche.checkpoint.families import FAMILIES, Family


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeSpec:
    """Rotary position embedding.

    Attributes:
        rope_theta: base of the frequencies.
        rope_type: "default", "yarn", …
        factor: scaling factor; 1.0 for "default".
        original_max_position_embeddings: the length that the factor multiplies; None if not given.
    """

    rope_theta: float
    rope_type: str = "default"
    factor: float = 1.0
    original_max_position_embeddings: int | None = None

    @property
    def max_scaled_positions(self) -> int | None:
        """Factor × original length: what the scaling reaches; None without scaling.

        None for "llama3" too, whose factor slows the low frequencies and promises no length:
        Llama 3.1 has 8 · 8192 and reaches max_position_embeddings, 131,072.
        """
        is_length = self.rope_type not in ("default", "llama3")
        if not is_length or self.original_max_position_embeddings is None:
            return None
        return round(self.factor * self.original_max_position_embeddings)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """The shape and the dials of a model. Names are those of transformers' config classes.

    `intermediate_size` is the width of dense MLP blocks, `moe_intermediate_size` that of an
    expert, in every family, however its config.json spells them. Dense models have num_experts 0.
    """

    model_type: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    rope: RopeSpec
    tie_word_embeddings: bool = False
    intermediate_size: int | None = None
    moe_intermediate_size: int | None = None
    shared_expert_intermediate_size: int | None = None
    num_experts: int = 0
    num_experts_per_tok: int = 0
    norm_topk_prob: bool = True
    decoder_sparse_step: int = 1
    mlp_only_layers: tuple[int, ...] = ()
    has_attention_bias: bool = False
    has_equal_routing_weights: bool = False
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    torch_dtype: str = "bfloat16"
    attention_dropout: float = 0.0
    router_aux_loss_coef: float | None = None
    output_router_logits: bool = False
    use_cache: bool = True

    @property
    def family(self) -> Family:
        """What is fixed by the model_type."""
        return FAMILIES[self.model_type]

    @property
    def is_moe(self) -> bool:
        """Whether it has experts."""
        return self.num_experts > 0

    @property
    def q_size(self) -> int:
        """Width of the query projection: num_attention_heads × head_dim."""
        return self.num_attention_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of the key projection, and of the value projection."""
        return self.num_key_value_heads * self.head_dim

    @property
    def group_size(self) -> int:
        """Query heads that read one key/value head."""
        return self.num_attention_heads // self.num_key_value_heads

    @property
    def position_limit(self) -> int:
        """The longest sequence that the positions reach.

        With YaRN and its kin it is factor · original, whatever max_position_embeddings says; where
        an engine reads the latter (vLLM from 0.30, SGLang), its command says otherwise.
        """
        return self.rope.max_scaled_positions or self.max_position_embeddings

    @property
    def num_sparse_layers(self) -> int:
        """Layers whose MLP is a mixture of experts (the rule of Qwen3MoeDecoderLayer)."""
        return sum(self.is_sparse_layer(layer) for layer in range(self.num_hidden_layers))

    def is_sparse_layer(self, layer: int) -> bool:
        """Whether layer `layer` (from 0) holds experts rather than a dense MLP."""
        if not self.is_moe or layer in self.mlp_only_layers:
            return False
        return self.decoder_sparse_step > 0 and (layer + 1) % self.decoder_sparse_step == 0

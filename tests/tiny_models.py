"""Tiny random models with real architectures, written as Hugging Face folders."""

from pathlib import Path
from typing import Any

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTROL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCAB_SIZE = 384
_SHAPE = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    # Wide enough that attention, routing and the next token depend strongly on the context.
    "initializer_range": 0.35,
}


def tiny_mixtral(path: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Write a random Mixtral of 8 experts, 3 of them active."""
    from transformers import MixtralConfig, MixtralForCausalLM

    shape = {"intermediate_size": 24, "num_local_experts": 8, "num_experts_per_tok": 3}
    config = MixtralConfig(**{**_SHAPE, **shape, "sliding_window": None, **changes})
    return _write(MixtralForCausalLM, config, path, seed)


def tiny_qwen3_moe(path: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Write a random Qwen3-MoE of 8 experts, 3 of them active."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    shape = {
        "intermediate_size": 48,
        "moe_intermediate_size": 24,
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
    }
    config = Qwen3MoeConfig(**{**_SHAPE, **shape, **changes})
    return _write(Qwen3MoeForCausalLM, config, path, seed)


def tiny_llama(path: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Write a random dense Llama."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**{**_SHAPE, "intermediate_size": 48, **changes})
    return _write(LlamaForCausalLM, config, path, seed)


def tiny_qwen2(path: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Write a random dense Qwen2: q, k and v have biases, and they are not 0."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(**{**_SHAPE, "intermediate_size": 48, **changes})
    return _write(Qwen2ForCausalLM, config, path, seed)


def tiny_qwen3(path: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Write a random dense Qwen3: queries and keys are normalised, by weights that are not 1."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(**{**_SHAPE, "intermediate_size": 48, **changes})
    return _write(Qwen3ForCausalLM, config, path, seed)


def tiny_tokenizer(path: Path, *, chat_template: str | None = CHAT_TEMPLATE) -> None:
    """Write a byte-level BPE tokenizer: any UTF-8 text, Cyrillic in halves of characters."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=CONTROL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    sentences = ["the council hears every voice and the answer is four"] * 4
    tokenizer.train_from_iterator(sentences, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **dict(zip(("pad_token", "bos_token", "eos_token"), CONTROL_TOKENS, strict=True)),
    )
    fast.chat_template = chat_template
    fast.save_pretrained(path)


def _write(model_class: Any, config: Any, path: Path, seed: int) -> Path:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)
        for name, weight in model.named_parameters():
            if name.endswith((".bias", "q_norm.weight", "k_norm.weight")):
                weight.data += 0.5 * torch.rand_like(weight)
    model.save_pretrained(path)
    tiny_tokenizer(path)
    return path

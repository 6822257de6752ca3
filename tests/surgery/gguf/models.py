"""Tiny random models for every architecture that is exported, and a tokenizer like Llama 2's."""

import json
from pathlib import Path
from typing import Any

from tests import tiny_models

PRE = "gpt-2"
"""What tiny_models.tiny_tokenizer splits text like."""
_MOE = {
    "intermediate_size": 48, "moe_intermediate_size": 24, "num_experts": 8,
    "num_experts_per_tok": 3, "decoder_sparse_step": 1,
}  # fmt: skip
_QWEN2_MOE = {**_MOE, "shared_expert_intermediate_size": 40, "norm_topk_prob": False}
_MIXTRAL = {"intermediate_size": 24, "num_local_experts": 8, "num_experts_per_tok": 3}
_OLMOE = {
    "intermediate_size": 24, "num_experts": 8, "num_experts_per_tok": 3, "num_key_value_heads": 4,
    "norm_topk_prob": False,
}  # fmt: skip
_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}
_YARN |= {"original_max_position_embeddings": 32}
_LLAMA3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0}
_LLAMA3 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 32}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3_moe": ("Qwen3Moe", {**_MOE, "norm_topk_prob": True}),
    "qwen2_moe": ("Qwen2Moe", _QWEN2_MOE),
    "mixtral": ("Mixtral", {**_MIXTRAL, "sliding_window": None}),
    "olmoe": ("Olmoe", _OLMOE),
    "llama": ("Llama", {"intermediate_size": 48}),
    "qwen2": ("Qwen2", {"intermediate_size": 48}),
    "qwen3": ("Qwen3", {"intermediate_size": 48}),
}
"""One of each family: transformers' name, and what differs from tiny_models' shape."""
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3_moe-wide-heads": (
        "Qwen3Moe", {**_MOE, "norm_topk_prob": True, "head_dim": 16, "num_attention_heads": 6,
                     "num_key_value_heads": 3},
    ),
    "qwen3_moe-all-experts": ("Qwen3Moe", {**_MOE, "norm_topk_prob": False,
                                           "num_experts_per_tok": 8}),
    "qwen3_moe-yarn": ("Qwen3Moe", {**_MOE, "norm_topk_prob": True, "rope_parameters": _YARN}),
    "qwen3_moe-yarn-attention": (
        "Qwen3Moe",
        {**_MOE, "norm_topk_prob": True, "rope_parameters": {**_YARN, "attention_factor": 0.7}},
    ),
    "qwen2_moe-tied": ("Qwen2Moe", {**_QWEN2_MOE, "tie_word_embeddings": True}),
    "mixtral-wide-heads": (
        "Mixtral", {**_MIXTRAL, "sliding_window": None, "head_dim": 16, "num_attention_heads": 6,
                    "num_key_value_heads": 3},
    ),
    "llama-bias": ("Llama", {"intermediate_size": 48, "attention_bias": True}),
    "llama-rope3": ("Llama", {"intermediate_size": 48, "rope_parameters": _LLAMA3}),
    "llama-linear-tied": (
        "Llama",
        {"intermediate_size": 48, "tie_word_embeddings": True,
         "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
    ),
}  # fmt: skip
"""What growth and other configs bring: wide heads, ties, biases, rope scaling."""


def write_model(name: str, folder: Path, *, dtype: str = "float32", **changes: Any) -> Path:
    """Write one of MODELS or VARIANTS; biases and norms are random too."""
    import torch
    import transformers

    prefix, own = {**MODELS, **VARIANTS}[name]
    shape = {**tiny_models._SHAPE, "initializer_range": 0.2, **own, **changes}
    config = getattr(transformers, f"{prefix}Config")(**shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, f"{prefix}ForCausalLM")(config)
        for parameter in model.parameters():
            if parameter.ndim == 1:  # transformers starts them at zero or one
                torch.nn.init.normal_(parameter, mean=parameter.flatten()[0].item(), std=0.2)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tiny_models.tiny_tokenizer(folder)
    return folder


def write_sentencepiece_tokenizer(folder: Path, *, prepends: bool = True) -> None:
    """Write a BPE tokenizer with byte fallback as converters make them of SentencePiece's.

    They list every way to make a token of two others, in the order of the token's score.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers

    text = [
        "the council hears every voice, and the answer is four; the voices hear the council"
    ] * 4
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.train_from_iterator(text, trainers.BpeTrainer(vocab_size=90, show_progress=False))
    pieces = sorted(trained.get_vocab().items(), key=lambda item: item[1])
    order = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    order += [piece for piece, _ in pieces if len(piece) > 1]
    order += [piece for piece, _ in pieces if len(piece) == 1]
    vocab = {piece: index for index, piece in enumerate(order)}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in order[259:]
        for cut in range(1, len(piece))
        if piece[:cut] in vocab and piece[cut:] in vocab
    ]
    model = models.BPE(vocab, merges, unk_token=order[0], byte_fallback=True, fuse_unk=True)
    tokenizer = Tokenizer(model)
    steps = [normalizers.Prepend("▁")] if prepends else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(
        [AddedToken(one, normalized=False, special=True) for one in order[:3]]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = dict(zip(("unk_token", "bos_token", "eos_token"), order[:3], strict=True))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **names})
    )

"""Heads by transformers' own eager attention, one sequence at a time: the slow reference."""

import numpy as np
import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


class Alone:
    """One row without padding: transformers' attention, and the queries, keys, values in it."""

    def __init__(self, model, ids):
        self.calls = []
        self.outputs = []
        self.model = model
        ALL_ATTENTION_FUNCTIONS.register("watched", self._watch)
        ALL_MASK_ATTENTION_FUNCTIONS.register("watched", ALL_MASK_ATTENTION_FUNCTIONS["eager"])
        handles = [
            layer.self_attn.o_proj.register_forward_hook(
                lambda module, inputs, output: self.outputs.append(inputs[0])
            )
            for layer in model.model.layers
        ]
        with torch.inference_mode():
            model.set_attn_implementation("eager")
            answer = model(input_ids=ids[None], output_attentions=True, use_cache=False)
            for handle in handles:
                handle.remove()
            model.set_attn_implementation("watched")
            model(input_ids=ids[None], use_cache=False)
        self.attentions = answer.attentions

    def _watch(self, module, query, key, value, mask, **options):
        self.calls.append((module, query, key, value, options))
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, mask, **options)

    def expected(self, layer, last):
        """Return entropy, distance, norm [Q, H] and mean cosine [H, H], token by token."""
        attention = self.attentions[layer][0].double().numpy()
        heads, tokens, _ = attention.shape
        weight = self.calls[layer][0].o_proj.weight.detach().double().numpy()
        output = self.outputs[layer][0].double().numpy().reshape(tokens, heads, -1)
        width = output.shape[-1]
        entropy, distance, norm = (np.zeros((last, heads)) for _ in range(3))
        cosine = np.zeros((heads, heads))
        for row, token in enumerate(range(tokens - last, tokens)):
            added = []
            for head in range(heads):
                seen = [(n, p) for n, p in enumerate(attention[head, token]) if p > 0]
                entropy[row, head] = -sum(p * np.log(p) for _, p in seen)
                distance[row, head] = sum(p * (token - n) for n, p in seen)
                norm[row, head] = np.sqrt((output[token, head] ** 2).sum())
                added.append(weight[:, head * width : (head + 1) * width] @ output[token, head])
            for one, first in enumerate(added):
                for two, second in enumerate(added):
                    lengths = np.linalg.norm(first) * np.linalg.norm(second)
                    cosine[one, two] += first @ second / lengths / last
        return entropy, distance, norm, cosine

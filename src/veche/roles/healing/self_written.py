"""Text that the teacher writes itself, so that a model can be healed on what it is used for.

Legend: W windows, B of them at a time, T tokens of a window, V vocabulary. This file imports torch.
"""

import torch
from torch import Tensor
from transformers import DynamicCache

from veche.core.progress import Progress
from veche.surgery.loading import Model

_WINDOWS_AT_ONCE = 32


@torch.inference_mode()
def self_written(
    model: Model,
    first_token: int,
    *,
    num_windows: int,
    window_tokens: int,
    seed: int,
    progress: Progress,
) -> Tensor:
    """Return windows [W, T] that a model samples at temperature 1, each from a first token on.

    A model of dialogues that begins with its first control token writes dialogues: system, user and
    assistant alike. What it learnt to end with does not end a window: it goes on with another text.

    Args:
        model: the teacher.
        first_token: of each window.
        num_windows: W.
        window_tokens: T.
        seed: of the sampling.
        progress: told of each token of a round.
    """
    random = torch.Generator(device=model.device).manual_seed(seed)
    rounds = []
    total = -(-num_windows // _WINDOWS_AT_ONCE) * (window_tokens - 1)
    with progress.task("teacher writes", total) as advance:
        for start in range(0, num_windows, _WINDOWS_AT_ONCE):
            count = min(_WINDOWS_AT_ONCE, num_windows - start)
            cache = DynamicCache()
            tokens = [torch.full((count, 1), first_token, device=model.device)]
            for _ in range(window_tokens - 1):
                output = model(input_ids=tokens[-1], past_key_values=cache, use_cache=True)
                share_BV = output.logits[:, -1].float().softmax(-1)
                tokens.append(torch.multinomial(share_BV, 1, generator=random))
                advance(1)
            rounds.append(torch.cat(tokens, dim=1))
    return torch.cat(rounds)

"""Read which experts a server sent its tokens to, as vLLM and SGLang write it.

Shapes: R rows of tokens, A all layers, L layers that route, E experts, k active experts a token.
"""

import base64
import binascii
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from veche.checkpoint.config import read_config, spec_of
from veche.core.errors import EngineError, InputError
from veche.engines.protocol import Routing

RoutingStyle = Literal["vllm", "sglang"]
_SPARE_TOKENS = 8  # a trunk was counted with the end of its turn, which a branch may not have


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterShape:
    """What a server leaves out, from the model's config.json.

    Attributes:
        num_experts: E.
        top_k: k.
        num_layers: A.
        sparse_layers: the L layers that route, from 0.
    """

    num_experts: int
    top_k: int
    num_layers: int
    sparse_layers: tuple[int, ...]


def router_shape(config: Path) -> RouterShape:
    """Read a model's folder or config.json.

    Raises:
        ConfigError: it is missing or contradicts itself.
        InputError: the model has no experts.
    """
    spec = spec_of(read_config(config), where=str(config))
    if not spec.is_moe:
        raise InputError(f"{config}: a {spec.model_type} has no experts", hint="leave config out")
    layers = range(spec.num_hidden_layers)
    return RouterShape(
        num_experts=spec.num_experts,
        top_k=spec.num_experts_per_tok,
        num_layers=spec.num_hidden_layers,
        sparse_layers=tuple(layer for layer in layers if spec.is_sparse_layer(layer)),
    )


def routing_fields(style: RoutingStyle, trunk_tokens: int) -> dict[str, Any]:
    """Return what a request adds to have the routing of its own tokens returned.

    vLLM returns it in whole answers only, never in a stream.
    """
    start = max(0, trunk_tokens - _SPARE_TOKENS)
    if style == "sglang":
        return {"return_routed_experts": True, "routed_experts_start_len": start}
    return {"stream": False, "stream_options": None, "routed_experts_prompt_start": start}


def read_routing(text: str, style: RoutingStyle, shape: RouterShape, *, num_tokens: int) -> Routing:
    """Return the routing of an answer's tokens that were fed back: all but the last.

    vLLM sends a .npy file of [R, A, k], SGLang the bare int32 of the same array, both as base64;
    row r is of one token, the last row of the last token but one. Neither sends weights: equal
    shares 1/k stand for them, which say that an expert was used and no more.

    Raises:
        EngineError: it is something else.
    """
    rows_RAk = _array(text, style, shape)
    num_rows = max(0, num_tokens - 1)
    ids_RLk = rows_RAk[:, list(shape.sparse_layers)]
    is_sound = len(ids_RLk) >= num_rows and (
        ids_RLk.size == 0 or 0 <= int(ids_RLk.min()) <= int(ids_RLk.max()) < shape.num_experts
    )
    if not is_sound:
        raise _strange(f"{len(ids_RLk)} rows for {num_tokens} tokens, or experts out of range")
    ids_TLk = ids_RLk[len(ids_RLk) - num_rows :].astype(np.uint16)
    return Routing(
        expert_ids=ids_TLk,
        weights=np.full(ids_TLk.shape, 1 / shape.top_k, np.float16),
        num_experts=shape.num_experts,
    )


def _array(text: str, style: RoutingStyle, shape: RouterShape) -> NDArray[Any]:
    try:
        raw = base64.b64decode(text, validate=True)
        if style == "sglang":
            return np.frombuffer(raw, "<i4").reshape(-1, shape.num_layers, shape.top_k)
        rows: NDArray[Any] = np.load(io.BytesIO(raw), allow_pickle=False)
    except (binascii.Error, ValueError, EOFError) as error:
        raise _strange(str(error)) from error
    if (
        rows.ndim != 3
        or rows.shape[1:] != (shape.num_layers, shape.top_k)
        or rows.dtype.kind not in "iu"
    ):
        raise _strange(f"{rows.dtype} {list(rows.shape)}")
    return rows


def _strange(why: str) -> EngineError:
    return EngineError(
        f"the server's routed experts are not those of this model: {why}",
        hint="give the config of the model that it serves: --engine-option config=FOLDER",
    )

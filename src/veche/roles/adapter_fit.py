"""Whether an adapter's weights fit a model, and how its invocation is written: from the files."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from veche.checkpoint.header import read_header
from veche.checkpoint.reader import open_checkpoint
from veche.core.errors import CheckpointError, InputError
from veche.roles.objects import ADAPTER_FILES

if TYPE_CHECKING:
    from veche.engines.chat_format import ChatFormat

_FACTOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<factor>[AB])\.weight")


def require_shapes(adapter: Path, model: Path) -> None:
    """Refuse an adapter whose factors are not of the model's weights: A [r, in], B [out, r].

    Raises:
        CheckpointError: names the first weight that the model has not, or has in another shape.
    """
    weights = open_checkpoint(model).tensors
    for name, info in read_header(adapter / ADAPTER_FILES[1]).items():
        found = _FACTOR.fullmatch(name)
        weight = weights.get(f"{found['module']}.weight") if found else None
        if found is None or weight is None:
            raise _unfit(adapter, model, f"the model has no place for {name}")
        side = 1 if found["factor"] == "A" else 0
        if len(weight.shape) != 2 or info.shape[side] != weight.shape[side]:
            raise _unfit(
                adapter,
                model,
                f"{name} has the shape {list(info.shape)}, of a weight of {list(weight.shape)}",
            )


def invocation_text(ids: tuple[int, ...], chat: "ChatFormat") -> str:
    """Return the text that a role's branch begins with, so that an adapter finds its tokens there.

    It is empty where the chat template itself has them: in front of every answer.

    Raises:
        InputError: no text becomes these tokens.
    """
    try:
        text = str(chat.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))
    except (OverflowError, TypeError, ValueError) as error:
        raise InputError(
            f"the invocation tokens {list(ids)} are not of this tokenizer: {error}",
            hint="name the model that the adapter was trained on: --base MODEL",
        ) from error
    if _stands_in(chat.suffix_ids(""), ids):
        return ""
    if tuple(chat.text_ids(text)) == ids:
        return text
    raise InputError(
        f"no text becomes the invocation tokens {list(ids)}: {text!r} is tokenised as "
        f"{chat.text_ids(text)}",
        hint="train the adapter with an invocation that is plain text, or that the chat template "
        "has before every answer",
    )


def require_same_tokens(text: str, ids: tuple[int, ...], chat: "ChatFormat") -> None:
    """Refuse an invocation text in which an adapter would not find its tokens.

    Raises:
        InputError: shows what the text becomes.
    """
    told = chat.suffix_ids(text)
    if not _stands_in(told, ids):
        raise InputError(
            f"the invocation {text!r} becomes the tokens {told}, and the adapter waits for "
            f"{list(ids)}",
            hint="leave --invocation out: it is then found by the tokenizer of --base",
        )


def _stands_in(whole: list[int], ids: tuple[int, ...]) -> bool:
    return any(tuple(whole[at : at + len(ids)]) == ids for at in range(len(whole)))


def _unfit(adapter: Path, model: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"the adapter in {adapter} is not of {model}: {reason}",
        hint="name the model that it was trained on: --base MODEL",
    )

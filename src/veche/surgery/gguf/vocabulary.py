"""tokenizer.json → the vocabulary of a GGUF file: tokens, their types, merges or scores."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
from tokenizers import Tokenizer

from veche.core.errors import CheckpointError, UnsupportedError
from veche.core.files import read_json_object
from veche.surgery.gguf.pre_tokenizers import PROBE_TEXT, pre_tokenizer_of, require_known_name

_FILE = "tokenizer.json"
_CONTROL_LOOK = re.compile(r"<\|.*\|>|<｜.*｜>|<unused.*>|<pad>|<mask>")
"""Added tokens that are control tokens even where nobody marked them as special."""
_BYTE_LOOK = re.compile(r"<0x[0-9A-F]{2}>")
_ADDED_SCORE = -1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What tokenizer.ggml.* says.

    Attributes:
        model: "gpt2" (byte-level BPE with merges) or "llama" (SentencePiece, with scores).
        pre: name of the pre-tokenizer.
        tokens: texts by id; as many as the embedding has rows.
        types: of the tokens, gguf.TokenType.
        scores: of the tokens, for "llama"; empty for "gpt2".
        special: ids of special tokens, chat template and merges, as the gguf package read them.
        adds_bos: whether the tokenizer puts its BOS before a text.
        adds_eos: whether it puts its EOS after one.
        adds_space: whether it puts a space before a text; None where the model does not ask.
        num_unlisted_merges: ways to join two tokens into a third that tokenizer.json does not
            list and llama.cpp takes ("llama" only): above 0 the two may split text differently.
    """

    model: str
    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    scores: tuple[float, ...]
    special: Any
    adds_bos: bool
    adds_eos: bool
    adds_space: bool | None
    num_unlisted_merges: int = 0

    def write(self, writer: Any) -> None:
        """Add everything to a gguf.GGUFWriter."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.scores:
            writer.add_token_scores(self.scores)
        if self.adds_space is not None:
            writer.add_add_space_prefix(self.adds_space)
        self.special.add_special_token = {"bos": self.adds_bos, "eos": self.adds_eos}
        self.special.add_to_gguf(writer, quiet=True)


def read_vocabulary(folder: Path, vocab_size: int, *, pre: str | None) -> Vocabulary:
    """Read the tokenizer of a checkpoint folder.

    Args:
        folder: with tokenizer.json.
        vocab_size: rows of the embedding; ids without a token become unused tokens.
        pre: name of the pre-tokenizer; None to find it out.

    Raises:
        CheckpointError: there is no tokenizer, or it is damaged, or larger than the embedding.
        UnsupportedError: it is of a kind that is neither byte-level BPE nor SentencePiece's.
        InputError: llama.cpp has no such pre-tokenizer.
    """
    if pre is not None:
        require_known_name(pre)
    path = folder / _FILE
    tokenizer, description = _load(path)
    texts = _texts(tokenizer, vocab_size, path)
    kind = _kind(description, path)
    model = description["model"]
    special = _special(folder, load_merges=kind == "gpt2", vocab_size=vocab_size)
    bos, eos = (special.special_token_ids.get(name) for name in ("bos", "eos"))
    probe = tokenizer.encode("a").ids
    is_piecewise = kind == "llama"
    found = "default" if is_piecewise else None
    return Vocabulary(
        model=kind,
        pre=pre or found or pre_tokenizer_of(tokenizer.encode(PROBE_TEXT).ids, where=str(path)),
        tokens=tuple(text for text, _ in texts),
        types=tuple(int(type_) for _, type_ in texts),
        scores=_scores(model, texts) if is_piecewise else (),
        special=special,
        adds_bos=bos is not None and bool(probe) and probe[0] == bos,
        adds_eos=eos is not None and bool(probe) and probe[-1] == eos,
        adds_space=_adds_space(description) if is_piecewise else None,
        num_unlisted_merges=_num_unlisted_merges(model) if is_piecewise else 0,
    )


def _load(path: Path) -> tuple[Any, dict[str, Any]]:
    if not path.is_file():
        raise CheckpointError(
            f"{path.parent} has no {path.name}, and a GGUF file carries its tokenizer",
            hint="copy tokenizer.json and tokenizer_config.json of the base model into it",
        )
    description = read_json_object(path)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except BaseException as error:
        if type(error) is Exception:  # the tokenizers library knows no other
            raise _damaged(path, str(error)) from error
        raise
    if not isinstance(description.get("model"), dict):
        raise _damaged(path, "it has no model")
    return tokenizer, description


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be read as a tokenizer: {why}", hint="fetch the file again"
    )


def _kind(description: Mapping[str, Any], path: Path) -> str:
    """Return tokenizer.ggml.model: "llama" for SentencePiece's BPE, "gpt2" for byte-level BPE."""
    model = description["model"]
    if model.get("type") == "BPE" and isinstance(model.get("vocab"), dict):
        if model.get("byte_fallback"):
            return "llama"
        if "ByteLevel" in _types_in(description.get("pre_tokenizer")):
            return "gpt2"
    raise UnsupportedError(
        f"{path} is a tokenizer of type {model.get('type')!r} without byte-level or "
        "byte-fallback BPE, and the families that veche exports have one of the two",
        hint="is it this model's own tokenizer?",
    )


def _types_in(step: Any) -> set[str]:
    """Return the types of a normaliser's or pre-tokenizer's steps."""
    if not isinstance(step, dict):
        return set()
    inner = step.get("pretokenizers") or step.get("normalizers") or []
    return {str(step.get("type"))}.union(*(_types_in(one) for one in inner))


def _texts(tokenizer: Any, vocab_size: int, path: Path) -> list[tuple[str, Any]]:
    """Return text and type of every id (get_vocab_base in llama.cpp's converter)."""
    by_id = {index: text for text, index in tokenizer.get_vocab(with_added_tokens=True).items()}
    if by_id and max(by_id) >= vocab_size:
        raise CheckpointError(
            f"{path} has a token of id {max(by_id)}, and vocab_size in config.json is {vocab_size}",
            hint="is it this model's own tokenizer? the embedding must have a row for every token",
        )
    added = tokenizer.get_added_tokens_decoder()
    return [
        _text(tokenizer, index, by_id.get(index), added.get(index)) for index in range(vocab_size)
    ]


def _text(tokenizer: Any, index: int, text: str | None, added: Any) -> tuple[str, Any]:
    types = gguf.TokenType
    if text is None:
        return f"[PAD{index}]", types.UNUSED
    if added is None:
        return text, types.BYTE if _BYTE_LOOK.fullmatch(text) else types.NORMAL
    if not added.normalized:  # llama.cpp looks for the text as it stands after normalisation
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        text = tokenizer.decode(ids, skip_special_tokens=False) or text
    if added.special or _CONTROL_LOOK.fullmatch(text):
        return text, types.CONTROL
    return text.replace("▁", " "), types.USER_DEFINED


def _special(folder: Path, *, load_merges: bool, vocab_size: int) -> Any:
    """Return the gguf package's reading of special tokens, chat template and merges."""
    try:
        return gguf.SpecialVocab(folder, load_merges=load_merges, n_vocab=vocab_size)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"{folder}: tokenizer.json, tokenizer_config.json and config.json do not agree about "
            f"special tokens: {error!r}",
            hint="fetch the tokenizer's files again",
        ) from error


def _scores(model: Mapping[str, Any], texts: Sequence[tuple[str, Any]]) -> tuple[float, ...]:
    """Return SentencePiece's scores: minus the rank of the first merge that makes the token.

    llama.cpp joins the pair whose result scores highest; the tokenizers library the pair of the
    lowest rank. Tokens that no merge makes never compete.
    """
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(_merges(model)):
        ranks.setdefault(left + right, rank)
    normal = {gguf.TokenType.NORMAL, gguf.TokenType.BYTE}
    return tuple(
        -float(ranks.get(text, len(ranks))) if type_ in normal else _ADDED_SCORE
        for text, type_ in texts
    )


def _merges(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = []
    for merge in model.get("merges") or []:
        left, _, right = (
            merge.partition(" ") if isinstance(merge, str) else (merge[0], "", merge[1])
        )
        pairs.append((left, right))
    return pairs


def _num_unlisted_merges(model: Mapping[str, Any]) -> int:
    """Count pairs of tokens whose joined text is a token that no merge makes of them.

    SentencePiece, and llama.cpp, join any two neighbours that make a token; what converters write
    into tokenizer.json lists them all.
    """
    listed, vocab = set(_merges(model)), model["vocab"]
    targets = {left + right for left, right in listed}
    return sum(
        text[:cut] in vocab and text[cut:] in vocab and (text[:cut], text[cut:]) not in listed
        for text in targets
        for cut in range(1, len(text))
    )


def _adds_space(description: Mapping[str, Any]) -> bool:
    """Whether a text gets a space in front: by a normaliser (Llama 2), or by a Metaspace step."""
    if "Prepend" in _types_in(description.get("normalizer")):
        return True
    step = description.get("pre_tokenizer")
    if not isinstance(step, dict) or step.get("type") != "Metaspace":
        return False
    return str(step.get("prepend_scheme", "always")) != "never"

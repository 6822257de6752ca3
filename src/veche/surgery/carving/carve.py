"""Carve a dense checkpoint into a mixture of experts, without training.

Every feed-forward layer's I hidden units become E disjoint experts of I/E units, and a linear
router learns from activations on calibration text which of them a token needs. With k = E the
experts add up to the dense layer; with k < E the carved model is a measured approximation.
Llama becomes Mixtral, Qwen2 becomes Qwen2-MoE, Qwen3 becomes Qwen3-MoE.

Sources: CMoE (arXiv:2502.04416), LLaMA-MoE (arXiv:2406.16554), MoEfication (arXiv:2110.01786).
This file imports torch.
"""

import hashlib
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from veche.checkpoint.reader import Checkpoint, open_checkpoint
from veche.core.errors import InputError, OutputError
from veche.core.files import PARTIAL_SUFFIX, require_empty
from veche.core.progress import Progress, Silent
from veche.surgery.carving.calibration import calibration_text, heldout_text
from veche.surgery.carving.check import Equality, check_equality
from veche.surgery.carving.files import write_carved
from veche.surgery.carving.fit import fit_layers
from veche.surgery.carving.layer_fit import CarvedLayer, Division
from veche.surgery.carving.source import require_carvable, shared_units
from veche.surgery.loading import load_model, load_tokenizer
from veche.surgery.verification.compare import windows
from veche.surgery.workshop import finish_if_done, work_key, workshop

_WINDOW_TOKENS = 512
_MAX_CHARACTERS_A_TOKEN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class CarveSettings:
    """How to carve.

    Attributes:
        num_experts: E; it must divide the width of the feed-forward layers.
        num_experts_per_tok: k in the carved config.json; None means all, which is exact, or with
            `refit` the k of the fit.
        fit_experts_per_tok: k that partitions and routers are fitted for; None means ¾ of E.
        calibration_tokens: how much of the calibration text to look at.
        check_tokens: on how much held-out text to prove equality at k = E; 0 proves nothing.
        seed: of the router's stochastic refinement.
        refit: refit `down` by ridge regression, so that the kept experts make up for the dropped
            ones. With fewer experts it is nearer to the dense model, with all of them it no
            longer is the dense model.
    """

    num_experts: int = 16
    num_experts_per_tok: int | None = None
    fit_experts_per_tok: int | None = None
    calibration_tokens: int = 32_768
    check_tokens: int = 512
    seed: int = 0
    refit: bool = False

    @property
    def top_k(self) -> int:
        """The carved model's k; with a refit, which is made for one k, that one if not given."""
        return self.num_experts_per_tok or (self.fit_top_k if self.refit else self.num_experts)

    @property
    def fit_top_k(self) -> int:
        """The k that the fit aims at."""
        return self.fit_experts_per_tok or max(1, self.num_experts * 3 // 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class CarveReport:
    """What was carved, and what was measured while doing it.

    Attributes:
        target: the finished folder.
        settings: as used.
        calibration_tokens: tokens that were really looked at.
        kept_energy: for each layer, the share of its output energy in kept experts, at the fit's k.
        hit_rate: for each layer, the share of kept experts that an oracle would keep, at that k.
        equality: the carved model with k = E against the dense one, with the refitted `down`
            where there is one; None when not checked.
        seconds: wall time.
    """

    target: str
    settings: CarveSettings
    calibration_tokens: int
    kept_energy: tuple[float, ...]
    hit_rate: tuple[float, ...]
    equality: Equality | None
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def carve(
    source: Path,
    target: Path,
    settings: CarveSettings,
    *,
    text: str | None = None,
    progress: Progress | None = None,
) -> CarveReport:
    """Carve the dense checkpoint in `source` into the new folder `target`.

    The work is done in `target`.partial, which becomes `target` by one rename once equality at
    k = E is proved in float32, and is removed on any error. What a kill leaves there is continued
    by the same command; a folder of that name that is not veche's is refused. `source` is only
    read.

    Args:
        source: a folder with a dense llama, qwen2 or qwen3 model in safetensors, and its tokenizer.
        target: must not exist, or be empty.
        settings: how to carve.
        text: calibration text; None means Python's help topics.
        progress: where to report.

    Raises:
        CheckpointError: the source is missing, damaged, or in pickle files.
        UnsupportedError: no family of mixtures has room for the source's architecture.
        RecipeError: the settings do not fit the source.
        InputError: the text is too short.
        OutputError: the target is taken, or something else is at work there.
        DiskError: the target could not be written.
        VerificationError: with k = E the carved model is not the dense one.
    """
    started = time.perf_counter()
    progress = progress or Silent()
    checkpoint = open_checkpoint(source)
    require_carvable(checkpoint, settings.num_experts, top_ks=(settings.top_k, settings.fit_top_k))
    key = _key(checkpoint, settings, text)
    finish_if_done(target, key)
    require_empty(target, advice="choose another folder, or remove this one first")
    tokens_WT = _calibration_tokens(checkpoint, text, settings.calibration_tokens)
    with _cleared_on_error(target, key) as folder:
        layers = _fit(checkpoint, tokens_WT, settings, progress)
        write_carved(folder, checkpoint, layers, top_k=settings.top_k, note=_note(settings))
        equality = _check(checkpoint, folder, layers, settings, progress)
    return CarveReport(
        target=str(target),
        settings=settings,
        calibration_tokens=tokens_WT.numel(),
        kept_energy=tuple(layer.kept_energy for layer in layers),
        hit_rate=tuple(layer.hit_rate for layer in layers),
        equality=equality,
        seconds=time.perf_counter() - started,
    )


def _fit(
    checkpoint: Checkpoint, tokens_WT: Tensor, settings: CarveSettings, progress: Progress
) -> list[CarvedLayer]:
    division = Division(
        num_experts=settings.num_experts,
        top_k=settings.fit_top_k,
        num_shared=shared_units(checkpoint.spec, settings.num_experts),
    )
    return fit_layers(
        load_model(checkpoint.folder),
        tokens_WT,
        division,
        is_refitted=settings.refit,
        seed=settings.seed,
        progress=progress,
    )


def _calibration_tokens(checkpoint: Checkpoint, text: str | None, num_tokens: int) -> Tensor:
    """Return evenly spaced windows [W, T] of the calibration text."""
    tokenizer = load_tokenizer(checkpoint.folder)
    text = calibration_text() if text is None else text
    token_ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    least = 2 * checkpoint.spec.hidden_size
    if min(len(token_ids), num_tokens) < least:
        raise InputError(
            f"{min(len(token_ids), num_tokens)} calibration tokens are too few to fit routers of "
            f"{checkpoint.spec.hidden_size} inputs",
            hint=f"give a text of at least {least} tokens, better of some thousands",
        )
    window = _window(checkpoint)
    return windows(token_ids, num_windows=max(1, num_tokens // window), window_tokens=window)


def _check(
    checkpoint: Checkpoint,
    folder: Path,
    layers: Sequence[CarvedLayer],
    settings: CarveSettings,
    progress: Progress,
) -> Equality | None:
    if not settings.check_tokens:
        return None
    text = heldout_text()[: _MAX_CHARACTERS_A_TOKEN * settings.check_tokens]
    token_ids = load_tokenizer(folder)(text, add_special_tokens=False, verbose=False)["input_ids"]
    window = min(settings.check_tokens, _window(checkpoint))
    tokens_WT = windows(
        token_ids, num_windows=settings.check_tokens // window, window_tokens=window
    )
    with progress.task("check", 2 * len(tokens_WT)) as advance:
        return check_equality(
            checkpoint.folder, folder, layers, tokens_WT, top_k=settings.top_k, advance=advance
        )


def _window(checkpoint: Checkpoint) -> int:
    return min(_WINDOW_TOKENS, checkpoint.spec.max_position_embeddings)


def _note(settings: CarveSettings) -> dict[str, Any]:
    """Return what config.json remembers of the carving."""
    return {
        "equal_routing_weights": True,
        "num_experts": settings.num_experts,
        "fit_experts_per_tok": settings.fit_top_k,
        "calibration_tokens": settings.calibration_tokens,
        "seed": settings.seed,
        "refit": settings.refit,
    }


@contextmanager
def _cleared_on_error(target: Path, key: str) -> Iterator[Path]:
    """Yield a folder to work in; it becomes `target` when the block succeeds, else it goes.

    NOTE: nothing is removed that was there before the workshop let us in, and it lets nobody into
    a folder that holds what is not veche's, or an interrupted work of another key.
    """
    folder = target.with_name(target.name + PARTIAL_SUFFIX)
    is_ours = not folder.exists()
    try:
        with workshop(target, key, resume=True, discard_stale=False) as folder:
            is_ours = True
            yield folder
    except BaseException as error:
        if is_ours and not isinstance(error, OutputError):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _key(checkpoint: Checkpoint, settings: CarveSettings, text: str | None) -> str:
    """Return what the result depends on, as a hash."""
    text = hashlib.sha256(text.encode()).hexdigest() if text is not None else None
    return work_key(checkpoint, {"carve": asdict(settings), "text": text})

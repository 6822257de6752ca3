"""What every engine offers: one trunk, prefilled once, and a batch of branches behind it.

Shapes: T tokens of one branch, L layers (that route, or that were chosen), E experts, k active
experts a token, H heads, D hidden size, V vocabulary.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from threading import Event
from typing import Any, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from veche.core.errors import InputError, UnsupportedError
from veche.engines.request_limits import (
    require_factor,
    require_share,
    require_stop_texts,
    require_whole,
)

FinishReason = Literal["stop", "length", "cancelled"]
OnToken = Callable[[str, str], None]
"""Called with (voice, text piece) for each piece of text as it is decoded."""
OnRouting = Callable[[str, NDArray[np.uint16], NDArray[np.float16]], None]
"""Called with (voice, expert ids [L, k], weights [L, k]) for each token as it is fed back."""


class Capability(StrEnum):
    """What an engine may be able to do; asking for a missing one is an UnsupportedError."""

    FORK = "fork"
    """Branches share the trunk's cache: nothing is prefilled twice."""
    ENTROPY = "entropy"
    """The entropy of the next-token distribution is reported for each token."""
    ROUTING = "routing"
    """Which experts each token was sent to is reported."""
    ROUTER_LOGITS = "router_logits"
    """The logits of every expert, before any steering, can be reported too."""
    LOGPROBS = "logprobs"
    """Log-probabilities of the chosen token and of the likeliest ones can be reported."""
    LOGITS = "logits"
    """The whole next-token distribution can be reported."""
    HIDDEN_STATES = "hidden_states"
    """Hidden states at chosen layers can be reported."""
    HEADS = "heads"
    """Statistics of each attention head can be reported."""
    NUM_EXPERTS_PER_TOK = "num_experts_per_tok"
    """A branch may use its own number of active experts."""
    STEERING = "steering"
    """A branch may bias the routers."""
    ADAPTERS = "adapters"
    """Adapters can be loaded at run time; a branch names the one that it uses."""
    JSON = "json"
    """An answer can be held to a JSON schema."""
    KEEP = "keep"
    """A branch can be kept as a trunk of its own, and continued."""
    SCORE = "score"
    """A given answer can be read instead of decoded."""
    SNAPSHOT = "snapshot"
    """A trunk can be written to disk, and opened from there without prefilling it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a branch picks its tokens; spelled as in transformers' GenerationConfig.

    A number out of its range is an InputError.

    Attributes:
        max_new_tokens: the most tokens that the branch may decode, at least 1.
        temperature: 0 is greedy; else in 1e-6..1e6.
        top_k: only the likeliest so many tokens are drawn from; 0 is all.
        top_p: nucleus mass in (0, 1].
        min_p: tokens below this share of the likeliest one's probability are not drawn.
        repetition_penalty: in 1e-6..1e6, 1 is none; applied to tokens that this branch has decoded.
        seed: of this branch's own random stream; any whole number.
        stop: texts that end the branch; they are not part of its text.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse numbers out of their range, here and not in every engine."""
        require_whole("max_new_tokens", self.max_new_tokens, least=1)
        require_whole("top_k", self.top_k, least=0)
        require_factor("temperature", self.temperature, is_zero_allowed=True)
        require_factor("repetition_penalty", self.repetition_penalty, is_zero_allowed=False)
        require_share("top_p", self.top_p, is_zero_allowed=False)
        require_share("min_p", self.min_p, is_zero_allowed=True)
        require_stop_texts(self.stop)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveExperts:
    """Few experts where a router is sure, more where it is not, token by token and layer by layer.

    A router's distribution over E experts, p = softmax(l/u) with H(p) = −Σ_e p_e ln p_e in nats,
    counts as exp(H(p)) experts: E where it is uniform, 1 where one expert has it all. A token uses

        k = min(max(round(scale · exp(H(p))), least), most)

    of them; l are the logits before any steering, so that a bias doesn't change the number. The
    unit u is 1 where a family's weights follow from its logits.

    A carved model's don't: carving scales its logits to a standard deviation s = 1e-6 over tokens
    and experts of a layer, so that they rank experts which all weigh the same (decision 0003), and
    exp(H(softmax(l))) would be E for every token. There u = s: l/s spreads by 1 within a layer, as
    a trained router's logits do, and a token whose logits spread less than the layer's does count
    as more experts. For normal l/s of variance v, exp(H) ≈ E·exp(−v/2): about 0.6·E of them.
    Each of the k experts then still weighs 1/k₀, where k₀ is the checkpoint's own number, to which
    its experts' loudness was fitted: k experts add up to k of E parts of the dense layer.

    Attributes:
        least: in 1..most.
        most: in least..E.
        scale: positive.
    """

    least: int
    most: int
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """What is added to the routers' logits before they choose.

    Attributes:
        bias: [L, E], in nats, a row for each layer that routes, 0 where nothing is to change. The
            weights of the chosen experts follow from the biased logits too. In a carved model a
            nat is the unit of `AdaptiveExperts`, and the experts' weights stay equal.
    """

    bias: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """What is to be reported of a branch besides its text.

    Attributes:
        routing: where its tokens were sent, if the engine can tell.
        router_logits: the logits of every expert too.
        logprobs: None is none; else of the chosen token and of this many likeliest ones.
        logits: the whole next-token distribution.
        hidden_layers: layers whose output is reported; 0 is the embedding, the last is what the
            output head reads (as in transformers' `hidden_states`).
        heads: statistics of each attention head.
    """

    routing: bool = True
    router_logits: bool = False
    logprobs: int | None = None
    logits: bool = False
    hidden_layers: tuple[int, ...] = ()
    heads: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that no model has."""
        if self.logprobs is not None:
            require_whole("logprobs", self.logprobs, least=0)
        for layer in self.hidden_layers:
            require_whole("hidden_layers", layer, least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A voice's request: what it is told behind the trunk, and how it answers.

    A branch's first token is its invocation: adapter, steering and number of experts act from
    there on, so the trunk is what it would be without them.

    Attributes:
        voice: who speaks; unique in a batch.
        instruction: appended to the open turn, which is then closed. Behind a kept branch it is the
            user's next turn, and "" goes on with the answer itself.
        sampling: how tokens are picked.
        num_experts_per_tok: active experts of this branch alone; None is the checkpoint's.
        steering: what biases its routers.
        adapter: the name of a loaded adapter.
        json_schema: the answer is held to this JSON schema; {} is any JSON.
        capture: what is reported of it.
        keep: keep it as a trunk of its own, in `BranchResult.trunk`.
    """

    voice: str
    instruction: str
    sampling: Sampling = field(default_factory=Sampling)
    num_experts_per_tok: int | AdaptiveExperts | None = None
    steering: Steering | None = None
    adapter: str | None = None
    json_schema: Mapping[str, Any] | None = None
    capture: Capture = field(default_factory=Capture)
    keep: bool = False

    @property
    def needs(self) -> frozenset[Capability]:
        """What an engine must be able to do for this branch; routing is reported if it can."""
        asked = {
            Capability.ROUTER_LOGITS: self.capture.router_logits,
            Capability.LOGPROBS: self.capture.logprobs is not None,
            Capability.LOGITS: self.capture.logits,
            Capability.HIDDEN_STATES: bool(self.capture.hidden_layers),
            Capability.HEADS: self.capture.heads,
            Capability.NUM_EXPERTS_PER_TOK: self.num_experts_per_tok is not None,
            Capability.STEERING: self.steering is not None,
            Capability.ADAPTERS: self.adapter is not None,
            Capability.JSON: self.json_schema is not None,
            Capability.KEEP: self.keep,
        }
        return frozenset(capability for capability, is_asked in asked.items() if is_asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """Where a branch's answer tokens were sent: those that were fed back to the model.

    Attributes:
        expert_ids: [T, L, k], the chosen experts, best first. Where a token used fewer than k, the
            rest of its row repeats no meaning: its weights are 0.
        weights: [T, L, k], their routing weights.
        num_experts: how many there were to choose from.
        logits: [T, L, E] before any steering; None where they were not asked for.
        logit_unit: what the logits are divided by to be in nats; see `AdaptiveExperts`.
    """

    expert_ids: NDArray[np.uint16]
    weights: NDArray[np.float16]
    num_experts: int
    logits: NDArray[np.float32] | None = None
    logit_unit: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Logprobs:
    """Natural log-probabilities before temperature and penalties.

    Attributes:
        chosen: [T], of the token that was chosen, or given.
        top_ids: [T, n], the likeliest tokens, best first; n is what was asked for.
        top: [T, n], their log-probabilities.
    """

    chosen: NDArray[np.float32]
    top_ids: NDArray[np.int64]
    top: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadStatistics:
    """What each attention head did for the answer tokens that were fed back.

    Attributes:
        entropy: [T, L, H], of the head's attention over all positions before it, in nats.
        distance: [T, L, H], mean distance of what it attended to, in tokens.
        output_norm: [T, L, H], L2 norm of its output before the output projection.
        similarity: [L, H, H], cosine of what two heads add to the residual stream, mean over T; 0
            with a head that adds nothing.
    """

    entropy: NDArray[np.float32]
    distance: NDArray[np.float32]
    output_norm: NDArray[np.float32]
    similarity: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchResult:
    """What a branch said, and what it cost.

    Attributes:
        voice: as in the request.
        text: the decoded text, without special tokens and stop texts.
        token_ids: the decoded tokens, the end token included when there was one.
        finish_reason: "stop" (end token, stop text, complete JSON, or the end of a given answer),
            "length" or "cancelled".
        prefilled_tokens: prompt tokens that were computed for this branch alone.
        reused_tokens: prompt tokens that it read from the trunk's cache.
        token_ends: [T], how many characters of `text` there are once each token is read; a token
            that ends within a character, or that is none, adds nothing. None where the engine
            can't tell.
        entropies: entropy of the distribution that each token was drawn from, in nats, before
            temperature and penalties; None where the engine can't tell.
        routing: of the answer tokens that were fed back; None where the engine can't tell.
        logprobs: where asked for.
        logits: [T, V], where asked for: row t is what token t was drawn from.
        hidden_states: [T, L, D], where asked for: row t is the state that token t was drawn from.
        heads: where asked for.
        trunk: the branch as a trunk of its own, if it was to be kept.
    """

    voice: str
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    prefilled_tokens: int
    reused_tokens: int
    token_ends: tuple[int, ...] | None = None
    entropies: tuple[float, ...] | None = None
    routing: Routing | None = None
    logprobs: Logprobs | None = None
    logits: NDArray[np.float32] | None = None
    hidden_states: NDArray[np.float32] | None = None
    heads: HeadStatistics | None = None
    trunk: "Trunk | None" = None


class Trunk(Protocol):
    """The shared beginning of a conversation, whose last user turn is still open."""

    @property
    def num_tokens(self) -> int:
        """How many tokens it holds."""


class Engine(Protocol):
    """A model that can be asked.

    A trunk is a conversation whose last user turn is open. `extend_trunk` appends to that turn and
    never rewrites it; a branch appends its instruction, closes the turn and answers. Texts are
    data: markup of the chat format inside them is not obeyed.
    """

    name: str
    context_tokens: int
    """The longest sequence of trunk, instruction and answer together."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this engine can do."""

    def count_tokens(self, text: str) -> int:
        """Return how many tokens `text` would add to a trunk."""

    def open_trunk(self, *, system: str, user: str) -> Trunk:
        """Prefill the system message and the beginning of the user's turn, once."""

    def extend_trunk(self, trunk: Trunk, text: str) -> int:
        """Append `text` to the open turn; return how many tokens were prefilled.

        Behind a kept branch, which is an answer, it opens the user's next turn first.
        """

    def decode(
        self,
        trunk: Trunk,
        branches: Sequence[Branch],
        on_token: OnToken | None = None,
        *,
        on_routing: OnRouting | None = None,
        cancel: Event | None = None,
    ) -> list[BranchResult]:
        """Decode all branches from the trunk as one batch; the trunk is left as it was.

        An engine without ROUTING never calls `on_routing`.

        Once `cancel` is set, even in the middle of a token, the branches end as "cancelled" with
        what they have said.
        """

    def close_trunk(self, trunk: Trunk) -> None:
        """Free the trunk's memory."""


class ScoringEngine(Engine, Protocol):
    """An engine with SCORE: it can read what it did not write."""

    def open_text(self, text: str) -> Trunk:
        """Prefill a plain text, without any chat markup; branches go on with it."""

    def score(
        self, trunk: Trunk, branches: Sequence[Branch], answers: Sequence[str]
    ) -> list[BranchResult]:
        """Read an answer for each branch instead of decoding one; nothing is sampled.

        Results are as of `decode`, of the given tokens, each of which is fed to the model.
        """


class LocalEngine(Engine, Protocol):
    """An engine that knows the files of its model."""

    @property
    def base_hash(self) -> str:
        """Content hash of the checkpoint."""

    @property
    def identity(self) -> str:
        """Hash of all that decides what it computes: checkpoint, changes, floating-point type."""

    @property
    def num_layers(self) -> int:
        """How many layers the model has."""


class SnapshotEngine(Engine, Protocol):
    """An engine with SNAPSHOT."""

    def save_trunk(self, trunk: Trunk, path: Path) -> None:
        """Write a trunk's cache and tokens to `path`, atomically."""

    def load_trunk(self, path: Path) -> Trunk:
        """Open what `save_trunk` wrote, with the same model and adapters."""


class AdapterEngine(Engine, Protocol):
    """An engine with ADAPTERS."""

    def load_adapter(self, name: str, folder: Path) -> str:
        """Load a PEFT folder under a name; return its content hash."""

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter; trunks and results that used it stay as they are."""


def require(engine: Engine, *needed: Capability) -> None:
    """Refuse an engine that lacks a capability.

    Raises:
        UnsupportedError: names what is missing.
    """
    if missing := sorted(set(needed) - engine.capabilities):
        raise UnsupportedError(
            f"engine {engine.name!r} cannot do: {', '.join(missing)}",
            hint="use the transformers engine, which can do all of it, with a model that has it",
        )


def require_for(engine: Engine, branches: Iterable[Branch]) -> None:
    """Refuse what a batch of branches asks for and the engine lacks, or two of one voice.

    Raises:
        UnsupportedError: names what is missing.
        InputError: names the voice that is not unique.
    """
    branches = tuple(branches)
    voices = [branch.voice for branch in branches]
    for voice in voices:
        if voices.count(voice) > 1:
            raise InputError(
                f"{voices.count(voice)} branches of one batch have the voice {voice!r}"
            )
    require(engine, *(capability for branch in branches for capability in branch.needs))


def scoring(engine: Engine) -> ScoringEngine:
    """Return the engine as one that can SCORE.

    Raises:
        UnsupportedError: it cannot.
    """
    require(engine, Capability.SCORE)
    return cast("ScoringEngine", engine)


def local(engine: Engine) -> LocalEngine:
    """Return the engine as one that knows its model's files.

    Raises:
        UnsupportedError: the model is elsewhere, or there is none.
    """
    if not hasattr(engine, "identity"):
        raise UnsupportedError(
            f"engine {engine.name!r} cannot tell which model it runs: its files are elsewhere",
            hint="use the transformers engine with the model's folder",
        )
    return cast("LocalEngine", engine)


def snapshots(engine: Engine) -> SnapshotEngine:
    """Return the engine as one with SNAPSHOT.

    Raises:
        UnsupportedError: it has none.
    """
    require(engine, Capability.SNAPSHOT)
    return cast("SnapshotEngine", engine)


def adapters(engine: Engine) -> AdapterEngine:
    """Return the engine as one with ADAPTERS.

    Raises:
        UnsupportedError: it has none.
    """
    require(engine, Capability.ADAPTERS)
    return cast("AdapterEngine", engine)

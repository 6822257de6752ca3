"""What a server's answers look like; what veche does not read is ignored."""

from typing import Any, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from veche.core.errors import EngineError

_TOKEN_ID = "token_id:"  # noqa: S105 - how vLLM spells a token's number


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class LikelyToken(_Message):
    """A token with its log-probability: llama-server tells its `id`, vLLM puts it into `token`."""

    token: str = ""
    id: int | None = None
    logprob: float

    @property
    def token_id(self) -> int | None:
        """Its number in the vocabulary, where the server tells."""
        digits = self.token.removeprefix(_TOKEN_ID)
        if self.id is None and digits != self.token and digits.isdigit():
            return int(digits)
        return self.id


class ChosenToken(LikelyToken):
    """The token that was chosen, and the likeliest ones in its place."""

    top_logprobs: list[LikelyToken] = Field(default_factory=list)


class TokenLogprobs(_Message):
    """Log-probabilities of the tokens of one event."""

    content: list[ChosenToken] | None = None


class Delta(_Message):
    """A piece of an answer; what a model thinks before it speaks is not part of its answer."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class Choice(_Message):
    """One answer's share of an event; in an answer that is no stream it is called `message`."""

    index: int = 0
    delta: Delta = Field(default_factory=Delta, validation_alias=AliasChoices("delta", "message"))
    finish_reason: str | None = None
    logprobs: TokenLogprobs | None = None
    token_ids: list[int] | None = None
    routed_experts: str | None = None


class PromptDetails(_Message):
    """How the prompt's tokens came to be known."""

    cached_tokens: int | None = Field(default=None, ge=0)


class Usage(_Message):
    """A request's token bill."""

    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    prompt_tokens_details: PromptDetails | None = None

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that came from the server's prefix cache; 0 where it doesn't tell."""
        details = self.prompt_tokens_details
        cached = 0 if details is None else details.cached_tokens or 0
        return min(cached, self.prompt_tokens)


class SglangExtension(_Message):
    """What SGLang adds in its last event."""

    output_ids: list[list[int]] | None = None
    routed_experts: str | None = None


class Chunk(_Message):
    """One event of a stream."""

    choices: list[Choice]
    usage: Usage | None = None
    sglext: SglangExtension | None = None


class ServedModel(_Message):
    """A model of /v1/models: vLLM and SGLang tell its context, an adapter its parent."""

    id: str
    root: str | None = None
    parent: str | None = None
    max_model_len: int | None = Field(default=None, gt=0)


class ModelList(_Message):
    """What a server serves."""

    data: list[ServedModel]


class TokenList(_Message):
    """A text's tokens."""

    tokens: list[int]


Answer = TypeVar("Answer", bound=_Message)


def read(kind: type[Answer], value: Any, *, host: str) -> Answer:
    """Check that `value` is of a kind.

    Raises:
        EngineError: it is not; says which field is wrong.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the answer"
        raise EngineError(
            f"{host} answers what no OpenAI-compatible server does: {place}: {first['msg']}",
            hint="check the address: it mostly ends in /v1",
        ) from error

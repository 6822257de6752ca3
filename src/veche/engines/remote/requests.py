"""What is asked of a server: a conversation and a branch become a chat completion's request."""

from dataclasses import dataclass
from typing import Any, Literal

from veche.engines.protocol import Branch, Capture, Sampling
from veche.engines.remote.markup import as_data

_NUM_SEEDS = 2**31 - 1
"""Seeds that every server takes: llama-server's are 32 bits wide, vLLM's 64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A turn of the conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


Messages = tuple[Message, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestForm:
    """How this server wants to be asked.

    Attributes:
        model: the name it serves.
        takes_extras: it takes fields that OpenAI's own API does not have; else it refuses them.
        takes_system: its chat template has a system role; else that text goes before the user's.
        tells_ids_with_logprobs: it tells tokens' numbers only beside their log-probabilities.
    """

    model: str
    takes_extras: bool = True
    takes_system: bool = True
    tells_ids_with_logprobs: bool = False

    def opening(self, system: str, user: str) -> Messages:
        """Begin a conversation whose user turn is open."""
        if not self.takes_system:
            system_text = f"{system}\n\n" if system else ""
            return (Message(role="user", content=as_data(system_text + user)),)
        return (
            Message(role="system", content=as_data(system)),
            Message(role="user", content=as_data(user)),
        )

    def request(
        self,
        messages: Messages,
        sampling: Sampling,
        *,
        capture: Capture | None = None,
        json_schema: Any = None,
        model: str | None = None,
    ) -> dict[str, Any]:
        """Return a streamed chat completion's body; a last answer among `messages` goes on.

        NOTE: neutral values are sent too. Servers have defaults of their own (llama-server's
        top_k is 40; vLLM takes a model's generation_config.json), which would else act unseen.
        """
        body: dict[str, Any] = {
            "model": model or self.model,
            "messages": [{"role": turn.role, "content": turn.content} for turn in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed % _NUM_SEEDS,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        num_likeliest = None if capture is None else capture.logprobs
        if num_likeliest is not None or self.tells_ids_with_logprobs:
            # llama-server takes 0 likeliest tokens for none at all
            body |= {"logprobs": True, "top_logprobs": max(1, num_likeliest or 0)}
        if json_schema is not None:
            body["response_format"] = _response_format(json_schema)
        if self.takes_extras:
            body |= _extras(sampling)
            if messages[-1].role == "assistant":
                body |= {"continue_final_message": True, "add_generation_prompt": False}
        return body


def appended(messages: Messages, text: str) -> Messages:
    """Append `text` to the open turn; behind an answer it opens the user's next turn."""
    last = messages[-1]
    text = as_data(text)
    if last.role == "assistant":
        return (*messages, Message(role="user", content=text))
    return (*messages[:-1], Message(role="user", content=last.content + text))


def asked(messages: Messages, branch: Branch) -> Messages:
    """Return the conversation that a branch answers: "" behind an answer goes on with it."""
    return appended(messages, branch.instruction) if branch.instruction else messages


def answered(messages: Messages, text: str) -> Messages:
    """Append an answer, or the rest of one."""
    last = messages[-1]
    if last.role == "assistant":
        return (*messages[:-1], Message(role="assistant", content=last.content + text))
    return (*messages, Message(role="assistant", content=text))


def _extras(sampling: Sampling) -> dict[str, Any]:
    """Return what is beyond OpenAI's own API, as vLLM, SGLang and llama-server spell it."""
    return {
        "top_k": sampling.top_k or -1,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,  # vLLM, SGLang
        "repeat_penalty": sampling.repetition_penalty,  # llama-server
        "repeat_last_n": sampling.max_new_tokens,
        "chat_template_kwargs": {"enable_thinking": False},
        "return_token_ids": True,  # vLLM
        "return_tokens_as_token_ids": True,
        "return_output_ids_in_sglext": True,  # SGLang
    }


def _response_format(schema: Any) -> dict[str, Any]:
    if not schema:
        return {"type": "json_object"}
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": dict(schema), "strict": True},
    }

"""Keep a server from obeying chat markup that stands in a text."""

import re

from veche.engines.request_limits import require_text

WORD_JOINER = "\u2060"
_CONTROL = re.compile(
    r"<(?="
    r"[|｜][^<>\n]{1,64}[|｜]>"  # ChatML, Llama 3, Phi, DeepSeek
    r"|/?(?:s|bos|eos|pad|unk|think|tool_call|tool_response)>"  # Llama 2, Mistral, Gemma, Qwen
    r"|(?:start|end)_of_(?:turn|image|text)>"  # Gemma
    r"|</?SYS>>"  # Llama 2
    r"|\[?(?:BOS|EOS|UNK|PAD)[^<>\n]{0,16}>"  # Cohere
    r")"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|THINK)\])"
)


def as_data(text: str) -> str:
    """Return `text` with an invisible word joiner inside everything that looks like markup.

    A server renders texts into its chat template and then obeys every control token in it, and
    none can be told not to. The families above are covered; other text is unchanged.

    Raises:
        InputError: UTF-8 cannot write the text.
    """
    require_text(text)
    return _CONTROL.sub(lambda found: found[0] + WORD_JOINER, text)

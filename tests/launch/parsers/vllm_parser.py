"""Run by a Python that has vLLM: pass command lines through vLLM's own parser.

Reads one JSON list of words a line, or {"words": …, "folder": …}, where vLLM shall also read that
folder's config.json. Writes a line about the parser, then one a command.
"""

import contextlib
import io
import json
import sys

import vllm.platforms
from vllm.platforms.cpu import CpuPlatform

vllm.platforms.current_platform = CpuPlatform()  # before 0.12 it is not found without vLLM's C part

try:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
except ImportError:
    from vllm.entrypoints.openai.cli_args import make_arg_parser, validate_parsed_serve_args
try:
    from vllm.utils.argparse_utils import FlexibleArgumentParser
except ImportError:
    from vllm.utils import FlexibleArgumentParser
from vllm.engine.arg_utils import AsyncEngineArgs  # noqa: E402
from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS  # noqa: E402

PARSER = make_arg_parser(FlexibleArgumentParser())


def main():
    options = {flag: action for action in PARSER._actions for flag in action.option_strings}
    choices = {f: [str(c) for c in a.choices] for f, a in options.items() if a.choices}
    choices["--quantization"] = list(QUANTIZATION_METHODS)
    say({"flags": sorted(options), "choices": choices})
    for line in sys.stdin:
        say(answer(**json.loads(line)))


def say(values):
    sys.stdout.write(f"ANSWER {json.dumps(values)}\n")


def answer(words, folder=None):
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            parsed = PARSER.parse_args(words)
            validate_parsed_serve_args(parsed)
            return {"model": parsed.model_tag, "length": length_of(parsed, folder)}
    except SystemExit:
        return {"refused": complaint.getvalue().strip().splitlines()[-1]}
    except ValueError as error:
        return {"refused": str(error)}


def length_of(parsed, folder):
    """The length that is served; with a folder, after vLLM has read the model's config.json."""
    if folder is None:
        return parsed.max_model_len
    parsed.model, parsed.skip_tokenizer_init = folder, True
    return AsyncEngineArgs.from_cli_args(parsed).create_model_config().max_model_len


if __name__ == "__main__":
    main()

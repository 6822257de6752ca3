"""Run by a Python that has SGLang: pass command lines through SGLang's own parser.

Reads {"words": …} a line. Writes a line about the parser, then one a command.
"""

import argparse
import contextlib
import io
import json
import sys

from sglang.srt.server_args import ServerArgs

PARSER = argparse.ArgumentParser()
ServerArgs.add_cli_args(PARSER)


def main():
    options = {flag: action for action in PARSER._actions for flag in action.option_strings}
    choices = {f: [str(c) for c in a.choices] for f, a in options.items() if a.choices}
    say({"flags": sorted(options), "choices": choices})
    for line in sys.stdin:
        say(answer(json.loads(line)["words"]))


def say(values):
    sys.stdout.write(f"ANSWER {json.dumps(values)}\n")


def answer(words):
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            parsed = PARSER.parse_args(words)
    except SystemExit:
        return {"refused": complaint.getvalue().strip().splitlines()[-1]}
    return {"model": parsed.model_path, "length": parsed.context_length}


if __name__ == "__main__":
    main()

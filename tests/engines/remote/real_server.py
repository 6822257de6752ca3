"""Start a real server on this machine, and say what its model must answer."""

import os
import signal
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager

import torch

SYSTEM = "the council hears every voice"
USER = " ".join(["the answer is four and the council hears every voice"] * 12)
TASKS = [" draft an answer", " object to the answer", " hear the voice"]


@contextmanager
def running(command, log, **environment):
    """Run `command --port N` until the block ends; yields the address and the process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            env=kept | environment, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    try:
        _wait_for(port, process, log)
        yield f"http://127.0.0.1:{port}/v1", process
    finally:
        kill(process)


def kill(process):
    """Kill the server and its workers."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        assert process.poll() is not None
    process.wait()


def reference(model, tokenizer, task, token_ids):
    """Log-probabilities [T, V] of an answer's tokens, by one plain forward pass."""
    prompt = tokenizer.apply_chat_template(
        [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER + task}],
        tokenize=False,
        add_generation_prompt=True,
    )
    ids = tokenizer(prompt, add_special_tokens=False).input_ids
    with torch.inference_mode():
        logits = model(torch.tensor([[*ids, *token_ids]])).logits[0, len(ids) - 1 : -1]
    return torch.log_softmax(logits.double(), -1)


def _wait_for(port, process, log):
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text(errors="replace")[-3000:])

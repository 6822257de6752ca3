"""Run GGUF files in llama-cpp-python; executed by the Python of its own environment.

stdin: JSON {"jobs": [{"file", "tokens", "text", "greedy"}]}; stdout: the last line is JSON, a list
of {"logits" (a row for each token), "text_tokens", "greedy"} in the same order.
"""

import json
import sys

import numpy as np
from llama_cpp import Llama

_CONTEXT = 512
_F32 = 0
"""GGML_TYPE_F32: a cache that rounds nothing, so that the weights alone differ."""


def run(job):
    model = Llama(
        job["file"], n_ctx=_CONTEXT, n_batch=_CONTEXT, n_threads=1, n_threads_batch=1,
        logits_all=True, verbose=False, use_mmap=False, type_k=_F32, type_v=_F32,
    )  # fmt: skip
    try:
        tokens = list(job["tokens"])
        model.eval(tokens)
        logits = np.array(model.scores[: len(tokens)], dtype=np.float32)
        greedy = []
        following = int(logits[-1].argmax())
        for _ in range(job.get("greedy", 0)):
            greedy.append(following)
            model.eval([following])
            following = int(model.scores[model.n_tokens - 1].argmax())
        text_tokens = model.tokenize(job.get("text", "").encode(), add_bos=True, special=True)
    finally:
        model.close()
    return {"logits": logits.tolist(), "text_tokens": text_tokens, "greedy": greedy}


if __name__ == "__main__":
    results = [run(job) for job in json.load(sys.stdin)["jobs"]]
    sys.stdout.write("\n" + json.dumps(results) + "\n")

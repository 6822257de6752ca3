"""A small real HTTP server that speaks OpenAI's API, as four kinds of servers do.

Its language model is a hash: the logits of the next word follow from all words before it. So it is
as deterministic as a model, and what it says depends on every word of the prompt.
"""

import base64
import hashlib
import io
import json
import math
import random
import threading
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

WORDS = [f" w{index}" for index in range(48)] + [" четыре", " да"]
END = len(WORDS)
CONTEXT = 4096
LAYERS, EXPERTS, TOP_K = 3, 8, 2


@dataclass(kw_only=True)
class Kind:
    """What sets a server apart."""

    name: str
    extras: bool = True  # top_k, min_p, a repetition penalty
    refuses_extras: bool = False
    penalty: str = "repetition_penalty"
    ids: str = ""  # "choices", "logprobs" or "sglext"
    cached: bool = True
    usage: bool = True
    tokenize: str = ""  # the field that /tokenize reads
    continues: str = ""  # "plain" or "repeated"
    context_in: str = "models"
    system_role: bool = True
    json: bool = True
    routing: str = ""
    lora: str = ""  # "yes", "off" (the verb is there, and of no use)
    is_website: bool = False


VLLM = Kind(name="vllm", ids="choices", tokenize="prompt", continues="plain")
LLAMA = Kind(
    name="llama-server", ids="logprobs", tokenize="content", continues="repeated",
    context_in="props", penalty="repeat_penalty",
)  # fmt: skip
SGLANG = Kind(name="sglang", ids="sglext", tokenize="prompt", continues="plain")
OLLAMA = Kind(name="ollama", extras=False, cached=False, context_in="ps")
KINDS = [VLLM, LLAMA, SGLANG, OLLAMA]


@dataclass
class Served:
    """What a running server knows, and what a test may look at."""

    kind: Kind
    url: str = ""
    models: list = field(default_factory=lambda: ["tiny"])
    faults: deque = field(default_factory=deque)
    requests: list = field(default_factory=list)
    headers: list = field(default_factory=list)
    prompts: list = field(default_factory=list)
    adapters: dict = field(default_factory=dict)
    open_connections: int = 0
    busy: int = 0
    most_busy: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def prompt_words(kind, body):
    """Render the conversation; markup is words, a text's words are its pieces between spaces."""
    words = []
    for message in body["messages"]:
        pieces = message["content"].split(None if message["role"] == "assistant" else " ")
        words += [f"<{message['role']}>", *pieces]
        words.append("<end>")
    if body["messages"][-1]["role"] == "assistant" and kind.continues:
        return words[:-1]
    return [*words, "<assistant>"]


def logits_of(words, model):
    text = "\0".join([model, *words])
    return [
        8 * int.from_bytes(hashlib.sha256(f"{word}\0{text}".encode()).digest()[:4]) / 2**32
        for word in range(len(WORDS) + 1)
    ]


def logprobs_of(logits):
    top = max(logits)
    total = top + math.log(sum(math.exp(value - top) for value in logits))
    return [value - total for value in logits]


def answer_ids(kind, body):
    """Decode as the request says: yields (id, log-probabilities of all)."""
    words, seen = prompt_words(kind, body), []
    randoms = random.Random(body.get("seed", 0))  # noqa: S311 - no secret
    for _ in range(body["max_tokens"]):
        logits = logits_of(words, body["model"])
        if words[-1] == "<assistant>":
            logits[END] = 0.0  # no answer is empty
        raw = logprobs_of(logits)
        penalty = body.get(kind.penalty, 1.0) if kind.extras else 1.0
        logits = [
            (value / penalty if value > 0 else value * penalty) if word in seen else value
            for word, value in enumerate(logits)
        ]
        chosen = _draw(kind, body, logits, randoms)
        yield chosen, raw
        if chosen == END:
            return
        seen.append(chosen)
        words = [*words, WORDS[chosen].strip()]


def _draw(kind, body, logits, randoms):
    order = sorted(range(len(logits)), key=lambda word: -logits[word])
    if not body.get("temperature"):
        return order[0]
    if kind.extras and body.get("top_k", -1) > 0:
        order = order[: body["top_k"]]
    probs = [math.exp((logits[word] - logits[order[0]]) / body["temperature"]) for word in order]
    if kind.extras:
        probs = [p if p >= body.get("min_p", 0) * probs[0] else 0.0 for p in probs]
    return randoms.choices(order, probs)[0]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for the last one to be confirmed

    def log_message(self, *_):
        """Say nothing."""

    def setup(self):
        super().setup()
        with self.server.served.lock:
            self.server.served.open_connections += 1

    def finish(self):
        try:
            super().finish()
        except OSError:
            self.close_connection = True
        finally:
            with self.server.served.lock:
                self.server.served.open_connections -= 1

    # --- plumbing ---------------------------------------------------------------------------------

    def say(self, value, status=200, kind="application/json", **headers):
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(raw)

    def begin_stream(self, kind="text/event-stream"):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def event(self, value):
        text = value if isinstance(value, str) else f"data: {json.dumps(value)}\n\n"
        raw = text.encode()
        self.wfile.write(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")
        self.wfile.flush()

    def end_stream(self):
        self.event("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def piece(self, text="", finish=None, **more):
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish, **more}
        return {"id": "x", "object": "chat.completion.chunk", "choices": [choice]}

    # --- the API ----------------------------------------------------------------------------------

    def do_GET(self):
        served = self.server.served
        served.headers.append(dict(self.headers))
        kind = served.kind
        if kind.is_website:
            self.say(b"<html>welcome</html>", kind="text/html")
        elif self.path == "/v1/models":
            entries = [{"id": name} for name in served.models]
            if kind.context_in == "models":
                entries = [entry | {"max_model_len": CONTEXT} for entry in entries]
            entries += [{"id": name, "parent": "tiny"} for name in served.adapters]
            self.say({"object": "list", "data": entries})
        elif self.path == "/props" and kind.context_in == "props":
            self.say({"default_generation_settings": {"n_ctx": CONTEXT}})
        elif self.path == "/api/ps" and kind.context_in == "ps":
            self.say({"models": [{"name": "tiny", "context_length": CONTEXT}]})
        else:
            self.say({"error": {"message": "no such path"}}, 404)

    def do_POST(self):
        served = self.server.served
        served.headers.append(dict(self.headers))
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/chat/completions":
            with served.lock:
                fault = served.faults.popleft() if served.faults else None
                served.requests.append(body)
                served.busy += 1
                served.most_busy = max(served.most_busy, served.busy)
            try:
                (fault or Handler.complete)(self, body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
            finally:
                with served.lock:
                    served.busy -= 1
        elif self.path == "/tokenize" and served.kind.tokenize:
            text = body[served.kind.tokenize]
            self.say({"tokens": list(range(len(text.split(" "))))})
        elif self.path.endswith("_lora_adapter") and served.kind.lora:
            self.adapters(body)
        else:
            self.say({"error": {"message": "no such path"}}, 404)

    def adapters(self, body):
        served = self.server.served
        is_load = self.path.endswith("/load_lora_adapter")
        if served.kind.name == "sglang" and self.path.startswith("/v1"):
            self.say({"detail": "Not Found"}, 404)
        elif "lora_name" not in body:
            self.say({"error": {"message": "lora_name: Field required"}}, 400)
        elif served.kind.lora == "off":
            self.say({"error": {"message": "LoRA is not enabled"}}, 500)
        elif is_load and not body["lora_path"].startswith("/veche-probe"):
            served.adapters[body["lora_name"]] = body["lora_path"]
            self.say(b"Success", kind="text/plain")
        elif not is_load and served.adapters.pop(body["lora_name"], None):
            self.say(b"Success", kind="text/plain")
        else:
            self.say({"error": {"message": "no such adapter"}}, 404)

    def refusal(self, body, words):
        served = self.server.served
        kind = served.kind
        known = [*served.models, *served.adapters]
        known += [f"{model}:{name}" for model in served.models for name in served.adapters]
        if body["model"] not in known:
            return f"no model {body['model']}"
        if not kind.system_role and body["messages"][0]["role"] == "system":
            return "System role not supported"
        if kind.refuses_extras and "top_k" in body:
            return "Unrecognized argument: top_k"
        return "the context is too short" if len(words) + body["max_tokens"] > CONTEXT else ""

    def complete(self, body):
        served = self.server.served
        kind = served.kind
        words = prompt_words(kind, body)
        if refusal := self.refusal(body, words):
            self.say({"error": {"message": refusal}}, 400)
            return
        choices = list(self.choices(body))
        usage = {
            "prompt_tokens": len(words),
            "completion_tokens": sum(c.pop("tokens", 0) for c in choices),
        }
        with served.lock:
            if kind.cached:
                usage["prompt_tokens_details"] = {"cached_tokens": _common(served.prompts, words)}
            served.prompts.append(words)
        num_rows = len(words) + usage["completion_tokens"] - 1
        if body["stream"]:
            self.streamed(body, choices, usage, num_rows)
        else:
            self.whole(body, choices, usage, num_rows)

    def streamed(self, body, choices, usage, num_rows):
        kind = self.server.served.kind
        last = {"choices": []} | ({"usage": usage} if kind.usage else {})
        if kind.routing == "sglang" and body.get("return_routed_experts"):
            start = body["routed_experts_start_len"]
            rows = routed(num_rows)[start:].astype("<i4").tobytes()
            last["sglext"] = {"routed_experts": base64.b64encode(rows).decode()}
        if kind.ids == "sglext" and body.get("return_output_ids_in_sglext"):
            ids = [number for choice in choices for number in choice.pop("ids", [])]
            last.setdefault("sglext", {})["output_ids"] = [ids]
        self.begin_stream()
        for choice in choices:
            choice.pop("ids", None)
            self.event({"choices": [{"index": 0, **choice}]})
        self.event(last)
        self.end_stream()

    def whole(self, body, choices, usage, num_rows):
        text = "".join(choice["delta"].get("content", "") for choice in choices)
        told = [t for c in choices for t in (c.get("logprobs") or {}).get("content", [])]
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": choices[-1]["finish_reason"],
            "token_ids": [number for c in choices for number in c.get("token_ids", [])],
            "logprobs": {"content": told} if told else None,
        }
        if self.server.served.kind.routing == "vllm":
            buffer = io.BytesIO()
            start = body.get("routed_experts_prompt_start", 0)
            np.save(buffer, routed(num_rows)[start:].astype(np.uint8))
            choice["routed_experts"] = base64.b64encode(buffer.getvalue()).decode()
        self.say({"choices": [choice], "usage": usage})

    def choices(self, body):
        kind = self.server.served.kind
        held = body.get("response_format") if kind.json else None
        if held is not None:
            schema = held.get("json_schema", {}).get("schema", {})
            value = {name: one["enum"][0] for name, one in schema.get("properties", {}).items()}
            yield {"delta": {"content": json.dumps(value)}, "finish_reason": "stop", "tokens": 1}
            return
        if kind.continues == "repeated" and body["messages"][-1]["role"] == "assistant":
            yield {"delta": {"content": body["messages"][-1]["content"]}, "finish_reason": None}
        text, reason = "", "length"
        for number, raw in answer_ids(kind, body):
            piece = "" if number == END else WORDS[number]
            choice = {"delta": {"content": piece}, "finish_reason": None, "tokens": 1}
            yield choice | self.told(body, number, raw)
            text += piece
            if number == END or any(stop in text for stop in body.get("stop", [])):
                reason = "stop"
                break
        yield {"delta": {}, "finish_reason": reason}

    def told(self, body, number, raw):
        kind = self.server.served.kind
        found = {"token_ids": [number]} if kind.ids == "choices" else {}
        if kind.ids == "sglext":
            found["ids"] = [number]
        if body.get("logprobs") and kind.ids != "sglext":
            likely = sorted(range(len(raw)), key=lambda word: -raw[word])[: body["top_logprobs"]]
            entry = self.token(number, raw)
            entry["top_logprobs"] = [self.token(word, raw) for word in likely]
            found["logprobs"] = {"content": [entry]}
        return found

    def token(self, number, raw):
        by_name = {"token": f"token_id:{number}"}
        by_id = {"token": [*WORDS, "<end>"][number], "id": number}
        named = {"choices": by_name, "logprobs": by_id}.get(
            self.server.served.kind.ids, {"token": [*WORDS, "<end>"][number]}
        )
        return named | {"logprob": raw[number], "bytes": None}


def routed(num_rows):
    """The routing of a conversation: the row of position t is told by t."""
    rows = np.arange(num_rows)[:, None, None] * 7 + np.arange(LAYERS)[None, :, None] * 3
    return (rows + np.arange(TOP_K)) % EXPERTS


def _common(prompts, words):
    best = 0
    for prompt in prompts:
        length = 0
        for one, other in zip(prompt, words, strict=False):
            if one != other:
                break
            length += 1
        best = max(best, length)
    return min(best, len(words) - 1)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        """A client that hangs up is no error here."""


@contextmanager
def serving(kind=VLLM, **changes):
    """Serve on a free port until the block ends."""
    served = Served(Kind(**{**vars(kind), **changes}))
    server = _Server(("127.0.0.1", 0), Handler)
    server.served = served
    served.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

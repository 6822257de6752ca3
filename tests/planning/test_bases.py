"""Bases: shipped, local, and hub ids from a cache, a server, or nowhere."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from veche.checkpoint.config import spec_of
from veche.core.errors import ConfigError
from veche.planning.bases import HUB_IDS, is_hub_id, load_base, shipped_bases

LOAD = """
import json, sys
from veche.core.errors import VecheError
from veche.planning.bases import load_base
try:
    print(json.dumps(load_base(sys.argv[1])))
except VecheError as error:
    print(json.dumps({"error": error.message, "hint": error.hint}))
"""
FACTS = {
    # model cards: layers, query heads, key/value heads, experts, active experts, native context
    "qwen3-30b-a3b": (48, 32, 4, 128, 8, 40960),
    "qwen3-30b-a3b-16-experts-128k": (48, 32, 4, 128, 16, 131072),
    "qwen3-30b-a3b-2507": (48, 32, 4, 128, 8, 262144),
    "qwen3-coder-30b-a3b": (48, 32, 4, 128, 8, 262144),
    "qwen3-235b-a22b": (94, 64, 4, 128, 8, 40960),
    "mixtral-8x7b": (32, 32, 8, 8, 2, 32768),
    "olmoe-1b-7b": (16, 16, 16, 64, 8, 4096),
}
TOTALS = {"qwen3-30b-a3b-2507": 30_532_122_624, "qwen3-235b-a22b": 235_093_634_560}


def load_apart(name, **environment):
    """Load in a new process: the hub's client reads its environment when it is imported."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, name],
        env={**os.environ, **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", FACTS)
def test_shipped_bases_have_the_shape_of_their_model_cards(name):
    spec = spec_of(load_base(name))
    assert (
        spec.num_hidden_layers, spec.num_attention_heads, spec.num_key_value_heads,
        spec.num_experts, spec.num_experts_per_tok, spec.max_position_embeddings,
    ) == FACTS[name]  # fmt: skip


def test_every_shipped_base_is_published_somewhere_or_made_here():
    made_here = {"qwen3-30b-a3b-16-experts-128k", "smollm2-135m-carved"}
    assert set(HUB_IDS) | made_here == set(shipped_bases())


@pytest.mark.parametrize("name", TOTALS)
def test_parameters_in_all(name):
    from veche.planning.accounting import parameter_groups

    assert parameter_groups(spec_of(load_base(name))).total == TOTALS[name]


def test_what_a_hub_id_is():
    assert is_hub_id("Qwen/Qwen3-30B-A3B")
    for other in ("qwen3", "a/b/c", "./model", "../up", "/abs", "dir/plan.json", "a/"):
        assert not is_hub_id(other)


def test_a_folder_comes_before_the_hub(tmp_path, monkeypatch):
    (tmp_path / "owner" / "model").mkdir(parents=True)
    config = load_base("olmoe-1b-7b")
    (tmp_path / "owner" / "model" / "config.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    assert load_base("owner/model") == config


def test_a_cached_hub_model_needs_no_network(tmp_path):
    cached = tmp_path / "hub" / "models--me--tiny"
    (cached / "snapshots" / "abc").mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    config = load_base("olmoe-1b-7b")
    (cached / "snapshots" / "abc" / "config.json").write_text(json.dumps(config))
    assert load_apart("me/tiny", HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1") == config


class Hub(BaseHTTPRequestHandler):
    """The two answers of a hub that a download needs."""

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, *, with_body):
        is_known = self.path == "/me/online/resolve/main/config.json"
        body = json.dumps(load_base("mixtral-8x7b")).encode() if is_known else b"{}"
        self.send_response(200 if is_known else 404)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"0123"')
        self.send_header("X-Repo-Commit", "f" * 40)
        if not is_known:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format, *args):  # noqa: A002 - its name in the base class
        """Keep the test's output clean."""


@pytest.fixture
def hub():
    server = HTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_hub_model_is_fetched_when_online(tmp_path, hub):
    found = load_apart("me/online", HF_HOME=str(tmp_path), HF_ENDPOINT=hub, HF_HUB_OFFLINE="0")
    assert found == load_base("mixtral-8x7b")


def test_a_model_that_the_hub_does_not_have_is_one_clear_error(tmp_path, hub):
    found = load_apart("me/missing", HF_HOME=str(tmp_path), HF_ENDPOINT=hub, HF_HUB_OFFLINE="0")
    assert "me/missing: the hub does not give its config.json" in found["error"]


def test_without_network_the_shipped_shape_is_advised(tmp_path):
    nowhere = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    found = load_apart("Qwen/Qwen3-30B-A3B", **nowhere)
    assert "the hub cannot be reached" in found["error"]
    assert found["hint"].endswith("'qwen3-30b-a3b'")


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ConfigError) as caught:
        load_base("Qwen3-30B-A3")
    assert "'qwen3-30b-a3b'" in caught.value.hint


@pytest.mark.parametrize("name", ["a/b--c", "a/b..", "a/b.git", "a/b-"])
def test_a_name_that_the_hub_cannot_have_is_one_clear_error(tmp_path, name):
    found = load_apart(name, HF_HOME=str(tmp_path))
    assert found["error"].startswith(f"{name}: the hub has no such names")
    assert found["hint"]


@pytest.mark.parametrize(
    "address",
    ["nowhere", "http://[bad", "http://x:99999", "ftp://x", "http://a b", "http://a\x01b"],
)
def test_an_address_of_the_hub_that_is_none_is_one_clear_error(tmp_path, address):
    found = load_apart("a/b", HF_HOME=str(tmp_path), HF_ENDPOINT=address, HF_HUB_OFFLINE="0")
    assert "HF_ENDPOINT" in found["error"] or "cannot be reached" in found["error"]
    assert found["hint"]

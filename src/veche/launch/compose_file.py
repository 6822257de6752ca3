"""Emit a Docker Compose file that serves a model."""

import json
import re

from veche.core.language import Language
from veche.launch.case import PLACEHOLDER, EngineName
from veche.launch.phrases import phrase
from veche.launch.profile import Profile
from veche.launch.serving_file import (
    CONTAINER_MODEL_FOLDER,
    groups_of,
    heading,
    in_container,
)
from veche.launch.shell_script import comment_lines

IMAGES: dict[EngineName, str] = {
    "vllm": "vllm/vllm-openai",
    "sglang": "lmsysorg/sglang",
    "llama.cpp": "ghcr.io/ggml-org/llama.cpp",
}
_LATEST: dict[EngineName, str] = {"vllm": "latest", "sglang": "latest", "llama.cpp": "server-cuda"}
_ENTRY: dict[EngineName, tuple[str, ...]] = {
    "vllm": ("vllm", "serve"),
    "sglang": ("python3", "-m", "sglang.launch_server"),
    "llama.cpp": ("/app/llama-server",),
}
_PROGRAM_SIZE: dict[EngineName, int] = {"vllm": 2, "sglang": 3, "llama.cpp": 1}
_HEALTH = 'python3 -c "import urllib.request as u; u.urlopen({url!r})"'


def compose_file(profile: Profile, language: Language = "en", *, port: int = 8000) -> str:
    """Return compose.yaml: the server on this machine's own address only, with its cards.

    Every string is written as JSON, which YAML reads; `$` is doubled, because Compose would
    replace it.
    """
    engine = profile.engine
    command, volume = in_container(profile)
    why = dict(profile.comments)
    lines = [*comment_lines(heading(profile, language)), "services:", "  model:"]
    if _is_latest(profile):
        lines += [f"    {line}" for line in comment_lines([phrase("compose_latest", language)])]
    lines.append(f"    image: {_text(f'{IMAGES[engine]}:{_tag(profile)}')}")
    lines.append(f"    entrypoint: [{', '.join(map(_text, _ENTRY[engine]))}]")
    lines.append("    command:")
    for group in groups_of(command[_PROGRAM_SIZE[engine] :], profile.comments):
        if group.comment:
            lines += [f"      {line}" for line in comment_lines([group.comment])]
        lines += [f"      - {_text(word)}" for word in group.words]
    lines += [f"      - {_text(word)}" for word in ("--host", "0.0.0.0")]  # noqa: S104
    if profile.env:
        lines.append("    environment:")
        for name, value in profile.env:
            lines += [f"      {line}" for line in comment_lines([why[name]] if name in why else [])]
            lines.append(f"      {name}: {_text(value)}")
    lines += _surroundings(profile, [_mount(volume), *_place_of_a_folder(profile, language)], port)
    return "\n".join([*lines, ""])


def _surroundings(profile: Profile, volumes: list[str], port: int) -> list[str]:
    health = _HEALTH.format(url=f"http://127.0.0.1:{port}/health")
    if profile.engine == "llama.cpp":
        health = f"curl -f http://127.0.0.1:{port}/health"
    return [
        "    ports:",
        f"      - {_text(f'127.0.0.1:{port}:{port}')}",
        "    volumes:",
        *(f"      {line}" for line in volumes),
        "    ipc: host",
        "    restart: unless-stopped",
        "    deploy:",
        "      resources:",
        "        reservations:",
        "          devices:",
        "            - driver: nvidia",
        f"              count: {profile.num_gpus}",
        "              capabilities: [gpu]",
        "    healthcheck:",
        f"      test: [CMD-SHELL, {_text(health)}]",
        "      interval: 30s",
        "      timeout: 10s",
        "      start_period: 20m",
    ]


def _mount(volume: str) -> str:
    return f"- {json.dumps(volume) if volume.startswith('${HOME}') else _text(volume)}"


def _place_of_a_folder(profile: Profile, language: Language) -> list[str]:
    """Say where weights go that are not there yet, as a comment."""
    model = profile.case.model_path
    if model != PLACEHOLDER:
        return []
    told = comment_lines([phrase("compose_folder", language, model=model)])
    return [*told, f"# - /path/to/folder:{CONTAINER_MODEL_FOLDER}:ro"]


def _is_latest(profile: Profile) -> bool:
    return not profile.case.engine_version or profile.engine not in {"vllm", "sglang"}


def _tag(profile: Profile) -> str:
    """Images are tagged with three numbers: 0.24 is v0.24.0."""
    if _is_latest(profile):
        return _LATEST[profile.engine]
    version = str(profile.case.engine_version).removeprefix("v")
    return f"v{version}.0" if re.fullmatch(r"\d+\.\d+", version) else f"v{version}"


def _text(word: str) -> str:
    """Quote for YAML and Compose; what YAML would read as a line break or refuse is escaped."""
    quoted = json.dumps(word, ensure_ascii=False).replace("$", "$$")
    return "".join(
        f"\\u{ord(c):04x}" if ord(c) < 0x10000 and not c.isprintable() else c for c in quoted
    )

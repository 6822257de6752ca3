"""Base models by name: configs that ship with the package, local folders, and hub ids."""

import difflib
import json
import os
import re
from importlib import import_module, resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from veche.checkpoint.config import read_config
from veche.core.errors import ConfigError, MissingExtraError

_TIMEOUT_S = 5
_FOLDER = resources.files("veche.planning") / "bases"
HUB_IDS = {
    "qwen3-30b-a3b": "Qwen/Qwen3-30B-A3B",
    "qwen3-30b-a3b-2507": "Qwen/Qwen3-30B-A3B-Instruct-2507",
    "qwen3-coder-30b-a3b": "Qwen/Qwen3-Coder-30B-A3B-Instruct",
    "qwen3-235b-a22b": "Qwen/Qwen3-235B-A22B",
    "mixtral-8x7b": "mistralai/Mixtral-8x7B-v0.1",
    "olmoe-1b-7b": "allenai/OLMoE-1B-7B-0924",
}
"""Where the weights of a shipped config are published."""


def shipped_bases() -> list[str]:
    """Return the names of the configs in the package."""
    return sorted(file.name.removesuffix(".json") for file in _FOLDER.iterdir())


def load_base(name: str) -> dict[str, Any]:
    """Return the config.json that `name` means.

    Args:
        name: a shipped base, a checkpoint folder, a config.json file, or a hub id ("owner/model")
            in the local cache or online. A file or folder of that name comes before the hub.

    Raises:
        ConfigError: there is no such thing, or it is not a config.
        MissingExtraError: a hub id, without huggingface_hub.
    """
    shipped = shipped_bases()
    if name in shipped:
        return _shipped(name)
    path = Path(name)
    if path.exists():
        return read_config(path)
    if is_hub_id(name):
        return _from_hub(name)
    near = difflib.get_close_matches(name.lower(), shipped, n=1, cutoff=0.5)
    raise ConfigError(
        f"there is no base model {name!r}, neither shipped nor as a folder or a config.json",
        hint=(f"did you mean {near[0]!r}? " if near else "") + f"shipped: {', '.join(shipped)}",
    )


def is_hub_id(name: str) -> bool:
    """Whether `name` has the form of a hub id, owner/model."""
    part = r"[A-Za-z0-9][\w.-]{0,95}"
    return re.fullmatch(f"{part}/{part}", name) is not None and not name.endswith(
        (".json", ".yaml")
    )


def _shipped(name: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return config


def _from_hub(name: str) -> dict[str, Any]:
    """Return a hub model's config.json, from the cache or by download; its facts only."""
    if find_spec("huggingface_hub") is None:
        raise MissingExtraError("huggingface_hub", "hub")
    _require_endpoint()
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        cached = try_to_load_from_cache(name, "config.json")
        if isinstance(cached, str):
            return read_config(Path(cached))
        _require_reachable(name)
        return read_config(Path(hf_hub_download(name, "config.json")))
    except HfHubHTTPError as error:
        reason = f"the hub does not give its config.json ({type(error).__name__})"
        raise ConfigError(f"{name}: {reason}", hint=_instead_of(name)) from error
    except HFValidationError as error:
        reason = f"the hub has no such names ({error})"
        raise ConfigError(f"{name}: {reason}", hint=_instead_of(name)) from error
    except _network_errors() as error:
        reason = f"it is not in the local cache, and the hub cannot be reached ({error})"
        raise ConfigError(f"{name}: {reason}", hint=_instead_of(name)) from error


def _require_endpoint() -> None:
    """Refuse an HF_ENDPOINT with which huggingface_hub cannot even be imported."""
    endpoint = os.environ.get("HF_ENDPOINT", "")
    try:
        _ = urlsplit(endpoint).port
    except ValueError as error:
        raise ConfigError(
            f"HF_ENDPOINT {endpoint!r} is no address ({error})", hint="unset HF_ENDPOINT"
        ) from error


def _require_reachable(name: str) -> None:
    """Ask for the file's metadata once: a download would try for half a minute."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    get_hf_file_metadata(hf_hub_url(name, "config.json"), timeout=_TIMEOUT_S)


def _network_errors() -> tuple[type[Exception], ...]:
    """Return what the hub client's HTTP library raises: requests, httpx or what follows it.

    ValueError and InvalidURL are of a malformed HF_ENDPOINT.
    """
    from huggingface_hub import get_session

    library = import_module(type(get_session()).__module__.partition(".")[0])
    bad_url = getattr(library, "InvalidURL", ValueError)  # in requests a ValueError
    return (OSError, ValueError, library.HTTPError, bad_url)


def _instead_of(name: str) -> str:
    """Advise the shipped base of the same model, or a folder."""
    known = {hub_id.lower(): base for base, hub_id in HUB_IDS.items()}
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.7)
    if near:
        return f"veche ships this model's shape, without weights, as {known[near[0]]!r}"
    return "check the name, or give a folder that holds the model's config.json"

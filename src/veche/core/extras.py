"""Refuse early, and with the line to type, when an optional package is missing."""

from importlib.util import find_spec

from veche.core.errors import MissingExtraError

_NEEDED = {
    "model": ("torch", "transformers", "safetensors", "jinja2"),
    "gguf": ("gguf", "tokenizers"),
    "plots": ("matplotlib", "jinja2"),
    "demo": ("torch", "transformers", "safetensors", "gguf", "tokenizers", "matplotlib", "jinja2"),
    "probe": ("scikit-learn", "safetensors"),
    "train": (
        "torch",
        "transformers",
        "safetensors",
        "peft",
        "accelerate",
        "tensorboard",
        "matplotlib",
    ),
    "ray": ("ray",),
    "remote": ("fsspec",),
}
"""Packages that each extra brings, as far as commands import them."""
_MODULES = {"scikit-learn": "sklearn"}
"""Where a package is imported under another name."""


def require_extra(extra: str) -> None:
    """Refuse if a package of `extra` is not installed.

    Raises:
        MissingExtraError: names the package and the extra.
    """
    for package in _NEEDED[extra]:
        if find_spec(_MODULES.get(package, package)) is None:
            raise MissingExtraError(package, extra)

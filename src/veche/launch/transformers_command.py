"""transformers' own server (transformers serve)."""

from veche.launch.case import Case


def arguments(case: Case, port: int) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """Return the command, and for flags that are not obvious the key of their reason."""
    argv = ["transformers", "serve", case.model_path, "--port", str(port)]
    argv += ["--device", "auto", "--dtype", "bfloat16"]
    return tuple(argv), [("--dtype", "why_transformers")]

"""Where a server is, as the user types it."""

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from veche.core.errors import InputError

_EXAMPLE = "type it as http://127.0.0.1:8000/v1, or with a model's name: …/v1#name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A server's address.

    Attributes:
        base_url: what the OpenAI paths are appended to, without a slash at its end.
        host: name and port, as shown to the user.
        model: the name behind `#`; None where there is none.
    """

    base_url: str
    host: str
    model: str | None = None

    @property
    def root_url(self) -> str:
        """What a server's own paths are appended to: the base without /v1."""
        return self.base_url.removesuffix("/v1")


def parse_address(text: str) -> Address:
    """Read `http://host:port/v1` or `http://host:port/v1#model`.

    Raises:
        InputError: it is no such address, or it holds a password or a query.
    """
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError as error:
        raise InputError(f"the server's address is not a URL: {error}", hint=_EXAMPLE) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{text!r} is no http or https address of a server", hint=_EXAMPLE)
    if parts.username is not None or parts.password is not None or parts.query:
        raise InputError(
            "the server's address holds a user, a password or a query, and would be shown",
            hint="put the key into the environment variable OPENAI_API_KEY",
        )
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    host = name if port is None else f"{name}:{port}"
    return Address(
        base_url=f"{parts.scheme}://{host}{parts.path}".rstrip("/"),
        host=host,
        model=unquote(parts.fragment) or None,
    )

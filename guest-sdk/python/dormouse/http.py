"""Requests to other services.

Functions call `fetch`; in a component, `wasi` sends the requests. The SDK adds no trace context and no credentials.
Errors name the host but not the path or the query: these may contain secrets, and an error's text may reach a caller.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


class FetchError(OSError):
    """Why there is no response."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response with its whole body."""

    status: int
    """The status code."""
    headers: dict[str, str] = field(default_factory=dict)
    """The headers by lower-case name. Several with the same name are joined by commas."""
    body: bytes = b""
    """The body."""

    @property
    def ok(self) -> bool:
        """True if the status is 200 to 299."""
        return 200 <= self.status < 300

    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Request:
    """A request, split into the parts that a host needs."""

    method: str
    tls: bool
    authority: str
    path_with_query: str
    headers: list[tuple[str, bytes]]
    body: bytes
    timeout: float | None


# Hosts are told in nanoseconds, in 64 bits.
_TIMEOUT_MAX = 10_000_000_000


async def fetch(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] = {},
    body: bytes | str = b"",
    timeout: float | None = None,
) -> Response:
    """Sends a request and reads the whole response. A status such as 404 is a response, not an error.

    The host of the URL must be in the function's `allowed-outbound-hosts`. `timeout` is how long to wait, in seconds,
    for the connection, for the first byte, and between two bytes; each wait has this timeout. A cancelled `fetch` stops
    waiting at once, but the request may already have been sent.

    Raises `FetchError` if no response came, and `ValueError` if the URL or the timeout is not valid.
    """
    request = _request(url, method, headers, body, timeout)
    try:
        return await send(request)
    except FetchError as error:
        raise FetchError(f"{method} {request.authority}: {error}") from None


async def _no_host(_: Request) -> Response:
    raise FetchError("there is no host in a native test; replace dormouse.http.send")


send: Callable[[Request], Awaitable[Response]] = _no_host
"""Sends a request. A component sends through the host; a native test may set its own function."""


def _request(url: str, method: str, headers: Mapping[str, str], body: bytes | str, timeout: float | None) -> Request:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError("a URL must start with http:// or https:// and name a host")
    if "@" in parts.netloc:
        raise ValueError("credentials belong into a header, not into the URL")
    if timeout is not None and not 0 <= timeout <= _TIMEOUT_MAX:
        raise ValueError(f"timeout is {timeout}; it must be 0 to {_TIMEOUT_MAX} seconds")
    body = body.encode() if isinstance(body, str) else body
    fields = [(name, value.encode()) for name, value in headers.items()]
    # A streamed body has no known length, and small servers need a `content-length`.
    if body and not any(name.lower() == "content-length" for name in headers):
        fields.append(("content-length", str(len(body)).encode()))
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Request(method.upper(), parts.scheme == "https", parts.netloc, path, fields, body, timeout)

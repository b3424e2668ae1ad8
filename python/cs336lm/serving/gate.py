"""Who may ask: the host by its own name, pages of other sites only by name, clients with a key.

A server on a loopback address is not out of a browser's reach. Any page that a user of this machine
has open may send requests to it, and one whose name its owner lets point to 127.0.0.1 (DNS
rebinding) may read the answers. So a ``Host`` must be an address, or a name known to be this
server's; an ``Origin`` must be this server itself or one that was allowed; and bodies must be JSON
by their type, for which browsers ask first.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cs336lm.serving.api_error import INVALID, ApiError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_OPEN = ("/", "/health")
"""Without a key: the page, which holds nothing, and whether the server is well."""

_ALWAYS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


@dataclass(frozen=True)
class Access:
    """Who may ask.

    ``hosts`` are names beside addresses and ``localhost``; ``"*"`` is every name.
    """

    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    keys: tuple[str, ...] = ()

    def knows_host(self, host: str) -> bool:
        """Whether a ``Host`` header is this server's, whatever the port."""
        name = host.rpartition(":")[0] if _has_port(host) else host
        name = name.lower().rstrip(".")
        return name in self.hosts or "*" in self.hosts or name == "localhost" or _is_address(name)

    def knows_key(self, header: str) -> bool:
        """Whether an ``Authorization`` header holds a key; takes as long for every wrong one."""
        scheme, _, given = header.partition(" ")
        digest = _digest(given.strip())
        known = [hmac.compare_digest(digest, _digest(key)) for key in self.keys]
        return scheme.lower() == "bearer" and any(known)


def own_names() -> frozenset[str]:
    """The names that this machine knows itself by."""
    return frozenset({socket.gethostname().lower(), socket.getfqdn().lower()})


class Gate:
    """The ASGI application before the others: refuses who may not ask.

    Args:
        app: who is asked next.
        access: who may.
        respond: makes the answer to what is refused.
    """

    def __init__(
        self, app: ASGIApp, access: Access, respond: Callable[[ApiError], ASGIApp]
    ) -> None:
        self._app = app
        self._access = access
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, or lets through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): v.decode("latin-1") for name, v in scope["headers"]}
        origin = self._foreign_origin(headers)
        more = _ALWAYS + (_allowing(origin) if origin in self._access.origins else [])

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        await self._answerer(scope, headers, origin)(scope, receive, send_with_headers)

    def _answerer(
        self, scope: Scope, headers: Mapping[str, str], foreign_origin: str | None
    ) -> ASGIApp:
        host = headers.get("host", "localhost")  # none: HTTP/1.0, and no browser
        if not self._access.knows_host(host):
            message = f"this server is not known as {host[:100]!r}: start it with --allowed-host"
            return self._respond(ApiError(421, message, code="unknown_host"))
        if foreign_origin is not None and foreign_origin not in self._access.origins:
            message = (
                f"pages of {foreign_origin[:100]!r} may not ask this server: start it with "
                "--allow-origin"
            )
            return self._respond(ApiError(403, message, "permission_error", code="foreign_origin"))
        if scope["method"] == "OPTIONS" and foreign_origin is not None:
            return _preflight
        if self._access.keys and scope["path"] not in _OPEN:
            given = headers.get("authorization")
            if given is None or not self._access.knows_key(given):
                what = "no API key was given" if given is None else "the API key is not known here"
                return self._respond(
                    ApiError(
                        401,
                        f"{what}: send Authorization: Bearer KEY",
                        INVALID,
                        code="invalid_api_key",
                        headers={"WWW-Authenticate": "Bearer"},
                    )
                )
        return self._app

    def _foreign_origin(self, headers: Mapping[str, str]) -> str | None:
        """The page's origin, unless it is this server itself."""
        origin = headers.get("origin")
        if origin is None or origin.partition("://")[2].lower() == headers.get("host", "").lower():
            return None
        return origin


def _allowing(origin: str | None) -> list[tuple[bytes, bytes]]:
    assert origin is not None
    return [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin")]


async def _preflight(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", b"authorization, content-type"),
        (b"access-control-max-age", b"600"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _has_port(host: str) -> bool:
    return host.rpartition(":")[2].isdigit() and (host.count(":") == 1 or "]:" in host)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def host_names(names: Iterable[str]) -> frozenset[str]:
    """Names as they are compared."""
    return frozenset(name.lower().rstrip(".") for name in names)

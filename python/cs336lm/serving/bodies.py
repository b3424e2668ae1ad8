"""Bodies of requests, with an end to their size, to their time, and to all of them together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from cs336lm.serving.api_error import ApiError, busy, invalid
from cs336lm.serving.limits import Limits

if TYPE_CHECKING:
    from starlette.requests import Request as HttpRequest
    from starlette.types import Receive

_LINGER_SECONDS = 1.0
"""How long what is too much is still read and thrown away, so that its sender sees the answer: a
connection that is closed on unread data is reset, and the answer lost."""


class ClientGone(Exception):
    """Nobody is there to be answered."""


class Bodies:
    """Reads bodies; holds at most ``limits.max_bodies`` bytes of them."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held = 0

    @asynccontextmanager
    async def read(self, request: HttpRequest) -> AsyncIterator[bytes]:
        """The body, whose bytes count as held inside the ``with``.

        Raises:
            ApiError: it is no JSON by its type, too large, too slow, or one too many.
            ClientGone: the connection was closed before its end.
        """
        _check_type(request)
        declared = _declared_length(request)
        if declared is not None and declared > self._limits.max_body:
            if "100-continue" not in request.headers.get("expect", "").lower():
                await self._throw_away(request)
            raise self._too_large()
        parts: list[bytes] = []
        try:
            try:
                async with asyncio.timeout(self._limits.body_seconds):
                    is_whole = await self._collect(request, parts)
            except TimeoutError:
                raise ApiError(
                    408,
                    f"the body did not come within {self._limits.body_seconds:g} seconds",
                    headers={"Connection": "close"},
                ) from None
            if not is_whole:
                await self._throw_away(request)
                raise self._too_large()
            yield b"".join(parts)
        finally:
            self._held -= sum(map(len, parts))

    async def _collect(self, request: HttpRequest, parts: list[bytes]) -> bool:
        """Adds a body's parts to ``parts``; False, and nothing is held, if it is too large."""
        size, more = 0, True
        while more:
            part, more = await _receive(request)
            size += len(part)
            self._held += len(part)
            parts.append(part)
            if size > self._limits.max_body:
                self._held -= size
                parts.clear()
                return False
            if self._held > self._limits.max_bodies:
                error = busy("too many large requests at once: try again later", 1)
                error.headers["Connection"] = "close"
                raise error
        return True

    async def _throw_away(self, request: HttpRequest) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                while (await _receive(request))[1]:
                    pass

    def _too_large(self) -> ApiError:
        message = f"the body is larger than {self._limits.max_body:,} bytes"
        return ApiError(413, message, code="body_too_large", headers={"Connection": "close"})


def _check_type(request: HttpRequest) -> None:
    """JSON by name: a form that another site's page sends without asking is none."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, "the body must be JSON: send Content-Type: application/json")


def _declared_length(request: HttpRequest) -> int | None:
    length = request.headers.get("content-length")
    if length is None:
        return None
    if not (length.isascii() and length.isdigit()):
        raise invalid("Content-Length is no number")
    return int(length) if len(length) < 20 else 1 << 63


async def _receive(request: HttpRequest) -> tuple[bytes, bool]:
    """The next part of a body, and whether there are more."""
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message.get("body", b""), message.get("more_body", False)


async def wait_until_gone(receive: Receive) -> None:
    """Returns when the client of a request, whose body was read, closes the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass

"""Connections that cost something and give nothing: how long each may, and how many there may be.

uvicorn waits without end for a connection's first request and for a client that does not read.
Here a connection has a time for its request's headers, whether it sends nothing or a byte a second,
and one to take what was sent to it; and where there are too many, the one that has been without a
request for longest gives way. Only one with a request in progress is never closed for another.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from cs336lm.serving.api_error import ApiError, unavailable
from cs336lm.serving.limits import Limits

if TYPE_CHECKING:
    from starlette.types import ASGIApp


class ServerConfig(uvicorn.Config):
    """uvicorn's settings, with the limits of connections."""

    def __init__(self, app: ASGIApp, limits: Limits, **settings: Any) -> None:
        super().__init__(app, http=LimitedConnection, ws="none", **settings)
        self.limits = limits
        self.silent: dict[LimitedConnection, None] = {}
        """Connections without a request in progress, those longest so first."""


class LimitedConnection(H11Protocol):
    """A connection with an end to every wait."""

    config: ServerConfig

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    @property
    def _has_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for a request, if there is room for a connection."""
        super().connection_made(transport)
        # Whatever is not the kernel's yet counts as not taken, also after the last of it.
        transport.set_write_buffer_limits(high=0)
        if len(self.connections) > self.config.limits.max_connections and not self._make_room():
            self._answer(unavailable("there are too many connections: try again later"))
            return
        self._wait_for_request()

    def data_received(self, data: bytes) -> None:
        """Takes bytes, which do not prolong the wait for the end of a request's headers."""
        if not self._has_request and self._head_timer is None:
            self._wait_for_request()
        super().data_received(data)

    def handle_events(self) -> None:
        """Lets a request that is complete as far as its headers go begin."""
        super().handle_events()
        if self._has_request:
            self.config.silent.pop(self, None)
            _stop(self._head_timer)
            self._head_timer = None

    def on_response_complete(self) -> None:
        """Is free for the next request."""
        if not self.transport.is_closing():
            self.config.silent[self] = None
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits for nothing any more."""
        self.config.silent.pop(self, None)
        _stop(self._head_timer)
        self._head_timer = None
        _stop(self._write_timer)
        self._write_timer = None
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Begins to wait for the client to read."""
        super().pause_writing()
        if self._write_timer is None:
            seconds = self.config.limits.write_seconds
            self._write_timer = self.loop.call_later(seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read everything."""
        _stop(self._write_timer)
        self._write_timer = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP."""
        self._answer(ApiError(400, msg))

    def _wait_for_request(self) -> None:
        self.config.silent[self] = None
        seconds = self.config.limits.head_seconds
        self._head_timer = self.loop.call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        self._head_timer = None
        seconds = self.config.limits.head_seconds
        self._answer(ApiError(408, f"no request came within {seconds:g} seconds"))

    def _make_room(self) -> bool:
        """Closes the connection that is silent for longest; False if none is."""
        silent = next(iter(self.config.silent), None)
        if silent is None:
            return False
        self.config.silent.pop(silent)
        silent.transport.abort()
        return True

    def _answer(self, error: ApiError) -> None:
        """An answer without a request; closes the connection."""
        body = json.dumps(error.body()).encode()
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        try:
            response = h11.Response(status_code=error.status, headers=headers)
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:
            pass  # an answer is under way already
        self.transport.close()


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()

"""Counts requests by route and status, and how long their answers took."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from cs336lm.serving.metrics import Metrics

_NOBODY = 499


class Measured:
    """The outermost ASGI application.

    ``paths`` are those told apart: others are one, or a stranger could make names without end.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Collection[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Asks the application, and counts."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, is_whole, began = _NOBODY, False, time.perf_counter()

        async def watching(message: Message) -> None:
            nonlocal status, is_whole
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not message.get("more_body", False):
                is_whole = True
            await send(message)

        try:
            await self._app(scope, receive, watching)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.requests.add(1, path, str(status))
            self._metrics.request_seconds.observe(time.perf_counter() - began)
            if status == _NOBODY or not is_whole:
                self._metrics.cancelled.add(1)

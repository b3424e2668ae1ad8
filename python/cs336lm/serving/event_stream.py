"""Server-sent events: a response that is a ``data:`` line for each chunk and ends in ``[DONE]``.

What goes wrong after the first chunk is told as an event of its own, in the form of an error, and
the stream ends without ``[DONE]``: a client must not take half a text for a whole one.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from cs336lm.serving.api_error import ApiError
from cs336lm.serving.bodies import wait_until_gone

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.types import Receive, Scope, Send

DONE = b"data: [DONE]\n\n"


class EventStream(Response):
    """The response.

    Args:
        first: the first chunk: nothing went wrong before it.
        rest: the others; closed when the client leaves, or has everything.
    """

    media_type = "text/event-stream"

    def __init__(self, first: Any, rest: AsyncGenerator[Any, None]) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._first = first
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends chunks until there are no more, or nobody takes them."""
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(wait_until_gone(receive))
        async with aclosing(self._rest):
            try:
                await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if sending.done():
                    sending.result()
            finally:
                leaving.cancel()
                if not sending.done():
                    sending.cancel()
                    await asyncio.wait({sending})

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        last = DONE
        try:
            await send(_body(event(self._first)))
            async for chunk in self._rest:
                await send(_body(event(chunk)))
                await asyncio.sleep(0)  # the others' turn, also where much has piled up
        except ApiError as error:
            last = event(error.body())
        await send(_body(last, more=False))


def event(value: Any) -> bytes:
    """One event; JSON has no line breaks of its own."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def _body(data: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}

"""The routes of a server, each a few lines: what is read, what is asked, what is answered.

GET  /                      the page
GET  /health                200, or 503 and why
GET  /metrics               for Prometheus
GET  /v1/models             also /v1/models/NAME
POST /v1/completions        whole, or as server-sent events
POST /v1/chat/completions
POST /tokenize              text -> ids      POST /detokenize   ids -> text
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from cs336lm.serving.answers import Answer
from cs336lm.serving.api_error import ApiError
from cs336lm.serving.batching import Batcher
from cs336lm.serving.bodies import Bodies, ClientGone, wait_until_gone
from cs336lm.serving.event_stream import EventStream
from cs336lm.serving.fields import Fields, as_integer, parse_json
from cs336lm.serving.gate import Access, Gate
from cs336lm.serving.limits import Limits
from cs336lm.serving.measured import Measured
from cs336lm.serving.metrics import CONTENT_TYPE, Metrics
from cs336lm.serving.page import page_and_policy
from cs336lm.serving.requests import Asked, encode, read_chat, read_completion
from cs336lm.serving.served_model import ServedModel
from cs336lm.serving.wording import Chats, Completions, Wording

if TYPE_CHECKING:
    from starlette.types import ASGIApp

T = TypeVar("T")

_LARGE = 50_000  # bytes of a body whose parsing would keep the event loop waiting
_NO_CLIENT = 499  # what nobody will see, but the metrics


class Service:
    """One model behind its routes.

    Args:
        model: what is served.
        batcher: where the texts are made; started and closed with the application.
        limits: how much is taken on.
    """

    def __init__(self, model: ServedModel, batcher: Batcher, limits: Limits) -> None:
        self.model = model
        self.batcher = batcher
        self.limits = limits
        self.metrics = Metrics()
        self._bodies = Bodies(limits)
        self._page, self._policy = page_and_policy()
        gauge = self.metrics.gauge
        gauge("cs336lm_sequences_running", "Texts in the batch.", lambda: batcher.running)
        waiting = "Texts that wait for a place in the batch."
        gauge("cs336lm_sequences_waiting", waiting, lambda: self._waiting())

    def routes(self) -> list[Route]:
        """The routes, for Starlette."""
        return [
            Route("/", self.page, methods=["GET"]),
            Route("/health", self.health, methods=["GET"]),
            Route("/metrics", self.show_metrics, methods=["GET"]),
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v1/models/{name:path}", self.one_model, methods=["GET"]),
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/v1/chat/completions", self.chats, methods=["POST"]),
            Route("/tokenize", self.tokenize, methods=["POST"]),
            Route("/detokenize", self.detokenize, methods=["POST"]),
        ]

    async def page(self, request: HttpRequest) -> Response:
        """The page, with what it needs inside."""
        return HTMLResponse(self._page, headers={"Content-Security-Policy": self._policy})

    async def health(self, request: HttpRequest) -> Response:
        """Whether requests are served, and if not, why."""
        batcher = self.batcher
        status = "failed" if batcher.death else "stopping" if batcher.is_stopping else "ok"
        said = {"status": status, "running": batcher.running, "waiting": self._waiting()}
        if batcher.death:
            said["reason"] = batcher.death
        return JSONResponse(said, 200 if status == "ok" else 503)

    async def show_metrics(self, request: HttpRequest) -> Response:
        """What is counted."""
        return Response(self.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def models(self, request: HttpRequest) -> Response:
        """The one model that there is."""
        return JSONResponse({"object": "list", "data": [self.model.description()]})

    async def one_model(self, request: HttpRequest) -> Response:
        """The same by its name."""
        self.model.check_name(request.path_params["name"])
        return JSONResponse(self.model.description())

    async def completions(self, request: HttpRequest) -> Response:
        """A prompt, or several, continued."""
        return await self._answer(request, read_completion, Completions(self.model))

    async def chats(self, request: HttpRequest) -> Response:
        """A conversation continued."""
        return await self._answer(request, read_chat, Chats(self.model))

    async def tokenize(self, request: HttpRequest) -> Response:
        """The ids of a text, and on request what each stands for."""
        return JSONResponse(await self._understood(request, self._tokenize))

    def _tokenize(self, value: Any) -> dict[str, Any]:
        fields = Fields(value)
        self.model.check_name(fields.text("model"))
        text = fields.text("prompt")
        parse_special = fields.boolean("parse_special")
        with_texts = fields.boolean("return_token_strs")
        fields.only("add_special_tokens", [False], "nothing is added to a text")
        fields.end()
        if text is None:
            raise ApiError(400, "prompt is missing: the text to tokenize", param="prompt")
        ids = encode(text, "prompt", self.model, self.limits, parse_special) if text else []
        said = {"count": len(ids), "max_model_len": self.model.context_length, "tokens": ids}
        if with_texts:
            said["token_strs"] = [self.model.spell(token) for token in ids]
        return said

    async def detokenize(self, request: HttpRequest) -> Response:
        """The text of ids."""
        return JSONResponse(await self._understood(request, self._detokenize))

    def _detokenize(self, value: Any) -> dict[str, Any]:
        fields = Fields(value)
        self.model.check_name(fields.text("model"))
        ids = fields.take("tokens")
        fields.end()
        if not isinstance(ids, list) or len(ids) > self.limits.max_prompt_tokens:
            most = self.limits.max_prompt_tokens
            raise ApiError(400, f"tokens must be an array of at most {most} ids", param="tokens")
        ids = [as_integer(one, "tokens", 0, self.model.vocab_size - 1) for one in ids]
        self.model.check_ids(ids, "tokens")
        return {"prompt": self.model.tokenizer.decode(ids)}

    async def _answer(
        self,
        request: HttpRequest,
        read: Callable[[Any, ServedModel, Limits], Asked],
        wording: Wording,
    ) -> Response:
        self.batcher.refuse_if_unable()  # before a body is read for nothing
        asked = await self._understood(request, lambda v: read(v, self.model, self.limits))
        answer = Answer(asked, wording, self.model, self.batcher, self.metrics)
        try:
            if asked.stream:
                chunks = answer.chunks()
                first = await unless_gone(request, anext(chunks))
                return EventStream(first, chunks)
            return JSONResponse(await unless_gone(request, answer.whole()))
        except BaseException:
            answer.cancel()
            raise

    async def _understood(self, request: HttpRequest, read: Callable[[Any], T]) -> T:
        """What ``read`` makes of a body's JSON."""
        async with self._bodies.read(request) as body:
            if len(body) < _LARGE:
                return read(parse_json(body))
            return await asyncio.to_thread(lambda: read(parse_json(body)))

    def _waiting(self) -> int:
        return max(0, self.batcher.outstanding - self.batcher.running)


async def unless_gone(request: HttpRequest, work: Awaitable[T]) -> T:
    """What ``work`` gives; it is cancelled, and ``ClientGone`` raised, if the client leaves."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(wait_until_gone(request.receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


def make_app(service: Service, access: Access) -> ASGIApp:
    """The application: routes, errors in their form, and who may ask before all of it."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.batcher.start()
        yield
        service.batcher.close()

    routes = Starlette(
        routes=service.routes(),
        lifespan=lifespan,
        exception_handlers={
            ApiError: _refused,
            HTTPException: _no_route,
            ClientGone: _nobody,
            Exception: _failed,
        },
    )
    routes.router.redirect_slashes = False
    return Measured(Gate(routes, access, error_response), service.metrics, _paths(service))


def _paths(service: Service) -> frozenset[str]:
    return frozenset(route.path for route in service.routes())


def error_response(error: ApiError) -> Response:
    """An error in OpenAI's form."""
    return JSONResponse(error.body(), error.status, error.headers)


def _refused(request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error)


def _no_route(request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path[:100]
    if error.status_code == 405:
        message = f"{path} is not asked by {request.method}"
    elif error.status_code == 404:
        message = f"there is no {path} here"
    else:
        message = str(error.detail)
    said = ApiError(error.status_code, message, headers=error.headers)
    return error_response(said)


def _nobody(request: HttpRequest, error: Exception) -> Response:
    return Response(status_code=_NO_CLIENT)


def _failed(request: HttpRequest, error: Exception) -> Response:
    return error_response(ApiError(500, "the server has failed at this request", "server_error"))

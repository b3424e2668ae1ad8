"""A server from its socket to its end: bound first, then the model loaded, then the loop.

A signal (SIGTERM, SIGINT) closes the door; what is running has ``stop_seconds`` to end, then it is
told that the server is stopping. A second signal does not wait.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from cs336lm.serving.api_error import unavailable
from cs336lm.serving.app import Service, make_app
from cs336lm.serving.connections import ServerConfig
from cs336lm.serving.gate import Access

_BACKLOG = 128  # connections that are taken at once, before any is turned away
_SPARE_FILES = 64  # beside connections: weights, pipes, the loop's own
_HURRIED_SECONDS = 1.0  # for what was told last to reach its reader
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def bind(host: str, port: int) -> socket.socket:
    """A socket that is bound to an address and listens to nobody yet.

    Raises ``OSError``, with the address as its file name: the port is in use, the host no address
    of this machine.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, proto)
    except socket.gaierror as error:
        raise OSError(errno.EADDRNOTAVAIL, error.strerror, f"--host {host}") from None
    try:
        # A port whose last connections are still closing can be had; one in use cannot.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno == errno.EADDRINUSE:
            reason += "; choose another --port (0 is any that is free)"
        raise OSError(error.errno, reason, f"{host}:{port}") from None
    return bound


def url_of(bound: socket.socket) -> str:
    """Where a browser on this machine finds it."""
    host, port = bound.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(service: Service, access: Access, bound: socket.socket, greeting: str = "") -> None:
    """Serves until a signal comes; prints ``greeting`` when it listens.

    Raises ``RuntimeError`` if the thread of the engine does not end.
    """
    # No client can fill the log: neither with what is no HTTP nor by leaving in the middle.
    for name in ("uvicorn.error", "asyncio"):
        logging.getLogger(name).setLevel(logging.ERROR)
    allow_files(service.limits.max_connections + _BACKLOG + _SPARE_FILES)
    Server(service, access, greeting).run(sockets=[bound])
    if not service.batcher.close():
        raise RuntimeError("the model's thread did not end: a step takes too long")


def allow_files(wanted: int) -> None:
    """Raises this process's limit of open files to ``wanted``, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


class Server(uvicorn.Server):
    """uvicorn's server, whose end is a return whatever signal asked for it."""

    def __init__(self, service: Service, access: Access, greeting: str = "") -> None:
        limits = service.limits
        self._service = service
        self._greeting = greeting
        self._loop: asyncio.AbstractEventLoop | None = None
        config = ServerConfig(
            make_app(service, access),
            limits,
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=_BACKLOG,
            proxy_headers=False,  # nobody's word is taken for where a request comes from
            timeout_keep_alive=max(1, round(limits.idle_seconds)),
            # The last resort: requests are told before (see `shutdown`).
            timeout_graceful_shutdown=round(limits.stop_seconds) + 5,
            lifespan="on",
        )
        super().__init__(config)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """As uvicorn's, but a signal that was obeyed is not raised once more at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sig: signal.signal(sig, self.handle_exit) for sig in _SIGNALS}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal: the first closes the door, a second also ends what is running."""
        if self.should_exit and self._loop is not None:
            self._loop.call_soon_threadsafe(self._hurry)
            return
        # Before anything is said: who reads it may send the second signal at once.
        self.should_exit = True
        self._service.batcher.is_stopping = True
        print("stopping: finishing what is running", file=sys.stderr, flush=True)

    def _hurry(self) -> None:
        """Tells those who wait that the server is stopping, and waits for nobody to read it."""
        self._service.batcher.fail_all(unavailable("the server is stopping"))
        assert self._loop is not None
        for connection in list(self.server_state.connections):
            self._loop.call_later(_HURRIED_SECONDS, connection.transport.abort)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens, and says so."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self._greeting:
            print(self._greeting, flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Lets what is running end, for a while."""
        batcher = self._service.batcher
        batcher.is_stopping = True
        error = unavailable("the server is stopping")
        seconds = self._service.limits.stop_seconds
        timer = asyncio.get_running_loop().call_later(seconds, batcher.fail_all, error)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()

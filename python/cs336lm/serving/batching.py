"""The one thread that runs the model, and how requests reach it and hear from it.

    event loop:  submit ──► commands ──► [thread: add, step, step, ...] ──► events ──► tickets

The engine is no thread's but this one's. Requests come through a queue; what a step yields goes
back to the event loop in one call a step and is dealt out there, so that everything about tickets
happens in the loop's thread and needs no lock. Sequence numbers are the engine's and never leave
this file: a ticket knows its texts by their index, and only its own.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from cs336lm.errors import UsageError
from cs336lm.serving.api_error import ApiError, busy, invalid, unavailable

if TYPE_CHECKING:
    from cs336lm.generation.batching import Request, Token

_JOIN_SECONDS = 10.0


class Engine(Protocol):
    """What the thread needs of :class:`~cs336lm.generation.batching.BatchEngine`."""

    def add(self, request: Request) -> list[int]:
        """Takes a request; the numbers of its sequences."""

    def cancel(self, sequence: int) -> None:
        """Frees a sequence's place."""

    def step(self) -> list[Token]:
        """One step of all sequences."""

    def has_work(self) -> bool:
        """Whether a step would do anything."""

    @property
    def waiting(self) -> int:
        """Sequences without a place yet."""

    @property
    def running(self) -> int:
        """Sequences in the batch."""


Event = tuple[int, "Token"] | ApiError
"""An index among a ticket's texts and what happened to it; or the end of them all."""


@dataclass(eq=False)
class Ticket:
    """A client's share of the batch: some requests, whose texts are numbered 0, 1, ..."""

    requests: Sequence[Request]
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    open: set[int] = field(default_factory=set)
    """Texts that have not ended. The event loop's."""
    sequences: dict[int, int] = field(default_factory=dict)
    """Index -> the engine's number. The thread's."""
    is_cancelled: bool = False
    """Set by the event loop; the thread may see it late, which does no harm."""

    @property
    def count(self) -> int:
        """How many texts."""
        return sum(request.n for request in self.requests)

    async def next(self) -> tuple[int, Token]:
        """What happens next; raises ``ApiError`` when nothing more will."""
        event = await self.events.get()
        if isinstance(event, ApiError):
            raise event
        return event


class Batcher:
    """Runs an engine in a thread of its own.

    Args:
        engine: used by that thread alone from now on.
        max_outstanding: texts that may run or wait; beyond, :meth:`submit` says to come again.
    """

    def __init__(self, engine: Engine, max_outstanding: int) -> None:
        self._engine = engine
        self._max_outstanding = max_outstanding
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False  # the thread's: to end after this command
        self._owners: dict[int, tuple[Ticket, int]] = {}  # the thread's: by sequence
        self._tickets: set[Ticket] = set()  # the loop's
        self.outstanding = 0
        """Texts that run or wait."""
        self.running = 0
        """Texts in the batch, as of the last step."""
        self.death: str | None = None
        """Why the thread ended, if it did on its own."""
        self.is_stopping = False

    def start(self) -> None:
        """Starts the thread; to be called in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def close(self) -> bool:
        """Ends the thread after the step that it is in; False if it does not end soon."""
        self._commands.put(self._close)
        if self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)
        return not self._thread.is_alive()

    def refuse_if_unable(self) -> None:
        """Raises ``ApiError`` where no request can be served."""
        if self.death is not None:
            raise unavailable(
                f"the model has failed and the server must be restarted: {self.death}"
            )
        if self.is_stopping:
            raise unavailable("the server is stopping")

    def submit(self, requests: Sequence[Request]) -> Ticket:
        """Hands in requests that are answered together; at most all of them, or none.

        Raises ``ApiError``: the server is stopping or broken, has no room at the moment, or could
        never have room for as many.
        """
        self.refuse_if_unable()
        ticket = Ticket(requests)
        if ticket.count > self._max_outstanding:
            raise invalid(
                f"the request asks for {ticket.count} texts; this server takes at most "
                f"{self._max_outstanding} at once"
            )
        if self.outstanding + ticket.count > self._max_outstanding:
            raise busy(f"{self.outstanding} texts are running or waiting: try again later", 1)
        ticket.open = set(range(ticket.count))
        self.outstanding += ticket.count
        self._tickets.add(ticket)
        self._commands.put(lambda: self._add(ticket))
        return ticket

    def cancel(self, ticket: Ticket, indices: Iterable[int] | None = None) -> None:
        """Frees the places of a ticket's texts (all of them if none is named); harmless again."""
        dropped = ticket.open & (ticket.open.copy() if indices is None else set(indices))
        if not dropped:
            return
        if dropped == ticket.open:
            ticket.is_cancelled = True
        self._drop(ticket, dropped)
        if self.death is None:
            self._commands.put(lambda: self._cancel(ticket, dropped))

    def fail_all(self, error: ApiError) -> None:
        """Ends every ticket with ``error``."""
        for ticket in list(self._tickets):
            ticket.events.put_nowait(error)
            self.cancel(ticket)

    # In the event loop

    def _drop(self, ticket: Ticket, indices: set[int]) -> None:
        ticket.open -= indices
        self.outstanding -= len(indices)
        if not ticket.open:
            self._tickets.discard(ticket)

    def _deal_out(self, events: Sequence[tuple[Ticket, int, Token]], running: int) -> None:
        self.running = running
        for ticket, index, token in events:
            if index not in ticket.open:
                continue  # cancelled meanwhile
            if token.finish is not None:
                self._drop(ticket, {index})
            ticket.events.put_nowait((index, token))

    def _refuse(self, ticket: Ticket, error: ApiError) -> None:
        if ticket.open:
            ticket.events.put_nowait(error)
            self._drop(ticket, ticket.open.copy())

    def _bury(self, reason: str) -> None:
        self.death = reason
        self.running = 0
        self.fail_all(ApiError(500, f"the model has failed: {reason}", "server_error"))

    # In the thread

    def _run(self) -> None:
        try:
            while not self._is_closed:
                self._obey()
                if not self._is_closed and self._engine.has_work():
                    tokens = self._engine.step()
                    events = [(*self._owner(token), token) for token in tokens if self._has(token)]
                    self._tell(self._deal_out, events, self._engine.running)
        except BaseException as error:  # whatever it is, those who wait must hear of it
            traceback.print_exc()
            lines = " ".join(str(error).split())
            self._tell(self._bury, f"{type(error).__name__}: {lines}"[:300])

    def _obey(self) -> None:
        """Does what there is to do; waits for it where there is no other work."""
        try:
            while True:
                wait = not self._is_closed and not self._engine.has_work()
                self._commands.get(block=wait)()
        except queue.Empty:
            return

    def _has(self, token: Token) -> bool:
        return token.sequence in self._owners

    def _owner(self, token: Token) -> tuple[Ticket, int]:
        if token.finish is None:
            return self._owners[token.sequence]
        ticket, index = self._owners.pop(token.sequence)
        del ticket.sequences[index]
        return ticket, index

    def _add(self, ticket: Ticket) -> None:
        if ticket.is_cancelled:
            return
        try:
            for request in ticket.requests:
                for sequence in self._engine.add(request):
                    index = len(ticket.sequences)
                    ticket.sequences[index] = sequence
                    self._owners[sequence] = ticket, index
        except UsageError as error:
            self._cancel(ticket, set(ticket.sequences))
            self._tell(self._refuse, ticket, invalid(" ".join(str(error).split())))

    def _cancel(self, ticket: Ticket, indices: set[int]) -> None:
        for index in indices:
            sequence = ticket.sequences.pop(index, None)
            if sequence is not None:
                del self._owners[sequence]
                self._engine.cancel(sequence)
        self._tell(self._deal_out, [], self._engine.running)  # perhaps no step follows

    def _close(self) -> None:
        self._is_closed = True

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(what, *arguments)
        except RuntimeError:  # the loop is closed: nobody listens any more
            self._is_closed = True

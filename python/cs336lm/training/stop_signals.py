"""Ctrl-C and SIGTERM as a request, so that a run can save before it ends."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StopSignals:
    """While open, SIGINT and SIGTERM only set ``received``; a second one acts as it always does.

    Not so with ``patient``: torchrun passes on the Ctrl-C that its processes have had already. In
    any thread but the main one (a notebook's worker, say), where Python allows no signal handlers,
    this does nothing.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self._patient = patient
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        if not self._patient:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()

"""Ctrl-C, SIGTERM and a lost terminal as a request, so that a run can save before it ends."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StopSignals:
    """While open, each of ``NUMBERS`` only sets ``received``; a second acts as it always does.

    Not so with ``patient``: torchrun passes on the Ctrl-C that its processes have had already.
    SIGHUP, which a closed terminal sends, stays ignored where it was (under nohup). In any thread
    but the main one (a notebook's worker, say), where Python allows no signal handlers, this does
    nothing.
    """

    NUMBERS = tuple(
        getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
    )

    def __init__(self, *, patient: bool = False) -> None:
        self._patient = patient
        self.received: signal.Signals | None = None
        self.is_open = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        self.is_open = True
        if threading.current_thread() is threading.main_thread():
            for number in self.NUMBERS:
                before = signal.getsignal(number)
                if number.name == "SIGHUP" and before is signal.SIG_IGN:
                    continue
                self._before[number] = before
                signal.signal(number, self._receive)
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
        self.is_open = False
        self._restore()

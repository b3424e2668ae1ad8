"""All trackers of a run as one: its own record, and those beside it, which may fail.

``metrics.jsonl`` is part of the run: resuming and comparing rely on it, so an error there is
raised. Every other tracker only watches. Whatever goes wrong in one of them (a server that does not
answer, a terminal that is gone), when it is opened, told something or closed, costs one line on
stderr and that tracker, never the training or another tracker.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress

from cs336lm.training.trackers.tracker import Record, Tracker


class TrackerGroup:
    """``own``, whose errors are raised, and ``others`` by their names, whose errors are not.

    Each is a function that opens the tracker. If ``own`` cannot be opened, or somebody interrupts
    the opening, those that are open are closed.
    """

    def __init__(
        self, own: Callable[[], Tracker], others: Mapping[str, Callable[[], Tracker]]
    ) -> None:
        self._own = own()
        self._others: dict[str, Tracker] = {}
        try:
            for name, make in others.items():
                try:
                    self._others[name] = make()
                except Exception as error:
                    _report(name, error)
        except BaseException:
            self.close()
            raise

    def log(self, record: Record) -> None:
        """Hands the figures of one step to every tracker."""
        self._own.log(record)
        for name, tracker in list(self._others.items()):
            try:
                tracker.log(record)
            except Exception as error:
                del self._others[name]
                _report(name, error)
                with suppress(Exception):
                    tracker.close()

    def close(self) -> None:
        """Closes every tracker."""
        try:
            while self._others:
                name, tracker = self._others.popitem()
                try:
                    tracker.close()
                except Exception as error:
                    _report(name, error)
        finally:
            self._own.close()


def _report(name: str, error: Exception) -> None:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    with suppress(OSError, ValueError):  # stderr may be what has failed
        print(
            f"cs336lm: the tracker {name} failed and is left out from here on: {reason}",
            file=sys.stderr,
            flush=True,
        )

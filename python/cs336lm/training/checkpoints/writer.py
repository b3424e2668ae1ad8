"""The thread that writes checkpoints while training continues."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class BackgroundWriter:
    """Runs one write at a time on a thread.

    The error of a write that failed is raised by the next call of any method but ``close``.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._writing: Future[None] | None = None

    def submit(self, write: Callable[[], None]) -> None:
        """Waits for the write before, then starts this one."""
        self.wait()
        self._writing = self._thread.submit(write)

    def raise_if_failed(self) -> None:
        """Raises the error of a write that is over; waits for none."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Returns once nothing is being written."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def close(self) -> None:
        """Lets a write that is under way end; its error, if nobody waited for it, is dropped."""
        self._thread.shutdown()

"""What a terminal shows while a long job runs; a pipe or a log file sees nothing of it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# The unit that each phase of the Rust core counts in is bytes, except that of merging.
_TITLES = {
    "counting": "counting pretokens",
    "merging": "merging pairs",
    "encoding": "encoding",
    "checking": "checking shards",
}


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None] | None]:
    """A callback ``(phase, units done, units in all)`` that draws a bar for each phase.

    None where stderr is not a terminal: then nothing is drawn, and rich is not even imported.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.text import Text

    class Amount(ProgressColumn):
        """Bytes as megabytes and a speed, merges as numbers."""

        _bytes = DownloadColumn(binary_units=False)
        _speed = TransferSpeedColumn()
        _count = MofNCompleteColumn()

        def render(self, task: Task) -> Text:
            if task.fields["in_bytes"]:
                return Text(" ").join([self._bytes.render(task), self._speed.render(task)])
            return self._count.render(task)

    columns = (TextColumn("{task.description:>18}"), BarColumn(), Amount(), TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True)) as bars:

        def show(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                for earlier in tasks.values():  # its last report may have been missed
                    bars.update(earlier, completed=bars.tasks[earlier].total)
                title = _TITLES.get(phase, phase)
                tasks[phase] = bars.add_task(title, total=None, in_bytes=phase != "merging")
            bars.update(tasks[phase], completed=done, total=total or None)

        yield show


def megabytes(size: int) -> str:
    """``77.5 MB``, or ``812 bytes`` for what is small."""
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size:,} bytes"


def speed(size: int, seconds: float) -> str:
    """``198 MB/s``: bytes of text per second, in millions."""
    return f"{size / 1e6 / max(seconds, 1e-9):,.0f} MB/s"


def shown(path: str) -> str:
    """``path`` as it can be printed: what of it is not UTF-8 is U+FFFD."""
    return path.encode(errors="surrogateescape").decode(errors="replace")

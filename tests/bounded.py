"""Something a stranger made, opened in a process of its own with little memory and time."""

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

MEGABYTES = 700
SECONDS = 20
REFUSALS = ("ValueError", "UsageError", "OSError", "Mismatch", "Damaged")


def outcome(work: Callable[[], object], megabytes: int = MEGABYTES) -> tuple[str, str]:
    """What ``work`` returned or raised, as ("returned" or the error's class, text of it).

    It runs in a fork that may take so much address space more than it has, and ``SECONDS``. A
    process that a signal ends (a crash, an abort, the time) is ("died", the signal's number).
    """
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def child() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(SECONDS)
        try:
            sender.send(("returned", repr(work())[:300]))
        except BaseException as error:
            sender.send((type(error).__name__, str(error)))
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    sender.close()
    try:
        found = receiver.recv()
    except EOFError:
        found = ("died", "")
    process.join(60)
    return found if process.exitcode == 0 else ("died", str(process.exitcode))


def refused(work: Callable[[], object], megabytes: int = MEGABYTES) -> str:
    """The one line by which ``work`` refuses what it is given; anything else fails the test."""
    kind, text = outcome(work, megabytes)
    assert kind in REFUSALS, (kind, text[:500])
    assert "\n" not in text
    return text

"""One command in a process of its own, forked from this one, with a fault in it or killed."""

from __future__ import annotations

import errno
import gc
import importlib
import json
import math
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .shim import Fault, arm, counted

TOO_LONG = 90.0
"""Seconds after which a command that is to take one hangs."""


_REASONS = {os.strerror(number) for number in errno.errorcode}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int | None
    """Of the process, negative for a signal; None if it hung, and was killed for that."""
    said: str
    """On stderr."""
    fired: str
    """The call that was made to fail, if it came to that."""
    seconds: float

    def complaint(self) -> str | None:
        """What is wrong with how it failed: more than one line, no line, a traceback, a hang."""
        if self.status is None:
            return f"hung for {TOO_LONG:.0f} s"
        if self.status in (0, -signal.SIGKILL):
            return None
        lines = [line for line in self.said.strip().splitlines() if line.startswith("cs336lm: ")]
        if "Traceback" in self.said or "panicked" in self.said:
            return f"status {self.status} with a traceback:\n{self.said.strip()[-1500:]}"
        if self.status not in (1, 2) or not lines:
            return f"status {self.status} saying {self.said.strip()[-300:]!r}"
        if lines[-1].removeprefix("cs336lm: ") in _REASONS:
            return f"does not say where it failed: {lines[-1]}"
        return None


class Place:
    """A folder for cases: ``in``, ``out``, ``tmp`` in ``work``, which alone faults concern."""

    def __init__(self, base: Path) -> None:
        self.base = base.absolute()
        self.work, self.said = self.base / "work", self.base / "said"
        self.inputs, self.out, self.tmp = (self.work / name for name in ("in", "out", "tmp"))
        for folder in (self.said, self.inputs, self.out, self.tmp):
            folder.mkdir(parents=True, exist_ok=True)

    def clear(self) -> None:
        """Empties what jobs write to."""
        for folder in (self.out, self.tmp):
            shutil.rmtree(folder)
            folder.mkdir()


class Running:
    """A command that was started."""

    def __init__(self, pid: int, place: Place, name: str) -> None:
        self.pid, self._place, self._name = pid, place, name
        self._began = time.perf_counter()

    def wait(self, seconds: float | None = None) -> bool:
        """Whether it ended within so many seconds."""
        until = math.inf if seconds is None else time.perf_counter() + seconds
        look = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while os.waitid(os.P_PID, self.pid, look) is None:
            left = until - time.perf_counter()
            if left <= 0:
                return False
            time.sleep(min(left, 0.001))
        return True

    def kill(self, number: int = signal.SIGKILL, *, group: bool = True) -> None:
        """Sends a signal, to what it started as well."""
        with suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, number)

    def end(self, seconds: float = TOO_LONG) -> Ended:
        """Waits for the end; kills what hangs."""
        hung = not self.wait(seconds)
        if hung:
            self.kill()
        _, status = os.waitpid(self.pid, 0)
        took = time.perf_counter() - self._began
        said = (self._place.said / f"{self._name}.err").read_text(errors="replace")
        fired = self._place.said / f"{self._name}.fired"
        what = fired.read_text().strip() if fired.exists() else ""
        code = None if hung else os.waitstatus_to_exitcode(status)
        return Ended(code, said, what, took)


def start(
    argv: Sequence[str],
    place: Place,
    fault: Fault | None = None,
    *,
    log: Path | None = None,
    name: str = "case",
    environment: dict[str, str] | None = None,
    main: Callable[[list[str]], int | None] | None = None,
) -> Running:
    """Starts ``cs336lm argv`` in ``place``; ``main``: another function of the arguments."""
    fired = place.said / f"{name}.fired"
    fired.unlink(missing_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        with suppress(OSError):  # the child does the same: whoever is first
            os.setpgid(pid, pid)
        return Running(pid, place, name)
    status = 70
    try:
        _become(place, name, environment or {}, log)
        arm(place.work, fault, fired, log)
        status = _call(argv, main)
        threading._shutdown()  # as at the end of any program: threads that are no daemons end
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            (place.said / f"{name}.counts").write_text(json.dumps(counted()))
            sys.stderr.flush()
            sys.stdout.flush()
        os._exit(status)


def run(argv: Sequence[str], place: Place, fault: Fault | None = None, **options: object) -> Ended:
    """Starts a command and waits for its end."""
    return start(argv, place, fault, **options).end()  # type: ignore[arg-type]


def _become(place: Place, name: str, environment: dict[str, str], log: Path | None) -> None:
    with suppress(OSError):
        os.setpgid(0, 0)
    for number, file in ((1, "out"), (2, "err")):
        to = os.open(place.said / f"{name}.{file}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(to, number)
        os.close(to)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.chdir(place.work)
    os.environ |= {"TMPDIR": str(place.tmp), **environment}
    if log is not None:  # what it starts writes into the same record
        os.environ |= {"FAULTS_ROOT": str(place.work), "FAULTS_LOG": str(log)}
    gc.freeze()


def _call(argv: Sequence[str], main: Callable[[list[str]], int | None] | None) -> int:
    if main is None:
        from cs336lm.cli.main import main
    sys.argv = ["cs336lm", *argv]
    try:
        return main(list(argv)) or 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


def warm_up(argv: Sequence[str], place: Place) -> None:
    """Runs a command once and imports here what it imported, so that no later one has to."""
    names = place.said / "modules"

    def main(argv: list[str]) -> int:
        from cs336lm.cli.main import main as command

        status = command(argv)
        names.write_text("\n".join(sys.modules))
        return status

    ended = run(argv, place, main=main)
    assert ended.status == 0, f"{argv} does not work without a fault: {ended.said}"
    for name in names.read_text().split():
        if name not in sys.modules:
            with suppress(Exception):
                importlib.import_module(name)

"""The shim between a program and the C library (``shim.c``): built here, loaded, told what to do.

A process that was started with the shim in ``LD_PRELOAD`` may fork one a case, and tell each child
what is to happen to it: PyTorch is imported once for hundreds of cases.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
LOADED = "FAULTS_SHIM"  # says in the environment that the shim is there

CALLS = ["open", "read", "write", "sync", "rename", "truncate", "mmap", "close", "mkdir", "unlink",
         "lock"]  # fmt: skip
_NO_ERRNO = {"SHORT": -1, "KILL": -2, "SLOW": -3}

KINDS = {
    "open": ["EIO", "ENOSPC", "EMFILE", "EINTR"],
    "read": ["EIO", "EINTR", "SHORT"],
    "write": ["ENOSPC", "EIO", "EINTR", "SHORT"],
    "sync": ["EIO", "ENOSPC", "EINTR"],
    "rename": ["EIO", "ENOSPC"],
    "truncate": ["EIO", "ENOSPC"],
    "mmap": ["ENOMEM", "EIO"],
    "close": ["EIO"],
    "mkdir": ["EIO", "ENOSPC"],
    "unlink": ["EIO"],
    "lock": ["ENOLCK", "EINTR"],
}
"""What each call may say in earnest; KILL (the process dies at the call) goes with all of them."""


@dataclass(frozen=True)
class Fault:
    """What happens to which call."""

    call: str
    kind: str
    """The name of an errno, or SHORT (half is done), KILL, SLOW (50 ms)."""
    nth: int
    stays: bool = False
    """Whether all calls after it fail as well."""
    jump: int = 0
    """Seconds that the clock of the day jumps at its ``nth`` reading; then nothing else happens."""

    def number(self) -> int:
        """The kind as the shim takes it."""
        if self.jump:
            return 0
        return _NO_ERRNO.get(self.kind) or getattr(errno, self.kind)

    def __str__(self) -> str:
        if self.jump:
            return f"the clock jumps by {self.jump} s at look {self.nth}"
        return f"{self.kind} at {self.call} {self.nth}" + (" and after" if self.stays else "")


class NoCompiler(Exception):
    """There is no C compiler here."""


def build() -> Path:
    """The shared object, compiled if this version of it was not before."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None or not sys.platform.startswith("linux"):
        raise NoCompiler("the shim needs Linux and a C compiler (cc, gcc or clang)")
    version = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    place = Path(tempfile.gettempdir()) / f"cs336lm-shim-{os.getuid()}-{version}.so"
    if not place.exists():
        beside = place.with_suffix(f".{os.getpid()}")
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(beside), str(SOURCE), "-lpthread"]
        subprocess.run(command, check=True)
        beside.rename(place)
    return place


def enter() -> None:
    """Starts this program again with the shim loaded, unless it is."""
    if LOADED in os.environ:
        return
    shim = str(build())
    os.environ |= {LOADED: shim, "LD_PRELOAD": shim, "OMP_NUM_THREADS": "1"}
    os.execv(sys.executable, [sys.executable, "-m", "tests.faults", *sys.argv[1:]])


def arm(root: Path, fault: Fault | None, fired: Path, log: Path | None = None) -> None:
    """From here on ``fault`` happens in this process to calls that concern files below ``root``."""
    shim = ctypes.CDLL(os.environ[LOADED])
    shim.faults_arm(
        os.fsencode(root),
        (fault.call if fault else "").encode(),
        ctypes.c_long(fault.number() if fault else 0),
        ctypes.c_long(fault.nth if fault else 0),
        ctypes.c_long(int(fault.stays) if fault else 0),
        os.fsencode(fired),
        os.fsencode(log) if log else None,
        ctypes.c_long(fault.jump if fault else 0),
    )


def counted() -> dict[str, int]:
    """How many calls of each kind this process has made since it was armed."""
    count = ctypes.CDLL(os.environ[LOADED]).faults_count
    count.restype = ctypes.c_long
    return {call: count(call.encode()) for call in CALLS}

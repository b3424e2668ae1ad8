"""Files that appear whole or not at all (written beside their place, synced, renamed), and locks.

A lock is the system's own (``flock``), taken on a file that stays where it is: it ends with the
process that holds it, however that ends, so none is ever left behind. On NFS it holds between
machines (Linux 2.6.12 and later turn it into a lock on the server), unless the file system was
mounted with ``nolock`` or ``local_lock``: then between the processes of one machine.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO

from cs336lm.errors import UsageError

_NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file that appears under ``path`` once the block ends well, complete and synced.

    It is written beside its place and renamed. If anything fails, the disk filling up included,
    what stood under ``path`` is untouched and nothing is left behind. An ``OSError`` names
    ``path``. A link stays one, and what it leads to is replaced; a file that is replaced passes
    its permissions on. A device or a pipe is not replaced but written to, straight.
    """
    try:
        before = os.stat(path).st_mode
    except OSError:  # nothing there yet; what else is wrong shows when the file is made
        before = None
    place = Path(os.path.realpath(path))
    beside = place.with_name(f".{place.name}.{os.getpid()}.partial")
    try:
        if before is not None and not stat.S_ISREG(before):
            with open(path, "wb") as file:  # a directory is refused here, before any work
                yield file
            return
        with open(beside, "wb", opener=_open_for(before)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(place)
        sync_directory(place.parent)
    except BaseException as error:
        with suppress(OSError):  # the folder may be what is wrong
            beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            error.filename, error.filename2 = str(path), None
        raise


def _open_for(before: int | None) -> Callable[[str, int], int]:
    """Opens a file with the permissions of the one that it will replace, never with wider ones."""

    def opener(path: str, flags: int) -> int:
        if before is None:
            return os.open(path, flags, 0o666)
        handle = os.open(path, flags, 0o600)
        with suppress(OSError):  # a file system without permissions
            os.chmod(path, stat.S_IMODE(before))
        return handle

    return opener


def sync_directory(directory: Path) -> None:
    """Makes a rename survive a power cut, where the system can."""
    try:
        handle = os.open(directory, os.O_RDONLY)
    except OSError:  # Windows opens no directories
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def exclusive_lock(path: str | Path, thing: str) -> Iterator[None]:
    """Holds the lock on the file ``path``, which is made if need be and never removed.

    Raises ``UsageError`` at once if another process holds it, saying which one and that it uses
    ``thing``. Where the file system knows no locks, a warning says so.
    """
    path = Path(path)
    with path.open("a+b") as file:
        tries = 5  # somebody who only looks (see below) is in the way for a moment
        while not _try_lock(file, exclusive=True):
            tries -= 1
            if not tries:
                raise UsageError(_in_use(thing, path))
            time.sleep(0.02)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        file.flush()
        yield


def refuse_if_locked(path: str | Path, thing: str) -> None:
    """Raises ``UsageError`` as :func:`exclusive_lock` would, but takes and makes nothing."""
    path = Path(path)
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        if not _try_lock(file, exclusive=False):
            raise UsageError(_in_use(thing, path))


def _try_lock(file: IO[bytes], *, exclusive: bool) -> bool:
    """Whether ``file`` is locked now, until it is closed."""
    if sys.platform == "win32":  # nothing is locked there
        return True
    import fcntl

    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise
        warnings.warn(
            f"{file.name}: this file system has no locks; see that no other process writes here",
            stacklevel=2,
        )
    return True


def _in_use(thing: str, path: Path) -> str:
    owner = path.read_text(errors="replace").strip() or "another process"
    return f"{thing} is in use by {owner}: wait until it ends, or name another place"


@contextmanager
def new_directory(path: str | Path) -> Iterator[Path]:
    """An empty folder that appears under ``path`` once the block ends well, with what is in it.

    It is filled beside its place and renamed. If anything fails, nothing is left behind. Raises
    ``UsageError`` if something stands under ``path`` already, be it only one file.
    """
    place = Path(os.path.realpath(path))
    refuse_if_there(path)
    beside = place.with_name(f".{place.name}.{os.getpid()}.partial")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        beside.mkdir()
        yield beside
        for folder in (beside, *(found for found in beside.rglob("*") if found.is_dir())):
            sync_directory(folder)
        beside.rename(place)
        sync_directory(place.parent)
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        if isinstance(error, OSError) and str(beside) in str(error.filename):
            error.filename = str(error.filename).replace(str(beside), str(path))
            error.filename2 = None
        raise


def refuse_if_there(path: str | Path) -> None:
    """Raises ``UsageError`` unless ``path`` is free, or an empty folder."""
    found = Path(path)
    if not os.path.lexists(found) or (found.is_dir() and not any(found.iterdir())):
        return
    raise UsageError(f"{path} is there already: name another place, or remove it first")

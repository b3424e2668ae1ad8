"""Files that appear whole or not at all (written beside their place, synced, renamed), files that
grow by whole lines, and locks.

What is written beside its place is locked meanwhile, so that what a killed process left can be told
from what a living one is writing: the next that writes the same file removes it.

A lock is the system's own (``flock``), taken on a file that stays where it is: it ends with the
process that holds it, however that ends, so none is ever left behind. On NFS it holds between
machines (Linux 2.6.12 and later turn it into a lock on the server), unless the file system was
mounted with ``nolock`` or ``local_lock``: then between the processes of one machine.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import IO, BinaryIO

from cs336lm.errors import UsageError

_NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)
"""EBADF: on NFS a folder is not locked, since it cannot be opened for writing."""


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file that appears under ``path`` once the block ends well, complete and synced.

    It is written beside its place and renamed. If anything fails, the disk filling up included,
    what stood under ``path`` is untouched and nothing is left behind; what a killed process left of
    the same file is removed. An ``OSError`` names
    ``path``. A link stays one, and what it leads to is replaced; a file that is replaced passes
    its permissions on. A device or a pipe is not replaced but written to, straight.
    """
    try:
        before = os.stat(path).st_mode
    except OSError:  # nothing there yet; what else is wrong shows when the file is made
        before = None
    # A path that is no link stays relative: its folder may lie below one that may not be read.
    place = Path(os.path.realpath(path) if os.path.islink(path) else path)
    beside = place.with_name(f".{place.name}.{os.getpid()}.partial")
    try:
        if before is not None and not stat.S_ISREG(before):
            with open(path, "wb") as file:  # a directory is refused here, before any work
                yield file
            return
        remove_unfinished(place)
        with _open_beside(beside, before) as file:
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


def remove_unfinished(place: Path) -> None:
    """Removes what killed processes left of the file or folder ``place``, written beside it."""
    begin, end = f".{place.name}.", ".partial"
    with suppress(OSError):  # whatever is wrong shows when the file is made
        for name in os.listdir(place.parent):
            process = name.removeprefix(begin).removesuffix(end)
            if name == f"{begin}{process}{end}" and process.isdecimal():
                _remove_if_abandoned(place.with_name(name))


def _remove_if_abandoned(left: Path) -> None:
    import shutil  # seldom needed, and tokenize would wait for it

    with suppress(OSError):  # it is gone, or somebody else's
        handle = os.open(left, os.O_RDONLY)
        try:
            if _flock(handle, exclusive=True):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        finally:
            os.close(handle)


def _holds(handle: int, beside: Path) -> bool:
    """Locks what was just made; False if somebody took it for one that was left, before that."""
    locked = _flock(handle, exclusive=True)
    if locked is None:  # where there are no locks, nothing is removed either
        return True
    try:
        return locked and os.path.samestat(os.fstat(handle), os.stat(beside))
    except FileNotFoundError:
        return False


def _open_beside(beside: Path, before: int | None) -> BinaryIO:
    while True:
        file = open(beside, "wb", opener=_open_for(before))  # noqa: SIM115
        if _holds(file.fileno(), beside):
            return file
        file.close()


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


def append_line(path: Path, line: bytes) -> None:
    """Adds a line, without its end, to a file of lines, which is made if need be.

    It is on the disk when this returns. What a kill left of a last line is taken away first, so
    that the next one stands alone; if anything fails, the file is as long as before. An
    ``OSError`` names ``path``.
    """
    is_new = not path.exists()
    with _named(path):
        with path.open("a+b", buffering=0) as file:
            end = _end_of_lines(path)
            try:
                file.truncate(end)
                write_all(file, line + b"\n")
            except OSError:
                with suppress(OSError):
                    os.truncate(path, end)
                raise
            os.fsync(file.fileno())
        if is_new:
            sync_directory(path.parent)


def _end_of_lines(path: Path) -> int:
    """Where the last whole line ends."""
    with path.open("rb") as file:  # with a buffer, whose ``read`` gives all that is asked for
        end = file.seek(0, os.SEEK_END)
        while end:
            begin = max(0, end - (1 << 16))
            file.seek(begin)
            found = file.read(end - begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            end = begin
    return 0


def write_all(file: FileIO, content: bytes) -> None:
    """Writes to a file without a buffer, whose own ``write`` may write a part alone."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def sync_file(path: Path) -> None:
    """Has all that was written to a file so far on the disk; does nothing if it is not there."""
    with suppress(FileNotFoundError), _named(path), path.open("r+b") as file:
        os.fsync(file.fileno())


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
    ``thing``; ``FileNotFoundError`` if its folder was removed meanwhile. Where the file system
    knows no locks, a warning says so.
    """
    path = Path(path)
    with path.open("a+b", buffering=0) as file:
        with _named(path):
            tries = 5  # somebody who only looks (see below) is in the way for a moment
            while not _try_lock(file, exclusive=True):
                tries -= 1
                if not tries:
                    raise UsageError(_in_use(thing, path))
                time.sleep(0.02)
            if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                raise FileNotFoundError(errno.ENOENT, "it was removed and made again meanwhile")
            file.truncate(0)
            write_all(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield


@contextmanager
def _named(path: str | Path) -> Iterator[None]:
    """An ``OSError`` in the block names ``path``: one of an open file names nothing by itself."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename, error.filename2 = str(path), None
        raise


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
    locked = _flock(file.fileno(), exclusive=exclusive)
    if locked is None and sys.platform != "win32":
        warnings.warn(
            f"{file.name}: this file system has no locks; see that no other process writes here",
            stacklevel=3,
        )
    return locked is not False


def _flock(handle: int, *, exclusive: bool) -> bool | None:
    """Whether an open file is locked now; None where there are no locks."""
    if sys.platform == "win32":
        return None
    import fcntl

    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise
        return None
    return True


def _in_use(thing: str, path: Path) -> str:
    owner = path.read_text(errors="replace").strip() or "another process"
    return f"{thing} is in use by {owner}: wait until it ends, or name another place"


@contextmanager
def new_directory(path: str | Path) -> Iterator[Path]:
    """An empty folder that appears under ``path`` once the block ends well, with what is in it.

    It is filled beside its place and renamed. If anything fails, nothing is left behind; what a
    killed process left of the same folder is removed. Raises ``UsageError`` if something stands
    under ``path`` already, be it only one file.
    """
    import shutil

    place = Path(os.path.realpath(path))
    refuse_if_there(path)
    beside = place.with_name(f".{place.name}.{os.getpid()}.partial")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        remove_unfinished(place)
        with _made_beside(beside):
            yield beside
            for folder in (beside, *(found for found in beside.rglob("*") if found.is_dir())):
                sync_directory(folder)
            try:
                beside.rename(place)
            except OSError:
                refuse_if_there(path)  # somebody was quicker
                raise
            sync_directory(place.parent)
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        if isinstance(error, OSError) and str(beside) in str(error.filename):
            error.filename = str(error.filename).replace(str(beside), str(path))
            error.filename2 = None
        raise


def remove_directory(path: Path) -> None:
    """Removes a folder at once: nobody finds a part of it under its name.

    What is left of it if this process is killed, :func:`remove_unfinished` removes.
    """
    import shutil

    doomed = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no directories
        shutil.rmtree(path)
        return
    try:
        _flock(handle, exclusive=True)  # it is not one that was left
        path.rename(doomed)
        shutil.rmtree(doomed)
    finally:
        os.close(handle)


@contextmanager
def _made_beside(beside: Path) -> Iterator[None]:
    """A new folder, locked."""
    while True:
        beside.mkdir()
        try:
            handle = os.open(beside, os.O_RDONLY)
        except FileNotFoundError:  # taken for one that was left
            continue
        except PermissionError:  # Windows opens no directories
            yield
            return
        if _holds(handle, beside):
            break
        os.close(handle)
    try:
        yield
    finally:
        os.close(handle)


def refuse_if_there(path: str | Path) -> None:
    """Raises ``UsageError`` unless ``path`` is free, or an empty folder."""
    found = Path(path)
    if not os.path.lexists(found) or (found.is_dir() and not any(found.iterdir())):
        return
    raise UsageError(f"{path} is there already: name another place, or remove it first")

"""A model of a disk: which files there may be after the power is cut, by what was synced before.

POSIX promises little, and this model grants no more. What was written to a file since its last
fsync may be there, in part, as zeros, or not. What was done to the names in a folder (made,
renamed, removed) since the folder's last fsync may have happened up to any point; in two folders
up to two different ones. So a file that was renamed into its place without an fsync may be empty
there, and one whose folder was not synced may have its old name.
"""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Record(NamedTuple):
    """A call that changed something, as the shim wrote it down."""

    op: str
    inode: int
    offset: int
    path: str
    other: str
    data: bytes


def read_log(path: Path) -> Iterator[Record]:
    """The records of a run, in order."""
    log = path.read_bytes()
    at = 0
    while at < len(log):
        end = log.index(b"\n", at)
        op, inode, offset, size, name, other = (
            log[at:end].decode("utf-8", "surrogateescape").split("\t")
        )
        at = end + 1 + int(size)
        yield Record(op, int(inode), int(offset), name, other, log[end + 1 : at])


@dataclass
class File:
    """A file's content: what is on the disk, and what was written since."""

    synced: bytes = b""
    since: list[tuple[int, bytes | None]] = field(default_factory=list)
    """(offset, data), or (length, None) where it was cut."""

    def content(self, how: str, rng: random.Random) -> bytes:
        """What it may hold: ``none`` of what is new, ``all``, ``some``, or ``zeros`` instead."""
        if how == "none":
            return self.synced
        whole = _apply(self.synced, self.since)
        if how == "all" or not self.since:
            return whole
        if how == "zeros":  # the length is known, the data were not written
            kept = self.synced[: len(whole)]
            return kept + bytes(len(whole) - len(kept))
        number = rng.randrange(len(self.since))
        offset, data = self.since[number]
        torn = [] if data is None else [(offset, data[: rng.randrange(len(data) + 1)])]
        return _apply(self.synced, [*self.since[:number], *torn])


def _apply(content: bytes, changes: list[tuple[int, bytes | None]]) -> bytes:
    now = bytearray(content)
    for offset, data in changes:
        if data is None:
            now = now[:offset] + bytes(max(0, offset - len(now)))
        else:
            now += bytes(max(0, offset - len(now)))
            now[offset : offset + len(data)] = data
    return bytes(now)


FOLDER = "folder"
Names = dict[str, "File | str"]


class Disk:
    """The files below a folder, as a record of calls goes on."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.now: Names = {self.root: FOLDER}
        for path in sorted(root.rglob("*")):
            self.now[str(path)] = FOLDER if path.is_dir() else File(path.read_bytes())
        self.synced = dict(self.now)
        self.since: list[Record] = []
        """What was done to names and is not synced."""
        self._made: dict[int, File] = {}
        """The files that were made, by their place in ``since``."""
        self._open: dict[int, File] = {}

    def apply(self, record: Record) -> None:
        """One more call."""
        if not record.path.startswith(self.root):
            return
        if record.op in ("create", "rename", "unlink", "mkdir"):
            if record.op == "create":
                self._open[record.inode] = self._made[id(record)] = File()
            self.since.append(record)
            self._change(self.now, record)
        elif record.op == "sync" and self.now.get(record.path) == FOLDER:
            mine = [change for change in self.since if record.path in _folders(change)]
            for change in mine:
                self._change(self.synced, change)
            self.since = [change for change in self.since if change not in mine]
        else:
            file = self._open.get(record.inode)
            if file is None:  # it was there before
                found = self.now.get(record.path)
                if not isinstance(found, File):
                    return
                file = self._open[record.inode] = found
            if record.op == "write":
                file.since.append((record.offset, record.data))
            elif record.op == "truncate":
                file.since.append((record.offset, None))
            elif record.op == "sync":
                file.synced, file.since = record.data, []

    def _change(self, names: Names, record: Record) -> None:
        if record.op == "create":
            names[record.path] = self._made[id(record)]
        elif record.op == "mkdir":
            names[record.path] = FOLDER
        elif record.path in names:
            below = [n for n in names if n == record.path or n.startswith(record.path + "/")]
            if record.op == "rename":
                for gone in [n for n in names if n.startswith(record.other + "/")]:
                    del names[gone]
            for name in below:
                what = names.pop(name)
                if record.op == "rename":
                    names[record.other + name[len(record.path) :]] = what

    def after_power_cut(self, names: str, data: str, rng: random.Random) -> dict[str, bytes | None]:
        """One of the states that may be found: content by name below the root, None for a folder.

        ``names``: what became of changes to names, ``none``, ``all`` or ``some``; ``data``: see
        :meth:`File.content`, or ``any`` for another answer for each file.
        """
        tree = dict(self.synced)
        upto: dict[str, int] = {}
        folders = {folder for change in self.since for folder in _folders(change)}
        for folder in sorted(folders):
            count = sum(folder in _folders(change) for change in self.since)
            upto[folder] = {"none": 0, "all": count}.get(names, rng.randint(0, count))
        for change in self.since:
            mine = _folders(change)
            if all(upto[folder] > 0 for folder in mine):
                self._change(tree, change)
            for folder in mine:
                upto[folder] -= 1
        state: dict[str, bytes | None] = {}
        for name in sorted(tree):
            parents = [str(p) for p in Path(name).parents if str(p).startswith(self.root)]
            if name == self.root or not all(tree.get(parent) == FOLDER for parent in parents):
                continue
            what = tree[name]
            how = data if data != "any" else rng.choice(("none", "all", "zeros", "some"))
            short = name[len(self.root) + 1 :]
            state[short] = what.content(how, rng) if isinstance(what, File) else None
        return state


def _folders(change: Record) -> set[str]:
    """Whose names a change is about."""
    of = {str(Path(change.path).parent)}
    return of | {str(Path(change.other).parent)} if change.op == "rename" else of


def name_of(state: dict[str, bytes | None]) -> str:
    """Tells two states apart."""
    content = hashlib.sha256()
    for name, data in state.items():
        content.update(repr((name, data is None, len(data or b""))).encode() + (data or b""))
    return content.hexdigest()


def lay_down(state: dict[str, bytes | None], root: Path) -> None:
    """Makes the folder what the state says."""
    shutil.rmtree(root)
    root.mkdir()
    for name, data in state.items():
        if data is None:
            (root / name).mkdir()
        else:
            (root / name).write_bytes(data)

"""Which files are meant: a directory is all the texts in it, a pattern all that match.

Files come in the order of their names, so that it does not depend on the file system.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator

from cs336lm.errors import UsageError

_TEXTS = (".txt", ".md", ".jsonl", ".ndjson", ".parquet")
_PACKED = (".gz", ".zst")

_ANY_FOLDERS = re.compile(r"(?:^|(?<=/))\*\*(?:/+|$)")

_Place = tuple[int, int]
"""What a folder is, by whatever name: its device and its number there."""


def input_files(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str]:
    """The files that ``paths`` name (one or several), in order.

    A directory stands for the texts below it: ``.txt``, ``.md``, ``.jsonl``, ``.ndjson`` and
    ``.parquet`` files, also as ``.gz`` or ``.zst``, except hidden ones (``.name``). Links to
    folders are followed, unless they lead back to a folder that they stand in. A name with ``*``,
    ``?`` or ``[`` that is not a file stands for all that match, whatever they end in (``**`` for
    any folders).

    Raises:
        UsageError: nothing is named, a directory is empty, or nothing matches.
        OSError: a folder cannot be read.
    """
    files: list[str] = []
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        path = os.fspath(path)
        found = [path]
        if os.path.isdir(path):
            found = sorted(_below(path))
            nothing = f"is a directory without {', '.join(_TEXTS)} files"
        elif glob.has_magic(path) and not os.path.exists(path):
            found = sorted(set(filter(os.path.isfile, _matching(path))))
            nothing = "no files match"
        if not found:
            raise UsageError(f"{path}: {nothing}; name the files to read")
        files += found
    if not files:
        raise UsageError("no files given: name at least one")
    return files


def _below(directory: str) -> Iterator[str]:
    """The texts in and below ``directory``, through links too."""
    for folder in _folders(directory):
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if not entry.is_dir()]
        yield from (os.path.join(folder, name) for name in names if _is_text(name))


def _matching(pattern: str) -> Iterator[str]:
    """What matches ``pattern``; ``**`` by our own walk: that of `glob` takes loops of links for
    folders, ever deeper."""
    head, *rest = _ANY_FOLDERS.split(pattern, maxsplit=1)
    if not rest:
        yield from glob.glob(pattern)
        return
    for base in glob.glob(head) if head else [""]:
        for folder in _folders(base):
            yield from _matching(os.path.join(glob.escape(folder), rest[0] or "*"))


def _folders(directory: str) -> Iterator[str]:
    """``directory`` and the folders below it, hidden ones left out, through links too.

    A link that leads back to a folder that it stands in is left out: nothing new is behind it.
    """
    ahead: list[tuple[str, frozenset[_Place]]] = [(directory, frozenset())]
    while ahead:
        folder, above = ahead.pop()
        status = os.stat(folder or ".")
        place = status.st_dev, status.st_ino
        if place in above:
            continue
        yield folder
        with os.scandir(folder or ".") as entries:
            names = [e.name for e in entries if e.is_dir() and not e.name.startswith(".")]
        ahead += [(os.path.join(folder, name), above | {place}) for name in names]


def _is_text(name: str) -> bool:
    stem, ending = os.path.splitext(name.lower())
    plain = stem if ending in _PACKED else name.lower()
    return not name.startswith(".") and plain.endswith(_TEXTS)

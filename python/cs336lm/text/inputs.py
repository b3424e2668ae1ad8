"""Which files are meant: a directory is all the texts in it, a pattern all that match.

Files come in the order of their names, so that it does not depend on the file system. What else is
in a directory is left out, and a warning says so.
"""

from __future__ import annotations

import glob
import os
import re
import warnings
from collections.abc import Iterable, Iterator

from cs336lm.errors import UsageError

_TEXTS = (".txt", ".md", ".jsonl", ".ndjson", ".parquet")
_PACKED = (".gz", ".zst")

_ANY_FOLDERS = re.compile(r"(?:^|(?<=/))\*\*(?:/+|$)")

_Place = tuple[int, int]
"""What a folder is, by whatever name: its device and its number there."""


def input_files(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    text_field: str | None = "text",
) -> list[str]:
    """The files that ``paths`` name (one or several), in order.

    A directory stands for the texts below it: ``.txt``, ``.md``, ``.jsonl``, ``.ndjson`` and
    ``.parquet`` files, also as ``.gz`` or ``.zst``, and ``.json`` files that hold a record with
    ``text_field`` a line; except hidden ones (``.name``). Of other files in it a warning says that
    they are left out. Links to folders are followed, unless they lead back to a folder that they
    stand in. A name with ``*``, ``?`` or ``[`` that is not a file stands for all that match,
    whatever they end in (``**`` for any folders).

    Raises:
        UsageError: nothing is named, a directory is empty, or nothing matches.
        OSError: a folder cannot be read.
    """
    files: list[str] = []
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        path = os.fspath(path)
        found = [path]
        if os.path.isdir(path):
            found, others = _below(path, text_field)
            nothing = f"is a directory without {', '.join(_TEXTS)} files"
            if found and others:
                warnings.warn(_left_out(path, others), stacklevel=2)
        elif glob.has_magic(path) and not os.path.exists(path):
            found = sorted(set(filter(os.path.isfile, _matching(path))))
            nothing = "no files match"
        if not found:
            raise UsageError(f"{path}: {nothing}; name the files to read")
        files += found
    if not files:
        raise UsageError("no files given: name at least one")
    return files


def _below(directory: str, text_field: str | None) -> tuple[list[str], list[str]]:
    """The texts in and below ``directory``, through links too, and the other files."""
    texts: list[str] = []
    others: list[str] = []
    for folder in _folders(directory):
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if not entry.is_dir()]
        for name in names:
            if not name.startswith("."):
                path = os.path.join(folder, name)
                (texts if _is_text(path, text_field) else others).append(path)
    return sorted(texts), sorted(others)


def _left_out(directory: str, others: list[str]) -> str:
    names = [os.path.relpath(path, directory) for path in others]
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    files = "1 file is" if len(names) == 1 else f"{len(names):,} files are"
    return (
        f"{directory}: {files} left out, not being text by name and no lines of JSON: {shown}; "
        "whatever is to be read all the same, name it or give a pattern"
    )


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


def _is_text(path: str, text_field: str | None) -> bool:
    name = os.path.basename(path).lower()
    stem, ending = os.path.splitext(name)
    plain = stem if ending in _PACKED else name
    return plain.endswith(_TEXTS) or (plain.endswith(".json") and _holds_lines(path, text_field))


def _holds_lines(path: str, text_field: str | None) -> bool:
    from cs336lm import _bpe

    try:
        return _bpe.holds_json_lines(path, text_field)
    except (OSError, ValueError):  # whoever reads it will say what is wrong
        return True

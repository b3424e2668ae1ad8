"""Which files are meant: a directory is all the texts in it, a pattern all that match.

Files come in the order of their names, so that it does not depend on the file system.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable

from cs336lm.errors import UsageError

_TEXTS = (".txt", ".md", ".jsonl", ".ndjson", ".parquet")
_PACKED = (".gz", ".zst")


def input_files(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str]:
    """The files that ``paths`` name (one or several), in order.

    A directory stands for the texts below it: ``.txt``, ``.md``, ``.jsonl``, ``.ndjson`` and
    ``.parquet`` files, also as ``.gz`` or ``.zst``, except hidden ones (``.name``). A name with
    ``*``, ``?`` or ``[`` that is not a file stands for all that match, whatever they end in (``**``
    for any folders).

    Raises:
        UsageError: nothing is named, a directory is empty, or nothing matches.
    """
    files: list[str] = []
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        path = os.fspath(path)
        found = [path]
        if os.path.isdir(path):
            found = sorted(_below(path))
            nothing = f"is a directory without {', '.join(_TEXTS)} files"
        elif glob.has_magic(path) and not os.path.exists(path):
            found = sorted(filter(os.path.isfile, glob.glob(path, recursive=True)))
            nothing = "no files match"
        if not found:
            raise UsageError(f"{path}: {nothing}; name the files to read")
        files += found
    if not files:
        raise UsageError("no files given: name at least one")
    return files


def _below(directory: str) -> Iterable[str]:
    for folder, folders, names in os.walk(directory):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(folder, name) for name in names if _is_text(name))


def _is_text(name: str) -> bool:
    stem, ending = os.path.splitext(name.lower())
    plain = stem if ending in _PACKED else name.lower()
    return not name.startswith(".") and plain.endswith(_TEXTS)

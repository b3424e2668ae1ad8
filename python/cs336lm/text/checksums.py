"""What a tokenizer's files were when they were written, so that damage to them is noticed.

``Tokenizer.save`` writes ``checksums.json`` last, beside them: the size and the SHA-256 of each. A
flipped bit keeps a file's size; of JSON a cut leaves nothing that is JSON, and a ``merges.txt``
that was cut has lost its last line, which stands there as well. (The last newline alone changes
nothing.) Any other file of another size was written again, by Hugging Face's library perhaps, and
is read as it is. So is a folder without ``checksums.json``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cs336lm.errors import UsageError
from cs336lm.json_files import is_sealed, parse_json, read_bounded, sealed

NAME = "checksums.json"
FILES = ("merges.txt", "tokenizer.json", "tokenizer_config.json", "vocab.json")

_MOST_BYTES = 4096


def forget(folder: Path) -> None:
    """Removes the checksums, before the files change; ``UsageError`` if they are not ours."""
    path = folder / NAME
    try:
        known = _read(path)
    except (ValueError, OSError) as error:
        raise UsageError(
            f"{path} would be written over, but cs336lm did not write what is in it ({error}): "
            "name another folder, or remove that file"
        ) from None
    if known is not None:
        path.unlink(missing_ok=True)


def remember(folder: Path) -> None:
    """Writes the checksums of the files in ``folder``."""
    from cs336lm.files import atomic_write

    about: dict[str, Any] = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": _sha256(folder / name)}
        for name in FILES
    }
    about["last merge"] = _last_line(folder / "merges.txt")
    with atomic_write(folder / NAME) as file:
        file.write(sealed(about))


def verify(path: str | os.PathLike[str]) -> list[str] | None:
    """The files of a tokenizer that were written again since it was saved; None: nothing is known.

    ``path`` is a folder or one of the files in it. Raises ``ValueError`` naming the file that is
    damaged, and ``OSError``.
    """
    found = Path(path)
    folder = found if found.is_dir() else found.parent
    if folder is not found and found.name not in FILES:
        return None
    sums = folder / NAME
    try:
        known = _read(sums)
    except ValueError as error:
        raise ValueError(f"{sums} is damaged ({error}): {_WAY_OUT}") from None
    changed = []
    if known is None:
        return None
    for name in FILES:
        size, digest = known[name]["bytes"], known[name]["sha256"]
        file = folder / name
        if not file.exists() or _sha256(file) == digest:
            continue
        now = file.stat().st_size
        if now == size or (now < size and _is_cut(file, known["last merge"])):
            raise ValueError(
                f"{file} is damaged: its checksum is not the one in {NAME} beside it; {_WAY_OUT}"
            )
        changed.append(name)
    return changed


def _is_cut(file: Path, last_merge: str) -> bool:
    if file.name == "merges.txt":
        return _last_line(file) != last_merge
    try:
        parse_json(file.read_bytes())
    except ValueError:
        return True
    return False


_WAY_OUT = f"save the tokenizer again, or delete {NAME} if it was changed on purpose"


def _last_line(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace").removesuffix("\n").rpartition("\n")[2]


def _read(path: Path) -> dict[str, Any] | None:
    """What is known of each file; None if there are no checksums. Raises ``ValueError``."""
    try:
        content = read_bounded(path, _MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    about: Any = parse_json(content)
    if not is_sealed(content) or not isinstance(about, dict):
        raise ValueError("it does not end in a checksum of itself")
    if about.keys() != {*FILES, "last merge", "checksum"}:
        raise ValueError("it is not about a tokenizer's files")
    return about


def _sha256(path: Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

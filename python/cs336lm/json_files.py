"""JSON from the disk: bounded, whoever wrote it, and sealed where it is this package's own.

A sealed file ends in a line with the SHA-256 of all bytes before that line::

    {
      "tokens": 7,
      "checksum": "40e2..."
    }

The Rust core does the same (``files/sealed.rs``): sidecars, and a tokenizer's checksums.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

MOST_BYTES = 1 << 30
"""Longer files are not read: a sidecar with a line for each of a million inputs has a tenth."""

_CHECKSUM = b'  "checksum": "'
_END = b'"\n}\n'
_LAST_LINES = len(_CHECKSUM) + 64 + len(_END)


def read_json(path: Path) -> Any:
    """What a file of JSON holds.

    Raises ``OSError`` if it cannot be read, ``ValueError`` with the reason alone if it is no JSON,
    or too long or too deep to be any of ours.
    """
    return parse_json(read_bounded(path))


def read_bounded(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a file, which is refused (``ValueError``) if it is longer than ``most``."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size  # asked for more, Python takes the memory for it
        content = file.read(min(size, most) + 1)
    if len(content) > most:
        raise ValueError(f"it is longer than {most:,} bytes")
    return content


def parse_json(content: bytes | str) -> Any:
    """As :func:`read_json`, of its content."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def sealed(values: dict[str, Any]) -> bytes:
    """The bytes of a sealed file that holds ``values``."""
    before = json.dumps(values, indent=2).encode().removesuffix(b"\n}") + b",\n"
    return before + _seal(before)


def is_sealed(content: bytes) -> bool:
    """Whether a file's content ends in a seal. Raises ``ValueError`` if it does not match."""
    before, last = content[:-_LAST_LINES], content[-_LAST_LINES:]
    if not last.startswith(_CHECKSUM):
        return False
    if last != _seal(before):
        raise ValueError("its checksum does not match")
    return True


def _seal(before: bytes) -> bytes:
    import hashlib  # here, since commands that read no such file need none

    return _CHECKSUM + hashlib.sha256(before).hexdigest().encode() + _END

"""What a tracker calls a run, kept in its directory: resumed, it is called the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cs336lm.files import atomic_write


def kept_name(path: Path, make: Callable[[], str]) -> str:
    """What the file ``path`` says, or what ``make`` returns, written there when first asked for."""
    kept = path.read_text("utf-8").strip() if path.exists() else ""
    if kept:
        return kept
    new = make()
    with atomic_write(path) as file:
        file.write(f"{new}\n".encode())
    return new

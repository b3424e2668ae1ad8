"""One piece that was looked at, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Finding(NamedTuple):
    """What is known of one file, or one thing in several."""

    path: str
    is_good: bool
    says: str
    """What was verified, or what is wrong; without the path."""


def looked_at(path: Path, look: Callable[[], str]) -> Finding:
    """The finding of ``look``, which says what it verified and raises what is wrong."""
    try:
        return Finding(str(path), True, look())
    except OSError as error:
        return Finding(str(path), False, error.strerror or str(error))
    except (ValueError, KeyError, TypeError) as error:
        says = " ".join(str(error).split())
        # Most errors begin with the path, which stands before them already.
        return Finding(str(path), False, says.removeprefix(str(path)).lstrip(": "))

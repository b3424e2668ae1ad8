"""One checkpoint in one file: written whole or not at all, verified before it is believed.

A checkpoint is one ``torch.save`` archive of plain tensors and numbers::

    {"format": 1, "model_config": {"d_model": 256, ...}, "model": state_dict,
     "optimizer_name": "AdamW", "optimizer": state_dict, "iteration": int, ...}

It is loaded with ``weights_only=True``, so that a file from a stranger cannot run code, and the CRC
of every tensor is compared first: a truncated or altered file is refused by name. PyTorch is
imported when a file is read or written, so that commands can look at a run without it.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import IO, Any, cast

from cs336lm.files import atomic_write
from cs336lm.training.checkpoints.state import State, refuse_later_format

_UNREADABLE = (RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError)
"""What ``torch.load`` may raise on a file that it cannot make sense of."""


class _Target:
    """A file that remembers why a write failed: ``torch.save`` reports only that one did."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def write_state(state: State, path: str | Path) -> None:
    """Writes a checkpoint's content atomically. Raises ``OSError`` (disk full, say) naming it."""
    import torch

    with atomic_write(path) as file:
        target = _Target(file)
        try:
            torch.save(state, cast("IO[bytes]", target))
        except RuntimeError:
            if target.error is None:
                raise
            raise target.error from None


def read_state(path: str | Path, *, verify: bool = True) -> State:
    """A checkpoint's content, on the CPU.

    ``verify`` compares every entry with its CRC first, at about a gigabyte a second. Raises
    ``OSError`` if the file cannot be read and ``ValueError`` if it is damaged or not a checkpoint.
    """
    path = Path(path)
    if verify:
        _verify_archive(path)
    with path.open("rb") as file:
        return read_open_file(file, str(path))


def peek_iteration(path: Path) -> int | None:
    """The iteration that a checkpoint is of, without reading its tensors; None if it has none."""
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return int(state["iteration"])
    except (OSError, *_UNREADABLE, TypeError):
        return None


def read_open_file(file: IO[bytes], name: str) -> State:
    """A checkpoint's content from an open file, not verified; errors call it ``name``."""
    import torch

    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        first_line = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{name} is truncated, damaged or not a checkpoint ({first_line})"
        ) from None
    missing = {"model", "iteration"} - (state.keys() if isinstance(state, dict) else set())
    if missing:
        raise ValueError(
            f"{name} is not a checkpoint: it does not contain {' and '.join(sorted(missing))}"
        )
    refuse_later_format(state, name)
    return state


def _verify_archive(path: Path) -> None:
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
        raise ValueError(f"{path} is truncated, damaged or not a checkpoint ({error})") from None
    if broken is not None:
        raise ValueError(f"{path} is damaged: the checksum of {broken!r} does not match")

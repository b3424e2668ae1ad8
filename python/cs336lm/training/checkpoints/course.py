"""The course's two functions: a model and its optimizer into one file, and back.

CS336 assignment 1, section 5.2. In a run directory the same files also carry ``"progress"`` and
``"scaler"`` (see ``cs336lm.training.saver``), which these functions leave alone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, BinaryIO

import torch

from cs336lm.training.checkpoints.archive import read_open_file, read_state, write_state, write_to
from cs336lm.training.checkpoints.state import pack, unpack


def save_checkpoint(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    iteration: int,
    out: str | os.PathLike[str] | BinaryIO | IO[bytes],
) -> None:
    """Saves model, optimizer and iteration to a path (atomically) or an open binary file."""
    state = pack(model, optimizer, iteration)
    if isinstance(out, str | os.PathLike):
        write_state(state, Path(out))
    else:
        write_to(state, out)


def load_checkpoint(
    src: str | os.PathLike[str] | BinaryIO | IO[bytes],
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
) -> int:
    """Restores model and optimizer in place from a path or an open binary file.

    Returns the iteration. Raises ``OSError`` if the file cannot be read, ``ValueError`` if it is
    truncated, damaged, not a checkpoint, or does not match the model.
    """
    if isinstance(src, str | os.PathLike):
        return unpack(read_state(Path(src)), model, optimizer, str(src))
    name = str(getattr(src, "name", "the file given"))
    return unpack(read_open_file(src, name), model, optimizer, name)

"""One checkpoint in one file: written whole or not at all, verified before it is believed.

A checkpoint is one ``torch.save`` archive of plain tensors and numbers::

    {"format": 1, "model_config": {"d_model": 256, ...}, "model": state_dict,
     "optimizer_name": "AdamW", "optimizer": state_dict, "iteration": int, ...}

It is loaded with ``weights_only=True``, so that a file from a stranger cannot run code, and the
checksum of all its bytes is compared first (``seal.py``): a truncated or altered file is refused by
name. PyTorch is
imported when a file is read or written, so that commands can look at a run without it.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, cast

from cs336lm.files import atomic_write
from cs336lm.training.checkpoints.seal import SealedWriter, refuse_packed, verify
from cs336lm.training.checkpoints.state import State, refuse_later_format


def write_state(state: State, path: str | Path) -> None:
    """Writes a checkpoint's content atomically. Raises ``OSError`` (disk full, say) naming it."""
    with atomic_write(path) as file:
        write_to(state, file)


def write_to(state: State, file: IO[bytes]) -> None:
    """Writes a checkpoint's content to an open file. Raises ``OSError``."""
    import torch

    sealed = SealedWriter(file)
    try:
        torch.save(state, cast("IO[bytes]", sealed))
    except RuntimeError:
        if sealed.error is None:
            raise
        raise sealed.error from None
    sealed.seal()


def read_state(path: str | Path) -> State:
    """A checkpoint's content, on the CPU.

    Raises ``OSError`` if the file cannot be read and ``ValueError`` if it is damaged or not a
    checkpoint.
    """
    with Path(path).open("rb") as file:
        return read_open_file(file, str(path))


def verify_file(path: Path) -> bool:
    """Reads a checkpoint through; returns whether it has a checksum over all of it.

    Raises as :func:`read_state`.
    """
    with path.open("rb") as file:
        return verify(file, str(path))


def peek_iteration(path: Path) -> int | None:
    """The iteration that a checkpoint is of, without reading its tensors; None if it has none."""
    import torch

    try:
        _pickled_part(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return int(state["iteration"])
    except Exception:  # whatever is wrong: see ``read_open_file``
        return None


def read_open_file(file: IO[bytes], name: str) -> State:
    """A checkpoint's content from an open file, whose errors call it ``name``.

    It is verified first, unless it is a stream that cannot go back to its beginning.
    """
    import torch

    if file.seekable() and file.tell() == 0:
        verify(file, name)
        file.seek(0)
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a pickle is a program: on one made to fail, it may fail anyhow
        first_line = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{name} is truncated, damaged or not a checkpoint ({first_line})"
        ) from None
    if isinstance(state, dict):
        _refuse_other_content(state, name)
    missing = {"model", "iteration"} - (state.keys() if isinstance(state, dict) else set())
    if missing:
        raise ValueError(
            f"{name} is not a checkpoint: it does not contain {' and '.join(sorted(missing))}"
        )
    refuse_later_format(state, name)
    return state


def _refuse_other_content(state: State, name: str) -> None:
    """Raises ``ValueError`` if what every checkpoint has is of another kind than it should be."""
    import torch

    model, optimizer = state.get("model"), state.get("optimizer", {"state": {}})
    is_table = isinstance(model, dict) and all(
        isinstance(key, str) and isinstance(value, torch.Tensor) and value.layout == torch.strided
        for key, value in model.items()
    )
    iteration = state.get("iteration")
    is_number = isinstance(iteration, int) and not isinstance(iteration, bool)
    kinds = {
        "model": is_table,
        "iteration": is_number,
        "optimizer": isinstance(optimizer, dict) and isinstance(optimizer.get("state"), dict),
    }
    wrong = [key for key, is_good in kinds.items() if key in state and not is_good]
    if wrong:
        raise ValueError(f"{name} is not a checkpoint: its {wrong[0]} is not what it should be")


def _pickled_part(path: Path) -> None:
    """Raises ``ValueError`` if the part that holds no tensors is not as it was written."""
    try:
        with path.open("rb") as file:
            refuse_packed(file, str(path))
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith("data.pkl"):
                    archive.read(name)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise ValueError(str(error)) from None

"""Checkpoints: everything that training needs to go on, whole on the disk or not there.

A checkpoint is one ``torch.save`` archive of plain tensors and numbers::

    {"model": state_dict, "optimizer": state_dict, "iteration": int, ...}

It is loaded with ``weights_only=True``, so that a file from a stranger cannot run code. In a run
directory it also carries ``"progress"`` (see ``trainer``), and every tensor's CRC is checked before
it is believed: a truncated or altered file is refused by name.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

from cs336lm.files import atomic_write

if TYPE_CHECKING:
    import torch

State = dict[str, Any]


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
    ``OSError`` if the file cannot be read and ``ValueError`` if it is damaged or no checkpoint.
    """
    path = Path(path)
    if verify:
        _verify_archive(path)
    with path.open("rb") as file:
        return _load(file, str(path))


def _verify_archive(path: Path) -> None:
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
        raise ValueError(f"{path} is truncated, damaged or no checkpoint ({error})") from None
    if broken is not None:
        raise ValueError(f"{path} is damaged: the checksum of {broken!r} does not match")


def _load(file: IO[bytes], name: str) -> State:
    import torch

    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise ValueError(f"{name} is truncated, damaged or no checkpoint ({first_line})") from None
    if not isinstance(state, dict) or not {"model", "iteration"} <= state.keys():
        raise ValueError(f"{name} is no checkpoint: it lacks model or iteration")
    return state


def pack(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, iteration: int, **extra: Any
) -> State:
    """The content of a checkpoint; its tensors are the live ones, not copies."""
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "iteration": iteration,
        **extra,
    }


def snapshot(state: Any) -> Any:
    """A copy of ``state`` on the host, which training on leaves alone.

    A copy from a GPU is only under way when this returns: it goes to pinned memory, in order with
    the work before and after it. Synchronise before reading it.
    """
    import torch

    if isinstance(state, torch.Tensor):
        on_cuda = state.device.type == "cuda"
        copy = torch.empty_like(state, device="cpu", pin_memory=on_cuda, requires_grad=False)
        return copy.copy_(state.detach(), non_blocking=on_cuda)
    if isinstance(state, dict):
        return {key: snapshot(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(snapshot(value) for value in state)
    return state


class BackgroundWriter:
    """Runs one write at a time on a thread, so that training goes on meanwhile.

    The error of a write that failed is raised by the next call of any method but ``close``.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._writing: Future[None] | None = None

    def submit(self, write: Callable[[], None]) -> None:
        """Waits for the write before, then starts this one."""
        self.wait()
        self._writing = self._thread.submit(write)

    def raise_if_failed(self) -> None:
        """Raises the error of a write that is over; waits for none."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Returns once nothing is being written."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def close(self) -> None:
        """Lets a write that is under way end; its error, if nobody waited for it, is dropped."""
        self._thread.shutdown()


def unpack_model(state: State, model: torch.nn.Module, name: str) -> None:
    """Loads the weights. Raises ``ValueError`` if they are those of another model."""
    current = model.state_dict()
    weights = {key: _sliced_like(value, current.get(key)) for key, value in state["model"].items()}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reasons = [line.strip() for line in str(error).splitlines()[1:]]
        raise ValueError(f"{name} holds another model than this one: {reasons[0]}") from None


def unpack(
    state: State, model: torch.nn.Module, optimizer: torch.optim.Optimizer, name: str
) -> int:
    """Loads weights and optimizer state, and returns the iteration they are of."""
    if "optimizer" not in state:
        raise ValueError(f"{name} holds weights alone, nothing that training could go on from")
    unpack_model(state, model, name)
    saved = state["optimizer"]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    slices = {
        index: {key: _sliced_like(value, parameters[index]) for key, value in values.items()}
        for index, values in saved["state"].items()
        if index < len(parameters)
    }
    try:
        optimizer.load_state_dict({**saved, "state": slices})
    except (ValueError, KeyError) as error:
        raise ValueError(f"{name} holds another optimizer's state: {error}") from None
    return int(state["iteration"])


def _sliced_like(value: Any, like: Any) -> Any:
    """``value``, cut over the processes where ``like`` is the slice of a sharded tensor."""
    if not hasattr(like, "device_mesh") or not hasattr(value, "shape"):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def save_checkpoint(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    iteration: int,
    out: str | os.PathLike[str] | BinaryIO | IO[bytes],
) -> None:
    """Saves model, optimizer and iteration to a path (atomically) or an open binary file.

    CS336 assignment 1, section 5.2.
    """
    state = pack(model, optimizer, iteration)
    if isinstance(out, str | os.PathLike):
        write_state(state, Path(out))
    else:
        import torch

        torch.save(state, out)


def load_checkpoint(
    src: str | os.PathLike[str] | BinaryIO | IO[bytes],
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
) -> int:
    """Restores model and optimizer in place from a path or an open binary file.

    Returns the iteration. Raises ``OSError`` if the file cannot be read, ``ValueError`` if it is
    truncated, damaged, no checkpoint, or one of another model.
    """
    if isinstance(src, str | os.PathLike):
        return unpack(read_state(Path(src)), model, optimizer, str(src))
    name = str(getattr(src, "name", "the file given"))
    return unpack(_load(src, name), model, optimizer, name)

"""Checkpoints of sharded runs: each process writes its slices, any number of processes read them.

    step-00001000/    __0_0.distcp, __1_0.distcp, ..., .metadata    the slices
                      state.json                                    numbers; the files' checksums

``torch.distributed.checkpoint`` does the slicing. A directory appears whole or not at all, and one
whose files are not what ``state.json`` remembers is refused: their sizes whenever it is opened,
their CRC-32 where a run goes on. The format's ``.metadata`` is a pickle, see ``metadata.py``.
"""

from __future__ import annotations

import shutil
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor
from torch.distributed.tensor import zeros as distributed_zeros

from cs336lm.files import atomic_write, sync_directory
from cs336lm.json_files import is_sealed, parse_json, read_bounded, sealed
from cs336lm.training.checkpoints.metadata import SafeReader, refuse_path
from cs336lm.training.checkpoints.state import (
    State,
    describe,
    differences,
    distinct_weights,
    refuse_later_format,
    refuse_other_model,
)
from cs336lm.training.distributed import World

_NUMBERS = "state.json"


def save_sharded(
    path: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    numbers: dict[str, Any],
    world: World,
) -> None:
    """Writes model, optimizer and ``numbers`` (JSON) as ``path``; every process must call it."""
    beside = path.with_name(f".{path.name}.partial")
    if world.is_main:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
    world.barrier()
    # First the weights: asking for them puts gathered layers back into the slices that the
    # optimizer knows.
    weights = _flat(model)
    tensors, plain = _optimizer_state(model, optimizer)
    save(
        weights | tensors,
        storage_writer=FileSystemWriter(beside, sync_files=True),
        no_dist=world.size == 1,
    )
    world.barrier()
    if world.is_main:
        files = sorted(beside.iterdir())
        sums = {
            "sizes": {file.name: file.stat().st_size for file in files},
            "crc32": {file.name: _crc32(file) for file in files},
        }
        with atomic_write(beside / _NUMBERS) as file:
            file.write(sealed({**describe(model), **numbers, "optimizer": plain, **sums}))
        shutil.rmtree(path, ignore_errors=True)
        beside.rename(path)
        sync_directory(path.parent)
    world.barrier()


def load_sharded(
    path: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    loads_optimizer: Callable[[State], bool] = lambda _: True,
) -> dict[str, Any]:
    """Loads model and optimizer in place, however they are sharded now, and returns the numbers.

    Of those ``loads_optimizer`` is asked first, as in ``RunDirectory.restore``. Raises
    ``ValueError``, naming ``path``, if it is damaged, and ``Mismatch`` if it is of another model.
    """
    numbers = _read_numbers(path)
    refuse_later_format(numbers, str(path))
    wanted = _flat(model)
    refuse_other_model(numbers, _differences(path, wanted), model, str(path))
    if optimizer is not None and loads_optimizer(numbers):
        sizes = _sizes(path)
        wanted |= _make_optimizer_state(model, optimizer, numbers["optimizer"], sizes)
    alone = not torch.distributed.is_initialized()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            load(wanted, storage_reader=SafeReader(path), no_dist=alone)
    except Exception as error:  # whatever reading, unpickling and planning may raise
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{path} is damaged ({reason})") from None
    return numbers


def _differences(path: Path, wanted: dict[str, Any]) -> list[str]:
    """How the saved weights differ from those wanted, in keys and shapes."""
    prefix = "model."
    shapes = {
        name.removeprefix(prefix): size
        for name, size in _sizes(path).items()
        if name.startswith(prefix)
    }
    return differences(shapes, {name.removeprefix(prefix): t.shape for name, t in wanted.items()})


def _sizes(path: Path) -> dict[str, torch.Size]:
    """The whole shape of every tensor saved."""
    try:
        saved = SafeReader(path).read_metadata().state_dict_metadata
    except Exception as error:  # whatever unpickling may raise
        raise ValueError(f"{path} is damaged: .metadata cannot be read ({error})") from None
    return {name: torch.Size(getattr(entry, "size", ())) for name, entry in saved.items()}


def _read_numbers(path: Path) -> dict[str, Any]:
    try:
        content = read_bounded(path / _NUMBERS)
        numbers: dict[str, Any] = parse_json(content)
        if "crc32" in numbers and not is_sealed(content):
            raise ValueError(f"{_NUMBERS} has lost its checksum")
        for name in numbers["sizes"]:
            refuse_path(name)
        sizes = {name: (path / name).stat().st_size for name in numbers["sizes"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged or not a checkpoint ({error})") from None
    for name, size in sizes.items():
        if size != numbers["sizes"][name]:
            raise ValueError(
                f"{path} is damaged: {name} does not have the size it was written with"
            )
    return numbers


def verify_sharded(path: Path) -> bool:
    """Reads a checkpoint's files through; returns whether their checksums are known.

    Raises ``ValueError``, naming ``path``, if a file is not as it was written.
    """
    numbers = _read_numbers(path)
    for name, crc in numbers.get("crc32", {}).items():
        if _crc32(path / name) != crc:
            raise ValueError(f"{path} is damaged: the checksum of {name} does not match")
    return "crc32" in numbers


def _crc32(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            crc = zlib.crc32(block, crc)
    return crc


def _flat(model: torch.nn.Module) -> dict[str, Any]:
    return {f"model.{name}": tensor for name, tensor in distinct_weights(model).items()}


def _optimizer_state(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """What the optimizer remembers of each parameter by name: tensors, and plain numbers."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        plain[name] = {}
        for key, value in optimizer.state[parameter].items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{name}.{key}"] = value
                plain[name][key] = None  # found among the tensors
            else:
                plain[name][key] = value
    return tensors, plain


def _make_optimizer_state(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    plain: dict[str, dict[str, Any]],
    sizes: dict[str, torch.Size],
) -> dict[str, Tensor]:
    """Gives the optimizer state of the shape that ``plain`` describes; returns its tensors."""
    tensors = {}
    for name, parameter in model.named_parameters():
        state = dict(plain.get(name, {}))
        for key, value in state.items():
            if value is None:
                full_name = f"optimizer.{name}.{key}"
                state[key] = tensors[full_name] = _zeros(parameter, sizes[full_name])
        optimizer.state[parameter] = state
    return tensors


def _zeros(parameter: Tensor, size: torch.Size) -> Tensor:
    """Zeros of a whole shape ``size``, sharded by rows if the parameter is."""
    if size == parameter.shape:
        return torch.zeros_like(parameter)
    if isinstance(parameter, DTensor):
        return distributed_zeros(
            size,
            dtype=parameter.dtype,
            device_mesh=parameter.device_mesh,
            placements=parameter.placements,
        )
    return parameter.new_zeros(size)

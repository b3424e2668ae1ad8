"""What a run computes on: the device, and the precision of its matrix products."""

from __future__ import annotations

import ctypes

import torch

from cs336lm.errors import UsageError
from cs336lm.model.processor import multiplies_bfloat16

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device that ``train.device`` names; ``auto`` is cuda, else mps, else cpu.

    ``cuda`` is the GPU with the number of this process on its machine, ``local_rank``.

    Raises ``UsageError`` if this machine does not have it.
    """
    available = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": torch.mps.device_count()}
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if available[kind])
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(
            f"train.device={name!r} must be one of auto, cpu, cuda, cuda:N, mps"
        ) from None
    if name == "cuda":
        device = torch.device("cuda", local_rank)
    if (device.index or 0) >= available.get(device.type, 0):
        raise UsageError(f"train.device={name!r}: this machine has no such device for PyTorch")
    return device


def choose_dtype(name: str, device: torch.device, width: int = 0) -> torch.dtype:
    """The precision of matrix products; ``auto`` is what the device is fastest in, safely.

    ``width`` is the model's ``d_model``, for a model that is trained or measured. (Without it
    ``auto`` is float32 on a CPU: one token at a time, there is little to multiply.)
    """
    if name != "auto":
        return _DTYPES[name]
    if multiplies_bfloat16(device, width):
        return torch.bfloat16
    return torch.float16 if device.type == "cuda" else torch.float32


def keep_freed_memory() -> None:
    """Lets the process keep the memory that a step frees, for the next step to use.

    By default glibc gives large blocks back to the system, which then maps and clears every page of
    them anew, step after step. This is for programs whose steps are alike; elsewhere than on glibc
    it does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    trim_threshold, mmap_max = -1, -4  # their numbers in malloc.h
    mallopt(trim_threshold, -1)  # never give back the heap's end
    mallopt(mmap_max, 0)  # take no block from outside the heap

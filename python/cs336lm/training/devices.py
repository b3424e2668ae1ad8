"""What a run computes on: the device, the precision of its matrix products, and how time passes.

A GPU works behind the host's back: a clock read on the host says when work was *asked for*. A
``Mark`` is a moment on the device's own timeline, and setting one waits for nothing.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from cs336lm.errors import UsageError

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
        raise UsageError(f"train.device={name!r} is none of auto, cpu, cuda, cuda:N, mps") from None
    if name == "cuda":
        device = torch.device("cuda", local_rank)
    if (device.index or 0) >= available.get(device.type, 0):
        raise UsageError(f"train.device={name!r}: this machine has no such device for PyTorch")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The precision of matrix products; ``auto`` is what the device is fastest in, safely."""
    if name != "auto":
        return _DTYPES[name]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


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


class Mark:
    """A moment on the device's timeline."""

    def __init__(self, device: torch.device) -> None:
        self._event: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True)
            self._event.record()
        self._host_time = time.perf_counter()

    def wait(self) -> None:
        """Blocks the host until the device has come here."""
        if self._event is not None:
            self._event.synchronize()

    def seconds_since(self, earlier: Mark) -> float:
        """Time the device took from ``earlier`` to here; both must have been waited for."""
        if self._event is not None and earlier._event is not None:
            return earlier._event.elapsed_time(self._event) / 1000
        return self._host_time - earlier._host_time


class LateValues:
    """Scalars under way from the device to the host: asked for now, read when they are there."""

    def __init__(self, values: Sequence[Tensor]) -> None:
        stacked = torch.stack([value.detach().float() for value in values])
        self._host = stacked
        if stacked.device.type == "cuda":
            self._host = torch.empty(len(values), pin_memory=True)
            self._host.copy_(stacked, non_blocking=True)
        self.mark = Mark(stacked.device)

    def read(self) -> list[float]:
        """The values; waits for the device if it is not that far."""
        self.mark.wait()
        return self._host.tolist()

"""Time and scalars from a device that works asynchronously, without waiting for it.

A GPU runs behind the host: a clock read on the host says when work was *queued*, not when it was
done, and reading a value waits for everything before it. A ``DeviceEvent`` is a moment on the
device's own timeline; ``PendingScalars`` are values whose copy to the host is queued now and read
later, when they are there. On a CPU both are immediate.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor


class DeviceEvent:
    """The moment at which the device has done all that was queued before; recording it is free."""

    def __init__(self, device: torch.device) -> None:
        self._event: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True)
            self._event.record()
        self._host_time = time.perf_counter()

    def wait(self) -> None:
        """Blocks the host until the device has reached this event."""
        if self._event is not None:
            self._event.synchronize()

    def seconds_since(self, earlier: DeviceEvent) -> float:
        """Seconds on the device from ``earlier`` to here; wait for both events first."""
        if self._event is not None and earlier._event is not None:
            return earlier._event.elapsed_time(self._event) / 1000
        return self._host_time - earlier._host_time


class PendingScalars:
    """Scalar tensors on their way to the host: the copy is queued now and read later.

    ``copied`` is the event at which they have arrived.
    """

    def __init__(self, values: Sequence[Tensor]) -> None:
        stacked = torch.stack([value.detach().float() for value in values])
        self._host = stacked
        if stacked.device.type == "cuda":
            self._host = torch.empty(len(values), pin_memory=True)
            self._host.copy_(stacked, non_blocking=True)
        self.copied = DeviceEvent(stacked.device)

    def read(self) -> list[float]:
        """The values; waits for the device if the copy has not been done yet."""
        self.copied.wait()
        return self._host.tolist()

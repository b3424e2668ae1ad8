"""Work for a GPU launched at once, and values that come back without holding it up.

A step of decoding is a hundred small kernels, and to launch one from Python takes longer than to
run it. As none of them depends on anything that the host knows, they can be recorded as a graph and
launched together. On a CPU both are what they would be without this file.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Recording:
    """Calls of one function without arguments: from the second on, a recording of what it launches.

    The function must read and write tensors that stay where they are, and ask none for its values;
    what it returns is overwritten by the next call. ``generator`` is the one that it draws from.
    """

    def __init__(self, device: torch.device, generator: torch.Generator) -> None:
        self._device = device
        self._is_possible = device.type == "cuda"
        self._generator = generator
        self._is_warm = False
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: Tensor | None = None

    def __call__(self, function: Callable[[], Tensor]) -> Tensor:
        """The function's result."""
        if not self._is_possible:
            return function()
        with torch.cuda.device(self._device):
            # The first call is where compilers do their work, which cannot be recorded.
            if not self._is_warm:
                self._is_warm = True
                return function()
            if self._graph is None:
                self._graph, self._result = self._record(function)
            self._graph.replay()
        assert self._result is not None
        return self._result

    def _record(self, function: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        # As ``torch.cuda.graph`` does it, without its collection of garbage, which takes longer
        # than a short text.
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        current, apart = torch.cuda.current_stream(), torch.cuda.Stream()
        apart.wait_stream(current)
        with torch.cuda.stream(apart):
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                result = function()
            finally:
                graph.capture_end()
        current.wait_stream(apart)
        return graph, result


class Arriving:
    """A tensor's values on their way to the host; later work on the device does not delay them."""

    def __init__(self, values: Tensor) -> None:
        self._values = values
        self._arrived: torch.cuda.Event | None = None
        if values.device.type == "cuda":
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def tolist(self) -> list[int]:
        """The values; waits for them."""
        if self._arrived is not None:
            self._arrived.synchronize()
        values: list[int] = self._values.tolist()
        return values

"""From a row of token ids to the batches a model trains on.

Which windows a step trains on is a *pure function* of ``(seed, step)``, see ``sampling``: so there
is no sampler state to save, any step can be replayed, and a rank of a distributed run takes its
rows of the same global batch.

PyTorch is imported where tensors are made: who only opens and checks a file does without.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cs336lm.data.dataset import TokenDataset, windows_of
from cs336lm.data.mixture import TokenMixture
from cs336lm.data.sampling import WindowPlan, make_plan

if TYPE_CHECKING:
    import torch
    from jaxtyping import Int64
    from torch import Tensor

_READ_AHEAD = 4  # batches


def gather_windows(
    tokens: npt.NDArray[Any] | TokenDataset | TokenMixture,
    starts: Sequence[int] | npt.NDArray[Any],
    context_length: int,
    device: str | torch.device = "cpu",
) -> tuple[Int64[Tensor, "batch context"], Int64[Tensor, "batch context"]]:
    """The windows that begin at ``starts``, and for each position the id that follows it.

    The windows are gathered by one indexing operation, which leaves Python's lock to others. On
    CUDA the copy goes from pinned memory and does not wait for the device.
    """
    import torch

    device = torch.device(device)
    on_cuda = device.type == "cuda"
    rows = torch.empty((2, len(starts), context_length), dtype=torch.int64, pin_memory=on_cuda)
    x, y = rows.numpy()
    chosen, length = np.asarray(starts), context_length + 1
    if isinstance(tokens, TokenDataset | TokenMixture):
        windows = tokens.windows(chosen, length)
    else:
        windows = windows_of(tokens, chosen, length)
    x[:], y[:] = windows[:, :-1], windows[:, 1:]
    moved = rows.to(device, non_blocking=on_cuda)
    return moved[0], moved[1]


def get_batch(
    dataset: npt.NDArray[Any] | TokenDataset,
    batch_size: int,
    context_length: int,
    device: str | torch.device,
) -> tuple[Int64[Tensor, "batch context"], Int64[Tensor, "batch context"]]:
    """``batch_size`` windows drawn uniformly by PyTorch's global generator, and their next ids.

    ``dataset`` is any one-dimensional array of ids, in memory or mapped. (CS336 assignment 1,
    section 5.1.) Raises ``ValueError`` if it is too short for one window.

    Examples:
        >>> x, y = get_batch(np.arange(100), batch_size=4, context_length=8, device="cpu")
        >>> x.shape
        torch.Size([4, 8])
        >>> bool((y == x + 1).all())
        True
    """
    import torch

    choices = len(dataset) - context_length
    if choices < 1:
        raise ValueError(
            f"the dataset holds {len(dataset)} tokens, too few for a context_length of "
            f"{context_length}: at least {context_length + 1} are needed"
        )
    starts = torch.randint(choices, (batch_size,)).numpy()
    return gather_windows(dataset, starts, context_length, device)


class BatchLoader:
    """Batches as a pure function of ``(seed, step)``, gathered ahead of the model on a thread.

    ``batch_size`` counts the windows of one step over all ranks; rank r of n gets the r-th n-th of
    them, so that the step sees the same tokens on any number of ranks. ``plan`` says which windows
    those are, by default any, equally likely; it belongs to ``dataset`` and ``context_length``.
    """

    def __init__(
        self,
        dataset: TokenDataset | TokenMixture | npt.NDArray[Any],
        batch_size: int,
        context_length: int,
        *,
        seed: int,
        device: str | torch.device = "cpu",
        rank: int = 0,
        world_size: int = 1,
        plan: WindowPlan | None = None,
    ) -> None:
        import torch

        if batch_size % world_size:
            raise ValueError(f"data.batch_size={batch_size} does not divide by {world_size} ranks")
        self.dataset = dataset
        self.batch_size = batch_size
        self.context_length = context_length
        self.seed = seed
        self.plan = plan or make_plan(dataset, context_length, seed=seed)
        self.device = torch.device(device)
        share = batch_size // world_size
        self._rows = slice(rank * share, (rank + 1) * share)
        self._copy_stream: Any = None  # made by the reading thread, on CUDA

    def starts(self, step: int) -> npt.NDArray[Any]:
        """Where the windows of ``step`` begin, for all ranks: shape (batch_size,)."""
        return self.plan.starts(step, self.batch_size)

    def batch(
        self, step: int
    ) -> tuple[Int64[Tensor, "batch context"], Int64[Tensor, "batch context"]]:
        """This rank's windows of ``step`` and their next ids, gathered now."""
        starts = self.starts(step)[self._rows]
        return gather_windows(self.dataset, starts, self.context_length, self.device)

    def iterate(
        self, steps: range
    ) -> Generator[tuple[Int64[Tensor, "batch context"], Int64[Tensor, "batch context"]]]:
        """The batches of ``steps`` in order, the next few always under way on a thread."""
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
            upcoming = (thread.submit(self._copy_aside, step) for step in steps)
            ahead = deque(islice(upcoming, _READ_AHEAD))
            try:
                while ahead:
                    x, y, copied = ahead.popleft().result()
                    ahead.extend(islice(upcoming, 1))
                    yield _wait_for(x, y, copied)
            finally:
                for future in ahead:
                    future.cancel()

    def _copy_aside(self, step: int) -> tuple[Tensor, Tensor, Any]:
        """A batch whose copy to a GPU runs on a stream of its own, and the event of its end."""
        import torch

        if self.device.type != "cuda":
            return *self.batch(step), None
        if self._copy_stream is None:
            self._copy_stream = torch.cuda.Stream(self.device)
        with torch.cuda.stream(self._copy_stream):
            x, y = self.batch(step)
            copied = torch.cuda.Event()
            copied.record()
        return x, y, copied


def _wait_for(x: Tensor, y: Tensor, copied: Any) -> tuple[Tensor, Tensor]:
    """Lets the current stream, not the host, wait for the copy."""
    import torch

    if copied is not None:
        stream = torch.cuda.current_stream(x.device)
        stream.wait_event(copied)
        x.record_stream(stream)
        y.record_stream(stream)
    return x, y

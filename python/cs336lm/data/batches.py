"""From a file of token ids to the batches a model trains on.

A token file is one long ``.npy`` row of uint16 or uint32, or a set of shards that make one row,
memory-mapped: a terabyte opens at once and only what is read is loaded. Which windows a step
trains on is a *pure function* of ``(seed, step)``: the raw output of a Philox counter generator
(Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011), so there is no sampler state
to save, any step can be replayed, and a rank of a distributed run takes its rows of the same
global batch.

NumPy is all that opening and checking a file needs; PyTorch is imported where tensors are made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from cs336lm.data.token_files import TokenArray, open_token_files

if TYPE_CHECKING:
    import torch
    from jaxtyping import Int64
    from torch import Tensor

_SCAN_TOKENS = 1 << 22  # 8 or 16 MB a read: the check of a huge file stays out of memory
_READ_AHEAD = 4  # batches


class TokenDataset:
    """A row of token ids in files: one ``.npy``, or shards that follow each other.

    Args:
        path: ``tokens.npy``. Where the array was written in shards (``tokens-00000.npy``, ...),
            that name, ``tokens``, or the sidecar ``tokens.json`` stands for all of them.

    Slicing gives NumPy arrays of the files' own dtype, without copying unless a slice crosses from
    one shard into the next. Raises ``OSError`` if a file cannot be opened and ``ValueError`` if it
    holds anything but a row of uint16 or uint32, or not what the sidecar says.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.shards, self.sidecar = open_token_files(self.path)
        # Where each shard begins in the row, and where the last one ends.
        self._starts = np.cumsum([0, *map(len, self.shards)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: slice) -> TokenArray:
        if len(self.shards) == 1:
            return self.shards[0][index]
        start, stop, step = index.indices(len(self))
        if step != 1:
            raise ValueError("a set of shards gives slices without a step")
        first, last = self._starts[:-1], self._starts[1:]
        parts: list[Any] = [
            self.shards[shard][max(start - first[shard], 0) : stop - first[shard]]
            for shard in np.flatnonzero((first < stop) & (start < last))
        ]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else self.shards[0][:0]

    def windows(self, starts: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
        """``length`` tokens from each of ``starts`` on: (starts, length), a copy."""
        if len(self.shards) == 1:
            return _windows(self.shards[0], starts, length)
        starts = starts.astype(np.int64)
        rows = np.empty((len(starts), length), self.dtype)
        home = np.searchsorted(self._starts, starts, side="right") - 1
        inside = starts + length <= self._starts[home + 1]
        for shard in np.unique(home[inside]):
            chosen = inside & (home == shard)
            rows[chosen] = _windows(
                self.shards[shard], starts[chosen] - self._starts[shard], length
            )
        for row in np.flatnonzero(~inside):
            rows[row] = self[starts[row] : starts[row] + length]
        return rows

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint16 or uint32."""
        return self.shards[0].dtype

    def max_id(self) -> int:
        """The largest id, by one pass over the whole file; -1 if it is empty."""
        return max((int(block.max()) for _, block in self._blocks()), default=-1)

    def check_ids(self, vocab_size: int) -> None:
        """Raises ``ValueError`` at the first id that a vocabulary of ``vocab_size`` lacks."""
        if vocab_size > np.iinfo(self.dtype).max:
            return  # no value of this dtype can be too large
        for start, block in self._blocks():
            if int(block.max()) >= vocab_size:
                at = int(np.argmax(block >= vocab_size))
                raise ValueError(
                    f"{self.path}: the id {block[at]} at position {start + at} is outside a "
                    f"vocabulary of {vocab_size}; was the file made with another tokenizer? "
                    f"(model.vocab_size must be above the largest id)"
                )

    def check_tokenizer(self, fingerprint: str, tokenizer_path: str | Path) -> None:
        """Raises ``ValueError`` if the sidecar says that another tokenizer made this file."""
        made_by = (self.sidecar or {}).get("tokenizer_sha256")
        if made_by is not None and made_by != fingerprint:
            raise ValueError(
                f"{self.path} was made with another tokenizer than {tokenizer_path} (SHA-256 "
                f"{made_by[:12]}..., not {fingerprint[:12]}...); tokenize the text with this one"
            )

    def check_length(self, context_length: int) -> None:
        """Raises ``ValueError`` if the file is too short for one window and its targets."""
        if len(self) <= context_length:
            raise ValueError(
                f"{self.path} holds {len(self)} tokens, too few for a context_length of "
                f"{context_length}: at least {context_length + 1} are needed"
            )

    def _blocks(self) -> Iterator[tuple[int, TokenArray]]:
        for start in range(0, len(self), _SCAN_TOKENS):
            yield start, self[start : start + _SCAN_TOKENS]


def _windows(array: npt.NDArray[Any], starts: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    return sliding_window_view(array, length)[starts]


def gather_windows(
    tokens: npt.NDArray[Any] | TokenDataset,
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
    if isinstance(tokens, TokenDataset):
        windows = tokens.windows(chosen, length)
    else:
        windows = _windows(tokens, chosen, length)
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
    them, so that the step sees the same tokens on any number of ranks.
    """

    def __init__(
        self,
        dataset: TokenDataset | npt.NDArray[Any],
        batch_size: int,
        context_length: int,
        *,
        seed: int,
        device: str | torch.device = "cpu",
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        import torch

        if batch_size % world_size:
            raise ValueError(f"data.batch_size={batch_size} does not divide by {world_size} ranks")
        self.dataset = dataset
        self.batch_size = batch_size
        self.context_length = context_length
        self.seed = seed
        self.device = torch.device(device)
        share = batch_size // world_size
        self._rows = slice(rank * share, (rank + 1) * share)
        self._copy_stream: Any = None  # made by the reading thread, on CUDA

    def starts(self, step: int) -> npt.NDArray[np.uint64]:
        """Where the windows of ``step`` begin, for all ranks: shape (batch_size,)."""
        # The step sits in the counter's upper half: no two steps ever share a number. Raw output
        # taken modulo is stable over NumPy's versions; its bias is below choices / 2^64.
        generator = np.random.Philox(key=self.seed, counter=[0, 0, step, 0])
        choices = len(self.dataset) - self.context_length
        return generator.random_raw(self.batch_size) % np.uint64(choices)

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


def validation_starts(
    num_tokens: int, batch_size: int, num_batches: int, context_length: int
) -> npt.NDArray[np.int64]:
    """The fixed windows of every validation, spread evenly over the file: (batches, batch_size).

    As many whole batches as the file has windows side by side, at most ``num_batches``; a file too
    short for one batch of them gives one of overlapping windows, so that shapes never change.
    """
    apart = (num_tokens - 1) // context_length
    count = batch_size * min(max(apart // batch_size, 1), num_batches)
    last = num_tokens - 1 - context_length
    starts = np.arange(count, dtype=np.int64) * last // max(count - 1, 1)
    return starts.reshape(-1, batch_size)

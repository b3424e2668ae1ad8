"""Keys and values of running sequences: a cache for all of like length, rows in use first.

A sequence lives in the pool whose capacity is the next above its window's length, and moves to the
next larger one when it has outgrown it. So attention looks at few unused slots, memory follows what
sequences need, and how many slots a sequence is padded to, hence every bit of its logits, is its
own affair. Whoever leaves is replaced by the last: rows 0 to n - 1 are in use, and a slice is all
that attention takes.
"""

from collections.abc import Callable
from collections.abc import Sequence as Several

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cs336lm.generation.batching.sequence import Sequence
from cs336lm.model.config import ModelConfig
from cs336lm.model.kv_cache import KVCache


class Pool:
    """Sequences of at most ``capacity`` tokens in their windows.

    ``make_cache(rows, capacity)`` makes the memory, for ``row_steps[0]`` rows at first; the next of
    these steps follows when they are full, the one before when it would leave some free.
    """

    def __init__(
        self,
        capacity: int,
        make_cache: Callable[[int, int], KVCache],
        row_steps: Several[int],
    ) -> None:
        self.capacity = capacity
        self.sequences: list[Sequence] = []
        self._make_cache = make_cache
        self._row_steps = row_steps
        self._step = 0
        self.cache = make_cache(row_steps[0], capacity)
        self.token_ids = np.zeros(row_steps[0], dtype=np.int64)
        """Each row's last token, which has not been read yet."""
        self.positions = np.zeros(row_steps[0], dtype=np.int64)
        """Where in its window that token belongs."""

    def __len__(self) -> int:
        return len(self.sequences)

    def add(self, sequence: Sequence, read: Float[Tensor, "2 layers kv_heads span d_head"]) -> None:
        """Takes in a sequence, whose last token is the one after those that have been read."""
        row, span = len(self.sequences), read.shape[3]
        if row == self.cache.batch_size:
            self._resize(self._step + 1)
        self.cache.tensor[:, :, row, :, :span] = read
        # What another has left there may be NaN, which no weight of 0 makes 0.
        self.cache.tensor[:, :, row, :, span:] = 0
        self.sequences.append(sequence)
        self.token_ids[row], self.positions[row] = sequence.ids[-1], span
        sequence.capacity, sequence.row = self.capacity, row

    def remove(self, sequence: Sequence) -> None:
        """Gives its row to the last."""
        row, last = sequence.row, len(self.sequences) - 1
        if row != last:
            moved = self.sequences[row] = self.sequences[last]
            moved.row = row
            self.cache.tensor[:, :, row] = self.cache.tensor[:, :, last]
            self.token_ids[row] = self.token_ids[last]
            self.positions[row] = self.positions[last]
        self.sequences.pop()
        sequence.capacity = None
        # Not at once: who leaves may be followed by another.
        if self._step and last <= self._row_steps[self._step - 1] - self._row_steps[0] // 2:
            self._resize(self._step - 1)

    def read_of(self, sequence: Sequence) -> Float[Tensor, "2 layers kv_heads span d_head"]:
        """The keys and values of the tokens that one of these sequences has read."""
        span = int(self.positions[sequence.row])
        return self.cache.tensor[:, :, sequence.row, :, :span]

    def outgrown(self) -> list[Sequence]:
        """Those whose last token has no slot here."""
        full = np.flatnonzero(self.positions[: len(self)] >= self.capacity)
        return [self.sequences[row] for row in full]

    def _resize(self, step: int) -> None:
        self._step, rows = step, self._row_steps[step]
        used = len(self.sequences)
        cache = self._make_cache(rows, self.capacity)
        cache.tensor[:, :, :used] = self.cache.tensor[:, :, :used]
        self.cache = cache
        self.token_ids = np.resize(self.token_ids, rows)
        self.positions = np.resize(self.positions, rows)

    @property
    def bytes(self) -> int:
        """What its keys and values take."""
        return self.cache.tensor.nbytes


def cache_maker(
    config: ModelConfig, device: torch.device, dtype: torch.dtype
) -> Callable[[int, int], KVCache]:
    """What :class:`Pool` makes its memory with."""

    def make(rows: int, capacity: int) -> KVCache:
        return KVCache(config, rows, capacity, device, dtype)

    return make

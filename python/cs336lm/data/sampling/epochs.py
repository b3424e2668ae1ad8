"""Each window once an epoch: nothing is seen twice before everything has been seen once.

The windows of an epoch stand side by side, so that each token is predicted at most once. If the
file does not divide into windows, up to ``context_length - 1`` tokens are left over; the epoch's
random numbers decide how many of them are skipped at the beginning and how many at the end. So
later epochs cut the text at other places, and yet every epoch has as many windows as there can be,
which a larger shift would cost.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cs336lm.data.sampling.permutation import ShuffledEpochs
from cs336lm.data.sampling.sampler import Sampler, Source

_SHIFT_KEY = 6  # those before it choose the permutation


class EpochSampler(Sampler):
    """Windows side by side, shuffled anew each epoch in constant memory."""

    def __init__(
        self, tokens: int, context_length: int, seed: int, part: int = 0, name: str = "data"
    ) -> None:
        self._name = name
        self._context_length = context_length
        self.windows_per_epoch, self._left_over = divmod(tokens - 1, context_length)
        self._epochs = ShuffledEpochs(self.windows_per_epoch, seed, part)

    @classmethod
    def from_source(cls, source: Source) -> Self:
        """Any file that holds one window will do."""
        name = str(getattr(source.dataset, "path", "data"))
        return cls(len(source.dataset), source.context_length, source.seed, source.part, name)

    def starts(
        self, rows: npt.NDArray[np.int64], numbers: npt.NDArray[np.uint64]
    ) -> npt.NDArray[Any]:
        """Places in the epochs' orders, times the length of a window."""
        starts = self._epochs.things(rows) * self._context_length
        epochs = rows // self._epochs.size
        for epoch in np.unique(epochs):
            starts[epochs == epoch] += self._shift(int(epoch))
        return starts

    def remarks(self) -> list[str]:
        """How long an epoch is."""
        return [f"{self._name}: {self.windows_per_epoch:,} windows an epoch"]

    def _shift(self, epoch: int) -> int:
        """How many tokens an epoch skips at the beginning of the file."""
        return int(self._epochs.keys(epoch, _SHIFT_KEY + 1)[_SHIFT_KEY]) % (self._left_over + 1)

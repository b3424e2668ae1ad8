"""Several token files as one row, for batches that are mixed from them by weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cs336lm.data.dataset import TokenDataset


class TokenMixture:
    """Token files one after the other; ``weights`` are the shares of training each is to have.

    Positions count through all files. A window lies within one of them: which, is the samplers'
    concern. Nothing is copied or opened a second time.
    """

    def __init__(self, parts: Sequence[TokenDataset], weights: Sequence[float]) -> None:
        total = float(sum(weights))
        self.parts = tuple(parts)
        self.weights = tuple(weight / total for weight in weights)
        self.begins = np.cumsum([0, *map(len, parts)])
        """Where each file begins, and where the last one ends."""

    def __len__(self) -> int:
        return int(self.begins[-1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint16, or uint32 if any file is."""
        return np.result_type(*(part.dtype for part in self.parts))

    def windows(self, starts: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
        """``length`` tokens from each of ``starts`` on: (starts, length), a copy."""
        starts = np.asarray(starts).astype(np.int64)
        rows = np.empty((len(starts), length), self.dtype)
        home = np.searchsorted(self.begins, starts, side="right") - 1
        for part in np.unique(home):
            chosen = home == part
            rows[chosen] = self.parts[part].windows(starts[chosen] - self.begins[part], length)
        return rows

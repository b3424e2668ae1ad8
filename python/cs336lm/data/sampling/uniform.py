"""Every window equally likely, each drawn by itself: what ``get_batch`` does."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cs336lm.data.sampling.sampler import Sampler, Source


class UniformSampler(Sampler):
    """Windows may begin anywhere, overlap and come again.

    After as many tokens as the file has, a share of about 1/e of them has not been seen.
    """

    def __init__(self, choices: int) -> None:
        self._choices = np.uint64(choices)

    @classmethod
    def from_source(cls, source: Source) -> Self:
        """Any file that holds one window will do."""
        return cls(len(source.dataset) - source.context_length)

    def starts(
        self, rows: npt.NDArray[np.int64], numbers: npt.NDArray[np.uint64]
    ) -> npt.NDArray[Any]:
        """The numbers modulo the windows; the bias of that is below windows / 2^64."""
        return numbers % self._choices

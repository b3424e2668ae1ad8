"""What a way of sampling is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cs336lm.data.dataset import TokenDataset


@dataclass(frozen=True)
class Source:
    """One token file to sample from, and what decides how."""

    dataset: TokenDataset | npt.NDArray[Any]
    context_length: int
    seed: int
    part: int = 0
    """Which of the files of a run this is: none has the same order as another."""
    document_token: int | None = None
    """The id that ends a document, for those who need to know."""


class Sampler(ABC):
    """Where the windows of one token file begin; it changes nothing in itself when asked.

    A window is ``context_length`` tokens and the one after them.
    """

    windows_per_epoch: int | None = None
    """After how many windows each has been drawn; None if there is no such number."""

    @classmethod
    @abstractmethod
    def from_source(cls, source: Source) -> Self:
        """The sampler of a file. Raises ``ValueError`` if it cannot be sampled like this."""

    @abstractmethod
    def starts(
        self, rows: npt.NDArray[np.int64], numbers: npt.NDArray[np.uint64]
    ) -> npt.NDArray[Any]:
        """Where windows begin: an integer for each of ``rows``.

        Args:
            rows: which windows of this file: 0 is the first one of a run, 1 the next, ...
            numbers: for each a random number of 64 bits, which depends on the seed, the step and
                the place in the batch.
        """

    def remarks(self) -> list[str]:
        """What a user should know of what is left out or seen again, a line each."""
        return []

"""Loss by position: how much each further token of context helps.

A token at position p is predicted from the p tokens before it in its window. The loss at position 1
is near the entropy of a token by itself, and falls as the context grows; where it is flat, a longer
context brings nothing, or the model makes nothing of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cs336lm.evaluation.token_losses import TokenLosses


@dataclass(frozen=True)
class PositionBin:
    """The mean loss at the positions from ``first`` to ``last``."""

    first: int
    last: int
    loss: float
    """Nats per token."""
    standard_error: float | None
    """Of that mean, as if the tokens were independent; None if there is only one."""
    tokens: int


@dataclass(frozen=True)
class PositionLosses:
    """Sums over the tokens at each position, which is counted from 1: index 0 is position 1."""

    nats: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]

    @classmethod
    def empty(cls, context_length: int) -> PositionLosses:
        """Nothing measured yet, for positions 1 to ``context_length``."""
        return cls(
            np.zeros(context_length), np.zeros(context_length), np.zeros(context_length, np.int64)
        )

    def add(self, losses: TokenLosses) -> None:
        """Counts some tokens."""
        at, size = losses.positions - 1, len(self.tokens)
        self.nats[:] += np.bincount(at, losses.nats, minlength=size)
        self.squares[:] += np.bincount(at, losses.nats**2, minlength=size)
        self.tokens[:] += np.bincount(at, minlength=size)

    def bins(self) -> list[PositionBin]:
        """The positions 1, 2, 3-4, 5-8, 9-16, ... up to the context length.

        Positions at which no token was measured are left out.
        """
        found, first, size = [], 1, len(self.tokens)
        while first <= size:
            last = min(1 << (first - 1).bit_length(), size)
            if count := int(self.tokens[first - 1 : last].sum()):
                found.append(self._bin(first, last, count))
            first = last + 1
        return found

    def _bin(self, first: int, last: int, count: int) -> PositionBin:
        chosen = slice(first - 1, last)
        mean = float(self.nats[chosen].sum()) / count
        error = None
        if count > 1:
            spread = max(float(self.squares[chosen].sum()) / count - mean**2, 0.0)
            error = math.sqrt(spread / (count - 1))
        return PositionBin(first, last, mean, error, count)

    def as_json(self) -> list[dict[str, Any]]:
        """Each position that was measured: its loss and how many tokens it is the mean of."""
        return [
            {"position": int(at) + 1, "loss": self.nats[at] / self.tokens[at], "tokens": int(n)}
            for at in np.flatnonzero(self.tokens)
            if (n := self.tokens[at])
        ]

"""The numbers below n in a random order, without a table of them.

A Feistel network (Luby and Rackoff 1988) permutes the numbers of an even count of bits, whatever
its round function; where it leads out of the range, it is applied again until it does not ("cycle
walking", Black and Rogaway 2002, *Ciphers with arbitrary finite domains*). The domain is less than
four times the range, so that takes fewer than four applications on average.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_ROUNDS = 6
_EPOCH_STREAM = 1  # beside the batches' own numbers, see ``plan``


class ShuffledEpochs:
    """``size`` things, each once an epoch, in an order that (seed, part, epoch) alone decide."""

    def __init__(self, size: int, seed: int, part: int = 0) -> None:
        self.size = size
        self._seed = seed
        self._part = part

    def keys(self, epoch: int, count: int) -> npt.NDArray[np.uint64]:
        """``count`` random numbers of an epoch."""
        counter = np.array([self._part, 0, epoch % (1 << 64), _EPOCH_STREAM], np.uint64)
        return np.random.Philox(key=self._seed, counter=counter).random_raw(count)

    def things(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Which thing comes at each of ``rows``: 0 to size - 1 is the first epoch, and so on."""
        epochs, places = np.divmod(rows, self.size)
        found = np.empty(len(rows), np.int64)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            keys = self.keys(int(epoch), _ROUNDS)
            found[chosen] = permuted(places[chosen].astype(np.uint64), self.size, keys)
        return found


def permuted(
    numbers: npt.NDArray[np.uint64], size: int, keys: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint64]:
    """What the permutation of 0 ... ``size`` - 1 that ``keys`` choose makes of ``numbers``."""
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    found = _feistel(numbers, half, keys)
    outside = np.flatnonzero(found >= size)
    while len(outside):
        found[outside] = _feistel(found[outside], half, keys)
        outside = outside[found[outside] >= size]
    return found


def _feistel(
    numbers: npt.NDArray[np.uint64], half: np.uint64, keys: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint64]:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = numbers >> half, numbers & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right ^ key) & mask)
    return left << half | right


def _mixed(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014): each bit changes half of all."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))

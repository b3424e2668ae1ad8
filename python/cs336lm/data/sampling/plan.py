"""The windows of each step, from one token file or from several by weight.

Everything is a *pure function* of ``(seed, step)``. The random numbers of a step are the raw output
of a Philox counter generator (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011);
the step sits in the counter's upper half, so that no two steps ever share a number.

**Several files.** The windows of a run are numbered: the i-th of step s is ``(s - 1) batch + i``.
Of every `_BLOCK` of them each file gets its share of the weights, rounded to whole windows, in a
shuffled order. So it is known from a single block how many windows of a file came before any other,
and each file has epochs of its own, however long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cs336lm.data.dataset import TokenDataset
from cs336lm.data.mixture import TokenMixture
from cs336lm.data.sampling.permutation import ShuffledEpochs
from cs336lm.data.sampling.sampler import Sampler

_BLOCK = 1 << 16
_MIXTURE_STREAM = (1 << 64) - 1  # a part that no file has


class WindowPlan:
    """Which windows of ``tokens`` each step learns from: ``starts(step, batch_size)``."""

    def __init__(
        self,
        tokens: TokenDataset | TokenMixture | npt.NDArray[Any],
        samplers: Sequence[Sampler],
        seed: int,
    ) -> None:
        self.tokens = tokens
        self.samplers = tuple(samplers)
        self._seed = seed
        self._shares: npt.NDArray[np.int64] | None = None
        self._latest: tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = None
        if isinstance(tokens, TokenMixture):
            self._shares = shares_of_block(tokens.weights)
            self._order = ShuffledEpochs(_BLOCK, seed, _MIXTURE_STREAM)
            self._begins = tokens.begins

    def starts(self, step: int, batch_size: int) -> npt.NDArray[Any]:
        """Where the windows of ``step`` begin in ``tokens``, for all ranks: (batch_size,)."""
        generator = np.random.Philox(key=self._seed, counter=[0, 0, step, 0])
        # Raw output is stable over NumPy's versions, which its distributions are not.
        numbers = generator.random_raw(batch_size)
        rows = (step - 1) * batch_size + np.arange(batch_size)
        if self._shares is None:
            return self.samplers[0].starts(rows, numbers)
        parts, places = self._parts(rows)
        starts = np.empty(batch_size, np.int64)
        for part in np.unique(parts):
            chosen = parts == part
            inside = self.samplers[part].starts(places[chosen], numbers[chosen])
            starts[chosen] = inside.astype(np.int64) + self._begins[part]
        return starts

    def remarks(self) -> list[str]:
        """What a user should know before the first step, a line each."""
        told = [remark for sampler in self.samplers for remark in sampler.remarks()]
        if isinstance(self.tokens, TokenMixture):
            for part, weight in zip(self.tokens.parts, self.tokens.weights, strict=True):
                told.append(f"{part.path}: {len(part):,} tokens, {weight:.2%} of the windows")
        return told

    def _parts(
        self, rows: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """From which file the windows come, and how many of that file were before each."""
        assert self._shares is not None
        blocks, places = rows // _BLOCK, rows % _BLOCK
        parts, before = np.empty_like(rows), np.empty_like(rows)
        for block in np.unique(blocks):
            chosen = blocks == block
            of_block, before_in_block = self._block(int(block))
            parts[chosen] = of_block[places[chosen]]
            before[chosen] = before_in_block[places[chosen]]
        return parts, before + blocks * self._shares[parts]

    def _block(self, block: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The same for a whole block, counted from its beginning; the latest is kept."""
        assert self._shares is not None
        if self._latest is None or self._latest[0] != block:
            order = self._order.things(np.arange(_BLOCK) + block * _BLOCK)
            parts = np.searchsorted(np.cumsum(self._shares), order, side="right")
            before = np.empty(_BLOCK, np.int64)
            for part, share in enumerate(self._shares):
                before[parts == part] = np.arange(share)
            self._latest = block, parts, before
        return self._latest[1:]


def shares_of_block(weights: Sequence[float]) -> npt.NDArray[np.int64]:
    """How many windows of a block each file gets: at least one, those with the largest rests more.

    ``weights`` add up to 1.
    """
    exact = np.asarray(weights) * _BLOCK
    shares = np.maximum(np.floor(exact).astype(np.int64), 1)
    while (left := _BLOCK - int(shares.sum())) != 0:
        rest = exact - shares
        if left > 0:
            shares[np.argsort(-rest, kind="stable")[:left]] += 1
        else:
            shares[np.argmax(shares)] -= 1
    return shares

"""Which windows of a token file a validation looks at: the same ones every time.

``validation_starts`` spreads a number of windows over the file: every part of it counts, but models
of two context lengths are asked about different tokens. ``first_windows`` takes the tokens from the
beginning on: models of any context length that divides the number are asked about the same ones.

``batch_size`` is the validation's own, not training's: the windows must not depend on what a run
has memory for.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


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


def first_windows(num_tokens: int, eval_tokens: int, context_length: int) -> npt.NDArray[np.int64]:
    """The windows, side by side from the beginning on, that predict ``eval_tokens`` tokens.

    Shape (windows,). They are whole ones: as many as it takes, or as the file has.
    """
    count = min(-(-eval_tokens // context_length), (num_tokens - 1) // context_length)
    return np.arange(count, dtype=np.int64) * context_length


def evenly_chosen(windows: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """``count`` of ``windows``, from the first to the last, or all of them if there are no more."""
    if len(windows) <= count:
        return windows
    return windows[np.arange(count) * (len(windows) - 1) // max(count - 1, 1)]

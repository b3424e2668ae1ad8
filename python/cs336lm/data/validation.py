"""Which windows of a token file a validation looks at: the same ones every time.

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

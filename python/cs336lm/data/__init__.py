"""Token files in, batches out."""

from cs336lm.data.batches import (
    BatchLoader,
    TokenDataset,
    gather_windows,
    get_batch,
    validation_starts,
)

__all__ = ["BatchLoader", "TokenDataset", "gather_windows", "get_batch", "validation_starts"]

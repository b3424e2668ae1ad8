"""Token files in, batches out."""

from cs336lm.data.batches import BatchLoader, gather_windows, get_batch
from cs336lm.data.dataset import TokenDataset
from cs336lm.data.validation import validation_starts

__all__ = ["BatchLoader", "TokenDataset", "gather_windows", "get_batch", "validation_starts"]

"""Token files in, batches out."""

from cs336lm.data.batches import BatchLoader, gather_windows, get_batch
from cs336lm.data.dataset import TokenDataset
from cs336lm.data.mixture import TokenMixture
from cs336lm.data.sampling import SAMPLERS, WindowPlan, make_plan
from cs336lm.data.validation import validation_starts

__all__ = [
    "SAMPLERS",
    "BatchLoader",
    "TokenDataset",
    "TokenMixture",
    "WindowPlan",
    "gather_windows",
    "get_batch",
    "make_plan",
    "validation_starts",
]

"""Autocast, as formulas that choose their own dtypes need to know it.

Some devices have none: "meta", on which a model's shapes are computed without its numbers, raises
an error when asked.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def product_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which products of ``x`` are taken here: its own, or autocast's."""
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Inside, products of tensors on the device of ``x`` are taken in their own dtype."""
    device = x.device.type
    if torch.amp.is_autocast_available(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()

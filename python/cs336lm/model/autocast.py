"""Autocast, as formulas that choose their own dtypes need to know it.

One device has none: "meta", on which a model's shapes are computed without its numbers, raises an
error when asked.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

_WITHOUT_AUTOCAST = {"meta"}
"""By name: PyTorch 2.11's compiler cannot look into ``torch.amp.is_autocast_available``. It would
compile each block by itself, and run the loss uncompiled."""


def product_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which products of ``x`` are taken here: its own, or autocast's."""
    device = x.device.type
    if device not in _WITHOUT_AUTOCAST and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Inside, products of tensors on the device of ``x`` are taken in their own dtype."""
    device = x.device.type
    if device in _WITHOUT_AUTOCAST:
        return nullcontext()
    return torch.autocast(device, enabled=False)

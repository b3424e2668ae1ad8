"""How weights are made: where, and from which distribution they are drawn at first."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

Device = torch.device | str | None

_draws = ContextVar("draws", default=True)


@contextmanager
def undrawn_weights() -> Iterator[None]:
    """Models built inside have weights that hold anything: for loading them right after.

    Drawing takes longer than loading. What is not drawn (tables, gains, ties between weights) is as
    always.
    """
    token = _draws.set(False)
    try:
        yield
    finally:
        _draws.reset(token)


@torch.no_grad()
def fill_truncated_normal(weight: Tensor, std: float) -> None:
    """Draws ``weight`` from N(0, std^2), cut off at three standard deviations; 0 makes it zero.

    Drawn in float32 at least: the inverse error function behind it is too coarse in half
    precision.
    """
    if not _draws.get():
        return
    if std == 0:
        weight.zero_()
        return
    draft = torch.empty_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
    torch.nn.init.trunc_normal_(draft, std=std, a=-3 * std, b=3 * std)
    weight.copy_(draft)

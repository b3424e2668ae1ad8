"""A copy of the state that training is about to change, so that it can be written meanwhile."""

from __future__ import annotations

from typing import Any

import torch


def snapshot(state: Any) -> Any:
    """A copy of ``state`` on the host, which training leaves alone as it continues.

    A copy from a GPU is only under way when this returns: it goes to pinned memory, in order with
    the work before and after it. Synchronise before reading it.
    """
    if isinstance(state, torch.Tensor):
        on_cuda = state.device.type == "cuda"
        copy = torch.empty_like(state, device="cpu", pin_memory=on_cuda, requires_grad=False)
        return copy.copy_(state.detach(), non_blocking=on_cuda)
    if isinstance(state, dict):
        return {key: snapshot(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(snapshot(value) for value in state)
    return state

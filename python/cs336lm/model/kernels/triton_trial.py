"""Whether kernels in Triton work here: it is part of PyTorch on Linux, but not all that it needs.

To launch its first kernel it compiles a few lines of C, for which a machine must have a C compiler
and Python's headers; and it knows only GPUs of some age. So one kernel is tried.
"""

from __future__ import annotations

import importlib.util
import warnings
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch
from torch import Tensor

from cs336lm.errors import Note


def on_device_of(x: Tensor) -> AbstractContextManager[object]:
    """Inside, kernels are launched where ``x`` is: Triton asks which GPU is the current one."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


@lru_cache
def triton_works(device: torch.device) -> bool:
    """Whether a kernel runs on ``device``; if it is a GPU and none does, a note says why."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    try:
        return _tried(device)
    except Exception as error:  # whatever a compiler, a linker or a driver may raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        warnings.warn(
            f"kernels written for GPUs are left out, and slower ones used: Triton says {reason}",
            Note,
            stacklevel=2,
        )
        return False


def _tried(device: torch.device) -> bool:
    import triton
    import triton.language as tl

    @triton.jit  # type: ignore[untyped-decorator]
    def add_one(x_ptr, size: tl.constexpr):  # type: ignore[no-untyped-def]
        i = tl.arange(0, size)
        tl.store(x_ptr + i, tl.load(x_ptr + i) + 1)

    x = torch.arange(16, device=device)
    with on_device_of(x):
        add_one[(1,)](x, 16)
    return x.tolist() == list(range(1, 17))

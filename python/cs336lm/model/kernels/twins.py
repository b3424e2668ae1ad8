"""Which of two implementations runs: the formula under the compiler, its fast twin in eager code.

Written as formulas, RMSNorm, SwiGLU's gate and RoPE are chains of small operations, of which every
one reads and writes a whole tensor, and autograd adds a chain of its own. ``torch.compile`` fuses
such chains, but cannot look into an autograd function written by hand.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def eager_twin_of(formula: Callable[P, R]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates the twin of ``formula``: eager code runs the twin, the compiler sees the formula.

    Both take the same arguments and give the same results, up to rounding.
    """

    def decorate(twin: Callable[P, R]) -> Callable[P, R]:
        @wraps(twin)
        def either(*args: P.args, **kwargs: P.kwargs) -> R:
            implementation = formula if torch.compiler.is_compiling() else twin
            return implementation(*args, **kwargs)

        return either

    return decorate

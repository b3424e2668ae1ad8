"""What a parameter is for, which decides how it is updated.

A module that owns parameters says so as ``module.role``; the optimizers' groups read it
(:mod:`cs336lm.optim.groups`).
"""

from typing import Literal

Role = Literal["embedding", "matrix", "head", "gain", "scalar"]
"""A table of vectors by token; a weight inside a block; the last projection; a norm's gain; a few
numbers that say how much of something is added (residual scalars, a gate)."""

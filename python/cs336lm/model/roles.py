"""What a parameter is for, which decides how it is updated.

A module that owns parameters says so as ``module.role``; the optimizers' groups read it
(:mod:`cs336lm.optim.groups`).
"""

from typing import Literal

Role = Literal["embedding", "matrix", "head", "gain"]
"""A table of vectors by token; a weight inside a block; the last projection; a norm's gain."""

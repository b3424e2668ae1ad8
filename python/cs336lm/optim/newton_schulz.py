"""Newton-Schulz: the nearest orthogonal matrix by matrix products alone.

The orthogonal factor of G = U S V^T is U V^T. An odd polynomial of a matrix acts on its singular
values alone, so iterating X <- a X + b (X X^T) X + c (X X^T)^2 X, from X = G / ||G||, drives all of
them towards 1. With Jordan's coefficients (2024, "Muon: An optimizer for hidden layers in neural
networks") they do not converge to 1 but rise from near 0 as fast as such a polynomial can, and end
between about 0.7 and 1.2: five steps do where exact ones would take many more, and an optimizer
does not notice the difference.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5

_EPS = 1e-7  # least norm that is divided by: a gradient of zeros stays one
_MOST_AT_ONCE = 1 << 26  # elements: beside the parameters there is never more than a few of these


def orthogonalize(
    matrices: Float[Tensor, "batch rows columns"], steps: int = STEPS
) -> Float[Tensor, "batch rows columns"]:
    """Each matrix with its singular values brought to about 1, in the dtype that it comes in."""
    rows, columns = matrices.shape[-2:]
    x = matrices.mT if rows > columns else matrices  # the smaller of the two squares
    precise = torch.promote_types(x.dtype, torch.float32)
    norms = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True, dtype=precise)
    x = x / norms.clamp(min=_EPS).to(x.dtype)
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if rows > columns else x


def orthogonalize_each(
    matrices: Sequence[Tensor], dtype: torch.dtype, steps: int = STEPS
) -> list[Tensor]:
    """:func:`orthogonalize` of matrices of any shapes, computed in ``dtype``.

    Those of one shape, or of one and its transpose, go through it together, so that a model of many
    layers takes a few large products, not many small ones.
    """
    results: list[Tensor] = [torch.empty(0)] * len(matrices)
    for indices in alike([sorted(matrix.shape) for matrix in matrices]):
        wide = [m if m.shape[0] <= m.shape[1] else m.mT for m in (matrices[i] for i in indices)]
        most = max(1, _MOST_AT_ONCE // max(1, wide[0].numel()))
        for first in range(0, len(wide), most):
            together = torch.stack(wide[first : first + most]).to(dtype)
            for index, x in zip(
                indices[first : first + most], orthogonalize(together, steps), strict=True
            ):
                is_wide = matrices[index].shape[0] <= matrices[index].shape[1]
                results[index] = x if is_wide else x.mT
    return results


def alike(keys: Iterable[Sequence[int]]) -> list[list[int]]:
    """The places of keys that are equal, together."""
    found: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        found[tuple(key)].append(index)
    return list(found.values())


def orthogonalization_flops(rows: int, columns: int, steps: int = STEPS) -> int:
    """Floating-point operations of :func:`orthogonalize` for one matrix: three products a step.

    X X^T and its product with X take 2 m^2 n each and the square of it 2 m^3, for m <= n; a
    multiplication and an addition are two operations. What is done element by element is left out,
    as in :mod:`cs336lm.model.accounting`.
    """
    m, n = sorted((rows, columns))
    return steps * (4 * m * m * n + 2 * m**3)

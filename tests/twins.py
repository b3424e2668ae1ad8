"""Holds the fast twin of a formula to it: values and gradients, in the dtypes that are used."""

import pytest
import torch
from torch import Tensor

TOLERANCES = {
    torch.float64: 1e-10,
    torch.float32: 1e-5,
    torch.bfloat16: 2e-2,
    torch.float16: 4e-3,
}
each_dtype = pytest.mark.parametrize("dtype", TOLERANCES)


def hold(twin, formula, *inputs: Tensor, terms: float = 0.0) -> None:
    """``twin`` gives what ``formula`` gives on the inputs in float64, and keeps their dtype.

    ``terms``: how large, per unit of the upstream gradient, the terms of a gradient are that may
    cancel; their rounding stays where the gradient itself is next to nothing.
    """
    dtype = inputs[0].dtype
    ours = [x.detach().clone().requires_grad_() for x in inputs]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    a, b = twin(*ours), formula(*exact)
    assert a.dtype == dtype
    near(a, b, TOLERANCES[dtype])
    upstream = torch.randn_like(a)
    for grad, expected in zip(
        torch.autograd.grad(a, ours, upstream),
        torch.autograd.grad(b, exact, upstream.double()),
        strict=True,
    ):
        assert grad.dtype == dtype
        near(grad, expected, TOLERANCES[dtype], floor=terms * float(upstream.double().norm()))


def near(a: Tensor, b: Tensor, tolerance: float, floor: float = 0.0) -> None:
    """As vectors: the difference is at most ``tolerance`` times as long as ``b``, and ``floor``.

    Below its least normal number a dtype has fewer digits, and float16's is 6e-5: a factor down
    there (a gate that is closed) costs a part of that in each element.
    """
    assert a.shape == b.shape
    assert a.isfinite().all()
    lost = 0.25 * torch.finfo(a.dtype).smallest_normal * a.numel() ** 0.5
    assert (a.double() - b.double()).norm() <= tolerance * (b.double().norm() + floor) + lost


def strided_like(x: Tensor) -> Tensor:
    """The same values, every other element of a larger tensor."""
    return torch.stack((x, torch.full_like(x, torch.nan)), -1)[..., 0]


def forced_to_compile(monkeypatch) -> None:
    """Lets functions with a twin choose as they do under the compiler."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)

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


def hold(twin, formula, *inputs: Tensor) -> None:
    """``twin`` gives what ``formula`` gives on the inputs in float64, and keeps their dtype."""
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
        near(grad, expected, TOLERANCES[dtype])


def near(a: Tensor, b: Tensor, tolerance: float) -> None:
    """As vectors: the length of the difference is at most ``tolerance`` of ``b``'s."""
    assert a.shape == b.shape
    assert a.isfinite().all()
    assert (a.double() - b.double()).norm() <= tolerance * b.double().norm()


def strided_like(x: Tensor) -> Tensor:
    """The same values, every other element of a larger tensor."""
    return torch.stack((x, torch.full_like(x, torch.nan)), -1)[..., 0]


def forced_to_compile(monkeypatch) -> None:
    """Lets functions with a twin choose as they do under the compiler."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)

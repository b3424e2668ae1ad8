"""The twin of SwiGLU's gate equals its formula, and both equal PyTorch's."""

import pytest
import torch
from cs336lm.model.kernels.gated_silu import gated_silu, gated_silu_formula
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.nn import functional as torch_functional
from twins import TOLERANCES, each_dtype, forced_to_compile, hold, near

EXACT = {"rtol": 1e-10, "atol": 1e-10}
LEADING = [(), (4,), (2, 3)]


@each_dtype
@settings(max_examples=20, deadline=None)
@given(
    leading=st.lists(st.integers(1, 4), max_size=3),
    d_ff=st.integers(1, 9),
    scale=st.sampled_from([0.1, 1.0, 10.0]),
    seed=st.integers(0, 2**31),
)
def test_the_twin_equals_the_formula(dtype, leading, d_ff, scale, seed):
    torch.manual_seed(seed)
    gate_up = (scale * torch.randn(*leading, 2 * d_ff)).to(dtype)
    # silu' is zero at -1.28, where its terms cancel: what is left is their rounding.
    hold(gated_silu, gated_silu_formula, gate_up, terms=0.1 * float(gate_up.abs().max()))
    without_gradient = gated_silu(gate_up)
    near(without_gradient, gated_silu_formula(gate_up.double()), TOLERANCES[dtype])


@pytest.mark.parametrize("leading", LEADING)
def test_gradients_are_the_derivatives(leading):
    """Against finite differences."""
    x = torch.randn(*leading, 6, dtype=torch.float64, requires_grad=True)
    assert gradcheck(gated_silu, (x,))


@pytest.mark.parametrize("leading", LEADING)
def test_what_the_compiler_sees_is_the_same(leading, monkeypatch):
    x = torch.randn(*leading, 8, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(*leading, 4, dtype=torch.float64)

    def run():
        out = gated_silu(x)
        return [out, *torch.autograd.grad(out, x, upstream)]

    by_hand = run()
    forced_to_compile(monkeypatch)
    for a, b in zip(by_hand, run(), strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_strided_inputs_and_gradients():
    """A slice of a joined projection, and an upstream gradient like it."""
    joined = torch.randn(3, 5, 24, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(3, 8, 10, dtype=torch.float64)[..., :5].transpose(1, 2)
    x = joined[..., 8:]
    (ours,) = torch.autograd.grad(gated_silu(x), joined, upstream, retain_graph=True)
    gate, up = x.chunk(2, -1)
    (theirs,) = torch.autograd.grad(torch_functional.silu(gate) * up, joined, upstream)
    torch.testing.assert_close(ours, theirs, **EXACT)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    x = torch.randn(64, 16, dtype=dtype, requires_grad=True)
    ours = gated_silu(x)
    formula = torch_functional.silu(x.float()[:, :8]) * x.float()[:, 8:]
    assert ours.dtype == dtype
    torch.testing.assert_close(ours.float(), formula, rtol=2e-2, atol=2e-2)
    (grad,) = torch.autograd.grad(ours.sum(), x)
    assert grad.dtype == dtype
    assert grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_gradient_of_an_open_gate_does_not_cancel(dtype):
    """Where the gate is wide open the unit is linear: the gradient is that of gate times up."""
    gate = torch.linspace(8, 60, 101, dtype=dtype)
    up = torch.full_like(gate, 3.0)
    gate_up = torch.cat((gate, up)).requires_grad_()
    (gradient,) = torch.autograd.grad(gated_silu(gate_up).sum(), gate_up)
    torch.testing.assert_close(gradient[:101].float(), up.float(), rtol=0.01, atol=0)

"""RMSNorm's twin equals its formula, and both equal PyTorch's."""

import pytest
import torch
from cs336lm.model.kernels.rms_norm import rms_norm, rms_norm_formula
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.nn import functional as torch_functional
from twins import each_dtype, forced_to_compile, hold, strided_like

EXACT = {"rtol": 1e-10, "atol": 1e-10}
LEADING = [(), (4,), (2, 3)]


@each_dtype
@settings(max_examples=20, deadline=None)
@given(
    leading=st.lists(st.integers(1, 4), max_size=3),
    d=st.integers(4, 9),  # of one or two dimensions the gradient all but cancels out
    scale=st.sampled_from([0.1, 1.0, 10.0]),
    seed=st.integers(0, 2**31),
)
def test_the_twin_equals_the_formula(dtype, leading, d, scale, seed):
    torch.manual_seed(seed)
    x = (scale * torch.randn(*leading, d)).to(dtype)
    weight = torch.rand(d, dtype=dtype) + 0.5
    hold(lambda x, w: rms_norm(x, w, 1e-2), lambda x, w: rms_norm_formula(x, w, 1e-2), x, weight)


@pytest.mark.parametrize("leading", LEADING)
def test_gradients_are_the_derivatives(leading):
    """Against finite differences."""
    x = torch.randn(*leading, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x, w: rms_norm(x, w, 1e-5), (x, weight))


@pytest.mark.parametrize("leading", LEADING)
def test_what_the_compiler_sees_is_the_same(leading, monkeypatch):
    x = torch.randn(*leading, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(8, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn_like(x)

    def run():
        out = rms_norm(x, weight, 1e-5)
        return [out, *torch.autograd.grad(out, (x, weight), upstream)]

    by_hand = run()
    forced_to_compile(monkeypatch)
    for a, b in zip(by_hand, run(), strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_strided_inputs_and_gradients():
    """Slices of a joined projection, as the model has them, and an upstream gradient like them."""
    joined = torch.randn(3, 5, 24, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(3, 8, 10, dtype=torch.float64)[..., :5].transpose(1, 2)
    x = joined[..., 8:16]
    weight = torch.randn(8, dtype=torch.float64)
    (ours,) = torch.autograd.grad(rms_norm(x, weight, 1e-5), joined, upstream, retain_graph=True)
    (theirs,) = torch.autograd.grad(
        torch_functional.rms_norm(x, (8,), weight, 1e-5), joined, upstream, retain_graph=True
    )
    torch.testing.assert_close(ours, theirs, **EXACT)
    strided = strided_like(torch.randn(3, 8, dtype=torch.float64))
    torch.testing.assert_close(
        rms_norm(strided, weight, 1e-5), rms_norm_formula(strided, weight, 1e-5), **EXACT
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    x = torch.randn(64, 16, dtype=dtype, requires_grad=True)
    weight = torch.ones(16, dtype=dtype, requires_grad=True)
    ours = rms_norm(x, weight, 1e-5)
    formula = torch_functional.rms_norm(x.float(), (16,), eps=1e-5)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours.float(), formula, rtol=2e-2, atol=2e-2)
    (grad,) = torch.autograd.grad(ours.sum(), x)
    assert grad.dtype == dtype
    assert grad.isfinite().all()

"""RoPE's twin in complex numbers equals its formula: neighbours are pairs, in either."""

import pytest
import torch
from cs336lm.model.kernels.rope import rotation, rotation_formula
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck
from twins import each_dtype, forced_to_compile, hold

EXACT = {"rtol": 1e-10, "atol": 1e-10}
LEADING = [(), (4,), (2, 3)]


@each_dtype
@settings(max_examples=20, deadline=None)
@given(
    leading=st.lists(st.integers(1, 4), max_size=3),
    half=st.integers(1, 5),
    per_token=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_the_twin_equals_the_formula(dtype, leading, half, per_token, seed):
    """With the tables in float32 beside half precision, as in the model."""
    torch.manual_seed(seed)
    x = torch.randn(*leading, 2 * half).to(dtype)
    wide = torch.promote_types(dtype, torch.float32)
    angles = torch.randn(*leading * per_token, half, dtype=wide)
    cos, sin = angles.cos(), angles.sin()
    hold(rotation(cos, sin), rotation_formula(cos.double(), sin.double()), x)


@pytest.mark.parametrize("leading", LEADING)
def test_gradients_are_the_derivatives(leading):
    """Against finite differences."""
    x = torch.randn(*leading, 6, dtype=torch.float64, requires_grad=True)
    angles = torch.randn(3, dtype=torch.float64)
    assert gradcheck(rotation(angles.cos(), angles.sin()), (x,))


@pytest.mark.parametrize("leading", LEADING)
def test_what_the_compiler_sees_is_the_same(leading, monkeypatch):
    x = torch.randn(*leading, 8, dtype=torch.float64, requires_grad=True)
    angles = torch.randn(4, dtype=torch.float64)
    upstream = torch.randn_like(x)

    def run():
        out = rotation(angles.cos(), angles.sin())(x)
        return [out, *torch.autograd.grad(out, x, upstream)]

    by_hand = run()
    forced_to_compile(monkeypatch)
    for a, b in zip(by_hand, run(), strict=True):
        torch.testing.assert_close(a, b, **EXACT)


@pytest.mark.parametrize("make", [rotation, rotation_formula])
def test_a_quarter_turn_by_hand(make):
    """(x_0, x_1) becomes (-x_1, x_0); the other pair stays."""
    rotate = make(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]))
    assert rotate(torch.tensor([1.0, 2.0, 3.0, 4.0])).tolist() == [-2.0, 1.0, 3.0, 4.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    x = torch.randn(64, 16, dtype=dtype, requires_grad=True)
    angles = torch.randn(8)
    rotate = rotation(angles.cos(), angles.sin())
    ours, formula = rotate(x), rotate(x.float())
    assert ours.dtype == dtype
    torch.testing.assert_close(ours.float(), formula, rtol=2e-2, atol=2e-2)
    (grad,) = torch.autograd.grad(ours.sum(), x)
    assert grad.dtype == dtype
    assert grad.isfinite().all()

"""Hand-made gradients equal the formulas', through PyTorch's own functions and gradcheck."""

import pytest
import torch
from cs336lm.model.kernels.rms_norm import (
    evens_first,
    gated_silu,
    rms_norm,
    turn_halves,
    turn_pairs,
)
from torch.autograd import gradcheck
from torch.nn import functional as torch_functional

EXACT = {"rtol": 1e-10, "atol": 1e-10}
LEADING = [(), (4,), (2, 3)]


@pytest.mark.parametrize("leading", LEADING)
def test_gradients_are_the_derivatives(leading):
    """Against finite differences."""
    x = torch.randn(*leading, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, dtype=torch.float64, requires_grad=True)
    angles = torch.randn(3, dtype=torch.float64)
    assert gradcheck(lambda x, w: rms_norm(x, w, 1e-5), (x, weight))
    assert gradcheck(gated_silu, (x,))
    assert gradcheck(lambda x: turn_pairs(x, angles.cos(), angles.sin()), (x,))


@pytest.mark.parametrize("leading", LEADING)
def test_what_the_compiler_sees_is_the_same(leading, monkeypatch):
    """Each function has two forms: by hand, and the formula that the compiler is given."""
    x = torch.randn(*leading, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(8, dtype=torch.float64, requires_grad=True)
    angles = torch.randn(4, dtype=torch.float64)

    def run():
        outs = [
            rms_norm(x, weight, 1e-5),
            gated_silu(x),
            turn_pairs(x, angles.cos(), angles.sin()),
        ]
        torch.manual_seed(0)
        upstream = [torch.randn_like(out) for out in outs]
        return [*outs, *torch.autograd.grad(outs, (x, weight), upstream)]

    by_hand = run()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for a, b in zip(by_hand, run(), strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_halves_turn_as_pairs_do():
    """Of a projection with its rows in either order: the same scores, in another order inside."""
    heads, d_head, tokens = 3, 8, 5
    x = torch.randn(tokens, 7, dtype=torch.float64)
    q_weight, k_weight = torch.randn(2, heads * d_head, 7, dtype=torch.float64)
    angles = torch.randn(tokens, d_head // 2, dtype=torch.float64)

    def scores(turn, *weights):
        q, k = ((x @ weight.T).unflatten(-1, (heads, d_head)).transpose(0, 1) for weight in weights)
        cos, sin = angles.cos(), angles.sin()
        return turn(q, cos, sin) @ turn(k, cos, sin).transpose(1, 2)

    pairs = scores(turn_pairs, q_weight, k_weight)
    halves = scores(turn_halves, evens_first(q_weight, heads), evens_first(k_weight, heads))
    torch.testing.assert_close(halves, pairs, **EXACT)


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
    x = joined[..., 8:]
    (ours,) = torch.autograd.grad(gated_silu(x), joined, upstream, retain_graph=True)
    gate, up = x.chunk(2, -1)
    (theirs,) = torch.autograd.grad(torch_functional.silu(gate) * up, joined, upstream)
    torch.testing.assert_close(ours, theirs, **EXACT)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    x = torch.randn(64, 16, dtype=dtype, requires_grad=True)
    weight = torch.ones(16, dtype=dtype, requires_grad=True)
    angles = torch.randn(8)
    for ours, formula in (
        (rms_norm(x, weight, 1e-5), torch_functional.rms_norm(x.float(), (16,), eps=1e-5)),
        (gated_silu(x), torch_functional.silu(x.float()[:, :8]) * x.float()[:, 8:]),
        (
            turn_pairs(x, angles.cos(), angles.sin()),
            turn_pairs(x.float(), angles.cos(), angles.sin()),
        ),
    ):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.float(), formula, rtol=2e-2, atol=2e-2)
        (grad,) = torch.autograd.grad(ours.sum(), x)
        assert grad.dtype == dtype
        assert grad.isfinite().all()

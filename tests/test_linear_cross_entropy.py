"""The loss in chunks is the loss: same value and gradients, whatever the chunk."""

import pytest
import torch
from cs336lm.model.functional import cross_entropy
from cs336lm.model.kernels.cross_entropy import linear_cross_entropy
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as torch_functional
from torch.utils.flop_counter import FlopCounterMode

EXACT = {"rtol": 1e-10, "atol": 1e-10}


@settings(max_examples=30, deadline=None)
@given(
    leading=st.lists(st.integers(1, 5), max_size=3),
    chunk_tokens=st.none() | st.integers(1, 30),
    scale=st.sampled_from([1.0, 1e4]),
    cap=st.sampled_from([0.0, 0.5, 30.0]),
    seed=st.integers(0, 2**31),
)
def test_equals_projection_and_cross_entropy(leading, chunk_tokens, scale, cap, seed):
    torch.manual_seed(seed)
    hidden = (scale * torch.randn(*leading, 6, dtype=torch.float64)).requires_grad_()
    weight = torch.randn(11, 6, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 11, leading)
    logits = torch_functional.linear(hidden, weight)
    if cap:
        logits = cap * torch.tanh(logits / cap)
    expected = torch_functional.cross_entropy(logits.reshape(-1, 11), targets.reshape(-1))
    ours = linear_cross_entropy(hidden, weight, targets, cap=cap, chunk_tokens=chunk_tokens)
    torch.testing.assert_close(ours, expected, **EXACT)
    for a, b in zip(
        torch.autograd.grad(3 * ours, (hidden, weight)),
        torch.autograd.grad(3 * expected, (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, **EXACT)


@pytest.mark.parametrize("wanted", ["hidden", "weight", "neither"])
def test_computes_the_gradients_that_are_wanted(wanted):
    hidden = torch.randn(7, 6, requires_grad=wanted == "hidden")
    weight = torch.randn(11, 6, requires_grad=wanted == "weight")
    targets = torch.randint(0, 11, (7,))
    loss = linear_cross_entropy(hidden, weight, targets, chunk_tokens=3)
    torch.testing.assert_close(loss, cross_entropy(hidden @ weight.T, targets))
    assert loss.requires_grad == (wanted != "neither")
    if loss.requires_grad:
        loss.backward()
    assert (hidden.grad is not None) == (wanted == "hidden")
    assert (weight.grad is not None) == (wanted == "weight")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast(dtype):
    """Products in half precision, everything after them in float32."""
    torch.manual_seed(0)
    hidden = torch.randn(300, 32, requires_grad=True)
    weight = torch.randn(50, 32, requires_grad=True)
    targets = torch.randint(0, 50, (300,))
    expected = cross_entropy(hidden @ weight.T, targets)
    exact = torch.autograd.grad(expected, (hidden, weight))
    with torch.autocast("cpu", dtype):
        loss = linear_cross_entropy(hidden, weight, targets, chunk_tokens=64)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-2, atol=0)
    for ours, theirs in zip(torch.autograd.grad(loss, (hidden, weight)), exact, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < 2e-2 * theirs.norm()


def test_float16_gradients_do_not_vanish_in_the_mean():
    """1e-4 over 6,000 tokens is below the least float16; the loss scale brings it up."""
    tokens, scale = 6_000, 2.0**16
    hidden = torch.zeros(tokens, 2, dtype=torch.float16, requires_grad=True)
    weight = torch.zeros(10_000, 2, dtype=torch.float16)
    weight[0] = 1.0
    targets = torch.full((tokens,), 1)
    loss = linear_cross_entropy(hidden, weight, targets, chunk_tokens=1_000)
    (grad,) = torch.autograd.grad(loss * scale, hidden)
    expected = scale * 1e-4 / tokens
    torch.testing.assert_close(grad, torch.full_like(grad, expected), rtol=2e-2, atol=0)


def test_refuses_targets_of_another_shape():
    with pytest.raises(ValueError, match=r"targets of shape \(3,\)"):
        linear_cross_entropy(torch.zeros(2, 5), torch.zeros(7, 5), torch.zeros(3))


def test_compiled_gradients_are_those_of_eager_code():
    """In PyTorch 2.11 a sum kept in place gave zeros, and a compiled model learned nothing."""
    torch.manual_seed(0)
    hidden = torch.randn(10, 6, requires_grad=True)
    weight = torch.randn(11, 6, requires_grad=True)
    targets = torch.randint(0, 11, (10,))

    def loss(hidden, weight):
        return linear_cross_entropy(2 * hidden, weight, targets, chunk_tokens=4)

    torch._dynamo.reset()
    compiled = torch.compile(loss, backend="aot_eager")
    for a, b in zip(
        torch.autograd.grad(compiled(hidden, weight), (hidden, weight)),
        torch.autograd.grad(loss(hidden, weight), (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_computes_no_gradient_where_gradients_are_switched_off():
    weight = torch.randn(11, 6, requires_grad=True)
    hidden, targets = torch.randn(7, 6), torch.randint(0, 11, (7,))
    with torch.no_grad(), FlopCounterMode(display=False) as count:
        linear_cross_entropy(hidden, weight, targets, chunk_tokens=3)
    assert count.get_total_flops() == 2 * 7 * 6 * 11

"""Softmax, SiLU, cross-entropy, perplexity, attention: equal to PyTorch's, gradients included."""

import math

import pytest
import torch
from cs336lm.model.functional import (
    cross_entropy,
    perplexity,
    scaled_dot_product_attention,
    silu,
    softcap,
    softmax,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as torch_functional

EXACT = {"rtol": 1e-10, "atol": 1e-10}
HALVES = (torch.float16, torch.bfloat16)


def same_with_gradients(ours, theirs, *inputs: Tensor) -> None:
    """Both functions give the same result and the same gradient for every input."""
    mine = [x.clone().requires_grad_() for x in inputs]
    other = [x.clone().requires_grad_() for x in inputs]
    a, b = ours(*mine), theirs(*other)
    torch.testing.assert_close(a, b, **EXACT)
    upstream = torch.randn(a.shape, dtype=a.dtype)
    for x, y in zip(
        torch.autograd.grad(a, mine, upstream),
        torch.autograd.grad(b, other, upstream),
        strict=True,
    ):
        torch.testing.assert_close(x, y, **EXACT)


shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4)
scales = st.sampled_from([0.1, 1.0, 30.0, 1e4])


@settings(max_examples=30, deadline=None)
@given(shape=shapes, scale=scales, dim=st.integers(-4, 3), seed=st.integers(0, 2**31))
def test_softmax_and_silu_equal_torch(shape, scale, dim, seed):
    torch.manual_seed(seed)
    x = scale * torch.randn(shape, dtype=torch.float64)
    dim = max(-len(shape), min(dim, len(shape) - 1))
    same_with_gradients(lambda x: softmax(x, dim), lambda x: x.softmax(dim), x)
    same_with_gradients(silu, torch_functional.silu, x)


@settings(max_examples=30, deadline=None)
@given(leading=st.lists(st.integers(1, 4), max_size=3), scale=scales, seed=st.integers(0, 2**31))
def test_cross_entropy_equals_torch(leading, scale, seed):
    torch.manual_seed(seed)
    logits = scale * torch.randn(*leading, 11, dtype=torch.float64)
    targets = torch.randint(0, 11, leading)

    def theirs(logits: Tensor) -> Tensor:
        return torch_functional.cross_entropy(logits.reshape(-1, 11), targets.reshape(-1))

    same_with_gradients(lambda logits: cross_entropy(logits, targets), theirs, logits)


def test_huge_logits_stay_finite_and_exact():
    logits = torch.tensor([[1e4, 0.0, -1e4], [-1e4, -1e4, -1e4]], requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([2, 0]))
    assert loss.item() == pytest.approx((2e4 + math.log(3)) / 2, rel=1e-6)
    loss.backward()
    expected = torch.tensor([[0.5, 0.0, -0.5], [-1 / 3, 1 / 6, 1 / 6]])
    torch.testing.assert_close(logits.grad, expected)
    torch.testing.assert_close(
        softmax(logits.detach(), -1), torch.tensor([[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    )


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_summed_in_float32(dtype):
    """In half precision itself 1 + 1 + ... stops growing at 256 (bfloat16) or 2048 (float16)."""
    logits = torch.zeros(1, 10_000, dtype=dtype)
    loss = cross_entropy(logits, torch.tensor([3]))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(10_000), rel=1e-6)
    shares = softmax(logits, -1)
    assert shares.dtype == dtype
    torch.testing.assert_close(shares, torch.full_like(logits, 1e-4))


def test_cross_entropy_refuses_targets_of_another_shape():
    with pytest.raises(ValueError, match=r"targets of shape \(3,\)"):
        cross_entropy(torch.zeros(2, 5), torch.zeros(3, dtype=torch.long))


def test_perplexity_is_the_exponential_of_the_mean():
    losses = torch.tensor([0.5, 1.5, 4.0], dtype=torch.float64)
    torch.testing.assert_close(perplexity(losses), losses.mean().exp(), **EXACT)
    assert perplexity([math.log(7.0)] * 3).item() == pytest.approx(7.0, rel=1e-6)


def attention_inputs(leading, queries, keys, dtype=torch.float64):
    q = torch.randn(*leading, queries, 8, dtype=dtype)
    k = torch.randn(*leading, keys, 8, dtype=dtype)
    v = torch.randn(*leading, keys, 6, dtype=dtype)
    return q, k, v


@pytest.mark.parametrize("backend", ["fused", "reference"])
@settings(max_examples=20, deadline=None)
@given(
    leading=st.lists(st.integers(1, 3), max_size=3),
    queries=st.integers(1, 7),
    keys=st.integers(1, 7),
    masked=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_attention_equals_torch(backend, leading, queries, keys, masked, seed):
    torch.manual_seed(seed)
    inputs = attention_inputs(leading, queries, keys)
    mask = None
    if masked:
        mask = torch.rand(*leading, queries, keys) < 0.6
        mask[..., 0] = True  # every query sees something; the next test is about those that don't

    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(-1) @ v

    same_with_gradients(
        lambda q, k, v: scaled_dot_product_attention(q, k, v, mask, backend=backend),
        theirs,
        *inputs,
    )


@pytest.mark.parametrize("backend", ["fused", "reference"])
def test_a_query_that_sees_nothing_gets_zeros(backend):
    q, k, v = attention_inputs((2, 3), 4, 5)
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[2] = False
    out = scaled_dot_product_attention(q, k, v, mask, backend=backend)
    assert out[..., 2, :].eq(0).all()
    assert out.isfinite().all()


@pytest.mark.parametrize("leading", [(), (3,), (2, 3), (2, 1, 3)])
def test_causal_flag_is_the_triangular_mask(leading):
    q, k, v = attention_inputs(leading, 6, 6)
    triangle = torch.ones(6, 6, dtype=torch.bool).tril()
    expected = scaled_dot_product_attention(q, k, v, triangle, backend="reference")
    for backend in ("fused", "reference"):
        out = scaled_dot_product_attention(q, k, v, is_causal=True, backend=backend)
        torch.testing.assert_close(out, expected, **EXACT)


@pytest.mark.parametrize("dtype", HALVES)
def test_attention_backends_agree_in_half_precision(dtype):
    q, k, v = (x.to(dtype) for x in attention_inputs((2, 3), 6, 6))
    fused = scaled_dot_product_attention(q, k, v, is_causal=True)
    formula = scaled_dot_product_attention(q, k, v, is_causal=True, backend="reference")
    assert fused.dtype == formula.dtype == dtype
    torch.testing.assert_close(fused, formula, rtol=2e-2, atol=2e-2)


def test_attention_refuses_what_it_would_misread():
    q, k, v = attention_inputs((), 3, 3)
    with pytest.raises(ValueError, match="boolean"):
        scaled_dot_product_attention(q, k, v, torch.zeros(3, 3))
    mask = torch.ones(3, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="not both"):
        scaled_dot_product_attention(q, k, v, mask, is_causal=True)


@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
@pytest.mark.parametrize("backend", ["fused", "reference"])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_of_shared_heads_equals_that_of_repeated_ones(backend, leading, masked):
    torch.manual_seed(0)
    q = torch.randn(*leading, 6, 5, 8, dtype=torch.float64)
    k, v = torch.randn(2, *leading, 2, 5, 8, dtype=torch.float64)
    how = {"mask": torch.rand(5, 5) < 0.7} if masked else {"is_causal": True}
    same_with_gradients(
        lambda q, k, v: scaled_dot_product_attention(
            q, k, v, enable_gqa=True, backend=backend, **how
        ),
        lambda q, k, v: scaled_dot_product_attention(
            q, *(torch.stack((x,) * 3, -3).flatten(-4, -3) for x in (k, v)),
            backend="reference", **how,
        ),
        q, k, v,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_softcap_is_bounded_and_near_the_identity_where_it_is_small(dtype):
    x = torch.tensor([-6e4, -30.0, -0.1, 0.0, 0.1, 30.0, 6e4], dtype=dtype)
    capped = softcap(x, 30.0)
    assert capped.dtype == dtype
    expected = 30 * (x.double() / 30).tanh()
    torch.testing.assert_close(capped.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-7)

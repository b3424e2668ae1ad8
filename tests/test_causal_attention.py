"""Attention by a few large products is the formula, forward and backward, in rows of any number."""

import pytest
import torch
from cs336lm.model.functional import scaled_dot_product_attention
from cs336lm.model.kernels import causal_attention as kernel
from cs336lm.model.kernels.causal_attention import attention_by_products, causal_attention
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import TOLERANCES, each_dtype, near


@each_dtype
@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    kv_heads=st.integers(1, 2),
    group=st.integers(1, 3),
    length=st.integers(1, 13),
    rows=st.integers(1, 6),
    seed=st.integers(0, 2**31),
)
def test_equals_the_formula(dtype, batch, kv_heads, group, length, rows, seed):
    torch.manual_seed(seed)
    q = torch.randn(batch, length, kv_heads * group, 8).to(dtype).transpose(1, 2)
    k, v = torch.randn(2, batch, kv_heads, length, 8).to(dtype)
    weights = torch.randn(batch, kv_heads * group, length, 8)
    results = []
    for function in (attention_by_products, reference):
        inputs = [x.detach().requires_grad_() for x in (q, k, v)]
        if function is reference:
            inputs = [x.double().detach().requires_grad_() for x in inputs]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernel, "_ROWS", rows)
            attended = function(*inputs)
        gradients = torch.autograd.grad((attended * weights).sum(), inputs)
        results.append((attended, *gradients))
    for ours, expected in zip(*results, strict=True):
        assert ours.dtype == dtype
        # Where a query sees a key or two, the terms of its gradient cancel almost.
        near(ours, expected, 2 * TOLERANCES[dtype], floor=0.5 * float(weights.norm()))


def reference(q, k, v):
    return scaled_dot_product_attention(
        q, k, v, is_causal=True, enable_gqa=True, backend="reference"
    )


def test_it_is_taken_for_bfloat16_on_a_cpu(monkeypatch):
    taken = []

    def by_products(q, k, v):
        taken.append(q.dtype)
        return attention_by_products(q, k, v)

    monkeypatch.setattr(kernel, "attention_by_products", by_products)
    q, k, v = torch.randn(3, 1, 2, 8, 4)
    fused = causal_attention(q, k, v)
    assert not taken
    torch.testing.assert_close(fused, reference(q, k, v))
    assert causal_attention(q.bfloat16(), k.bfloat16(), v.bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        near(causal_attention(q, k, v), fused, 4 * TOLERANCES[torch.bfloat16])
    assert taken == [torch.bfloat16] * 2
    assert causal_attention(*(x[..., :0, :].bfloat16() for x in (q, k, v))).shape == (1, 2, 0, 4)
    # Beyond some length the probabilities would take too much memory.
    monkeypatch.setattr(kernel, "_LONGEST", 7)
    causal_attention(q.bfloat16(), k.bfloat16(), v.bfloat16())
    assert len(taken) == 2


def test_a_sequence_of_several_times_as_many_rows():
    q, k, v = torch.randn(3, 1, 1, 700, 4)
    near(attention_by_products(q, k, v), reference(q, k, v), 1e-5)

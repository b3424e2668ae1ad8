"""Attention of one query: both twins equal the formula, and the formula equals attention."""

import pytest
import torch
from cs336lm.model.functional import scaled_dot_product_attention
from cs336lm.model.kernels.one_query_attention import (
    attend_by_products,
    attend_by_reductions,
    attend_formula,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import TOLERANCES, each_dtype, near

ALL = [attend_formula, attend_by_products, attend_by_reductions]


@pytest.mark.parametrize("attend", ALL)
@each_dtype
@settings(max_examples=20, deadline=None)
@given(
    batch=st.integers(1, 4),
    heads=st.integers(1, 3),
    group=st.integers(1, 3),
    seen=st.integers(1, 9),
    masked=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_equals_attention(attend, dtype, batch, heads, group, seen, masked, seed):
    """Of the package's general function, whose reference backend is the formula in full."""
    torch.manual_seed(seed)
    q = torch.randn(batch, heads * group, 8).to(dtype)
    keys, values = torch.randn(2, batch, heads, seen, 8).to(dtype)
    mask = bias = None
    if masked:
        lengths = torch.randint(1, seen + 1, (batch, 1))
        mask = torch.arange(seen) < lengths
        bias = torch.zeros(batch, seen, dtype=dtype).masked_fill(~mask, -torch.inf)
        bias = bias.repeat_interleave(heads, dim=0).unsqueeze(1)
        mask = mask[:, None, None]
    each = [x.double().repeat_interleave(group, dim=1) for x in (keys, values)]
    expected = scaled_dot_product_attention(
        q.double().unsqueeze(2), *each, mask, backend="reference"
    )
    ours = attend((q * 8**-0.5), keys, values, bias)
    assert ours.dtype == dtype
    near(ours, expected.flatten(1), 2 * TOLERANCES[dtype])

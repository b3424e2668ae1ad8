"""Each layer equals PyTorch's (or a formula written out another way), gradients included."""

import math

import pytest
import torch
from cs336lm.errors import UsageError
from cs336lm.model.attention import MultiHeadSelfAttention
from cs336lm.model.blocks import TransformerBlock
from cs336lm.model.embedding import Embedding
from cs336lm.model.feed_forward import ReLUSquaredFeedForward, SiLUFeedForward, SwiGLU
from cs336lm.model.linear import Linear
from cs336lm.model.norm import RMSNorm
from cs336lm.model.positions import RotaryPositionalEmbedding
from torch import Tensor
from torch.nn import Module
from torch.nn import functional as torch_functional

EXACT = {"rtol": 1e-10, "atol": 1e-10}
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LEADING = [(), (3,), (2, 3), (2, 2, 3)]


def same_with_gradients(layer: Module, theirs, x: Tensor) -> None:
    """The layer gives what ``theirs`` gives, and the same gradients for input and weights."""
    x = x.clone().requires_grad_()
    inputs = [x, *layer.parameters()]
    ours, expected = layer(x), theirs(x)
    torch.testing.assert_close(ours, expected, **EXACT)
    upstream = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad(ours, inputs, upstream),
        torch.autograd.grad(expected, inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b, **EXACT)


@pytest.mark.parametrize("leading", LEADING)
def test_linear_equals_torch(leading):
    layer = Linear(7, 5, dtype=torch.float64)
    x = torch.randn(*leading, 7, dtype=torch.float64)
    same_with_gradients(layer, lambda x: torch_functional.linear(x, layer.weight), x)


@pytest.mark.parametrize("leading", LEADING)
def test_embedding_equals_torch(leading):
    layer = Embedding(9, 4, dtype=torch.float64)
    ids = torch.randint(0, 9, leading)
    ours, theirs = layer(ids), torch_functional.embedding(ids, layer.weight)
    assert ours.shape == (*leading, 4)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    upstream = torch.randn_like(ours)
    (a,) = torch.autograd.grad(ours, layer.weight, upstream)
    (b,) = torch.autograd.grad(theirs, layer.weight, upstream)
    torch.testing.assert_close(a, b, **EXACT)


def test_embedding_refuses_an_unknown_id():
    with pytest.raises(IndexError):
        Embedding(9, 4)(torch.tensor([3, 9]))


@pytest.mark.parametrize("leading", LEADING)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_rmsnorm_equals_torch(leading, scale):
    layer = RMSNorm(16, eps=1e-5, dtype=torch.float64)
    torch.nn.init.normal_(layer.weight)
    x = scale * torch.randn(*leading, 16, dtype=torch.float64)
    same_with_gradients(
        layer, lambda x: torch_functional.rms_norm(x, (16,), layer.weight, eps=1e-5), x
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rmsnorm_works_in_float32(dtype):
    """300^2 overflows float16, and 4096 equal squares do not add up in bfloat16."""
    x = torch.full((1, 4096), 300.0, dtype=dtype)
    out = RMSNorm(4096, dtype=dtype)(x)
    assert out.dtype == dtype
    torch.testing.assert_close(out, torch.ones_like(x))


@pytest.mark.parametrize("leading", LEADING)
def test_swiglu_equals_its_equation(leading):
    layer = SwiGLU(6, 10, dtype=torch.float64)

    def theirs(x: Tensor) -> Tensor:
        gate = torch_functional.silu(torch_functional.linear(x, layer.w1.weight))
        up = torch_functional.linear(x, layer.w3.weight)
        return torch_functional.linear(gate * up, layer.w2.weight)

    same_with_gradients(layer, theirs, torch.randn(*leading, 6, dtype=torch.float64))


@pytest.mark.parametrize(
    ("d_model", "d_ff"), [(512, 1344), (768, 2048), (64, 192), (8, 64), (1024, 2752)]
)
def test_swiglu_default_width(d_model, d_ff):
    assert SwiGLU(d_model, device="meta").w1.weight.shape == (d_ff, d_model)


def rotate_as_complex(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """RoPE as its paper puts it: a pair is a complex number, turned by exp(i position theta_k)."""
    d_k = x.shape[-1]
    frequencies = theta ** -(torch.arange(0, d_k, 2, dtype=torch.float64) / d_k)
    turn = torch.exp(1j * positions[..., None] * frequencies)
    pairs = torch.complex(x[..., 0::2], x[..., 1::2])
    return torch.view_as_real(pairs * turn).flatten(-2)


@pytest.mark.parametrize("leading", LEADING)
def test_rope_turns_neighbouring_pairs(leading):
    rope = RotaryPositionalEmbedding(100.0, 8, 32).double()
    x = torch.randn(*leading, 5, 8, dtype=torch.float64)
    positions = torch.randint(0, 32, (*leading, 5))
    same_with_gradients(_At(rope, positions), lambda x: rotate_as_complex(x, positions, 100.0), x)
    same_with_gradients(rope, lambda x: rotate_as_complex(x, torch.arange(5), 100.0), x)


class _At(Module):
    """RoPE at fixed positions, as a layer of one input."""

    def __init__(self, rope: Module, positions: Tensor) -> None:
        super().__init__()
        self.rope, self.positions = rope, positions

    def forward(self, x: Tensor) -> Tensor:
        return self.rope(x, self.positions)


def test_rope_depends_on_distance_alone():
    rope = RotaryPositionalEmbedding(10_000.0, 16, 1000).double()
    q, k = torch.randn(2, 1, 16, dtype=torch.float64)

    def score(i: int, j: int) -> Tensor:
        return rope(q, torch.tensor([i])) @ rope(k, torch.tensor([j])).T

    torch.testing.assert_close(score(7, 3), score(907, 903), **EXACT)
    assert not torch.allclose(score(7, 3), score(7, 4))


def test_rope_tables_are_no_state_and_stay_wide():
    rope = RotaryPositionalEmbedding(10_000.0, 4, 5000)
    assert not rope.state_dict()
    exact = rope.cos.clone()
    assert rope.to(torch.bfloat16).cos.dtype == torch.float32
    torch.testing.assert_close(rope.cos, exact, rtol=0, atol=0)
    x = torch.randn(5, 4, dtype=torch.bfloat16)
    assert rope(x).dtype == torch.bfloat16
    # Far out, in float64, the tables are exact to float64 and no float32 made wide.
    rope = rope.double()
    positions = torch.tensor([4999])
    x = torch.randn(1, 4, dtype=torch.float64)
    torch.testing.assert_close(
        rope(x, positions), rotate_as_complex(x, positions, 10_000.0), **EXACT
    )


def test_rope_refuses_an_odd_size():
    with pytest.raises(UsageError, match="even"):
        RotaryPositionalEmbedding(10_000.0, 5, 10)


def attention_by_hand(layer: MultiHeadSelfAttention, x: Tensor, positions: Tensor | None) -> Tensor:
    """Head by head, query by query; RoPE through complex numbers."""
    seq, d_model = x.shape[-2:]
    d_head = d_model // layer.num_heads
    heads = []
    for h in range(layer.num_heads):
        rows = slice(h * d_head, (h + 1) * d_head)
        q = torch.einsum("...i,oi->...o", x, layer.q_proj.weight[rows])
        k = torch.einsum("...i,oi->...o", x, layer.k_proj.weight[rows])
        v = torch.einsum("...i,oi->...o", x, layer.v_proj.weight[rows])
        if layer.rope is not None:
            at = torch.arange(seq) if positions is None else positions
            q = rotate_as_complex(q, at, layer.rope.theta)
            k = rotate_as_complex(k, at, layer.rope.theta)
        outs = []
        for i in range(seq):
            scores = (q[..., i : i + 1, :] * k[..., : i + 1, :]).sum(-1) / math.sqrt(d_head)
            outs.append((scores.softmax(-1).unsqueeze(-1) * v[..., : i + 1, :]).sum(-2))
        heads.append(torch.stack(outs, dim=-2))
    return torch.einsum("...i,oi->...o", torch.cat(heads, -1), layer.output_proj.weight)


@pytest.mark.parametrize("with_rope", [False, True])
@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_self_attention_equals_its_definition(with_rope, leading):
    rope = RotaryPositionalEmbedding(100.0, 4, 64).double() if with_rope else None
    layer = MultiHeadSelfAttention(12, 3, rope, dtype=torch.float64)
    x = torch.randn(*leading, 5, 12, dtype=torch.float64)
    same_with_gradients(layer, lambda x: attention_by_hand(layer, x, None), x)
    positions = torch.randint(0, 64, (*leading, 5))
    torch.testing.assert_close(layer(x, positions), attention_by_hand(layer, x, positions), **EXACT)


def test_self_attention_refuses_heads_that_do_not_fit():
    with pytest.raises(UsageError, match="divisible"):
        MultiHeadSelfAttention(10, 3)
    with pytest.raises(UsageError, match="RoPE of size 8"):
        MultiHeadSelfAttention(12, 3, RotaryPositionalEmbedding(100.0, 8, 16))


@pytest.mark.parametrize("leading", LEADING)
def test_a_block_equals_its_equation(leading):
    rope = RotaryPositionalEmbedding(100.0, 4, 64).double()
    block = TransformerBlock(12, 3, 10, rope, 0.1, dtype=torch.float64)
    for norm in (block.ln1, block.ln2):
        torch.nn.init.normal_(norm.weight)

    def normed(x: Tensor, norm: RMSNorm) -> Tensor:
        return torch_functional.rms_norm(x, (12,), norm.weight, eps=0.1)

    def theirs(x: Tensor) -> Tensor:
        x = x + attention_by_hand(block.attn, normed(x, block.ln1), None)
        inside = normed(x, block.ln2)
        gate = torch_functional.silu(inside @ block.ffn.w1.weight.T)
        return x + (gate * (inside @ block.ffn.w3.weight.T)) @ block.ffn.w2.weight.T

    same_with_gradients(block, theirs, torch.randn(*leading, 5, 12, dtype=torch.float64))


def test_defaults_are_those_of_the_papers():
    block = TransformerBlock(64, 4, device="meta")
    assert (block.ffn.w1.weight.shape, block.ln1.eps, block.ln2.eps) == ((192, 64), 1e-5, 1e-5)
    assert RMSNorm(4).eps == 1e-5
    for two in (SiLUFeedForward(12, device="meta"), ReLUSquaredFeedForward(12, device="meta")):
        assert (two.w1.weight.shape, two.w2.weight.shape) == ((48, 12), (12, 48))


@pytest.mark.parametrize("dtype", DTYPES)
def test_initial_weights(dtype):
    """Truncated at 3 sigma a normal keeps 0.9866 of its standard deviation."""
    torch.manual_seed(0)
    shrunk = 0.98658
    linear = Linear(300, 500, dtype=dtype).weight
    sigma = math.sqrt(2 / 800)
    assert linear.shape == (500, 300)
    assert linear.dtype == dtype
    check_statistics(linear, sigma, shrunk * sigma)
    embedding = Embedding(500, 300, dtype=dtype).weight
    assert embedding.shape == (500, 300)
    check_statistics(embedding, 1.0, shrunk)
    assert RMSNorm(17, dtype=dtype).weight.eq(1).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_are_rounded_and_drawn_no_coarser(dtype):
    torch.manual_seed(0)
    wide = Linear(30, 50).weight
    torch.manual_seed(0)
    assert torch.equal(Linear(30, 50, dtype=dtype).weight, wide.to(dtype))


def check_statistics(weight: Tensor, sigma: float, std: float) -> None:
    weight = weight.detach().double()
    n = weight.numel()
    assert weight.abs().max() <= 3 * sigma * 1.01  # rounding to half precision may step over
    assert weight.abs().max() > 2.9 * sigma
    assert abs(weight.mean()) < 5 * std / math.sqrt(n)
    assert weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * n))
    within = (weight.abs() < sigma).double().mean().item()
    assert within == pytest.approx(0.68269 / 0.9973, abs=0.01)


@pytest.mark.parametrize("dtype", DTYPES)
def test_layers_keep_their_dtype(dtype):
    rope = RotaryPositionalEmbedding(100.0, 4, 16)
    x = torch.randn(2, 5, 12, dtype=dtype)
    for layer in (
        Linear(12, 7, dtype=dtype),
        RMSNorm(12, dtype=dtype),
        SwiGLU(12, 16, dtype=dtype),
        MultiHeadSelfAttention(12, 3, rope, dtype=dtype),
    ):
        assert layer(x).dtype == dtype
        assert layer(x).isfinite().all()

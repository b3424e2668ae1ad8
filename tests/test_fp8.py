"""Products in eight bits: near the exact ones at any scale, gradients too; refused by name."""

import pytest
import torch
from cs336lm.errors import UsageError
from cs336lm.model import TransformerLM
from cs336lm.model.config import ModelConfig
from cs336lm.model.kernels.fp8 import _quantized, fp8_linear, require_fp8
from cs336lm.training.config import TrainConfig
from cs336lm.training.trainer import Trainer
from tiny_run import make_config


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e5])
def test_products_and_gradients_are_near_the_exact_ones(scale):
    """Sums of many products, each with a relative error of 2^-4 (e4m3) or 2^-3 (e5m2) at most."""
    torch.manual_seed(0)
    x = (scale * torch.randn(2, 32, 64)).requires_grad_()
    weight = torch.randn(48, 64, requires_grad=True)
    upstream = torch.randn(2, 32, 48) / scale
    ours, exact = fp8_linear(x, weight), x @ weight.T
    assert (ours - exact).norm() < 0.05 * exact.norm()
    for a, b in zip(
        torch.autograd.grad(ours, (x, weight), upstream),
        torch.autograd.grad(exact, (x, weight), upstream),
        strict=True,
    ):
        assert a.dtype == b.dtype
        assert (a - b).norm() < 0.08 * b.norm()


def test_autocast_says_in_which_dtype_products_are():
    x, weight = torch.randn(32, 64), torch.randn(48, 64)
    assert fp8_linear(x, weight).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert fp8_linear(x, weight).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_what_eight_bits_hold_is_exact(dtype):
    """Multiples of the scale come back as they were, the largest and 0 among them."""
    largest = torch.finfo(dtype).max
    x = torch.tensor([0.0, 1.0, -1.5, 0.25, largest, -largest]) * 0.5
    small, scale = _quantized(x, dtype)
    assert torch.equal(small.float() * scale, x)
    zeros, scale = _quantized(torch.zeros(4), dtype)
    assert torch.equal(zeros.float() * scale, torch.zeros(4))


def test_a_model_learns_in_eight_bits_what_it_learns_in_float32():
    config = ModelConfig(vocab_size=32, context_length=16, d_model=32, num_layers=1, num_heads=2)
    losses = {}
    for fp8 in (False, True):
        torch.manual_seed(0)
        model = TransformerLM(config)
        model.use_fp8(fp8)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        ids = torch.arange(17).expand(4, -1)
        for _ in range(15):
            loss = model(ids[:, :-1], ids[:, 1:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses[fp8] = loss.item()
    assert losses[True] < 1.0  # log 32 = 3.5 at the start
    assert losses[True] != losses[False]


def test_is_refused_by_name_where_the_device_has_none(tmp_path):
    with pytest.raises(UsageError, match=r"train\.fp8 needs a GPU .* on cpu"):
        require_fp8(torch.device("cpu"))
    with pytest.raises(UsageError, match=r"train\.fp8"):
        Trainer(make_config(tmp_path, fp8=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert not TrainConfig().fp8


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="divide by 16, not 3 tokens"):
        fp8_linear(torch.zeros(3, 16), torch.zeros(16, 16))

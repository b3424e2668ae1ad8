"""Optimizers equal ``torch.optim``'s step for step; clipping equals ``clip_grad_norm_``."""

import copy
import io
import math

import pytest
import torch
from cs336lm.errors import UsageError
from cs336lm.optim import SGD, AdaGrad, AdamW, clip_gradients
from cs336lm.optim.build import build_optimizer
from cs336lm.training.config import OptimConfig

EXACT = {"rtol": 1e-10, "atol": 1e-12}
SHAPES = [(5, 3), (7,), (), (2, 3, 4)]


def parameters(dtype=torch.float64):
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in SHAPES]


def descend(optimizer, params, steps, *, seed=1, skip=None, lrs=None):
    """``steps`` steps along random gradients; the third parameter has none in step ``skip``."""
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        for i, p in enumerate(params):
            grad = torch.randn(p.shape, dtype=torch.float64, generator=generator).to(p.dtype)
            p.grad = None if (step == skip and i == 2) else grad
        if lrs is not None:
            optimizer.param_groups[0]["lr"] = lrs[step]
        optimizer.step()


def groups(params):
    return [
        {"params": params[:2], "weight_decay": 0.1},
        {"params": params[2:], "lr": 0.03, "weight_decay": 0.0},
    ]


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_adamw_equals_torch(foreach, dtype):
    ours, theirs = parameters(dtype), parameters(dtype)
    settings = {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.2}
    a = AdamW(groups(ours), **settings, foreach=foreach)
    b = torch.optim.AdamW(groups(theirs), **settings)
    lrs = [0.01 * (1 + step % 7) for step in range(50)]
    descend(a, ours, 50, skip=4, lrs=lrs)
    descend(b, theirs, 50, skip=4, lrs=lrs)
    tolerance = EXACT if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-6}
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, **tolerance)


def test_adamw_both_ways_are_the_same_bits():
    ours, theirs = parameters(torch.float32), parameters(torch.float32)
    descend(AdamW(ours, foreach=True), ours, 20)
    descend(AdamW(theirs, foreach=False), theirs, 20)
    for p, q in zip(ours, theirs, strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("foreach", [True, False, None])
def test_adamw_on_large_and_on_strided_tensors(foreach):
    """More than one block, the last one not full; a parameter and a gradient laid out otherwise."""
    torch.manual_seed(0)
    start = [torch.randn(70_001), torch.randn(300, 400).T]
    grads = [torch.randn(70_001), torch.randn(400, 300)]
    ours, theirs = ([torch.nn.Parameter(t.clone()) for t in start] for _ in range(2))
    a, b = AdamW(ours, lr=0.02, foreach=foreach), torch.optim.AdamW(theirs, lr=0.02)
    for _ in range(3):
        for params, optimizer in ((ours, a), (theirs, b)):
            for p, grad in zip(params, grads, strict=True):
                p.grad = grad.clone()
            optimizer.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_adagrad_equals_torch():
    ours, theirs = parameters(), parameters()
    descend(AdaGrad(ours, lr=0.1, eps=1e-8), ours, 30, skip=2)
    descend(torch.optim.Adagrad(theirs, lr=0.1, eps=1e-8), theirs, 30, skip=2)
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, **EXACT)


def test_sgd_slows_down_with_the_root_of_time():
    """torch.optim.SGD with the rate set by hand before each step."""
    ours, theirs = parameters(), parameters()
    descend(SGD(ours, lr=0.5), ours, 20)
    lrs = [0.5 / math.sqrt(t + 1) for t in range(20)]
    descend(torch.optim.SGD(theirs, lr=1.0), theirs, 20, lrs=lrs)
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, **EXACT)


@pytest.mark.parametrize("kind", [SGD, AdaGrad, AdamW])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_survives_a_round_trip_bit_for_bit(kind, dtype):
    """Eleven steps, and six, a file, and five more."""
    straight = parameters(dtype)
    optimizer = kind(straight, lr=0.1)
    descend(optimizer, straight, 6, seed=1)

    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    resumed = [torch.nn.Parameter(p.detach().clone()) for p in straight]
    restored = kind(resumed, lr=0.7)
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert restored.param_groups[0]["lr"] == 0.1

    descend(optimizer, straight, 5, seed=2)
    descend(restored, resumed, 5, seed=2)
    for p, q in zip(straight, resumed, strict=True):
        assert torch.equal(p, q)


def test_step_runs_a_closure_and_returns_its_loss():
    p = torch.nn.Parameter(torch.tensor([3.0]))
    optimizer = AdamW([p], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 9.0
    assert p.item() < 3.0


@pytest.mark.parametrize(
    "bad",
    [{"lr": -1.0}, {"lr": math.nan}, {"betas": (0.9, 1.0)}, {"eps": -1e-9}, {"weight_decay": -1}],
)
def test_impossible_settings_are_refused_by_name(bad):
    with pytest.raises(UsageError, match=next(iter(bad))):
        AdamW(parameters(), **bad)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("max_norm", [0.01, 1.0, 1e6])
def test_clipping_equals_torch(dtype, max_norm):
    ours, theirs = parameters(dtype), parameters(dtype)
    for p, q in zip(ours[:3], theirs[:3], strict=True):  # the last one has no gradient
        p.grad = torch.randn_like(p)
        q.grad = p.grad.clone()
    kept = [p.grad for p in ours]
    norm = clip_gradients(ours, max_norm)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    torch.testing.assert_close(norm, expected)
    for p, q, grad in zip(ours, theirs, kept, strict=True):
        assert p.grad is grad, "in place"
        if grad is not None:
            torch.testing.assert_close(p.grad, q.grad)
    if max_norm == 1e6:
        assert torch.equal(ours[0].grad, theirs[0].grad)


def test_clipping_sums_half_precision_in_float32():
    p = torch.nn.Parameter(torch.zeros(10_000, dtype=torch.float16))
    p.grad = torch.full_like(p, 10.0)  # the sum of squares is a million: past float16's range
    assert clip_gradients([p], 1.0).item() == pytest.approx(1000.0)
    assert p.grad.norm(dtype=torch.float32).item() == pytest.approx(1.0, rel=1e-2)


def test_clipping_takes_a_generator_and_no_gradients_at_all():
    assert clip_gradients((p for p in parameters()), 1.0).item() == 0.0


def test_the_configured_sgd_is_plain():
    """Under a schedule lr falls by the schedule alone: ``torch.optim.SGD`` step for step."""
    model = torch.nn.Linear(3, 4, dtype=torch.float64)
    other = copy.deepcopy(model)
    ours = build_optimizer(model, OptimConfig(name="sgd", lr=0.1))
    theirs = torch.optim.SGD(other.parameters(), lr=0.1)
    lrs = [0.01 * (1 + step % 7) for step in range(30)]
    descend(ours, list(model.parameters()), 30, lrs=lrs)
    descend(theirs, list(other.parameters()), 30, lrs=lrs)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, **EXACT)

"""Muon and NorMuon: step for step what torch's and hand-written loops do, alone and in a run."""

import copy
import dataclasses
import functools
import io
import math

import numpy as np
import pytest
import torch
from cs336lm.errors import UsageError
from cs336lm.model import ModelConfig, TransformerLM
from cs336lm.model.accounting import training_flops_per_token
from cs336lm.optim import Muon, NorMuon, newton_schulz, parameter_roles
from cs336lm.optim.build import build_optimizer
from cs336lm.optim.newton_schulz import (
    orthogonalization_flops,
    orthogonalize,
    orthogonalize_each,
)
from cs336lm.optim.sharing import share_out
from cs336lm.training.checkpoints.archive import read_state
from cs336lm.training.config import OptimConfig
from cs336lm.training.run_directory import RunDirectory
from cs336lm.training.trainer import Trainer
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_run import MODEL, VOCAB_SIZE, curve, make_config
from torch.nn import Embedding, Module, Parameter
from torch.utils.flop_counter import FlopCounterMode

EXACT = {"rtol": 1e-9, "atol": 1e-11}
SHAPES = [(8, 12), (12, 8), (8, 8), (8, 12), (1, 5)]
OTHERS = [(7,), (9, 4)]


def parameters(shapes=SHAPES, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [Parameter(torch.randn(s, dtype=dtype, generator=generator)) for s in shapes]


def descend(optimizer, params, steps, *, seed=1):
    """``steps`` steps along random gradients, at another learning rate each."""
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        for p in params:
            grad = torch.randn(p.shape, dtype=torch.float64, generator=generator)
            p.grad = grad.to(p.dtype)
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (1 + step % 3)
        optimizer.step()


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch has no Muon")
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_muon_equals_torch(nesterov, dtype):
    """Torch's iterates in bfloat16, always (and rounds 1 - lr decay to that, where weights are)."""
    ours, theirs = parameters(dtype=dtype), parameters(dtype=dtype)
    decay = 0.1 if dtype == torch.float32 else 0.0
    settings = {"momentum": 0.9, "weight_decay": decay, "nesterov": nesterov}
    descend(Muon(ours, **settings, dtype=torch.bfloat16), ours, 12)
    descend(torch.optim.Muon(theirs, **settings), theirs, 12)
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-5)


def by_hand(weights, steps, *, momentum, nesterov, decay, beta2=None, seed=1):
    """The papers' formulas, one matrix after the other, in NumPy's float64."""
    generator = torch.Generator().manual_seed(seed)
    means = [np.zeros_like(w) for w in weights]
    seconds = [np.zeros(len(w)) for w in weights]
    for step in range(steps):
        lr = 0.01 * (1 + step % 3)
        for i, w in enumerate(weights):
            rows, columns = w.shape
            g = torch.randn(w.shape, dtype=torch.float64, generator=generator).numpy()
            means[i] = momentum * means[i] + (1 - momentum) * g
            u = momentum * means[i] + (1 - momentum) * g if nesterov else means[i]
            o = u / np.sqrt((u**2).sum())
            for _ in range(5):
                gram = o @ o.T
                o = 3.4445 * o - 4.7750 * gram @ o + 2.0315 * gram @ gram @ o
            if beta2 is not None:
                seconds[i] = beta2 * seconds[i] + (1 - beta2) * (o**2).mean(axis=1)
                n = np.stack([o[r] / math.sqrt(seconds[i][r]) for r in range(rows)])
                o = n * np.sqrt((o**2).sum()) / np.sqrt((n**2).sum())
            w *= 1 - lr * decay
            w -= lr * math.sqrt(max(1.0, rows / columns)) * o


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize(("kind", "beta2"), [(Muon, None), (NorMuon, 0.9)])
def test_equals_the_formulas_by_hand(kind, beta2, nesterov):
    ours = parameters()
    theirs = [p.detach().clone().numpy() for p in ours]
    settings = {"momentum": 0.8, "nesterov": nesterov}
    optimizer = kind(ours, weight_decay=0.3, betas=(0.5, beta2 or 0.5), **settings)
    descend(optimizer, ours, 7)
    by_hand(theirs, 7, **settings, decay=0.3, beta2=beta2)
    for p, w in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.detach(), w, **EXACT)


@pytest.mark.parametrize("kind", [Muon, NorMuon])
def test_the_rest_is_adamws(kind):
    ours, theirs = parameters(OTHERS), parameters(OTHERS)
    rest = {"params": ours, "matrices": False, "weight_decay": 0.2}
    settings = {"betas": (0.8, 0.9), "eps": 1e-6}
    optimizer = kind([{"params": parameters()}, rest], **settings)
    descend(optimizer, ours, 9)
    descend(torch.optim.AdamW(theirs, weight_decay=0.2, **settings), theirs, 9)
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, **EXACT)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 40), seed=st.integers(0, 99))
def test_singular_values_come_near_1_and_vectors_stay(rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    least = min(rows, columns)
    u, _ = torch.linalg.qr(torch.randn(rows, least, generator=generator, dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn(columns, least, generator=generator, dtype=torch.float64))
    # From a 20th of the norm on, which five steps bring into the band.
    values = 1 / least + torch.rand(least, generator=generator, dtype=torch.float64)
    values *= 100.0 ** torch.randn((), generator=generator)
    inner = u.T @ orthogonalize((u * values @ v.T)[None])[0] @ v
    assert inner.diagonal().min() > 0.65
    assert inner.diagonal().max() < 1.25
    torch.testing.assert_close(inner, inner.diagonal().diag(), rtol=0, atol=1e-9)


def test_zeros_stay_zeros():
    for kind in (Muon, NorMuon):
        (p,) = ours = parameters([(3, 4)])
        before = p.detach().clone()
        optimizer = kind(ours)
        p.grad = torch.zeros_like(p)
        optimizer.step()
        assert torch.equal(p, before)


@pytest.mark.parametrize("most", [1, 200, 1 << 26])
def test_many_at_once_are_each_by_itself(monkeypatch, most):
    monkeypatch.setattr(newton_schulz, "_MOST_AT_ONCE", most)
    matrices = [p.detach() for p in parameters(SHAPES * 3)]
    together = orthogonalize_each(matrices, torch.float64)
    for matrix, result in zip(matrices, together, strict=True):
        torch.testing.assert_close(result, orthogonalize(matrix[None])[0], **EXACT)


def test_alike_matrices_go_through_few_products(monkeypatch):
    """A model's: those of attention, and those of the feed-forward network, transposed or not."""
    batches = []
    monkeypatch.setattr(
        newton_schulz,
        "orthogonalize",
        lambda x, steps: batches.append(tuple(x.shape)) or orthogonalize(x, steps),
    )
    config = ModelConfig(
        vocab_size=9, context_length=4, d_model=8, num_layers=3, num_heads=2, d_ff=12
    )
    model = TransformerLM(config)
    optimizer = build_optimizer(model, OptimConfig(name="muon"))
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    assert sorted(batches) == [(9, 8, 12), (12, 8, 8)]


@pytest.mark.parametrize("kind", [Muon, NorMuon])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_survives_a_round_trip_bit_for_bit(kind, dtype):
    def make(params):
        matrices, rest = params[: len(SHAPES)], params[len(SHAPES) :]
        return kind([{"params": matrices}, {"params": rest, "matrices": False}])

    straight = parameters(SHAPES + OTHERS, dtype)
    optimizer = make(straight)
    descend(optimizer, straight, 4)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    resumed = [Parameter(p.detach().clone()) for p in straight]
    restored = make(resumed)
    restored.load_state_dict(torch.load(file, weights_only=True))
    descend(optimizer, straight, 3, seed=2)
    descend(restored, resumed, 3, seed=2)
    for p, q in zip(straight, resumed, strict=True):
        assert torch.equal(p, q)


def test_what_is_impossible_is_refused_by_name():
    for bad in ({"lr": -1.0}, {"momentum": 1.0}, {"weight_decay": math.nan}, {"betas": (0.9, 1)}):
        with pytest.raises(UsageError, match=f"^{next(iter(bad))} must"):
            Muon(parameters(), **bad)
    with pytest.raises(UsageError, match=r"^newton_schulz_steps must not be below 0: -1"):
        Muon(parameters(), newton_schulz_steps=-1)
    for shape in ((3,), (2, 3, 4), ()):
        with pytest.raises(UsageError, match=r"a parameter of shape \(.*\"matrices\": False"):
            Muon(parameters([(3, 4), shape]))


class Bag(Module):
    """A model of which no parameter is a matrix inside a block."""

    def __init__(self):
        super().__init__()
        self.table = Embedding(5, 4)
        self.table.role = "embedding"
        self.gain = Parameter(torch.ones(4))


@pytest.mark.parametrize("name", ["muon", "normuon"])
def test_a_model_without_matrices_is_refused_by_name(name):
    with pytest.raises(UsageError, match=rf"^optim\.name='{name}' .*this model has none"):
        build_optimizer(Bag(), OptimConfig(name=name))


@pytest.mark.parametrize(("name", "kind"), [("muon", Muon), ("normuon", NorMuon)])
def test_matrices_of_blocks_are_muons_and_the_rest_adamws(name, kind):
    model = TransformerLM(MODEL)
    model.layers[0].ffn.w2.weight = Parameter(torch.zeros(3, 4, 5))  # a matrix by name alone
    optimizer = build_optimizer(model, OptimConfig(name=name, lr=0.003, momentum=0.7, eps=1e-5))
    assert type(optimizer) is kind
    roles = parameter_roles(model)
    seen = 0
    for group in optimizer.param_groups:
        for p in group["params"]:
            seen += 1
            is_matrix = roles[p] == "matrix" and p.ndim == 2
            assert group["matrices"] is is_matrix
            assert group["lr"] == group["base_lr"] == (0.02 if is_matrix else 0.003)
            assert group["weight_decay"] == (0.0 if roles[p] == "gain" else 0.1)
            assert (group["momentum"], group["eps"]) == (0.7, 1e-5)
    assert seen == len(list(model.parameters()))


def test_operations_are_counted():
    for shape in ((8, 12), (12, 8), (8, 8)):
        with FlopCounterMode(display=False) as counter:
            orthogonalize(torch.randn(1, *shape), steps=3)
        assert counter.get_total_flops() == orthogonalization_flops(*shape, steps=3)


def test_the_cost_at_gpt2_small_is_below_a_twentieth_of_a_step():
    """Of half a million tokens. docs/learning.md has the figures."""
    config = ModelConfig(
        vocab_size=50257, context_length=1024, d_model=768, num_layers=12, num_heads=12, d_ff=2048
    )
    with torch.device("meta"):
        roles = parameter_roles(TransformerLM(config))
    matrices = [p.shape for p, role in roles.items() if role == "matrix"]
    assert len(matrices) == 12 * 7
    cost = sum(orthogonalization_flops(*shape) for shape in matrices)
    step = training_flops_per_token(config) * 512 * 1024
    assert cost / step == pytest.approx(0.0038, abs=0.0001)
    assert cost < 0.05 * step


@given(
    shapes=st.lists(st.tuples(st.integers(1, 99), st.integers(1, 99)), max_size=30),
    processes=st.integers(1, 8),
)
def test_work_is_shared_out_evenly(shapes, processes):
    owners = share_out(shapes, processes)
    assert len(owners) == len(shapes)
    costs = [orthogonalization_flops(*shape) for shape in shapes]
    work = [0] * processes
    for cost, owner in zip(costs, owners, strict=True):
        work[owner] += cost
    assert sum(work) == sum(costs)
    if costs:  # nobody has more than a fair share and one matrix
        assert max(work) <= sum(costs) / processes + max(costs)
    assert owners == share_out(shapes, processes)


def muon_config(folder, name="muon", *, optim=None, **train):
    optim = OptimConfig(name=name, lr=1e-2, matrix_lr=0.03, **(optim or {}))
    return make_config(folder, optim=optim, **train)


@pytest.mark.parametrize("name", ["muon", "normuon"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_learns_and_resumes_bit_for_bit(tmp_path, monkeypatch, name, dtype):
    warm = {"momentum_warmup_steps": 30}
    config = muon_config(tmp_path, name, optim=warm, steps=60, eval_every=20, dtype=dtype)
    result = Trainer(config, tmp_path / "whole").train()
    assert result.val_loss < 2.0 < math.log(VOCAB_SIZE) - 1.6

    class Stopped(Exception):
        pass

    def stop(self, x, y, *, rounds):
        if self.progress.step == 14:
            raise Stopped
        return update(self, x, y, rounds=rounds)

    update = Trainer.update
    monkeypatch.setattr(Trainer, "update", stop)
    with pytest.raises(Stopped):
        Trainer(config, tmp_path / "parts").train()
    monkeypatch.setattr(Trainer, "update", update)
    Trainer(config, tmp_path / "parts", resume=True).train()
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    ours, theirs = (
        read_state(RunDirectory(tmp_path / run).step_checkpoints()[-1])
        for run in ("parts", "whole")
    )
    for key, weight in theirs["model"].items():
        assert torch.equal(ours["model"][key], weight)
    for index, state in theirs["optimizer"]["state"].items():
        for key, value in state.items():
            assert torch.equal(
                *map(torch.as_tensor, (ours["optimizer"]["state"][index][key], value))
            )


def test_a_compiled_model_learns_alike(tmp_path, monkeypatch):
    losses = []
    # The compiler's view of the step without its code generator, which takes long.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    for compiled in (False, True):
        config = muon_config(tmp_path, steps=8, compile=compiled)
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, val=None))
        Trainer(config, tmp_path / f"{compiled}").train()
        losses.append([record.get("train_loss", 0.0) for record in curve(tmp_path / f"{compiled}")])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_a_deep_copy_goes_on_alike():
    ours = parameters()
    optimizer = Muon(ours)
    descend(optimizer, ours, 2)
    copied = copy.deepcopy(optimizer)
    theirs = copied.param_groups[0]["params"]
    descend(optimizer, ours, 2)
    descend(copied, theirs, 2)
    for p, q in zip(ours, theirs, strict=True):
        assert torch.equal(p, q)

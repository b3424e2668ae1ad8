"""The monitor: its figures against plain arithmetic, and that nobody is any the wiser for it."""

import dataclasses
import math
from functools import partial

import numpy as np
import pytest
import torch
from choices import CHOICES, TOGETHER, config_of, model_of
from cs336lm.model import TransformerLM
from cs336lm.model.attention import MultiHeadSelfAttention
from cs336lm.model.functional import softmax
from cs336lm.optim.groups import parameter_roles
from cs336lm.training.config import OptimConfig
from cs336lm.training.look_inside import (
    DEAD_BELOW,
    MOST_POSITIONS,
    attention_entropy,
    look_inside,
    spread_positions,
)
from cs336lm.training.run_directory import load_run
from cs336lm.training.trackers.jsonl import read_metrics
from cs336lm.training.trainer import Trainer
from hypothesis import given, settings
from hypothesis import strategies as st
from test_distributed import UNEVEN, parallel, train
from tiny_run import MODEL, curve, make_config

BY_LAYER = (
    *("residual_rms", "attention_rms", "ffn_rms", "attention_entropy", "dead_units"),
    *("weight_rms", "gradient_rms", "update_rms", "update_ratio"),
)


def rms(*tensors):
    return torch.cat([t.flatten() for t in tensors]).double().square().mean().sqrt().item()


def ids(model, rows=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    shape = (rows, config.context_length + 1)
    tokens = torch.randint(config.vocab_size, shape, generator=generator)
    return tokens[:, :-1], tokens[:, 1:]


def plain_entropy(q, k):
    """Head by head and query by query, with the whole row of weights."""
    shared = q.shape[1] // k.shape[1]
    found = []
    for row in range(q.shape[0]):
        for head in range(q.shape[1]):
            for at in spread_positions(q.shape[2], q.device).tolist():
                keys = k[row, head // shared, : at + 1].double()
                weights = softmax(keys @ q[row, head, at].double() / math.sqrt(q.shape[3]), 0)
                found.append(torch.special.entr(weights).sum().item())
    return np.mean(found)


@pytest.mark.parametrize(("heads", "kv_heads", "length"), [(4, 4, 7), (4, 2, 9), (6, 1, 150)])
def test_entropy_of_attention(heads, kv_heads, length):
    torch.manual_seed(0)
    q, k = 2 * torch.randn(2, heads, length, 8), torch.randn(2, kv_heads, length, 8)
    assert attention_entropy(q, k).item() == pytest.approx(plain_entropy(q, k), rel=1e-5)
    alike = attention_entropy(torch.zeros_like(q), k).item()
    positions = spread_positions(length, q.device)
    assert alike == pytest.approx((positions + 1).double().log().mean().item(), rel=1e-5)
    sharp = attention_entropy(1e4 * q, k).item()
    assert 0 <= sharp < 0.05


@settings(deadline=None)
@given(st.integers(1, 5000))
def test_positions_are_spread_evenly(length):
    places = spread_positions(length, torch.device("cpu"))
    assert len(places) == min(length, MOST_POSITIONS)
    assert 0 <= places[0] <= places[-1] < length
    gaps = places.diff()
    assert len(gaps) == 0 or (gaps.min() >= 1 and gaps.max() - gaps.min() <= 1)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_look_inside_sees_what_the_model_computes(choice):
    """Every figure once more from the tensors themselves, layer by layer, without hooks."""
    model = model_of(choice, dtype=torch.float32)
    x, y = ids(model)
    expected = model(x, y)
    inside = look_inside(model, x, y)
    assert torch.equal(model(x, y), expected)
    assert not any(
        module._forward_hooks or module._forward_pre_hooks for module in model.modules()
    ), "the hooks are gone"

    stream = embedded = model.token_embeddings(x)
    for layer, block in enumerate(model.layers):
        read = block.residual(stream, embedded)
        post = type(block).__name__ == "PostNormBlock"
        to_attention = read if post else block.ln1(read)
        attention = block.attn(to_attention, None, None, x)
        read = block.ln1(read + attention) if post else read + attention
        to_ffn = read if post else block.ln2(read)
        out = block.ffn(to_ffn)
        stream = block.ln2(read + out) if post else read + out
        for seen, tensor in (
            (inside.attention_square, attention),
            (inside.ffn_square, out),
            (inside.residual_square, stream),
        ):
            assert seen[layer].sqrt().item() == pytest.approx(rms(tensor), rel=1e-4)
        q, k, _ = block.attn.project(to_attention)
        assert inside.attention_entropy[layer].item() == pytest.approx(
            plain_entropy(q, k), rel=1e-4
        )
        assert inside.active_units[layer].shape == (block.ffn.w2.in_features,)
    logits = model.logits(model.ln_final(stream)).double()
    (largest,), (z,) = inside.logit_max, inside.logsumexp
    assert largest.item() == pytest.approx(logits.amax(-1).mean().item(), rel=1e-4)
    sums = np.logaddexp.reduce(logits.detach().numpy(), axis=-1)
    assert z.item() == pytest.approx(sums.mean(), rel=1e-4)


@pytest.mark.parametrize("ffn", ["swiglu", "silu", "relu2"])
def test_dead_units_are_those_that_do_nothing(ffn):
    config = dataclasses.replace(config_of("default"), ffn=ffn)
    torch.manual_seed(1)
    model = TransformerLM(config)
    x, y = ids(model)
    before = look_inside(model, x, y).active_units
    alive = [units.sum().item() for units in before]
    dead = [3, 5, 7]
    with torch.no_grad():
        model.layers[1].ffn.w1.weight[dead] = 0
        model.layers[1].ffn.w1.weight[9] *= DEAD_BELOW**2  # as good as
    after = look_inside(model, x, y).active_units
    assert after[1][[*dead, 9]].tolist() == [0.0] * 4
    lost = before[1][[*dead, 9]].sum().item()
    assert [units.sum().item() for units in after][:2] == [alive[0], alive[1] - lost]
    assert lost >= 3


def test_no_matrix_as_large_as_the_sequence_squared():
    """Of 2,000 positions, queries at 64 are looked at."""
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    attention = MultiHeadSelfAttention(8, 2)
    with Watch(), torch.no_grad():
        q, k, _ = attention.project(torch.randn(1, 2000, 8))
        attention_entropy(q, k)
    assert largest == 2 * MOST_POSITIONS * 2000


def monitored(run):
    return {r["step"]: r["monitor"] for r in read_metrics(run / "metrics.jsonl") if "monitor" in r}


def without_monitor(run):
    return [{k: v for k, v in record.items() if k != "monitor"} for record in curve(run)]


def assert_same_run(one, other):
    assert without_monitor(one) == without_monitor(other)
    ours, theirs = (load_run(run, which="last")[1].state_dict() for run in (one, other))
    for name, weight in theirs.items():
        assert torch.equal(ours[name], weight), name


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"dtype": "bfloat16", "activation_checkpointing": True, "grad_accumulation": 2},
        {"optim": OptimConfig(name="muon", lr=1e-2)},
        {"optim": OptimConfig(name="sgd", lr=1e-1)},
    ],
)
def test_the_run_is_the_same_with_and_without(tmp_path, settings):
    for every, name in ((0, "plain"), (2, "looked-at")):
        torch.manual_seed(7)
        config = make_config(tmp_path, steps=6, monitor_every=every, **settings)
        Trainer(config, tmp_path / name).train()
    assert_same_run(tmp_path / "looked-at", tmp_path / "plain")
    assert monitored(tmp_path / "plain") == {}
    found = monitored(tmp_path / "looked-at")
    assert list(found) == [2, 4, 6]
    for figures in found.values():
        assert all(len(figures[name]) == MODEL.num_layers for name in BY_LAYER)
        assert all(math.isfinite(value) for name in BY_LAYER for value in figures[name])
        assert all(ratio > 0 for ratio in figures["update_ratio"])


@pytest.mark.parametrize("choice", TOGETHER)
def test_every_choice_of_the_model_is_monitored(tmp_path, choice):
    model = config_of(choice, dataclasses.replace(config_of("default"), context_length=8))
    for every, name in ((0, "plain"), (2, "looked-at")):
        config = make_config(tmp_path, model=model, steps=2, eval_every=0, monitor_every=every)
        Trainer(config, tmp_path / name).train()
    assert_same_run(tmp_path / "looked-at", tmp_path / "plain")
    (figures,) = monitored(tmp_path / "looked-at").values()
    roles = set(parameter_roles(TransformerLM(model)).values())
    assert figures["roles"].keys() == roles
    for role in roles:
        assert figures["roles"][role]["update_rms"] > 0


def test_a_compiled_run_is_the_same(tmp_path, monkeypatch):
    """Hooks come and go on modules that are traced; all of compiling but the generation of code."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    for every, name in ((0, "plain"), (1, "looked-at")):
        config = make_config(tmp_path, steps=3, eval_every=0, compile=True, monitor_every=every)
        Trainer(config, tmp_path / name).train()
    assert_same_run(tmp_path / "looked-at", tmp_path / "plain")
    assert list(monitored(tmp_path / "looked-at")) == [1, 2, 3]


def test_sizes_are_those_of_the_weights_and_what_the_step_changed(tmp_path):
    config = make_config(tmp_path, steps=2, eval_every=0, monitor_every=2, grad_accumulation=2)
    trainer = Trainer(config, tmp_path / "run")
    roles = parameter_roles(trainer.model)
    step, looked = trainer.optimizer.step, []

    def watched_step(*args, **kwargs):
        before = [p.detach().clone() for p in roles]
        gradients = [p.grad.clone() for p in roles]
        out = step(*args, **kwargs)
        after = [p.detach().clone() for p in roles]
        looked.append((before, gradients, after))
        return out

    trainer.optimizer.step = watched_step
    trainer.train()
    before, gradients, after = looked[-1]
    figures = monitored(tmp_path / "run")[2]
    block = set(trainer.model.layers[0].parameters())
    matrices = [at for at, (p, role) in enumerate(roles.items()) if role == "matrix" and p in block]
    changes = [new - old for new, old in zip(after, before, strict=True)]
    for name, tensors in (
        ("weight_rms", after),
        ("gradient_rms", gradients),
        ("update_rms", changes),
    ):
        of_block = rms(*(tensors[at] for at in matrices))
        assert figures[name] == pytest.approx([of_block], rel=1e-4)
        for role in set(roles.values()):
            chosen = [tensors[at] for at, stated in enumerate(roles.values()) if stated == role]
            assert figures["roles"][role][name] == pytest.approx(rms(*chosen), rel=1e-4)
    ratio = figures["update_rms"][0] / figures["weight_rms"][0]
    assert figures["update_ratio"] == pytest.approx([ratio], rel=1e-4)
    assert not trainer.optimizer._optimizer_step_pre_hooks
    assert not trainer.optimizer._optimizer_step_post_hooks


def test_a_resumed_run_has_the_same_figures(tmp_path):
    optim = OptimConfig(lr=1e-2, schedule="constant", warmup_steps=0)
    config = make_config(tmp_path, optim=optim, steps=8, checkpoint_every=3, monitor_every=2)
    Trainer(config, tmp_path / "whole").train()
    shorter = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=3))
    Trainer(shorter, tmp_path / "run").train()
    Trainer(config, tmp_path / "run", resume=True).train()
    assert monitored(tmp_path / "run") == monitored(tmp_path / "whole")


def test_what_is_not_finite_is_null(tmp_path):
    """Weights that have overflowed: the line is still JSON."""
    config = make_config(tmp_path, steps=2, eval_every=0, monitor_every=1)
    trainer = Trainer(config, tmp_path / "run")
    update = trainer.update

    def overflow(x, y, *, rounds):
        out = update(x, y, rounds=rounds)
        with torch.no_grad():
            trainer.model.layers[0].ffn.w2.weight.fill_(math.inf)
        return out

    trainer.update = overflow
    with pytest.raises(ValueError, match="diverged"):
        trainer.train()
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert monitored(tmp_path / "run")[1]["residual_rms"] == [None]


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_all_processes_together(tmp_path, mode):
    """Two processes look at the two halves of a batch, one process at the whole of it."""
    optim = OptimConfig(lr=1e-2, schedule="constant")
    config = make_config(tmp_path, model=UNEVEN, optim=optim, batch_size=4, steps=4)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, monitor_every=2))
    Trainer(config, tmp_path / "alone").train()
    quiet = dataclasses.replace(config, train=dataclasses.replace(config.train, monitor_every=0))
    train(2, parallel(config, mode), tmp_path / "run")
    train(2, parallel(quiet, mode), tmp_path / "quiet")
    assert without_monitor(tmp_path / "run") == without_monitor(tmp_path / "quiet")
    ours, theirs = monitored(tmp_path / "run"), monitored(tmp_path / "alone")
    assert list(ours) == list(theirs) == [2, 4]
    for step, figures in theirs.items():
        for name in BY_LAYER:
            assert ours[step][name] == pytest.approx(figures[name], rel=2e-3), name
        for role, sizes in figures["roles"].items():
            assert ours[step]["roles"][role] == pytest.approx(sizes, rel=2e-3)
        for name in ("logit_max", "logsumexp"):
            assert ours[step][name] == pytest.approx(figures[name], rel=1e-4)

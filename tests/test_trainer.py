"""The loop learns, reports each step once, keeps what it should, and stops when it must."""

import dataclasses
import json
import math
import threading
import typing

import numpy as np
import pytest
import torch
from cs336lm.errors import UsageError
from cs336lm.model import TransformerLM
from cs336lm.optim import SGD, AdaGrad, AdamW
from cs336lm.optim.build import build_optimizer
from cs336lm.optim.schedules import SCHEDULES, lr_cosine_schedule
from cs336lm.training import device_events, saver
from cs336lm.training.checkpoints.archive import read_state
from cs336lm.training.checkpoints.course import load_checkpoint
from cs336lm.training.checkpoints.writer import BackgroundWriter
from cs336lm.training.config import OptimConfig, TrainConfig
from cs336lm.training.data import open_data
from cs336lm.training.run_directory import RunDirectory, load_run
from cs336lm.training.trackers import table
from cs336lm.training.trackers.jsonl import read_metrics
from cs336lm.training.trackers.table import TRACKERS
from cs336lm.training.trainer import Trainer
from tiny_run import CONTEXT_LENGTH, MODEL, VOCAB_SIZE, curve, make_config, write_tokens


class Clock:
    """A clock that moves when it is told to."""

    now = 0.0

    def __call__(self):
        return self.now


def test_learns_what_there_is_to_learn(tmp_path):
    config = make_config(tmp_path, steps=200, eval_every=0, log_every=50)
    result = Trainer(config, tmp_path / "run").train()
    first, *_, last = curve(tmp_path / "run")
    assert first["val_loss"] > math.log(VOCAB_SIZE) * 0.9
    assert last["val_loss"] == result.val_loss < math.log(3) + 0.3
    assert result.progress.tokens == 200 * 8 * CONTEXT_LENGTH
    assert result.stopped_by is None


def test_metrics_hold_each_step_once_with_its_figures(tmp_path):
    config = make_config(tmp_path, steps=12, log_every=3, eval_every=5, grad_accumulation=2)
    Trainer(config, tmp_path / "run").train()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    records = {record["step"]: record for record in map(json.loads, lines)}
    assert list(records) == [0, 3, 5, 6, 9, 10, 12]
    assert [step for step, record in records.items() if "val_loss" in record] == [0, 5, 10, 12]
    for step, record in records.items():
        assert record["tokens"] == step * 8 * CONTEXT_LENGTH
        assert record["seconds"] >= 0
        if step:
            assert record["lr"] == lr_cosine_schedule(step, 1e-2, 1e-3, 0, 12)
            assert {"train_loss", "grad_norm", "tokens_per_second"} <= record.keys()


def test_accumulating_gradients_changes_nothing_but_rounding(tmp_path):
    curves = []
    for rounds in (1, 2, 8):
        config = make_config(tmp_path, grad_accumulation=rounds)
        Trainer(config, tmp_path / f"run-{rounds}").train()
        curves.append([record["val_loss"] for record in curve(tmp_path / f"run-{rounds}")[::5]])
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-5)
    np.testing.assert_allclose(curves[2], curves[0], rtol=1e-5)


def test_the_loss_of_a_step_is_the_mean_over_its_rounds(tmp_path):
    losses = []
    for rounds in (1, 4):
        config = make_config(tmp_path, steps=2, grad_accumulation=rounds)
        Trainer(config, tmp_path / f"run-{rounds}").train()
        losses.append([record["train_loss"] for record in curve(tmp_path / f"run-{rounds}")[1:]])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


@pytest.mark.parametrize(("grad_clip", "expected"), [(0.01, 0.01), (1e9, None), (0.0, None)])
def test_a_gradient_is_clipped_before_the_optimizer_sees_it(tmp_path, grad_clip, expected):
    optim = OptimConfig(name="sgd", lr=1e-3, grad_clip=grad_clip)
    trainer = Trainer(make_config(tmp_path, optim=optim), tmp_path / "run")
    seen = []
    trainer.optimizer.register_step_pre_hook(
        lambda *_: seen.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters()]))
    )
    _, norm = trainer.update(*torch.zeros((2, 8, CONTEXT_LENGTH), dtype=torch.int64), rounds=2)
    assert norm > 0.1
    assert seen[0].norm().item() == pytest.approx(expected or norm.item(), rel=1e-3)
    assert all(p.grad is None for p in trainer.model.parameters())


def test_an_optimizer_gets_its_settings():
    model = TransformerLM(MODEL)
    settings = {"lr": 0.123, "eps": 1e-4, "betas": (0.5, 0.6), "weight_decay": 0.3}
    for name in ("sgd", "adagrad", "adamw"):
        optimizer = build_optimizer(model, OptimConfig(name=name, **settings))
        assert optimizer.defaults["lr"] == 0.123
        if name != "sgd":
            assert optimizer.defaults["eps"] == 1e-4


def test_keeps_the_last_checkpoints_and_the_best(tmp_path, monkeypatch):
    validated = iter([4.0, 3.0, 3.5, 2.0, 2.5])  # at steps 0, 5, 10, 15, 20
    monkeypatch.setattr(Trainer, "validate", lambda self: next(validated))
    config = make_config(tmp_path, steps=20, eval_every=5, checkpoint_every=3, keep_checkpoints=2)
    result = Trainer(config, tmp_path / "run").train()
    run = RunDirectory(tmp_path / "run")
    assert [path.name for path in run.step_checkpoints()] == [
        "step-00000018.pt",
        "step-00000020.pt",
    ]
    best = read_state(run.best_checkpoint)
    assert best["iteration"] == 15
    assert "optimizer" not in best
    with pytest.raises(
        ValueError, match=r"best\.pt does not contain an optimizer's state, only weights"
    ):
        load_checkpoint(run.best_checkpoint, TransformerLM(MODEL), None)
    assert result.progress.best_val_loss == 2.0
    assert sorted(p.name for p in run.path.iterdir()) == [
        ".lock", "checkpoints", "config.toml", "environment.jsonl", "metrics.jsonl",
    ]  # fmt: skip
    assert len(list(run.checkpoints.iterdir())) == 3


def test_the_best_alone_is_saved_without_a_copy_of_the_optimizer(tmp_path, monkeypatch):
    copied = []
    monkeypatch.setattr(saver, "snapshot", lambda state: copied.append(state) or state)
    config = make_config(tmp_path, steps=4, eval_every=1, checkpoint_every=0)
    monkeypatch.setattr(Trainer, "validate", lambda self: -self.progress.step)
    Trainer(config, tmp_path / "run").train()
    assert [state["iteration"] for state in copied] == [1, 2, 3, 4]
    assert ["optimizer" in state for state in copied] == [False, False, False, True]


def test_a_run_is_loaded_with_its_best_or_last_weights(tmp_path):
    trainer = Trainer(make_config(tmp_path, steps=12), tmp_path / "run")
    trainer.train()
    config, model, tokenizer = load_run(tmp_path / "run", which="last")
    assert config.model.d_ff == MODEL.ffn_width
    assert tokenizer is None
    assert not model.training
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight)
    trainer.model.load_state_dict(load_run(tmp_path / "run")[1].state_dict())
    assert trainer.validate() == trainer.progress.best_val_loss


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_stays_close_to_float32(tmp_path, dtype):
    losses = {}
    for name in ("float32", dtype):
        config = make_config(tmp_path, steps=40, eval_every=0, dtype=name)
        losses[name] = Trainer(config, tmp_path / name).train().val_loss
    assert losses[dtype] == pytest.approx(losses["float32"], abs=0.03)
    weights = load_run(tmp_path / dtype)[1].state_dict().values()
    assert all(weight.dtype == torch.float32 for weight in weights)


def test_a_loss_that_is_no_number_stops_the_run_and_spoils_no_checkpoint(tmp_path):
    optim = OptimConfig(name="sgd", schedule="constant", lr=1e25, warmup_steps=0, grad_clip=0)
    config = make_config(tmp_path, optim=optim, steps=50, checkpoint_every=1, log_every=7)
    with pytest.raises(ValueError, match=r"step \d+: the loss is (nan|inf).*--optim.lr"):
        Trainer(config, tmp_path / "run").train()
    for path in RunDirectory(tmp_path / "run").step_checkpoints():
        assert all(weight.isfinite().all() for weight in read_state(path)["model"].values())
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


@pytest.mark.parametrize("broken_from", [0, 5])
def test_a_float16_run_whose_gradients_are_never_finite_ends(tmp_path, broken_from):
    """The scale falls from 65,536 to below 1: 17 steps, all of them skipped."""
    config = make_config(tmp_path, steps=500, eval_every=0, dtype="float16", log_every=3)
    trainer = Trainer(config, tmp_path / "run")
    trainer.model.lm_head.weight.register_hook(
        lambda grad: grad * math.nan if trainer.progress.step >= broken_from else grad
    )
    with pytest.raises(ValueError, match=r"step \d+: .*the gradient nan.*diverged") as raised:
        trainer.train()
    assert "\n" not in str(raised.value)
    assert broken_from + 17 <= trainer.progress.step <= broken_from + 17 + 2 * 3


def test_a_float16_run_skips_a_gradient_that_overflows_now_and_then(tmp_path):
    config = make_config(tmp_path, steps=60, eval_every=0, dtype="float16")
    trainer = Trainer(config, tmp_path / "run")
    trainer.model.lm_head.weight.register_hook(
        lambda grad: grad * math.inf if trainer.progress.step % 5 == 0 else grad
    )
    assert trainer.train().progress.step == 60


def test_a_checkpoint_holds_no_step_that_the_metrics_do_not(tmp_path, monkeypatch):
    """Or a run killed right after writing it would never report that step."""
    config = make_config(tmp_path, log_every=2, checkpoint_every=4, eval_every=3)
    written = []

    def compare(run, state):
        written.append((state["iteration"], read_metrics(run.metrics_file)[-1]["step"]))

    monkeypatch.setattr(RunDirectory, "write_checkpoint", compare)
    monkeypatch.setattr(RunDirectory, "write_best", compare)
    monkeypatch.setattr(BackgroundWriter, "submit", lambda self, write: write())
    Trainer(config, tmp_path / "run").train()
    assert {step for step, _ in written} >= {4, 8, 12}
    assert all(reported == step for step, reported in written)


def test_a_checkpoint_is_of_its_step_however_late_it_is_written(tmp_path, monkeypatch):
    config = make_config(tmp_path, steps=6, checkpoint_every=3, eval_every=0)
    Trainer(config, tmp_path / "at-once").train()
    held = []

    def wait(self):
        while held:
            held.pop()()

    def hold(self, write):
        wait(self)
        held.append(write)

    monkeypatch.setattr(BackgroundWriter, "submit", hold)
    monkeypatch.setattr(BackgroundWriter, "wait", wait)
    Trainer(config, tmp_path / "late").train()
    for step in (3, 6):
        one, other = (
            read_state(tmp_path / name / "checkpoints" / f"step-0000000{step}.pt")
            for name in ("at-once", "late")
        )
        assert one["iteration"] == other["iteration"] == step
        torch.testing.assert_close(other["model"], one["model"], rtol=0, atol=0)
        state, expected = other["optimizer"]["state"], one["optimizer"]["state"]
        torch.testing.assert_close(state, expected, rtol=0, atol=0)


def test_training_leaves_nothing_behind_on_the_trainer(tmp_path):
    trainer = Trainer(make_config(tmp_path), tmp_path / "run")
    before = set(vars(trainer))
    trainer.train()
    assert set(vars(trainer)) == before


def test_the_speed_of_training_is_that_without_validation(tmp_path, monkeypatch):
    """On a clock that only validation and steps move: 2 s a step, 100 s a validation."""
    clock = Clock()
    monkeypatch.setattr(device_events.time, "perf_counter", clock)
    update, validate = Trainer.update, Trainer.validate

    def slow_update(self, x, y, *, rounds):
        clock.now += 2
        return update(self, x, y, rounds=rounds)

    def slow_validate(self):
        clock.now += 100
        return validate(self)

    monkeypatch.setattr(Trainer, "update", slow_update)
    monkeypatch.setattr(Trainer, "validate", slow_validate)
    Trainer(make_config(tmp_path, log_every=2, eval_every=3), tmp_path / "run").train()
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [record["step"] for record in records] == [0, 2, 3, 4, 6, 8, 9, 10, 12]
    assert {record["tokens_per_second"] for record in records[1:]} == {8 * CONTEXT_LENGTH / 2}
    assert records[-1]["seconds"] == 12 * 2 + 4 * 100  # those before it


def test_a_checkpoint_that_cannot_be_written_ends_the_run(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device", "run/checkpoints/step-00000004.pt")

    monkeypatch.setattr(RunDirectory, "write_checkpoint", fail)
    with pytest.raises(OSError, match="No space left"):
        Trainer(make_config(tmp_path), tmp_path / "run").train()


def test_a_failed_write_is_told_once_it_is_over_and_not_waited_for():
    writer, go_on, failed = BackgroundWriter(), threading.Event(), threading.Event()

    def write():
        go_on.wait(30)
        failed.set()
        raise OSError("disk full")

    writer.submit(write)
    writer.raise_if_failed()
    assert not failed.is_set()
    go_on.set()
    writer.close()
    with pytest.raises(OSError, match="disk full"):
        writer.raise_if_failed()
    writer.raise_if_failed()


def test_refuses_a_directory_that_holds_a_run(tmp_path):
    config = make_config(tmp_path, steps=1)
    Trainer(config, tmp_path / "run").train()
    with pytest.raises(UsageError, match=r"already contains a run.*--resume"):
        Trainer(config, tmp_path / "run")


def with_data(config, **fields):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **fields))


def test_refuses_data_that_does_not_fit_before_writing_anything(tmp_path):
    config = make_config(tmp_path)
    short = write_tokens(tmp_path / "short.npy", CONTEXT_LENGTH)
    np.save(tmp_path / "large.npy", np.full(100, VOCAB_SIZE, dtype=np.uint16))
    for bad, says in (
        (with_data(config, train=None), "data.train is missing"),
        (with_data(config, train=tmp_path / "missing.npy"), "No such file"),
        (with_data(config, train=short), "too few for a context_length"),
        (with_data(config, val=short), "too few for a context_length"),
        (with_data(config, train=tmp_path / "large.npy"), "id 40 at position 0"),
        (with_data(config, val=tmp_path / "large.npy"), "large.npy: the id 40"),
    ):
        with pytest.raises((ValueError, OSError), match=says):
            Trainer(bad, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_vocab_size_comes_from_the_sidecar_else_from_the_ids(tmp_path):
    config = make_config(tmp_path, model=dataclasses.replace(MODEL, vocab_size=None))
    assert open_data(config).vocab_size == VOCAB_SIZE
    for name in ("train", "val"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"vocab_size": 77}))
    assert open_data(config).vocab_size == 77


def test_only_matrices_decay():
    model = TransformerLM(MODEL)
    optimizer = build_optimizer(model, OptimConfig(weight_decay=0.3))
    assert isinstance(optimizer, AdamW)
    decay = {p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decay) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert decay[parameter] == (0.0 if "ln" in name else 0.3)
    assert isinstance(build_optimizer(model, OptimConfig(name="sgd")), SGD)
    assert isinstance(build_optimizer(model, OptimConfig(name="adagrad")), AdaGrad)


def test_every_name_in_the_configuration_is_listed():
    hints = typing.get_type_hints(OptimConfig)
    assert set(typing.get_args(hints["schedule"])) == set(SCHEDULES)
    (names,) = typing.get_args(typing.get_type_hints(TrainConfig)["track"])[:1]
    assert set(typing.get_args(names)) == set(TRACKERS)


def test_a_tracker_that_is_not_installed_is_named_first(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"train.track=wandb .*pip install 'cs336lm\[wandb\]'"):
        Trainer(make_config(tmp_path, track=("wandb",)), tmp_path / "run")
    assert not (tmp_path / "run").exists()

"""A run owns its directory: one process at a time, no dead ends, and a best that is the best."""

import dataclasses
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from cs336lm.cli import train as train_command
from cs336lm.cli.main import main
from cs336lm.errors import UsageError
from cs336lm.model import TransformerLM
from cs336lm.training import progress
from cs336lm.training.checkpoints.archive import read_state, write_state
from cs336lm.training.checkpoints.state import Mismatch
from cs336lm.training.config import OptimConfig, save_config
from cs336lm.training.run_directory import RunDirectory, load_run
from cs336lm.training.trackers.jsonl import read_metrics
from cs336lm.training.trainer import Trainer
from tiny_run import MODEL, curve, make_config, write_tokens


class Killed(Exception):
    """Stands for a kill: nothing after it runs but what the system does."""


def train_until(monkeypatch, step, config, run_dir, **options):
    """Trains and is killed once ``step`` steps are done and written."""
    update = Trainer.update

    def update_or_die(self, x, y, *, rounds):
        if self.progress.step >= step:
            raise Killed
        return update(self, x, y, rounds=rounds)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", update_or_die)
        trainer = Trainer(config, run_dir, **options)
        with pytest.raises(Killed):
            trainer.train()


def with_train(config, **fields):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **fields))


def with_optim(config, **fields):
    return dataclasses.replace(config, optim=dataclasses.replace(config.optim, **fields))


def with_data(config, **fields):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **fields))


# One process at a time


def hold(run_dir, ready):
    with RunDirectory(run_dir).in_use(step=0):
        ready.set()
        time.sleep(600)


@pytest.fixture
def holder(tmp_path):
    """Another process, which trains in tmp_path/run as far as anybody can see."""
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    process = fork.Process(target=hold, args=(tmp_path / "run", ready))
    process.start()
    assert ready.wait(60)
    yield process
    process.kill()
    process.join()


@pytest.mark.parametrize("flags", [[], ["--resume"]])
def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path, holder, capsys, flags):
    save_config(make_config(tmp_path), tmp_path / "run.toml")
    run = str(tmp_path / "run")
    command = ["train", "--config", f"{tmp_path}/run.toml", "--run-dir", run, *flags]
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{run} is in use by process {holder.pid} on " in line
    assert not RunDirectory(run).config_file.exists()
    holder.kill()  # the lock dies with its owner
    holder.join()
    assert main(command) == 0


def test_two_that_start_at_once_do_not_both_train(tmp_path):
    config = make_config(tmp_path)
    first, second = (Trainer(config, tmp_path / "run") for _ in range(2))
    in_use = RunDirectory(tmp_path / "run").in_use(step=0)  # flock: also within one process
    with in_use, pytest.raises(UsageError, match="is in use by process"):
        second.train()
    first.train()
    before = curve(tmp_path / "run")
    with pytest.raises(UsageError, match="has got to step 12 by another process"):
        second.train()
    assert curve(tmp_path / "run") == before
    last = Trainer(config, tmp_path / "run", resume=True)
    Trainer(with_train(config, steps=14), tmp_path / "run", resume=True).train()
    with pytest.raises(UsageError, match="has got to step 14"):
        last.train()


def test_a_trainer_that_was_stopped_may_go_on(tmp_path, monkeypatch):
    trainer = Trainer(make_config(tmp_path), tmp_path / "run")
    update = trainer.update

    def interrupt(x, y, *, rounds):
        if trainer.progress.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(x, y, rounds=rounds)

    monkeypatch.setattr(trainer, "update", interrupt)
    assert trainer.train().stopped_by is signal.SIGTERM
    monkeypatch.setattr(trainer, "update", update)
    assert trainer.train().progress.step == 12


def test_runs_without_a_name_that_start_in_one_second_have_two(tmp_path, monkeypatch):
    monkeypatch.setattr(train_command.time, "strftime", lambda _: "2026-01-01-000000")
    arguments = train_command.parse([])
    names = {train_command._run_dir(arguments) for _ in range(50)}
    assert len(names) == 50


# No dead ends


def test_a_run_that_died_before_its_first_checkpoint_leaves_no_dead_end(tmp_path, monkeypatch):
    config = make_config(tmp_path, eval_every=0, checkpoint_every=0)
    train_until(monkeypatch, 3, config, tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    assert run.holds_run()
    assert not run.holds_weights()
    # Another model may train here, with --resume as without it.
    flags = ["--run-dir", str(run.path), "--model.d-model", "32", "--train.steps", "4"]
    assert main(["train", "--resume", *flags]) == 0
    assert load_run(run.path)[0].model.d_model == 32
    train_until(monkeypatch, 3, config, tmp_path / "other")
    save_config(config, tmp_path / "run.toml")
    flags[1] = str(tmp_path / "other")
    assert main(["train", "--config", f"{tmp_path}/run.toml", *flags]) == 0
    assert [record["step"] for record in curve(tmp_path / "other")] == [0, 1, 2, 3, 4]
    with pytest.raises(UsageError, match=r"already contains a run.*--resume"):
        Trainer(config, tmp_path / "other")


def test_deleting_is_advised_for_damage_alone(tmp_path):
    config = make_config(tmp_path)
    Trainer(config, tmp_path / "run").train()
    other = dataclasses.replace(config, model=dataclasses.replace(MODEL, d_model=32))
    with pytest.raises(Mismatch) as caught:
        Trainer(other, tmp_path / "run", resume=True)
    assert "delete" not in str(caught.value)
    # Two heads or four: the shapes are the same, what is computed is not.
    other = dataclasses.replace(config, model=dataclasses.replace(MODEL, num_heads=4))
    with pytest.raises(Mismatch, match=r"model\.num_heads 2 instead of 4") as caught:
        Trainer(other, tmp_path / "run", resume=True)
    assert "delete" not in str(caught.value)
    run = RunDirectory(tmp_path / "run")
    last = run.pick_checkpoint("last")
    state = read_state(last)
    write_state(state | {"format": 99}, last)
    with pytest.raises(Mismatch, match="of format 99, this version of cs336lm reads"):
        Trainer(config, run.path, resume=True)
    write_state({name: state[name] for name in ("model", "optimizer", "iteration")}, last)
    with pytest.raises(UsageError, match="is not a checkpoint of a run"):
        Trainer(config, run.path, resume=True)
    last.write_bytes(b"no")
    trainer = Trainer(config, run.path, resume=True)
    assert trainer.progress.step < 12
    assert "is truncated" in trainer.damaged[last]


# The best


def best_of(run_dir):
    """(step, loss) of the lowest validation in the metrics, the first of equals."""
    losses = {r["step"]: r["val_loss"] for r in curve(run_dir) if r["step"] and "val_loss" in r}
    return min(losses.items(), key=lambda item: item[1])


def test_the_best_of_an_abandoned_branch_is_not_the_best(tmp_path, monkeypatch):
    """Best at 5 and 10, killed after 11, resumed from 8 with a rate that spoils everything."""
    config = make_config(tmp_path, optim=OptimConfig(lr=1e-2, grad_clip=0))
    run = RunDirectory(tmp_path / "run")
    train_until(monkeypatch, 11, config, run.path)
    assert read_state(run.best_checkpoint)["iteration"] == 10
    assert read_state(run.pick_checkpoint("last"))["iteration"] == 8
    kept = load_run_weights(run, 5)
    spoiled = with_optim(config, name="sgd", schedule="constant", lr=30.0)
    result = Trainer(spoiled, run.path, resume=True, new_optimizer=True).train()
    step, loss = best_of(run.path)
    assert step == 5
    assert result.progress.best_val_loss == loss
    assert read_state(run.best_checkpoint)["iteration"] == step
    for name, weight in load_run(run.path)[1].state_dict().items():
        assert torch.equal(weight, kept[name])
    assert not run.best_before.exists()


def load_run_weights(run, step):
    """The weights that were best at ``step``."""
    states = [read_state(path) for path in (run.best_checkpoint, run.best_before) if path.exists()]
    return next(state["model"] for state in states if state["iteration"] == step)


@pytest.mark.parametrize("killed", [1, 4, 6, 9, 11])
def test_killed_and_resumed_has_the_best_of_a_run_that_was_not(tmp_path, monkeypatch, killed):
    config = make_config(tmp_path, eval_every=2, checkpoint_every=4)
    train_until(monkeypatch, killed, config, tmp_path / "killed")
    Trainer(config, tmp_path / "killed", resume=True).train()
    Trainer(config, tmp_path / "whole").train()
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")
    states = [
        read_state(RunDirectory(tmp_path / name).best_checkpoint) for name in ("killed", "whole")
    ]
    assert states[0]["iteration"] == states[1]["iteration"] == best_of(tmp_path / "whole")[0]
    for name, weight in states[0]["model"].items():
        assert torch.equal(weight, states[1]["model"][name])


@pytest.mark.parametrize(
    "change",
    [
        lambda config, other: with_data(config, val=other),
        lambda config, other: with_train(config, eval_batches=1),
        lambda config, other: with_train(config, dtype="bfloat16"),
    ],
)
def test_other_validation_data_start_a_new_search_for_the_best(tmp_path, monkeypatch, change):
    """The first run's losses are said to be too good to be beaten."""
    val = write_tokens(tmp_path / "val-of-several-batches.npy", 1200, seed=300)
    config = with_data(make_config(tmp_path, steps=8), val=val)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "validate", lambda self: 0.1)
        Trainer(config, tmp_path / "run").train()
    run = RunDirectory(tmp_path / "run")
    assert read_state(run.best_checkpoint)["iteration"] == 5
    other = write_tokens(tmp_path / "other.npy", 400, seed=9)
    trainer = Trainer(with_train(change(config, other), steps=14), run.path, resume=True)
    result = trainer.train()
    losses = {r["step"]: r["val_loss"] for r in curve(run.path) if "val_loss" in r}
    assert read_state(run.best_checkpoint)["iteration"] in (10, 14)
    assert result.progress.best_val_loss == min(losses[10], losses[14]) > 0.1
    trainer.model.load_state_dict(load_run(run.path)[1].state_dict())
    assert trainer.validate() == result.progress.best_val_loss


def test_the_same_data_elsewhere_are_the_same_data(tmp_path):
    config = make_config(tmp_path, steps=8)
    Trainer(config, tmp_path / "run").train()
    moved = write_tokens(tmp_path / "moved.npy", 300, seed=300)
    assert moved.read_bytes() == config.data.val.read_bytes()
    before = Trainer(config, tmp_path / "run", resume=True).progress
    after = Trainer(with_data(config, val=moved), tmp_path / "run", resume=True).progress
    assert after == before
    assert math.isfinite(after.best_val_loss)


def test_a_wrong_data_file_taken_back_before_a_checkpoint_costs_no_best(tmp_path, monkeypatch):
    config = make_config(tmp_path, steps=8)
    Trainer(config, tmp_path / "run").train()
    run = RunDirectory(tmp_path / "run")
    best = read_state(run.best_checkpoint)["iteration"]
    other = write_tokens(tmp_path / "other.npy", 400, seed=9)
    longer = with_train(config, steps=30, checkpoint_every=0)
    train_until(monkeypatch, 13, with_data(longer, val=other), run.path, resume=True)
    assert read_state(run.best_checkpoint)["iteration"] == 10
    train_until(monkeypatch, 9, longer, run.path, resume=True)
    assert read_state(run.best_checkpoint)["iteration"] == best


def test_a_best_that_was_not_written_is_written_from_its_checkpoint(tmp_path, monkeypatch):
    validated = iter([4.0, 3.0, 2.0, 2.5])  # at steps 0, 5, 10, 15: the last checkpoint is of 10
    monkeypatch.setattr(Trainer, "validate", lambda self: next(validated))
    config = make_config(tmp_path, steps=10, checkpoint_every=5)
    trainer = Trainer(config, tmp_path / "run")
    trainer.train()
    trainer.run.best_checkpoint.unlink()
    Trainer(with_train(config, steps=15), tmp_path / "run", resume=True).train()
    best = read_state(trainer.run.best_checkpoint)
    assert best["iteration"] == 10
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(best["model"][name], weight)


# The optimizer, its settings, and what else goes on


@pytest.mark.parametrize("before", ["adamw", "sgd", "adagrad"])
@pytest.mark.parametrize("after", ["adamw", "sgd", "adagrad"])
def test_another_optimizer_is_refused_or_starts_anew(tmp_path, capsys, before, after):
    config = make_config(tmp_path, steps=4, optim=OptimConfig(name=before, lr=1e-2))
    Trainer(config, tmp_path / "run").train()
    run = ["train", "--resume", "--run-dir", str(tmp_path / "run"), "--train.steps", "6"]
    again = [*run, "--optim.name", after]
    if before == after:
        assert main(again) == 0
        return
    assert main(again) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"step-00000004.pt holds the state of the optimizer {before}, which {after}" in line
    assert "delete" not in line
    assert main([*again, "--new-optimizer"]) == 0
    assert main([*again, "--train.steps", "7"]) == 0


@pytest.mark.parametrize("before", ["adamw", "adagrad"])
def test_the_optimizer_of_an_older_checkpoint_is_known_by_what_it_remembers(tmp_path, before):
    config = make_config(tmp_path, steps=4, optim=OptimConfig(name=before, lr=1e-2))
    Trainer(config, tmp_path / "run").train()
    run = RunDirectory(tmp_path / "run")
    last = run.pick_checkpoint("last")
    state = read_state(last)
    new = ("optim", "optimizer_name", "format", "model_config")
    old = {name: state[name] for name in state if name not in new}
    for name in ("best_step", "best_measured_on"):
        del old["progress"][name]
    write_state(old, last)
    resumed = Trainer(config, run.path, resume=True)
    assert resumed.progress.best_step == read_state(run.best_checkpoint)["iteration"]
    with pytest.raises(UsageError, match=f"the optimizer {before}, which sgd cannot use"):
        Trainer(with_optim(config, name="sgd"), run.path, resume=True)
    for index in old["optimizer"]["state"]:  # the course's SGD, which an earlier "sgd" meant
        old["optimizer"]["state"][index] = {"t": 4}
    write_state(old, last)
    with pytest.raises(UsageError, match=r"sgd with lr / sqrt\(t \+ 1\), which sgd cannot use"):
        Trainer(with_optim(config, name="sgd"), run.path, resume=True)


def test_changed_betas_hold_from_the_resume_on(tmp_path):
    """Against the optimizer itself, given the checkpoint's state and the new betas."""
    config = make_config(tmp_path, steps=4, optim=OptimConfig(schedule="constant", warmup_steps=0))
    Trainer(config, tmp_path / "run").train()
    changed = with_train(with_optim(config, betas=(0.5, 0.6), weight_decay=0.7, eps=0.1), steps=5)
    resumed = Trainer(changed, tmp_path / "run", resume=True)
    for group in resumed.optimizer.param_groups:
        assert group["betas"] == (0.5, 0.6)
        assert group["eps"] == 0.1
    assert [g["weight_decay"] for g in resumed.optimizer.param_groups] == [0.7, 0.0]
    state = read_state(RunDirectory(tmp_path / "run").pick_checkpoint("last"))
    for index, values in state["optimizer"]["state"].items():
        parameters = [p for g in resumed.optimizer.param_groups for p in g["params"]]
        assert torch.equal(resumed.optimizer.state[parameters[index]]["exp_avg"], values["exp_avg"])


def test_the_scale_of_the_loss_goes_on(tmp_path):
    config = make_config(tmp_path, steps=4, dtype="float16")
    trainer = Trainer(config, tmp_path / "run")
    trainer.train()
    path = RunDirectory(tmp_path / "run").pick_checkpoint("last")
    state = read_state(path)
    assert state["scaler"] == trainer._setup.scaler.state_dict() != {}
    state["scaler"] |= {"scale": 77.0, "_growth_tracker": 5}
    write_state(state, path)
    scaler = Trainer(config, tmp_path / "run", resume=True)._setup.scaler
    assert scaler.get_scale() == 77.0
    assert scaler.state_dict()["_growth_tracker"] == 5


@pytest.mark.parametrize("dtypes", [("float32", "float16"), ("float16", "float32")])
def test_another_precision_may_go_on(tmp_path, dtypes):
    first, second = (make_config(tmp_path, steps=6, dtype=dtype) for dtype in dtypes)
    Trainer(with_train(first, steps=3), tmp_path / "run").train()
    assert Trainer(second, tmp_path / "run", resume=True).train().progress.step == 6


def test_seconds_go_on_where_they_were(tmp_path, monkeypatch):
    """On a clock that only steps move: 2 s each."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    update = Trainer.update

    def slow_update(self, x, y, *, rounds):
        now[0] += 2
        return update(self, x, y, rounds=rounds)

    monkeypatch.setattr(Trainer, "update", slow_update)
    config = make_config(tmp_path, eval_every=0, checkpoint_every=4)
    train_until(monkeypatch, 6, config, tmp_path / "run")
    now[0] += 5000  # between the two nobody counts
    Trainer(config, tmp_path / "run", resume=True).train()
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [record["seconds"] for record in records] == [2.0 * step for step in range(13)]


# What a run says about itself


def test_a_checkpoint_says_what_it_is_of(tmp_path):
    Trainer(make_config(tmp_path), tmp_path / "run").train()
    run = RunDirectory(tmp_path / "run")
    for path in (run.pick_checkpoint("last"), run.best_checkpoint):
        state = read_state(path)
        assert state["format"] == 1
        resolved = dataclasses.asdict(run.load_config().model)
        assert state["model_config"] == resolved


def test_a_run_says_what_it_ran_on(tmp_path, monkeypatch):
    save_config(make_config(tmp_path, steps=2), tmp_path / "run.toml")
    run = tmp_path / "run"
    repository = tmp_path / "repository"
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b"]
    repository.mkdir()
    for arguments in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *arguments], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    from cs336lm.training import environment

    assert environment._commit(repository) == commit.stdout.strip()
    assert environment._commit(tmp_path / "missing") is None
    command = [sys.executable, "-m", "cs336lm", "train", "--run-dir", str(run)]
    for more in (["--config", f"{tmp_path}/run.toml"], ["--resume", "--train.steps", "3"]):
        subprocess.run([*command, *more], check=True, capture_output=True)
    first, second = map(json.loads, (run / "environment.jsonl").read_text().splitlines())
    assert (first["step"], second["step"]) == (0, 2)
    assert first["command"][1:] == ["train", *command[4:], "--config", f"{tmp_path}/run.toml"]
    assert first["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert first["versions"]["numpy"] == np.__version__
    assert first["versions"]["python"] == sys.version.split()[0]
    assert first["versions"]["cs336lm"]
    assert (first["device"], first["world_size"]) == ("cpu", 1)
    assert {"commit", "host", "device_name", "system"} <= first.keys()


def test_weights_are_of_the_model_that_the_run_had(tmp_path):
    """A vocabulary that came from the data stays, also where other data go on."""
    open_model = dataclasses.replace(MODEL, vocab_size=None)
    config = make_config(tmp_path, model=open_model, steps=2)
    Trainer(config, tmp_path / "run").train()
    np.save(tmp_path / "few.npy", np.zeros(100, np.uint16))
    fewer = with_data(config, train=tmp_path / "few.npy", val=None)
    resumed = Trainer(with_train(fewer, steps=3), tmp_path / "run", resume=True)
    assert resumed.config.model.vocab_size == TransformerLM(MODEL).config.vocab_size
    resumed.train()

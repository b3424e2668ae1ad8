"""A run is as long as was asked for, in steps, tokens, epochs or seconds, and ends as it should."""

import dataclasses
import itertools
import json
import math
import os
import signal
import time

import numpy as np
import pytest
from cs336lm.cli.main import main
from cs336lm.errors import UsageError
from cs336lm.optim.schedules import lr_cosine_schedule, lr_inverse_sqrt_schedule
from cs336lm.training import trainer as trainer_module
from cs336lm.training.config import Config, OptimConfig, TrainConfig, load_config, save_config
from cs336lm.training.run_directory import RunDirectory
from cs336lm.training.trackers.jsonl import read_metrics
from cs336lm.training.trainer import Trainer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_distributed import on_ranks
from tiny_run import CONTEXT_LENGTH, MODEL, curve, make_config

PER_STEP = 8 * CONTEXT_LENGTH


def resolved(*, tokens=2001, **train):
    config = Config(model=MODEL, train=TrainConfig(**train))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=8))
    return config.resolved(40, train_tokens=tokens).train.steps


def test_tokens_and_epochs_come_to_steps():
    assert resolved() == 2000
    assert resolved(steps=0) == 0
    assert resolved(max_tokens=PER_STEP) == resolved(max_tokens=2 * PER_STEP - 1) == 1
    assert resolved(max_tokens=100 * PER_STEP) == 100
    assert resolved(max_seconds=5.0) is None
    # 250 windows of 8 tokens and their next, 8 windows a step.
    assert resolved(epochs=1) == 32
    assert resolved(epochs=0.256) == 8
    assert resolved(epochs=2.56) == 80
    assert resolved(epochs=1e-9) == 1
    assert resolved(epochs=8, tokens=2048) == 255  # the last window would lack its next token


@pytest.mark.parametrize(
    ("train", "says"),
    [
        ({"steps": 5, "max_tokens": 6400}, "train.steps and train.max_tokens are"),
        ({"max_tokens": 6400, "epochs": 1.0}, "train.max_tokens and train.epochs are"),
        ({"epochs": 1.0, "max_seconds": 1.0}, "train.epochs and train.max_seconds are"),
        ({"steps": 5, "max_seconds": 1.0}, "train.steps and train.max_seconds are"),
        ({"max_tokens": PER_STEP - 1}, "train.max_tokens=63 is less than the 64 of one step"),
    ],
)
def test_two_budgets_are_refused_by_name(tmp_path, train, says):
    config = make_config(tmp_path, **({"steps": None} | train))
    with pytest.raises(UsageError, match=f"^{says}"):
        Trainer(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["max_tokens", "epochs", "max_seconds"])
@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_impossible_budgets_are_refused_by_name(name, value):
    with pytest.raises(UsageError, match=f"^train.{name}={value} is impossible"):
        TrainConfig(**{name: value})


def test_a_run_of_tokens_is_one_of_steps_and_may_be_prolonged(tmp_path, capsys):
    Trainer(make_config(tmp_path, steps=12), tmp_path / "steps").train()
    by_tokens = make_config(tmp_path, steps=None, max_tokens=12 * PER_STEP + 5)
    Trainer(by_tokens, tmp_path / "tokens").train()
    assert curve(tmp_path / "tokens") == curve(tmp_path / "steps")
    run = RunDirectory(tmp_path / "tokens")
    assert (run.load_config().train.steps, run.load_asked().train.steps) == (12, None)
    # What the file says twice is one budget.
    assert Trainer(run.load_config(), run.path, resume=True).progress.step == 12
    resume = ["train", "--resume", "--run-dir", str(run.path)]
    assert main(resume) == 0
    assert "--train.max-tokens says how far to go" in capsys.readouterr().out
    assert main([*resume, "--train.max-tokens", f"{14 * PER_STEP}"]) == 0
    assert read_metrics(run.metrics_file)[-1]["step"] == run.load_config().train.steps == 14
    assert main([*resume, "--train.steps", "15"]) == 2
    assert "train.steps and train.max_tokens are different budgets" in capsys.readouterr().err
    assert main([*resume, "--train.steps", "15", "--train.max-tokens", "None"]) == 0
    assert main([*resume, "--train.steps", "None", "--train.epochs", "0.512"]) == 0
    assert read_metrics(run.metrics_file)[-1]["step"] == 16  # 0.512 x 249 windows / 8


class Clock:
    """A clock that steps and validations move."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """Each step takes the next of ``clock.steps`` seconds, each validation ``clock.validation``."""
    clock = Clock()
    clock.steps, clock.validation = itertools.repeat(2.0), 10.0
    monkeypatch.setattr(time, "perf_counter", clock)
    update, validation_loss = Trainer.update, trainer_module.validation_loss

    def slow_update(self, x, y, *, rounds):
        clock.now += next(clock.steps)
        return update(self, x, y, rounds=rounds)

    def slow_validation(*arguments):
        clock.now += clock.validation
        return validation_loss(*arguments)

    monkeypatch.setattr(Trainer, "update", slow_update)
    monkeypatch.setattr(trainer_module, "validation_loss", slow_validation)
    return clock


def of_seconds(folder, seconds, *, optim=None, **train):
    optim = OptimConfig(lr=1e-2, **(optim or {}))
    more = {"steps": None, "max_seconds": seconds, "eval_every": 0, "checkpoint_every": 5}
    return make_config(folder, optim=optim, **(more | train))


def test_a_run_of_seconds_ends_in_time_at_the_least_rate_and_validated(tmp_path, clock):
    began = clock.now
    result = Trainer(of_seconds(tmp_path, 100), tmp_path / "run").train()
    assert result.is_done
    # 10 s, 40 steps of 2 s, 10 s.
    assert clock.now - began == 100.0 == result.progress.seconds
    records = curve(tmp_path / "run")
    assert records[-1]["step"] == 40
    assert records[-1]["lr"] == 1e-3
    assert ["val_loss" in record for record in records] == [True] + [False] * 39 + [True]
    # Once it is known how long a step takes, each stands where it ends: of the 90 seconds before
    # the last validation, 5 are the warm-up.
    rates = [lr_cosine_schedule(10 + 2 * step, 1e-2, 1e-3, 5, 90) for step in range(3, 41)]
    assert [record["lr"] for record in records[3:]] == pytest.approx(rates)


def test_validations_in_between_count_and_leave_room_for_the_last(tmp_path, clock):
    began = clock.now
    Trainer(of_seconds(tmp_path, 101, eval_every=8), tmp_path / "run").train()
    assert clock.now - began == 10 + 3 * (16 + 10) + 2 + 10
    records = curve(tmp_path / "run")
    assert records[-1]["lr"] == 1e-3
    assert [r["step"] for r in records if "val_loss" in r] == [0, 8, 16, 24, 25]


def test_a_validation_that_leaves_no_room_for_another_is_the_last(tmp_path, clock):
    """After step 27, at 84 s: another step and its validation would end at 106."""
    began = clock.now
    Trainer(of_seconds(tmp_path, 100, eval_every=9), tmp_path / "run").train()
    assert clock.now - began == 94
    records = curve(tmp_path / "run")
    assert [r["step"] for r in records if "val_loss" in r] == [0, 9, 18, 27]
    assert (records[-1]["step"], records[-1]["lr"]) == (27, 1e-3)


def test_a_first_step_that_compiles_says_nothing_of_the_others(tmp_path, clock):
    """10 s, 60 s, 10 steps of 2 s, 10 s."""
    clock.steps = itertools.chain([60.0], itertools.repeat(2.0))
    began = clock.now
    result = Trainer(of_seconds(tmp_path, 100), tmp_path / "run").train()
    assert clock.now - began == 100
    assert result.progress.step == 11


def test_a_validation_is_no_part_of_a_step(tmp_path, clock):
    """10 s, 8 times a step of 2 s and 10 s: a ninth would end at 118, the eighth was told so."""
    began = clock.now
    result = Trainer(of_seconds(tmp_path, 110, eval_every=1), tmp_path / "run").train()
    assert (result.progress.step, clock.now - began) == (8, 106)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_however_long_steps_take(tmp_path_factory, clock, data):
    """The last is at the least rate and validated; time is overrun by less than a slow step."""
    folder = tmp_path_factory.mktemp("run")
    durations = data.draw(st.lists(st.floats(0.5, 3.0), min_size=3, max_size=9))
    clock.steps = itertools.cycle(durations)
    clock.validation = data.draw(st.floats(0.0, 9.0))
    seconds = data.draw(st.floats(1.0, 45.0))
    every = data.draw(st.integers(0, 9))
    began = clock.now
    Trainer(of_seconds(folder, seconds, eval_every=every), folder / "run").train()
    records = curve(folder / "run")
    assert records[-1]["lr"] == 1e-3
    assert "val_loss" in records[-1]
    # What at least three steps take, with the validations before, between and after them.
    validations = 1 + sum(step == 3 or (every and step % every == 0) for step in (1, 2, 3))
    least = validations * clock.validation + 3 * max(durations)
    assert clock.now - began <= max(seconds, least) + max(durations)
    if seconds > 2 * least:
        assert clock.now - began >= seconds - clock.validation - 3 * max(durations)
    assert [record["step"] for record in records] == list(range(len(records)))


def test_a_run_knows_the_seconds_that_it_has_used(tmp_path, clock, monkeypatch):
    """Stopped in its 18th step, it goes on from the 15th and ends as if it had not been."""
    update = Trainer.update

    class Stopped(Exception):
        pass

    def stop(self, x, y, *, rounds):
        if self.progress.step == 17:
            raise Stopped
        return update(self, x, y, rounds=rounds)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "update", stop)
        with pytest.raises(Stopped):
            Trainer(of_seconds(tmp_path, 120, eval_every=15), tmp_path / "run").train()
    clock.now += 5000
    resumed = Trainer(of_seconds(tmp_path, 120, eval_every=15), tmp_path / "run", resume=True)
    assert resumed.progress.seconds == 10 + 15 * 2 + 10, "the validation after step 15 as well"
    result = resumed.train()
    assert result.progress.seconds == 120
    records = curve(tmp_path / "run")
    assert [r["step"] for r in records if "val_loss" in r] == [0, 15, 30, 40]
    assert (records[-1]["step"], records[-1]["lr"]) == (40, 1e-3)
    # It is done, unless it is given more.
    again = Trainer(of_seconds(tmp_path, 120), tmp_path / "run", resume=True).train()
    assert (again.progress.step, again.train_loss) == (40, None)
    more = Trainer(of_seconds(tmp_path, 150), tmp_path / "run", resume=True).train()
    assert more.progress.seconds == 150
    assert curve(tmp_path / "run")[-1]["lr"] == 1e-3


def test_a_warm_up_in_steps(tmp_path, clock, monkeypatch):
    """Then the schedule takes the seconds that are left, also where the run was interrupted."""
    config = of_seconds(tmp_path, 100, optim={"warmup_steps": 10}, checkpoint_every=15)
    Trainer(config, tmp_path / "run").train()
    rates = [record["lr"] for record in curve(tmp_path / "run")[1:]]
    assert rates[:10] == pytest.approx([1e-3 * step for step in range(1, 11)])
    expected = [lr_cosine_schedule(10 + 2 * step, 1e-2, 1e-3, 30, 90) for step in range(11, 41)]
    assert rates[10:] == pytest.approx(expected)
    state = RunDirectory(tmp_path / "run").step_checkpoints()
    assert [path.name for path in state] == [f"step-000000{step}.pt" for step in (15, 30, 40)]
    for path in state[1:]:
        path.unlink()
    Trainer(config, tmp_path / "run", resume=True).train()
    again = [record["lr"] for record in curve(tmp_path / "run")[1:]]
    # How long a step takes is found out anew, in two steps.
    assert again[:15] == rates[:15]
    assert again[17:] == pytest.approx(rates[17:])


def test_schedules_without_an_end_follow_seconds_too(tmp_path, clock):
    Trainer(of_seconds(tmp_path, 100, optim={"schedule": "inverse-sqrt"}), tmp_path / "run").train()
    rates = [record["lr"] for record in curve(tmp_path / "run")[3:]]
    expected = [lr_inverse_sqrt_schedule(10 + 2 * s, 1e-2, 1e-3, 5, 90) for s in range(3, 41)]
    assert rates == pytest.approx(expected)


def test_a_stopped_run_of_seconds_says_how_far_it_is(tmp_path, clock, capsys, monkeypatch):
    update = Trainer.update

    def update_and_signal(self, x, y, *, rounds):
        if self.progress.step == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return update(self, x, y, rounds=rounds)

    monkeypatch.setattr(Trainer, "update", update_and_signal)
    config = of_seconds(tmp_path, 100)
    save_config(config, tmp_path / "run.toml")
    assert load_config(tmp_path / "run.toml") == config
    run = str(tmp_path / "run")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status = main(["train", "--config", f"{tmp_path}/run.toml", "--run-dir", run])
    finally:
        signal.signal(signal.SIGINT, before)
    assert status == 128 + signal.SIGINT
    lines = capsys.readouterr().err.splitlines()
    assert "stopped by SIGINT at step 7, 24 of 100 seconds, and saved" in lines[-1]


def test_processes_with_clocks_of_their_own_agree(tmp_path, clock):
    """The second believes that it is late; what the first says counts."""
    folder = tmp_path
    config = of_seconds(folder, 60)

    def work(rank):
        if rank == 1:
            clock.steps, clock.validation = itertools.repeat(7.0), 3.0
        trainer = Trainer(config, folder / "run")
        rates = []
        trainer.optimizer.register_step_pre_hook(
            lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"])
        )
        result = trainer.train()
        (folder / f"{rank}").write_text(json.dumps([result.progress.step, rates]))

    on_ranks(2, work)
    first, second = (json.loads((folder / f"{rank}").read_text()) for rank in range(2))
    assert first == second
    assert first[0] == 20
    np.testing.assert_allclose(first[1][-1], 1e-3)

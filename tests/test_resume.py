"""A run that was stopped and resumed writes what one that was not would have written."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial

import pytest
import torch
from cs336lm.cli.main import main
from cs336lm.data import gather_windows
from cs336lm.model import ModelConfig
from cs336lm.training import progress, validator
from cs336lm.training.checkpoints.archive import read_state
from cs336lm.training.config import OptimConfig, save_config
from cs336lm.training.run_directory import RunDirectory
from cs336lm.training.stop_signals import StopSignals
from cs336lm.training.trackers.jsonl import JsonlTracker, lines_until, read_metrics
from cs336lm.training.trainer import Trainer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_run import curve, make_config

STEPS = 200


def start(config, run_dir):
    """``cs336lm train`` in a process of its own, some steps on its way."""
    save_config(config, run_dir.with_suffix(".toml"))
    command = ["train", "--config", str(run_dir.with_suffix(".toml")), "--run-dir", str(run_dir)]
    process = subprocess.Popen(
        [sys.executable, "-m", "cs336lm", *command],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # as in this process
    )
    metrics = run_dir / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and len(read_metrics(metrics)) > 30):
        time.sleep(0.01)
    return process


def test_killed_and_resumed_equals_never_killed(tmp_path):
    config = make_config(tmp_path, steps=STEPS, eval_every=60, checkpoint_every=7)
    process = start(config, tmp_path / "killed")
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    reached = read_metrics(tmp_path / "killed" / "metrics.jsonl")[-1]["step"]
    assert 30 <= reached < STEPS

    resumed = Trainer(config, tmp_path / "killed", resume=True)
    assert 0 < resumed.progress.step <= reached
    resumed.train()
    Trainer(config, tmp_path / "whole").train()
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")
    assert len(curve(tmp_path / "whole")) == STEPS + 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, monkeypatch, capsys, number):
    config = make_config(tmp_path, steps=1000, eval_every=0, checkpoint_every=0)
    save_config(config, tmp_path / "run.toml")
    run = tmp_path / "run"
    update = Trainer.update

    def update_and_signal(self, x, y, *, rounds):
        if self.progress.step == 6:
            os.kill(os.getpid(), number)
        return update(self, x, y, rounds=rounds)

    monkeypatch.setattr(Trainer, "update", update_and_signal)
    handler = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, handler)  # whatever the tests themselves were started with
    status = main(["train", "--config", f"{tmp_path}/run.toml", "--run-dir", str(run)])
    assert status == 128 + number
    assert signal.signal(number, before) is handler
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"stopped by {number.name} at step 7 of 1,000, and saved; go on with: "
        f"cs336lm train --resume --run-dir {run}"
    )
    assert Trainer(config, run, resume=True).progress.step == 7
    assert [record["step"] for record in curve(run)] == list(range(8))


def test_a_run_under_nohup_survives_its_terminal():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.received is None
    finally:
        assert signal.signal(signal.SIGHUP, before) is signal.SIG_IGN


def test_a_signal_ends_a_validation(tmp_path, monkeypatch):
    """At step 6, amid its third batch: nothing more is validated, and the run is saved there."""
    config = make_config(tmp_path, steps=1000, eval_every=3, eval_batches=4, checkpoint_every=0)
    gathered = []

    def gather_and_signal(*arguments):
        gathered.append(arguments)
        if len(gathered) == 4 + 4 + 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return gather_windows(*arguments)

    monkeypatch.setattr(validator, "gather_windows", gather_and_signal)
    trainer = Trainer(config, tmp_path / "run")
    result = trainer.train()
    assert result.stopped_by == signal.SIGTERM
    assert len(gathered) == 11
    assert trainer.model.training
    assert result.progress.step == 6
    last = curve(tmp_path / "run")[-1]
    assert last["step"] == 6
    assert "val_loss" not in last
    assert RunDirectory(tmp_path / "run").step_checkpoints()[-1].name == "step-00000006.pt"
    assert trainer.validate() > 0, "the signal is over with the training"


@pytest.mark.parametrize("steps", [6, 12])
def test_a_validation_that_was_cut_short_is_made_up_for(tmp_path, monkeypatch, steps):
    """After step 6, which is the last one or is not; it is the best in one case."""
    config = make_config(tmp_path, steps=steps, eval_every=3, eval_batches=4, checkpoint_every=0)
    Trainer(config, tmp_path / "whole").train()
    gathered = []

    def gather_and_signal(*arguments):
        gathered.append(arguments)
        if len(gathered) == 4 + 4 + 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return gather_windows(*arguments)

    monkeypatch.setattr(validator, "gather_windows", gather_and_signal)
    assert Trainer(config, tmp_path / "cut").train().stopped_by == signal.SIGTERM
    monkeypatch.undo()
    assert "val_loss" not in curve(tmp_path / "cut")[-1]
    resumed = Trainer(config, tmp_path / "cut", resume=True)
    assert resumed.progress.owes_validation
    resumed.train()
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")
    cut, whole = (RunDirectory(tmp_path / name) for name in ("cut", "whole"))
    assert cut.best_steps() == whole.best_steps()
    again = Trainer(config, tmp_path / "cut", resume=True)
    assert not again.progress.owes_validation
    assert (
        again.progress.best_val_loss
        == Trainer(config, tmp_path / "whole", resume=True).progress.best_val_loss
    )


def test_a_stop_whose_checkpoint_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device", "run/checkpoints/step-00000002.pt")

    monkeypatch.setattr(RunDirectory, "write_checkpoint", fail)
    trainer = Trainer(make_config(tmp_path, checkpoint_every=0), tmp_path / "run")
    update = trainer.update

    def update_and_signal(x, y, *, rounds):
        if trainer.progress.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(x, y, rounds=rounds)

    monkeypatch.setattr(trainer, "update", update_and_signal)
    with pytest.raises(OSError, match="No space left"):
        trainer.train()


def test_a_signal_ends_the_first_validation(tmp_path, monkeypatch):
    def gather_and_signal(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return gather_windows(*arguments)

    monkeypatch.setattr(validator, "gather_windows", gather_and_signal)
    result = Trainer(make_config(tmp_path, steps=1000), tmp_path / "run").train()
    assert result.progress.step == 1


def test_the_seconds_go_on_where_they_were(tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress.time, "perf_counter", clock)
    update = Trainer.update

    def slow_update(self, x, y, *, rounds):
        clock.now += 2
        return update(self, x, y, rounds=rounds)

    monkeypatch.setattr(Trainer, "update", slow_update)
    for steps in (3, 5):
        clock.now += 1000
        config = make_config(tmp_path, steps=steps)
        Trainer(config, tmp_path / "run", resume=steps > 3).train()
    seconds = [record["seconds"] for record in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert seconds == [0, 2, 4, 6, 8, 10]


class Clock:
    """A clock that moves when it is told to."""

    now = 0.0

    def __call__(self):
        return self.now


WIDE = ModelConfig(context_length=64, d_model=64, num_layers=2, num_heads=4, vocab_size=40)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bit_for_bit_in_any_precision_and_on_several_threads(tmp_path, threads, dtype):
    """Wide enough for PyTorch to share the work out; weights and optimizer, not figures alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        config = make_config(
            tmp_path, model=WIDE, batch_size=16, steps=6, checkpoint_every=2, dtype=dtype
        )
        update = Trainer.update
        for folder, stop in (("whole", None), ("parts", 5)):
            trainer = Trainer(config, tmp_path / folder)
            trainer.update = partial(stop_before, trainer, update, stop)
            with suppress(Stopped):
                trainer.train()
        Trainer(config, tmp_path / "parts", resume=True).train()
    finally:
        torch.set_num_threads(before)
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    states = [
        read_state(RunDirectory(tmp_path / folder).step_checkpoints()[-1])
        for folder in ("parts", "whole")
    ]
    assert states[0]["iteration"] == 6
    for section in ("model", "optimizer"):
        for ours, theirs in zip(*(leaves(state[section]) for state in states), strict=True):
            assert torch.equal(torch.as_tensor(ours), torch.as_tensor(theirs))


class Stopped(Exception):
    pass


def stop_before(trainer, update, step, x, y, *, rounds):
    if trainer.progress.step + 1 == step:
        raise Stopped
    return update(trainer, x, y, rounds=rounds)


def leaves(tree):
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, list | tuple):
        return [tree]
    return [leaf for branch in tree for leaf in leaves(branch) if leaf is not None]


@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    stops=st.lists(st.integers(1, 11), max_size=3),
    optimizer=st.sampled_from(["adamw", "sgd", "normuon"]),
)
def test_stopping_anywhere_any_number_of_times_changes_nothing(
    tmp_path_factory, monkeypatch, stops, optimizer
):
    folder = tmp_path_factory.mktemp("stops")
    optim = OptimConfig(name=optimizer, lr=1e-2)
    config = make_config(folder, optim=optim, eval_every=5, checkpoint_every=3)
    Trainer(config, folder / "whole").train()

    class Stopped(Exception):
        pass

    update = Trainer.update
    for stop in sorted(stops):

        def update_or_stop(self, x, y, *, rounds, stop=stop):
            if self.progress.step >= stop:
                raise Stopped
            return update(self, x, y, rounds=rounds)

        monkeypatch.setattr(Trainer, "update", update_or_stop)
        with pytest.raises(Stopped):
            Trainer(config, folder / "parts", resume=True).train()
    monkeypatch.setattr(Trainer, "update", update)
    Trainer(config, folder / "parts", resume=True).train()
    assert curve(folder / "parts") == curve(folder / "whole")


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    config = make_config(tmp_path)
    Trainer(config, tmp_path / "run").train()
    before = curve(tmp_path / "run")
    result = Trainer(config, tmp_path / "run", resume=True).train()
    assert result.train_loss is None
    assert result.progress.step == 12
    assert curve(tmp_path / "run") == before


def test_metrics_after_the_checkpoint_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 4, "tra')
    assert [record["step"] for record in read_metrics(path)] == [1, 2, 3]
    tracker = JsonlTracker(path, after=2)
    tracker.log({"step": 3, "train_loss": float("nan"), "val_loss": None})
    tracker.close()
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3, "train_loss": null}\n'
    # A power cut may leave zeros where lines were that came after the last sync.
    path.write_text('{"step": 1}\n\0\0\0\0": 2}\n{"step": 3}\n')
    assert lines_until(path, 1) == [b'{"step": 1}\n']
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
        lines_until(path, 3)
    path.write_text('{"step": 1}\nnonsense\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
        JsonlTracker(path, after=2)


def test_a_full_disk_ends_the_run_in_one_line_and_keeps_what_was_written(tmp_path):
    config = make_config(tmp_path, steps=9, checkpoint_every=4)
    Trainer(config, tmp_path / "run").train()
    run = RunDirectory(tmp_path / "run")
    before = {path: path.read_bytes() for path in run.checkpoints.iterdir()}
    command = ["train", "--resume", "--run-dir", str(run.path), "--train.steps", "20"]

    def resume_without_space(said):
        sys.stderr = said
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        status = main(command)
        said.flush()
        os._exit(status)

    with (tmp_path / "said").open("w") as said:
        child = multiprocessing.get_context("fork").Process(
            target=resume_without_space, args=(said,)
        )
        child.start()
        child.join(60)
    assert child.exitcode == 1
    lines = (tmp_path / "said").read_text().splitlines()
    assert not any("Traceback" in line for line in lines)
    assert lines[-1].startswith(f"cs336lm: {run.checkpoints}/")
    assert lines[-1].endswith(".pt: File too large")
    assert {path: path.read_bytes() for path in run.checkpoints.iterdir()} == before

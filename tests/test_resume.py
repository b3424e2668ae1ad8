"""A run that was stopped and resumed writes what one that was not would have written."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
from cs336lm.cli.main import main
from cs336lm.training.config import save_config
from cs336lm.training.run_directory import RunDirectory
from cs336lm.training.trackers.jsonl import JsonlTracker, read_metrics
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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
    handler = signal.getsignal(number)
    status = main(["train", "--config", f"{tmp_path}/run.toml", "--run-dir", str(run)])
    assert status == 128 + number
    assert signal.getsignal(number) is handler
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"stopped by {number.name} at step 7 of 1,000, and saved; go on with: "
        f"cs336lm train --resume --run-dir {run}"
    )
    assert Trainer(config, run, resume=True).progress.step == 7
    assert [record["step"] for record in curve(run)] == list(range(8))


@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(stops=st.lists(st.integers(1, 11), max_size=3), optimizer=st.sampled_from(["adamw", "sgd"]))
def test_stopping_anywhere_any_number_of_times_changes_nothing(
    tmp_path_factory, monkeypatch, stops, optimizer
):
    folder = tmp_path_factory.mktemp("stops")
    config = make_config(folder, eval_every=5, checkpoint_every=3)
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

"""Sweeps: what is tried, that each trial is an ordinary run, going on, divergence, the tables."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cs336lm.cli.main import main
from cs336lm.errors import UsageError
from cs336lm.experiments import sweep as sweep_module
from cs336lm.experiments.comparison import by_overrides, p_value
from cs336lm.experiments.launchers.launcher import TaskDied
from cs336lm.experiments.launchers.local import LocalLauncher
from cs336lm.experiments.results import Results
from cs336lm.experiments.search import FixedSearch, GridSearch, RandomSearch, TpeSearch
from cs336lm.experiments.space import (
    Listed,
    Range,
    described,
    parse_dimension,
    parse_space,
    with_overrides,
)
from cs336lm.experiments.sweep import Sweep, trial_name
from cs336lm.experiments.sweep_plot import edge_of_stability
from cs336lm.experiments.trial import Outcome
from cs336lm.training.config import Config, load_config, save_config
from cs336lm.training.run_directory import load_run
from tiny_run import make_config


@pytest.fixture
def base(tmp_path):
    save_config(make_config(tmp_path), tmp_path / "base.toml")
    return tmp_path / "base.toml"


def results(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


# What is tried


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("optim.lr=1e-4,3e-4", Listed("optim.lr", (1e-4, 3e-4))),
        ("optim.lr=log:1e-4..1e-1", Range("optim.lr", 1e-4, 0.1, True, False)),
        ("optim.lr=0.1..0.5", Range("optim.lr", 0.1, 0.5, False, False)),
        ("model.d-model=64..512", Range("model.d_model", 64, 512, False, True)),
        ("model.d_ff=None,64", Listed("model.d_ff", (None, 64))),
        ("train.compile=true,false", Listed("train.compile", (True, False))),
        ("optim.betas=0.9 0.95,0.9 0.99", Listed("optim.betas", ((0.9, 0.95), (0.9, 0.99)))),
        ("optim.schedule=wsd,cosine", Listed("optim.schedule", ("wsd", "cosine"))),
    ],
)
def test_dimensions(text, dimension):
    assert parse_dimension(text) == dimension


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim.lr", "names no values"),
        ("optim.learn=1", "did you mean optim.lr"),
        ("optim.lr=fast", "must be a number"),
        ("optim.lr=nan", "finite"),
        ("optim.lr=1..0.1", "must rise"),
        ("optim.lr=log:0..1", "above 0"),
        ("optim.lr=1,1.0", "twice"),
        ("optim.betas=0.9,0.99", "a list of 2"),
        ("optim.name=adma", "one of"),
        ("train.seed=1,2", "--seeds"),
    ],
)
def test_a_wrong_dimension_is_one_line(text, message):
    with pytest.raises(UsageError, match=message) as raised:
        parse_space([text])
    assert "\n" not in str(raised.value)


def test_a_field_twice_is_refused():
    with pytest.raises(UsageError, match="swept twice"):
        parse_space(["optim.lr=1,2", "optim.lr=3"])


def test_values_that_are_possible_only_together():
    config = with_overrides(
        Config(), {"model.d_model": 36, "model.num_heads": 9, "model.d_ff": None}
    )
    assert (config.model.d_model, config.model.num_heads) == (36, 9)


def test_values_for_people():
    overrides = {"optim.betas": (0.9, 0.95), "train.compile": True, "model.d_ff": None}
    assert described(overrides) == "optim.betas=0.9 0.95, train.compile=true, model.d_ff=None"


def test_a_grid_is_every_combination():
    space = parse_space(["optim.lr=1,2", "data.batch_size=8,16"])
    tried = [p.overrides for p in GridSearch(space).proposals()]
    assert tried == [{"optim.lr": a, "data.batch_size": b} for a in (1.0, 2.0) for b in (8, 16)]


def test_random_points_lie_in_the_space_and_do_not_depend_on_how_many():
    space = parse_space(
        ["optim.lr=log:1e-4..1e-1", "model.d_model=8..10", "optim.schedule=wsd,linear"]
    )
    many = [p.overrides for p in RandomSearch(space, 300, seed=1).proposals()]
    assert many[:7] == [p.overrides for p in RandomSearch(space, 7, seed=1).proposals()]
    rates = [math.log10(p["optim.lr"]) for p in many]
    assert all(-4 <= rate <= -1 for rate in rates)
    assert abs(sum(rates) / len(rates) + 2.5) < 0.2  # even on a logarithmic scale
    assert {p["model.d_model"] for p in many} == {8, 9, 10}
    assert {p["optim.schedule"] for p in many} == {"wsd", "linear"}
    assert many != [p.overrides for p in RandomSearch(space, 300, seed=2).proposals()]


def test_names_of_trials_differ_and_are_names_of_files():
    names = [
        trial_name({"data.train": path, "optim.betas": (0.9, 0.95)}, seed)
        for path in (Path("/a/b.npy"), Path("/a_b.npy"), Path("/a" * 200))
        for seed in (0, 1)
    ]
    assert len(set(names)) == 6
    assert all("/" not in name and len(name) <= 120 for name in names)


# The sweep, with trials that only pretend


def pretend(outcomes):
    """A function in place of training: what is in ``outcomes`` by learning rate and seed."""

    def run(trial, place):
        calls.append(trial.name)
        outcome = outcomes(trial)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    calls: list[str] = []
    return run, calls


def sweep_with(monkeypatch, folder, config, outcomes, search, seeds=1, jobs=1):
    function, calls = pretend(outcomes)
    monkeypatch.setattr(sweep_module, "run_trial", function)
    sweep = Sweep(folder, config, seeds=seeds)
    records = sweep.run(search, LocalLauncher(jobs, gpus=[]), lambda _: None)
    return records, calls


def done(loss):
    return Outcome("done", val_loss=loss, best_val_loss=loss, steps=3)


@pytest.mark.parametrize("jobs", [1, 3])
def test_goes_on_where_it_was(tmp_path, monkeypatch, jobs):
    """Ended trials are not run again; failed ones, and those stopped, are."""
    config = make_config(tmp_path)
    space = parse_space(["optim.lr=0.001,0.002,0.003,0.004"])
    first = {
        0.001: done(1.0),
        0.002: Outcome("diverged"),
        0.003: Outcome("failed", message="no memory"),
        0.004: Outcome("stopped"),
    }
    arguments = (monkeypatch, tmp_path / "s", config)
    records, _ = sweep_with(
        *arguments, lambda t: first[t.overrides["optim.lr"]], GridSearch(space), jobs=jobs
    )
    assert [r["end"] for r in records] == ["done", "diverged", "failed"]
    with (tmp_path / "s" / "results.jsonl").open("ab") as file:
        file.write(b'{"trial": "cut')  # what a kill may leave
    records, calls = sweep_with(*arguments, lambda _: done(2.0), GridSearch(space), jobs=jobs)
    assert sorted(calls) == ["optim.lr=0.003,seed=0", "optim.lr=0.004,seed=0"]
    assert [r["val_loss"] for r in records] == [1.0, None, 2.0, 2.0]
    assert [r["diverged"] for r in records] == [False, True, False, False]
    more = parse_space(["optim.lr=0.001,0.005"])
    records, calls = sweep_with(
        *arguments, lambda _: done(3.0), GridSearch(more), seeds=2, jobs=jobs
    )
    assert sorted(calls) == [
        "optim.lr=0.001,seed=1",
        "optim.lr=0.005,seed=0",
        "optim.lr=0.005,seed=1",
    ]
    assert [r["seed"] for r in records] == [0, 1, 0, 1]


def test_a_trial_that_dies_is_run_again(tmp_path, monkeypatch):
    attempts = []

    def outcome(trial):
        attempts.append(trial.name)
        return TaskDied("killed by signal 9") if len(attempts) < 3 else done(1.0)

    (record,), _ = sweep_with(
        monkeypatch, tmp_path / "s", make_config(tmp_path), outcome, FixedSearch([{}])
    )
    assert record["end"] == "done"
    assert len(attempts) == 3


def test_another_base_is_another_sweep(tmp_path, monkeypatch):
    config = make_config(tmp_path)
    arguments = (lambda _: done(1.0), FixedSearch([{}]))
    sweep_with(monkeypatch, tmp_path / "s", config, *arguments)
    with pytest.raises(UsageError, match=r"train\.steps=12, not 13"):
        sweep_with(monkeypatch, tmp_path / "s", make_config(tmp_path, steps=13), *arguments)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other things"):
        sweep_with(monkeypatch, tmp_path / "other", config, *arguments)
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["letter.txt"]


def test_two_sweeps_in_one_directory_are_refused(tmp_path, monkeypatch):
    config = make_config(tmp_path)

    def outcome(trial):
        with pytest.raises(UsageError, match="in use by process"):
            Sweep(tmp_path / "s", config).run(FixedSearch([{}]), LocalLauncher(1, []), print)
        return done(1.0)

    (record,), _ = sweep_with(monkeypatch, tmp_path / "s", config, outcome, FixedSearch([{}]))
    assert record["end"] == "done", record


def test_tpe_goes_to_where_the_loss_is_low_and_remembers(tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    config = make_config(tmp_path)
    space = parse_space(["optim.lr=log:1e-4..1"])

    def outcome(trial):
        return done(abs(math.log10(trial.overrides["optim.lr"]) + 2))

    def search(count):
        (tmp_path / "s").mkdir(exist_ok=True)
        return TpeSearch(space, count, 0, tmp_path / "journal")

    records, _ = sweep_with(monkeypatch, tmp_path / "t", config, outcome, search(40))
    rates = [math.log10(r["overrides"]["optim.lr"]) for r in records]
    assert len(rates) == 40
    late = sorted(abs(rate + 2) for rate in rates[20:])
    assert late[10] < 0.7  # the median; chance alone gives 1
    _, calls = sweep_with(monkeypatch, tmp_path / "t", config, outcome, search(42))
    assert len(calls) == 2
    assert {*(r["trial"] for r in records)}.isdisjoint(calls)


def test_the_edge_of_stability():
    def record(lr, loss):
        return {"overrides": {"optim.lr": lr}, "val_loss": loss, "diverged": loss is None}

    groups = by_overrides(
        [record(0.1, 2.0), record(0.3, 1.0), record(1.0, None), record(3.0, None)]
    )
    assert edge_of_stability(groups, "optim.lr") == (0.3, 1.0)
    apart = by_overrides([record(0.1, None), record(0.3, 1.0)])
    assert edge_of_stability(apart, "optim.lr") is None


def test_a_mean_does_not_leave_out_who_diverged():
    records = [
        {"overrides": {}, "val_loss": loss, "diverged": loss is None} for loss in (1.0, None, 3.0)
    ]
    (group,) = by_overrides(records)
    assert group.mean is None
    assert group.diverged == 1


def test_the_test_is_welchs():
    scipy = pytest.importorskip("scipy.stats")
    a, b = [1.0, 1.1, 1.2], [1.3, 1.5, 1.4]
    mean, var = (lambda v: sum(v) / 3), (lambda v: sum((x - sum(v) / 3) ** 2 for x in v) / 2)
    se = math.sqrt(var(a) / 3 + var(b) / 3)
    dof = se**4 / ((var(a) / 3) ** 2 / 2 + (var(b) / 3) ** 2 / 2)
    expected = 2 * scipy.t.sf(abs(mean(a) - mean(b)) / se, dof)
    assert p_value(a, b) == pytest.approx(expected)
    assert p_value([1.0], b) is None


# Real trials


def test_a_sweep_from_the_shell(base, tmp_path, capsys):
    """A trial is an ordinary run; one that breaks is recorded as diverged; the files are there."""
    out = tmp_path / "sweep"
    argv = ["sweep", "--config", str(base), "--grid", "optim.lr=0.01,1e9", "--out", str(out)]
    assert main([*argv, "--optim.grad-clip", "0", "--optim.warmup-steps", "0"]) == 0
    good, bad = results(out)
    assert good["overrides"] == {"optim.lr": 0.01}
    assert bad["overrides"] == {"optim.lr": 1e9}
    assert (good["seed"], good["diverged"], bad["diverged"]) == (0, False, True)
    assert bad["val_loss"] is None
    config, model, _ = load_run(good["run"], which="last")
    assert config.optim.lr == 0.01
    assert good["parameters"] == sum(p.numel() for p in model.parameters())
    last = [json.loads(line) for line in (Path(good["run"]) / "metrics.jsonl").open()][-1]
    assert good["val_loss"] == last["val_loss"]
    assert good["steps"] == 12
    shown = capsys.readouterr().out
    assert "diverged" in shown
    assert "edge of stability: optim.lr between 0.01 and 1e+09" in shown
    assert (out / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert f" {good['val_loss']:.4f} |" in (out / "table.md").read_text()
    before = (out / "results.jsonl").read_bytes()
    assert main([*argv, "--optim.grad-clip", "0", "--optim.warmup-steps", "0", "--json"]) == 0
    assert (out / "results.jsonl").read_bytes() == before
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [good, bad]


def test_a_killed_sweep_goes_on_and_ends_the_same(tmp_path):
    config = make_config(tmp_path, steps=400, checkpoint_every=20, eval_every=200, log_every=50)
    save_config(config, tmp_path / "base.toml")
    command = [sys.executable, "-m", "cs336lm", "sweep", "--config", str(tmp_path / "base.toml")]
    command += ["--grid", "optim.lr=0.01", "--out", str(tmp_path / "s")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    checkpoints = tmp_path / "s" / "runs" / "optim.lr=0.01,seed=0" / "checkpoints"
    deadline = time.monotonic() + 240
    while not list(checkpoints.glob("step-*.pt")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    killed_at = max(int(p.stem[5:]) for p in checkpoints.glob("step-*.pt"))
    assert killed_at < 400
    assert not (tmp_path / "s" / "results.jsonl").exists()
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    (record,) = results(tmp_path / "s")
    starts = [
        json.loads(line)["step"] for line in (checkpoints.parent / "environment.jsonl").open()
    ]
    assert len(starts) == 2
    assert starts[1] >= killed_at
    assert record["steps"] == 400
    assert record["end"] == "done"


def test_ctrl_c_saves_the_trials(tmp_path):
    config = make_config(tmp_path, steps=10**7, checkpoint_every=10**6, log_every=10)
    save_config(config, tmp_path / "base.toml")
    command = [sys.executable, "-m", "cs336lm", "sweep", "--config", str(tmp_path / "base.toml")]
    command += ["--grid", "optim.lr=0.01,0.02", "--out", str(tmp_path / "s"), "--jobs", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    runs = tmp_path / "s" / "runs"
    deadline = time.monotonic() + 240
    while len(list(runs.glob("*/metrics.jsonl"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)  # to the sweep alone, not to its trials
    said = process.communicate(timeout=240)[1]
    assert process.returncode == 130
    assert "Traceback" not in said
    assert len(list(runs.glob("*/checkpoints/step-*.pt"))) == 2
    assert not (tmp_path / "s" / "results.jsonl").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--grid", "optim.lr=log:1e-4..1"], "--random N"),
        (["--grid", "model.num_heads=3"], "model.num_heads=3: "),
        (["--grid", "optim.lr=1", "--trials", "3"], "--search tpe"),
        (["--grid", "optim.lr=1..2", "--search", "tpe"], "needs --trials"),
        (["--grid", "optim.lr=1", "--launcher-option", "x=1"], "slurm and ray"),
        (["--grid", "optim.lr=1", "--launcher-option", "x"], "NAME=VALUE"),
        (["--grid", "optim.lr=1", "--data.val", "None"], "--data.val"),
        (["--grid", "optim.lr=1", "--data.val", "gone.npy"], "gone.npy"),
        (["--grid", "optim.lr=1", "--optim.lr", "x"], "optim.lr"),
    ],
)
def test_a_wrong_call_is_one_line_and_leaves_nothing(base, tmp_path, capsys, flags, message):
    argv = ["sweep", "--config", str(base), "--out", str(tmp_path / "s"), *flags]
    assert main(argv) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "s").exists()


def test_the_results_file_is_not_believed_blindly(tmp_path):
    (tmp_path / "results.jsonl").write_text('{"trial": "a", "end": "done"}\n[1]\n')
    with pytest.raises(ValueError, match="line 2"):
        Results(tmp_path / "results.jsonl").read()


def test_the_stored_base_has_whole_paths(base, tmp_path, monkeypatch):
    config = load_config(base)
    monkeypatch.chdir(tmp_path)
    Sweep("s", config)
    assert not (tmp_path / "s").exists()

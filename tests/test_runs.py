"""What is read from run directories: lists, states, differences, losses between records."""

import json
from pathlib import Path

import pytest
from cs336lm.cli.main import main
from cs336lm.experiments.runs import differences, find_runs, loss_at, read_run
from cs336lm.files import exclusive_lock
from cs336lm.training.config import save_config
from tiny_run import make_config


def make_run(path: Path, records, **train):
    (path / "checkpoints").mkdir(parents=True)
    config = make_config(path.parent, **train).resolved(40)
    save_config(config, path / "config.toml")
    (path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def rising(steps, **figures):
    return [{"step": s, "tokens": 64 * s, "seconds": s / 2, **figures} for s in steps]


def test_states(tmp_path):
    done = make_run(tmp_path / "done", rising([6, 12], train_loss=1.0))
    stopped = make_run(tmp_path / "stopped", rising([6], train_loss=1.0))
    broken = make_run(
        tmp_path / "broken", [*rising([6], train_loss=1.0), *rising([12], train_loss=None)]
    )
    empty = make_run(tmp_path / "empty", [])
    states = [read_run(path).state for path in (done, stopped, broken, empty)]
    assert states == ["done", "stopped", "diverged", "not begun"]
    with exclusive_lock(stopped / ".lock", "it"):
        assert read_run(stopped).state == "training"


def test_a_run_of_so_many_seconds_is_done_at_its_lowest_rate(tmp_path, capsys):
    budget = {"steps": None, "max_seconds": 60.0}
    low = make_config(tmp_path).resolved(40).optim.min_lr
    make_run(tmp_path / "done", rising([6, 110], lr=low), **budget)
    make_run(tmp_path / "late", rising([6, 120], lr=0.01), **budget)
    make_run(tmp_path / "stopped", rising([6, 110], lr=0.01), **budget)
    assert main(["runs", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    states = [line.split()[1] for line in shown.splitlines()[2:]]
    assert states == ["done", "done", "stopped"]
    assert " 110 " in shown


def test_finds_runs_inside_of_folders_but_not_inside_of_runs(tmp_path):
    a = make_run(tmp_path / "a", [])
    b = make_run(tmp_path / "sweeps" / "lr" / "runs" / "b", [])
    make_run(a / "inner", [])
    (tmp_path / "loop").symlink_to(tmp_path)
    assert list(find_runs(tmp_path)) == [a, b]


def test_differences_are_those_of_the_configurations(tmp_path):
    a = read_run(make_run(tmp_path / "a", []))
    b = read_run(make_run(tmp_path / "b", [], seed=3))
    assert differences([a.config, b.config]) == {"train.seed": [0, 3]}
    assert differences([a.config, a.config]) == {}


def test_losses_between_records(tmp_path):
    records = [
        {"step": 0, "tokens": 0, "seconds": 0.0, "val_loss": 4.0},
        {"step": 5, "tokens": 50, "seconds": 9.0},
        {"step": 10, "tokens": 100, "seconds": 20.0, "val_loss": 2.0},
    ]
    run = read_run(make_run(tmp_path / "a", records))
    assert loss_at(run, "val_loss", "step", 5) == pytest.approx(3.0)
    assert loss_at(run, "val_loss", "seconds", 15) == pytest.approx(2.5)
    assert loss_at(run, "val_loss", "tokens", 100) == 2.0
    assert loss_at(run, "val_loss", "tokens", 101) is None
    assert loss_at(run, "train_loss", "step", 5) is None


def test_a_broken_run_hides_no_other(tmp_path, capsys):
    make_run(tmp_path / "good", rising([12], train_loss=1.5, val_loss=1.25))
    (make_run(tmp_path / "bad", []) / "config.toml").write_text("[model\n")
    assert main(["runs", str(tmp_path), "--json"]) == 0
    said = capsys.readouterr()
    (line,) = said.out.splitlines()
    assert json.loads(line)["best_val_loss"] == 1.25
    assert "bad is left out" in said.err


def test_sorted_by_loss_those_without_one_last(tmp_path, capsys):
    make_run(tmp_path / "a", rising([12], val_loss=2.0))
    make_run(tmp_path / "b", [])
    make_run(tmp_path / "c", rising([12], val_loss=1.0))
    assert main(["runs", str(tmp_path), "--sort", "val_loss", "--json"]) == 0
    names = [Path(json.loads(line)["run"]).name for line in capsys.readouterr().out.splitlines()]
    assert names == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["runs", "gone"], "gone is not a folder"),
        (["compare", "gone"], "two runs"),
        (["compare", "gone", "gone"], "not a run directory"),
    ],
)
def test_a_wrong_call_is_one_line(tmp_path, monkeypatch, capsys, argv, message):
    monkeypatch.chdir(tmp_path)
    assert main(argv) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line

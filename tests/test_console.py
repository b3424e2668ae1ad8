"""What somebody who watches a run is shown: on a terminal, and in a log."""

import io

import pytest
from cs336lm.training.trackers import console
from cs336lm.training.trackers.console import ConsoleTracker
from cs336lm.training.trainer import Trainer
from tiny_run import make_config


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(console.time, "monotonic", clock)
    return clock


def test_a_log_gets_a_line_now_and_then_at_validations_and_at_the_end(clock):
    said = io.StringIO()
    tracker = ConsoleTracker(1000, 1100, said)
    for step in range(1001, 1101):
        clock.now += 1
        record = {"step": step, "train_loss": 3.14159, "lr": 0.00123, "tokens_per_second": 45678.9}
        tracker.log(record | ({"val_loss": 2.5} if step == 1025 else {}))
    tracker.close()
    lines = said.getvalue().splitlines()
    steps = [1010, 1020, 1025, *range(1035, 1100, 10), 1100]
    assert [line.split()[1] for line in lines] == [f"{step:,}/1,100" for step in steps]
    assert lines[0] == "step 1,010/1,100  loss 3.1416  lr 1.23e-03  tokens/s 45,679  1:30 left"
    assert lines[2].startswith("step 1,025/1,100  loss 3.1416  val 2.5000  lr")
    assert lines[-1].endswith("tokens/s 45,679")


def test_hours_are_told_as_hours(clock):
    said = io.StringIO()
    tracker = ConsoleTracker(0, 10_000, said)
    clock.now += 10
    tracker.log({"step": 20, "train_loss": 1.0, "mfu": 0.4321})
    assert said.getvalue() == "step 20/10,000  loss 1.0000  MFU 43.2%  1:23:10 left\n"


def test_of_a_run_of_seconds_the_share_is_told(clock):
    said = io.StringIO()
    tracker = ConsoleTracker(5, None, said, max_seconds=2700)
    for step, seconds in ((5, 0.0), (600, 1234.5), (900, 2701.0)):
        clock.now += 10
        tracker.log({"step": step, "seconds": seconds, "train_loss": 1.0, "val_loss": 2.0})
    assert said.getvalue().splitlines() == [
        "step 5  0.0%  loss 1.0000  val 2.0000",
        "step 600  45.7%  loss 1.0000  val 2.0000  24:26 left",
        "step 900  100.0%  loss 1.0000  val 2.0000  0:00 left",
    ]


def test_a_terminal_shows_one_line_that_changes(clock):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    tracker = ConsoleTracker(0, 3, terminal)
    for step in (1, 2, 3):
        tracker.log({"step": step, "train_loss": step / 10})
    tracker.close()
    assert "step 3/3  loss 0.3000" in terminal.getvalue()


def test_a_run_that_is_watched_says_how_far_it_is(tmp_path, capsys):
    Trainer(make_config(tmp_path), tmp_path / "run", console=True).train()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["0/12", "5/12", "10/12", "12/12"]
    Trainer(make_config(tmp_path), tmp_path / "other").train()
    assert capsys.readouterr().err == ""

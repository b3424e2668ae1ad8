"""What TensorBoard and Weights & Biases are told: every figure of every record, at its step."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
from cs336lm.training.config import Config
from cs336lm.training.trackers.table import TRACKERS
from cs336lm.training.trainer import Trainer
from tiny_run import curve, make_config


class Heard:
    """Stands in for TensorBoard's SummaryWriter and for wandb's run."""

    def __init__(self, *args, **kwargs):
        self.opened = (args, kwargs)
        self.points = {}
        self.closed = False

    def add_scalar(self, name, value, step):
        self.points.setdefault(step, {})[name] = value

    def log(self, figures, step):
        self.points[step] = figures

    def close(self):
        self.closed = True

    finish = close


@pytest.fixture
def heard(monkeypatch):
    """What each of the packages would be told, by its name."""
    made = {}

    def stand_in(name):
        def make(*args, **kwargs):
            made[name] = Heard(*args, **kwargs)
            return made[name]

        return make

    board, wandb = ModuleType("torch.utils.tensorboard"), ModuleType("wandb")
    board.SummaryWriter, wandb.init = stand_in("tensorboard"), stand_in("wandb")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setattr("cs336lm.training.trackers.table.find_spec", lambda name: SimpleNamespace())
    return made


def test_trackers_hear_what_the_metrics_hold(tmp_path, heard):
    config = make_config(tmp_path, steps=6, log_every=2, track=tuple(TRACKERS))
    Trainer(config, tmp_path / "run").train()
    records = curve(tmp_path / "run")
    for tracker in heard.values():
        assert tracker.closed
        assert list(tracker.points) == [record["step"] for record in records]
        for record in records:
            step = record.pop("step")
            assert record.items() <= tracker.points[step].items()
            record["step"] = step
    (directory,), _ = heard["tensorboard"].opened
    assert directory == str(tmp_path / "run" / "tensorboard")
    _, options = heard["wandb"].opened
    assert options["name"] == "run"
    assert options["config"]["optim"]["lr"] == config.optim.lr
    assert options["config"].keys() == vars(Config()).keys()

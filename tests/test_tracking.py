"""What TensorBoard, trackio and Weights & Biases are told: every figure at its step.

And what becomes of a run when one of them fails: nothing.
"""

import io
import sys
from types import ModuleType, SimpleNamespace

import pytest
from cs336lm.training.config import Config
from cs336lm.training.progress import Progress
from cs336lm.training.run_directory import RunDirectory
from cs336lm.training.trackers.group import TrackerGroup
from cs336lm.training.trackers.table import TRACKERS
from cs336lm.training.trackers.tracker import flat
from cs336lm.training.trainer import Trainer
from tiny_run import curve, make_config


class Heard:
    """Stands in for TensorBoard's SummaryWriter and for the runs of trackio and wandb."""

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


def test_a_record_has_milliseconds_and_what_went_wrong_if_anything_did():
    progress = Progress(step=3, tokens=24, seconds=1.23456)
    where = {"step": 3, "tokens": 24, "seconds": 1.235}
    assert progress.record(lr=0.5) == {**where, "lr": 0.5}
    progress.loss_spikes = 2
    assert progress.record() == {**where, "loss_spikes": 2}
    progress.skipped_steps = 1
    assert progress.record() == {**where, "skipped_steps": 1, "loss_spikes": 2}


@pytest.fixture
def heard(monkeypatch):
    """What each of the packages would be told, by its name."""
    made = {}

    def stand_in(name):
        def make(*args, **kwargs):
            made[name] = Heard(*args, **kwargs)
            return made[name]

        return make

    board = ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = stand_in("tensorboard")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    for name in ("trackio", "wandb"):
        module = ModuleType(name)
        module.init = stand_in(name)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("cs336lm.training.trackers.table.find_spec", lambda name: SimpleNamespace())
    return made


def test_trackers_hear_what_the_metrics_hold(tmp_path, heard):
    config = make_config(tmp_path, steps=6, log_every=2, monitor_every=3, track=tuple(TRACKERS))
    Trainer(config, tmp_path / "run").train()
    records = [{"step": r["step"], **flat(r)} for r in curve(tmp_path / "run")]
    assert any("monitor/roles/matrix/update_ratio" in record for record in records)
    assert heard.keys() == TRACKERS.keys()
    for tracker in heard.values():
        assert tracker.closed
        assert list(tracker.points) == [record["step"] for record in records]
        for record in records:
            step = record.pop("step")
            assert record.items() <= tracker.points[step].items()
            record["step"] = step
    (directory,), _ = heard["tensorboard"].opened
    assert directory == str(tmp_path / "run" / "tensorboard")
    for name in ("trackio", "wandb"):
        _, options = heard[name].opened
        assert options["name"].startswith("run")
        assert options["config"]["optim"]["lr"] == config.optim.lr
        assert options["config"].keys() == vars(Config()).keys()


def test_a_record_is_flat_numbers_for_those_who_want_that():
    record = {"step": 3, "lr": 0.5, "gone": None, "m": {"a": [1.0, None, 2.0], "b": {"c": 4.0}}}
    assert flat(record) == {"lr": 0.5, "m/a/00": 1.0, "m/a/02": 2.0, "m/b/c": 4.0}


class Failing(Heard):
    """Raises in one of its methods, whatever it is told."""

    at = "log"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.refuse("open")

    def refuse(self, method):
        if method == self.at:
            raise ConnectionError("the server is gone\nand more that nobody wants to read")

    def log(self, figures, step):
        self.refuse("log")
        super().log(figures, step)

    def finish(self):
        super().close()
        self.refuse("close")


@pytest.mark.parametrize("at", ["open", "log", "close"])
def test_a_tracker_that_fails_is_left_out_and_training_goes_on(
    tmp_path, heard, monkeypatch, capsys, at
):
    made = []
    monkeypatch.setattr(Failing, "at", at)
    sys.modules["wandb"].init = lambda **options: made.append(Failing()) or made[-1]
    config = make_config(tmp_path, steps=6, checkpoint_every=3, track=("wandb", "tensorboard"))
    result = Trainer(config, tmp_path / "run").train()
    assert result.progress.step == 6
    assert RunDirectory(tmp_path / "run").step_checkpoints()[-1].name == "step-00000006.pt"
    assert capsys.readouterr().err.splitlines() == [
        "cs336lm: the tracker wandb failed and is left out from here on: the server is gone"
    ]
    steps = [record["step"] for record in curve(tmp_path / "run")]
    assert steps == list(heard["tensorboard"].points) == list(range(7))
    assert heard["tensorboard"].closed
    assert [tracker.closed for tracker in made] == ([] if at == "open" else [True])


def test_a_terminal_that_is_gone_ends_no_training(tmp_path, monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Gone())
    result = Trainer(make_config(tmp_path, steps=6), tmp_path / "run", console=True).train()
    assert result.progress.step == 6
    assert RunDirectory(tmp_path / "run").step_checkpoints()


def test_what_was_opened_is_closed_if_the_rest_is_interrupted_or_the_record_fails():
    def interrupted():
        raise KeyboardInterrupt

    own, board = Heard(), Heard()
    with pytest.raises(KeyboardInterrupt):
        TrackerGroup(lambda: own, {"board": lambda: board, "slow": interrupted})
    assert own.closed
    assert board.closed

    class Full(Heard):
        def log(self, record):
            raise OSError(28, "No space left on device")

    full = Full()
    group = TrackerGroup(lambda: full, {})
    with pytest.raises(OSError, match="No space left"):  # the run's own record is part of the run
        group.log({"step": 1})
    group.close()
    assert full.closed


class Stopped(Exception):
    pass


def train_in_two_parts(folder, monkeypatch, **settings):
    """Steps 1 to 8, then from the checkpoint of step 6 to the end at 12."""
    config = make_config(folder, eval_every=5, checkpoint_every=6, **settings)
    update = Trainer.update

    def update_or_stop(self, x, y, *, rounds):
        if self.progress.step == 8:
            raise Stopped
        return update(self, x, y, rounds=rounds)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", update_or_stop)
        with pytest.raises(Stopped):
            Trainer(config, folder / "run").train()
    Trainer(config, folder / "run", resume=True).train()


def test_a_resumed_run_is_the_same_run(tmp_path, heard, monkeypatch):
    opened = []
    make = sys.modules["wandb"].init
    sys.modules["wandb"].init = lambda **options: opened.append(options) or make(**options)
    train_in_two_parts(tmp_path, monkeypatch, track=("tensorboard", "trackio", "wandb"))
    (first, again) = opened
    assert first["id"] == again["id"] == (tmp_path / "run" / "wandb-id").read_text().strip()
    assert first["resume"] == again["resume"] == "allow"
    _, options = heard["tensorboard"].opened
    assert options["purge_step"] == 7
    _, options = heard["trackio"].opened
    assert options["resume"] == "allow"
    assert options["name"] == (tmp_path / "run" / "trackio-name").read_text().strip()
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    Trainer(make_config(tmp_path, steps=1, track=("wandb",)), tmp_path / "other").train()
    assert opened[-1]["id"] == "mine" != first["id"]


def test_tensorboard_shows_each_step_once(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_in_two_parts(tmp_path, monkeypatch, track=("tensorboard",))
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    records = curve(tmp_path / "run")
    for name in ("train_loss", "val_loss", "lr"):
        expected = [(record["step"], record[name]) for record in records if name in record]
        points = board.Scalars(name)
        assert [point.step for point in points] == [step for step, _ in expected]
        assert [point.value for point in points] == pytest.approx([v for _, v in expected])


def test_wandb_offline_keeps_one_id(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for name, value in {"MODE": "offline", "SILENT": "true", "CONSOLE": "off"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    train_in_two_parts(tmp_path, monkeypatch, track=("wandb",))
    kept = (tmp_path / "run" / "wandb-id").read_text().strip()
    written = sorted(path.name for path in (tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert len(written) >= 1
    assert all(name.endswith(f"-{kept}") for name in written)


def test_trackio_shows_each_step_once(tmp_path, monkeypatch, capsys):
    trackio = pytest.importorskip("trackio")
    from trackio import sqlite_storage, utils

    for module in (sqlite_storage, utils):  # both have read TRACKIO_DIR when they were imported
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "store")
    monkeypatch.setenv("TRACKIO_PROJECT", "ours")
    train_in_two_parts(tmp_path, monkeypatch, monitor_every=3, track=("trackio",))
    said = capsys.readouterr()
    assert said.out == ""
    assert "failed" not in said.err
    (run,) = trackio.Api().runs("ours")
    assert run.name == (tmp_path / "run" / "trackio-name").read_text().strip()
    assert run.config["train"]["steps"] == 12
    points = sqlite_storage.SQLiteStorage.get_logs("ours", run.name, run_id=run.id)
    records = curve(tmp_path / "run")
    assert [point["step"] for point in points] == [record["step"] for record in records]
    for point, record in zip(points, records, strict=True):
        assert flat(record).items() <= point.items()

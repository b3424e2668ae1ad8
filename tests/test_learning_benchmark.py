"""benchmarks/learning.py: its curves, what it keeps, its loop, and that candidates compare."""

import dataclasses
import json
import multiprocessing
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_run  # noqa: F401 (one thread)
import torch
from cs336lm.cli.main import main as cs336lm
from cs336lm.training.config import Config

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
TINY = {"context_length": 16, "d_model": 24, "num_layers": 1, "num_heads": 2}


@pytest.fixture
def parts(monkeypatch):
    """The modules learning, learning_run and curves."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    import curves
    import learning
    import learning_run

    yield learning, learning_run, curves
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]


def test_a_curve_passes_a_loss_between_two_validations(parts):
    _, _, curves = parts
    curve = curves.Curve([0, 10, 20], [0.0, 5.0, 9.0], [4.0, 3.0, 2.0])
    assert curves.passes_at(curve, 2.5) == 7.0
    assert curves.passes_at(curve, 2.5, by="steps") == 15.0
    assert curves.passes_at(curve, 2.0) == 9.0
    assert curves.passes_at(curve, 4.5) == 0.0
    assert curves.passes_at(curve, 1.9) is None


def test_finished_runs_are_kept_and_a_torn_line_is_not(parts, tmp_path):
    _, _, curves = parts
    path = tmp_path / "results.jsonl"
    assert curves.load(path) == []
    one = curves.RunRecord("a", 1, None, {"x": 1}).finished(curves.Curve([0], [0.0], [1.5]))
    two = curves.RunRecord("a", 2, 1e-3, {"x": 1}).finished(curves.Curve([0], [0.0], [1.25]))
    curves.append(path, one)
    with open(path, "a") as file:
        file.write('{"candidate": "a", "se')
    assert curves.load(path) == [one]
    curves.append(path, two)
    assert curves.load(path) == [one, two]
    assert one.key == curves.RunRecord("a", 1, None, {"x": 1}).key
    assert one.key != curves.RunRecord("a", 1, None, {"x": 2}).key
    assert one.key != two.key


def test_tables_say_means_spreads_and_passes(parts):
    _, _, curves = parts

    def record(name, seed, losses):
        curve = curves.Curve([0, 50, 100], [0.0, 5.0, 10.0], losses)
        return curves.RunRecord(name, seed, None, {}).finished(curve)

    records = [
        record("slow", 1, [5.0, 4.0, 3.0]),
        record("slow", 2, [5.0, 4.0, 3.2]),
        record("fast", 1, [5.0, 3.0, 2.0]),
        record("fast", 2, [5.0, 3.2, 2.0]),
    ]
    means = curves.table_of_means(records, ["slow", "fast"]).splitlines()
    cells = ["", "slow", "3.1000", "0.1414", "3.0000 to 3.2000", "100", "10", ""]
    assert [cell.strip() for cell in means[2].split("|")] == cells
    passes = curves.table_of_passes(records, ["slow", "fast"]).splitlines()
    assert [cell.strip() for cell in passes[2].split("|")] == ["", "slow", "", "never", ""]
    assert [cell.strip() for cell in passes[3].split("|")] == ["", "fast", "5 (2.00 x)", "", ""]


@dataclasses.dataclass
class _Group:
    """An optimizer of which only the learning rate matters."""

    param_groups: list


def _contestant(learning_run, seconds_a_step, time):
    config = Config().resolved(10)
    optimizer = _Group([{"lr": 1.0, "base_lr": config.optim.lr}])
    rates = []

    def step(x, y):
        time[0] += seconds_a_step
        rates.append(optimizer.param_groups[0]["lr"] / config.optim.lr)
        return torch.zeros(())

    return learning_run.Contestant(config, None, step, optimizer, None, {}), rates


@pytest.mark.parametrize(("steps", "taken"), [(0, 10), (40, 40)])
def test_the_loop_ends_with_its_budget_at_the_lowest_rate(parts, steps, taken):
    """By seconds, of which a step takes one and a validation, off the clock, a hundred."""
    _, learning_run, _ = parts
    time = [0.0]
    contestant, rates = _contestant(learning_run, 1.0, time)

    def validate():
        time[0] += 100.0
        return 1.0

    curve = learning_run.follow(
        contestant,
        lambda: (None, None),
        validate,
        seconds=10.5,
        steps=steps,
        validations=5,
        clock=lambda: time[0],
    )
    assert len(rates) == taken == curve.steps[-1]
    assert curve.seconds[-1] == taken
    assert rates[-1] == pytest.approx(0.1)  # min_lr is a tenth
    assert max(rates) > 0.95
    assert 5 <= len(curve.losses) <= 7


def forked(script, asked):
    """``subprocess.run`` of the script by a fork, with PyTorch and transformers there already."""

    def work():
        sys.argv = [script, asked]
        runpy.run_path(script, run_name="__main__")

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(120)
    return subprocess.CompletedProcess([script, asked], process.exitcode)


def test_candidates_share_data_windows_and_loss(parts, tmp_path, capfd, monkeypatch):
    """Two steps of each through the script, then none again; ours and theirs agree on weights."""
    learning, _, curves = parts
    scripts = iter((subprocess.run, *[lambda command: forked(*command[1:])] * 4))
    stand_in = SimpleNamespace(run=lambda command: next(scripts)(command))
    monkeypatch.setattr(learning, "subprocess", stand_in)
    text = tmp_path / "text.txt"
    stories = ["stories", "--megabytes", "0.1", "--seed", "1", "--out", str(text)]
    assert cs336lm(stories) == 0
    results = tmp_path / "results.jsonl"
    argv = [str(text), "--results", str(results), "--steps", "2", "--seeds", "1", "--rates", "1e-3"]
    argv += ["--vocab-size", "300", "--eval-tokens", "64", "--shape", json.dumps(TINY)]
    argv += ["--candidates", "default,recipe,transformers,default+tied"]
    learning.main(argv)
    out = capfd.readouterr().out
    assert "| transformers (lr 0.001) |" in out
    records = curves.load(results)
    names = ["transformers", "default", "recipe", "transformers", "default+tied"]
    assert [record.candidate for record in records] == names
    assert all("transformers" in record.done.notes["twin"] for record in records[:4:3])
    for record in records:
        assert record.done.steps == [0, 1, 2]
        assert record.done.losses[0] == pytest.approx(5.7, abs=0.3)  # about the log of 300
    counts = [record.done.notes["parameters"] for record in records]
    assert counts[1] - counts[4] == 300 * 24  # one matrix for embedding and head
    before = results.read_bytes()
    learning.main(argv)
    assert results.read_bytes() == before
    assert capfd.readouterr().out.splitlines()[-10:] == out.splitlines()[-10:]

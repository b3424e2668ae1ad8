"""The trace, the search for a batch size, and the switches that change speed but no figures."""

import dataclasses
import gzip
import json
import mmap
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from cs336lm.cli.main import main
from cs336lm.training import batch_size
from cs336lm.training.batch_size import LargestBatch, find_batch_size, largest_that
from cs336lm.training.config import save_config
from cs336lm.training.profiling import PHASES
from cs336lm.training.trainer import Trainer
from hypothesis import given
from hypothesis import strategies as st
from tiny_run import curve, make_config
from torch._dynamo.utils import counters


def test_profile_writes_a_trace_and_says_where_the_time_went(tmp_path, capfd):
    Trainer(make_config(tmp_path, steps=14), tmp_path / "run", profile=True).train()
    table = capfd.readouterr().err
    with gzip.open(tmp_path / "run" / "profile" / "trace.json.gz") as file:
        events = json.load(file)["traceEvents"]
    recorded = [event["name"] for event in events if event.get("ph") == "X"]
    for phase in PHASES:
        assert recorded.count(phase) == 5
        assert f"\n  {phase}  " in table
    shares = [float(row.split()[-1][:-1]) for row in table.splitlines() if row.startswith("  ")]
    assert sum(shares[: len(PHASES) + 1]) == pytest.approx(100, abs=1)


def test_a_run_too_short_to_profile_is_not_harmed(tmp_path):
    Trainer(make_config(tmp_path, steps=3), tmp_path / "run", profile=True).train()
    assert len(curve(tmp_path / "run")) == 4


def test_a_trace_that_cannot_be_written_ends_no_run(tmp_path, monkeypatch, capfd):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.profiler.profile, "export_chrome_trace", full)
    Trainer(make_config(tmp_path, steps=14), tmp_path / "run", profile=True).train()
    assert len(curve(tmp_path / "run")) == 15
    assert "trace.json.gz could not be written: [Errno 28] No space" in capfd.readouterr().err


@given(st.integers(0, 10**6), st.integers(1, 1 << 16))
def test_the_search_finds_the_largest_to_an_eighth(largest, limit):
    tried = []

    def fits(size):
        tried.append(size)
        return size <= largest

    found = largest_that(fits, limit)
    assert found <= min(largest, limit)
    assert found >= min(largest, limit) * 8 // 9
    assert max(tried) <= min(max(1, 2 * largest), limit)


@given(st.integers(1, 300), st.integers(1, 300))
def test_rounds_are_as_few_as_fit(share, largest):
    rounds = LargestBatch(largest, is_estimate=False).rounds_for(share)
    assert share % rounds == 0
    assert share // rounds <= largest
    assert not any(share % r == 0 and share // r <= largest for r in range(1, rounds))


def test_the_estimate_on_a_cpu_is_the_free_memory_over_what_a_sequence_takes(tmp_path, monkeypatch):
    def growth(work):
        _, batch = work.args
        return (1 << 20) + 10_000 * batch

    monkeypatch.setattr(batch_size, "_peak_growth", growth)
    trainer = Trainer(make_config(tmp_path), tmp_path / "run")
    for gigabytes in (1, 4):
        monkeypatch.setattr(batch_size, "_free_memory", lambda size=gigabytes: size << 30)
        expected = (gigabytes << 30) * batch_size._CPU_SHARE / 10_000
        assert find_batch_size(trainer).sequences == pytest.approx(expected, rel=1e-3)
    monkeypatch.setattr(batch_size, "_free_memory", lambda: 10)
    with pytest.raises(ValueError, match="not even one sequence of 8 tokens fits on cpu"):
        find_batch_size(trainer)


def test_peak_growth_is_seen_although_the_memory_is_given_back():
    size = 256 << 20

    def work():
        # From the system, not from an allocator, which may have as much left from tests before.
        np.frombuffer(mmap.mmap(-1, size), dtype=np.uint8)[:] = 1

    assert size * 0.9 < batch_size._peak_growth(work) < size * 1.5


def test_find_batch_size_trains_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(batch_size, "_estimate_on_cpu", lambda trainer: 3)
    save_config(make_config(tmp_path), tmp_path / "run.toml")
    flags = ["--config", f"{tmp_path}/run.toml", "--run-dir", f"{tmp_path}/run"]
    assert main(["train", *flags, "--find-batch-size"]) == 0
    assert capsys.readouterr().out == (
        "about 3 sequences of 8 tokens fit on cpu at once; --data.batch-size 8 needs "
        "--train.grad-accumulation 4\n"
    )
    assert not (tmp_path / "run").exists()


def test_recomputing_activations_changes_nothing(tmp_path):
    for switch in (False, True):
        config = make_config(tmp_path, activation_checkpointing=switch)
        Trainer(config, tmp_path / f"{switch}").train()
    assert curve(tmp_path / "True") == curve(tmp_path / "False")


def test_compiling_changes_nothing_but_rounding(tmp_path, monkeypatch):
    # The whole of torch.compile but the generation of code, which takes its time.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
    losses = {}
    for switch in (False, True):
        config = make_config(tmp_path, steps=3, eval_every=0, compile=switch)
        losses[switch] = Trainer(config, tmp_path / f"{switch}").train().val_loss
    assert losses[True] == pytest.approx(losses[False], rel=1e-5)


def has_cpp_compiler():
    """Asked as the compiler's backend asks: the program that CXX names, or g++, and it works."""
    try:
        compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
        return subprocess.run([compiler, "--version"], capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not has_cpp_compiler(), reason="there is no C++ compiler")
def test_a_step_compiled_to_machine_code_changes_nothing_but_rounding(tmp_path):
    losses = {}
    for switch in (False, True):
        config = make_config(tmp_path, steps=3, compile=switch)
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, val=None))
        Trainer(config, tmp_path / f"{switch}").train()
        losses[switch] = [record["train_loss"] for record in curve(tmp_path / f"{switch}")]
    assert counters["inductor"], "Inductor has made nothing"
    assert losses[True] == pytest.approx(losses[False], rel=1e-5)

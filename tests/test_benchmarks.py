"""The GPU benchmark runs through, on whatever is at hand, with tiny shapes."""

import sys
from pathlib import Path

import pytest
import tiny_run  # noqa: F401 (one thread)

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    import gpu

    yield gpu
    for name in set(sys.modules) - before:  # "generation" and "steps" are common names
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]


def test_every_job_runs_and_has_its_row(gpu, capsys):
    gpu.main(["--smoke"])
    table = capsys.readouterr().out
    for job in ("recipe", *(f"train {name}" for name in gpu.TRAINING), "train GPT-2 small fp8"):
        assert f"| {job} " in table
    for name in gpu.GENERATION:
        assert f"| generate {name} " in table
    assert "failed" not in table
    assert "first loss 4." in table  # the logarithm of 64 ids


def test_losses_that_differ_end_it(gpu):
    figures = {"tokens_per_second": 1.0, "megabytes": 0.0, "loss": 4.0}
    gpu.check_losses({"train a": figures, "train a transformers": {**figures, "loss": 4.0001}})
    with pytest.raises(SystemExit, match=r"a loss of 4.0 here, of 4.1"):
        gpu.check_losses({"train a": figures, "train a transformers": {**figures, "loss": 4.1}})


def test_texts_that_differ_end_it(gpu):
    ours = {"tokens_per_second": 1.0, **{f"first id {i}": float(i) for i in range(64)}}
    nearly = {**ours, "first id 7": -1.0}
    gpu.check_ids({"generate a": ours, "generate a transformers static": nearly})
    others = {**ours, **{f"first id {i}": -1.0 for i in range(17)}}
    with pytest.raises(SystemExit, match=r"a transformers static: only 73% of the prompts"):
        gpu.check_ids({"generate a": ours, "generate a transformers static": others})


def test_the_bound_is_what_one_token_reads(gpu, monkeypatch):
    """1.28 billion weights beside the embedding, two bytes each, at 3.35 TB/s: 1,300 a second."""
    monkeypatch.setattr(gpu, "peak_bandwidth", lambda device: 3.35e12)
    assert 1_200 < gpu.bound(gpu.GENERATION["1.3 B, batch 1"], None) < 1_400

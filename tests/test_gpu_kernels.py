"""Kernels for a GPU where there is none: run by Triton's interpreter, and compiled."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cs336lm.errors import Note
from cs336lm.model.kernels import triton_trial

TOLERANCES = {
    "decoder float32": 1e-5,
    "decoder bfloat16": 0.03,
    "attention": 1e-5,
    "adamw": 2e-6,
}


def said(script):
    """What a script beside this one prints: Triton is told once how to run, at its import."""
    pytest.importorskip("triton", reason="Triton is part of PyTorch on Linux only")
    path = Path(__file__).with_name(script)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def errors():
    return said("gpu_kernels.py")


@pytest.mark.parametrize("kernels", TOLERANCES)
def test_kernels_compute_what_pytorch_does(errors, kernels):
    tolerance = TOLERANCES[kernels]
    assert errors[kernels], "nothing was compared"
    wrong = {name: error for name, error in errors[kernels].items() if not error < tolerance}
    assert not wrong


def test_kernels_compile_for_gpus_that_are_not_here():
    compiled = said("compiled_kernels.py")
    for target, kernels in compiled.items():
        narrow = kernels["kernels"] - kernels["with wide loads"]
        assert narrow <= 1, f"{target}: only the joining of few numbers reads them one by one"
        # All but AdamW's begin before the kernel before them is done, where that is possible.
        overlapping = kernels["kernels"] - 1 if target.endswith("sm_90") else 0
        assert kernels["waiting"] == overlapping


def test_a_machine_where_triton_cannot_compile_goes_without(monkeypatch):
    """As where there is no C compiler: told in one line, once."""

    def fail(device):
        raise RuntimeError("Failed to find C compiler.\nPlease specify it.")

    pytest.importorskip("triton", reason="Triton is part of PyTorch on Linux only")
    monkeypatch.setattr(triton_trial, "_tried", fail)
    triton_trial.triton_works.cache_clear()
    gpu = torch.device("cuda", 0)
    with pytest.warns(Note, match=r"slower ones used: Triton says Failed to find C compiler\.$"):
        assert not triton_trial.triton_works(gpu)
    assert not triton_trial.triton_works(gpu)
    triton_trial.triton_works.cache_clear()
    assert not triton_trial.triton_works(torch.device("cpu"))

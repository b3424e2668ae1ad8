"""Kernels for a GPU, as Triton's interpreter runs them where there is none."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOLERANCES = {
    "decoder float32": 1e-5,
    "decoder bfloat16": 0.03,
    "attention": 1e-5,
    "adamw": 2e-6,
}


@pytest.fixture(scope="module")
def errors():
    pytest.importorskip("triton", reason="Triton is part of PyTorch on Linux only")
    script = Path(__file__).with_name("gpu_kernels.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("kernels", TOLERANCES)
def test_kernels_compute_what_pytorch_does(errors, kernels):
    tolerance = TOLERANCES[kernels]
    assert errors[kernels], "nothing was compared"
    wrong = {name: error for name, error in errors[kernels].items() if not error < tolerance}
    assert not wrong

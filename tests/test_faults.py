"""A sample of the faults that ``make fault-test`` puts into every job: see ``tests/faults``."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

SAMPLE = {
    "text jobs, each of a few calls fails": "fail --job tokenize-shards --job train-bpe-over "
    "--job stories-over --call write --call sync --call rename --most 3",
    "an array without its sidecar, shards without theirs": "fail --job tokenize "
    "--job tokenize-shards --call rename --call unlink --errno KILL",
    "text jobs, killed": "kill --job tokenize-shards-over --job count-pretokens --cases 5",
    "text jobs, power cut": "power --job tokenize --job stories-over --cases 6",
    "training, each of a few calls fails": "fail --job train --call write --call rename --most 2",
    "training, killed and its power cut": "power --job train --cases 4",
    "training, on two processes": "ranks --cases 0",
}
"""What is tried each time: about a second a case, with the import of PyTorch once in each line."""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the shim is for Linux")
@pytest.mark.parametrize("what", SAMPLE)
def test_nothing_is_lost(what: str) -> None:
    command = [sys.executable, "-m", "tests.faults", *SAMPLE[what].split()]
    environment = {name: value for name, value in os.environ.items() if name != "CS336LM_TRACEBACK"}
    ran = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment
    )
    if ran.returncode == 77:
        pytest.skip(ran.stdout.strip())
    assert ran.returncode == 0, ran.stdout + ran.stderr

"""A tokenizer shared by threads, by processes forked from among them, and by spawned ones."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sharing import PROCESSES, load, make_cases, make_tokenizer, round_of_threads_and_forks

ROUNDS = int(os.environ.get("CS336LM_FORKS", "8"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_threads_and_processes_forked_amid_them(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    cases = make_cases(tokenizer)
    round_of_threads_and_forks(tokenizer, cases, ROUNDS * PROCESSES)


@pytest.mark.parametrize(("way", "workers"), [("fork", 4), ("spawn", 1)])
def test_workers_of_a_data_loader(tmp_path: Path, way: str, workers: int) -> None:
    tokenizer = make_tokenizer(tmp_path)
    cases = make_cases(tokenizer)
    assert sorted(load(tokenizer, cases, way, workers)) == list(range(len(cases)))


def test_the_core_is_for_python_with_a_global_lock() -> None:
    """Free-threaded Python takes the lock again for it, and says so (docs/reliability.md)."""
    if not hasattr(sys, "_is_gil_enabled"):
        pytest.skip("before Python 3.13 there is no other")
    assert sys._is_gil_enabled()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forks_wait_for_what_is_made_once(tmp_path: Path) -> None:
    """The first array imports NumPy: a process forked meanwhile waited for ever for the thread."""
    script = """
import sys
from pathlib import Path
import sharing
tokenizer = sharing.make_tokenizer(Path(sys.argv[1]))
assert "numpy" not in sys.modules
cases = sharing.make_cases(tokenizer)
sharing.round_of_threads_and_forks(tokenizer, cases, sharing.PROCESSES)
"""
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], cwd=here, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr

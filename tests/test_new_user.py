"""examples/new_user.py, whole and quick: every step whose package is here, and what it says."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent / "examples" / "new_user.py"


def here(*packages: str) -> bool:
    return all(find_spec(name) is not None for name in packages)


def test_a_new_users_path_from_text_to_the_tools_of_others(tmp_path):
    out = tmp_path / "new"
    command = [sys.executable, str(SCRIPT), "--quick", "--out", str(out)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    said = ended.stdout
    for name in ("stories", "train-bpe", "tokenize", "train", "generate"):
        assert f"$ cs336lm {name} " in said
    steps = {
        "transformers continues with the same text: True": (
            *("safetensors", "tokenizers", "transformers"),
        ),
        r"http://\S+/health: 200": ("starlette", "uvicorn"),
        "the server, too: True": ("starlette", "uvicorn", "openai"),
        r"endings *\|": ("lm_eval",),
    }
    left_out = re.findall(r"^left out: .* needs (.*)$", said, re.MULTILINE)
    for line, packages in steps.items():
        assert bool(re.search(line, said)) == here(*packages), said
        if not here(*packages):
            assert any(name in each for each in left_out for name in packages)
    assert (out / "run" / "metrics.jsonl").exists()


def test_a_directory_that_is_there_is_left_alone(tmp_path):
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "is there already" in ended.stderr.splitlines()[-1]

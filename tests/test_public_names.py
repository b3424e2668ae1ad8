"""What ``from cs336lm import ...`` gives: each name, lazily, and with its type."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import cs336lm
import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "python"

# What somebody who uses the package might write. `assert_type` does not accept Any.
SCRIPT = """\
from typing import assert_type

from cs336lm import (
    AdamW, BatchLoader, Config, DataConfig, Evaluation, ModelConfig, Muon, NorMuon, OptimConfig,
    SamplingParams, TokenDataset, Tokenizer, TrainConfig, TransformerLM, clip_gradients, evaluate,
    generate,
    load_config, load_run, lr_constant_schedule, lr_cosine_schedule, lr_inverse_sqrt_schedule,
    lr_linear_schedule,
    lr_wsd_schedule, stream, train_bpe,
)

vocab, merges = train_bpe("corpus.txt", 300, ["<|endoftext|>"], threads=2, text_field=None)
assert_type(vocab, dict[int, bytes])
assert_type(merges, list[tuple[bytes, bytes]])

tokenizer = Tokenizer.train("corpus.txt", 300, max_memory=2_000_000_000)
assert_type(tokenizer.encode("text"), list[int])
assert_type(tokenizer.decode([1, 2]), str)
written = tokenizer.encode_files("corpus.txt", "tokens.npy", threads=2, append_eot=True)
assert_type(written.tokens, int)

config, model, kept = load_run("runs/a")
assert_type(config, Config)
assert_type(model, TransformerLM)
assert_type(kept, Tokenizer | None)
assert_type(generate(model, tokenizer, "Once", temperature=0.8), str)
assert_type(generate(model, tokenizer, ["Once", "Twice"], seed=1), list[str])
for piece in stream(model, tokenizer, "Once"):
    assert_type(piece.text, str)

assert_type(evaluate(model, TokenDataset("val.npy")), Evaluation)
assert_type(SamplingParams(temperature=0.5, top_k=5).top_k, int | None)
assert_type(load_config("run.toml").train, TrainConfig)
assert_type(Config(DataConfig(), ModelConfig(), OptimConfig(lr=1e-3)).model.d_model, int)
assert_type(BatchLoader(TokenDataset("t.npy"), 8, 16, seed=1).seed, int)
assert_type(lr_cosine_schedule(1, 1e-3, 1e-4, 10, 100), float)
assert_type(lr_linear_schedule(1, 1e-3, 1e-4, 10, 100), float)
assert_type(lr_wsd_schedule(1, 1e-3, 1e-4, 10, 100), float)
assert_type(lr_constant_schedule(1, 1e-3, 1e-4, 10, 100), float)
assert_type(lr_inverse_sqrt_schedule(1, 1e-3, 1e-4, 10, 100), float)
Muon([model.lm_head.weight], lr=0.02, momentum=0.95)
NorMuon([{"params": [model.lm_head.weight], "matrices": False}])
optimizer = AdamW(model.parameters(), lr=1e-3)
clip_gradients(model.parameters(), 1.0)
"""

# Calls that a type checker must refuse, one a line.
MISTAKES = """\
from cs336lm import Tokenizer, count_pretokens, train_bpe

train_bpe("corpus.txt", 300, thread=2)
train_bpe("corpus.txt", 300, max_memory="2GB")
count_pretokens("corpus.txt", "0.bin", text_fields="body")
Tokenizer.train("corpus.txt", "300")
Tokenizer.load("tokenizer/").encode_files("corpus.txt", "t.npy", max_memory=1)
Tokenizer.load("tokenizer/").count_tokens("corpus.txt", shard_tokens=1)
"""


def mypy(script: Path) -> subprocess.CompletedProcess[str]:
    # With the project's configuration, whose mode is strict, what `make lint` has read is reused.
    command = ["mypy", "--config-file", "pyproject.toml", "--strict", str(script)]
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=REPOSITORY, capture_output=True, text=True
    )


def pyright(script: Path) -> subprocess.CompletedProcess[str]:
    (script.parent / "pyrightconfig.json").write_text(f'{{"extraPaths": ["{PACKAGE}"]}}')
    command = ["pyright", "--pythonpath", sys.executable, str(script)]
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=script.parent,
        env=os.environ | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("check", [mypy, pyright])
def test_a_users_script_is_typed(tmp_path, check):
    (tmp_path / "script.py").write_text(SCRIPT)
    checked = check(tmp_path / "script.py")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("check", [mypy, pyright])
def test_a_users_mistakes_are_found(tmp_path, check):
    (tmp_path / "script.py").write_text(MISTAKES)
    checked = check(tmp_path / "script.py")
    found = {int(line) for line in re.findall(r"script\.py:(\d+)[:\d]* ?-? error", checked.stdout)}
    assert found == {3, 4, 5, 6, 7, 8}, checked.stdout + checked.stderr


def _typed_imports(path: Path) -> dict[str, str]:
    """name -> module, of the imports that stand under ``if TYPE_CHECKING``."""
    (block,) = (node for node in ast.parse(path.read_text()).body if isinstance(node, ast.If))
    return {
        alias.name: node.module or ""
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_the_typed_imports_are_the_lazy_ones():
    typed = _typed_imports(PACKAGE / "cs336lm" / "__init__.py")
    assert set(cs336lm.__all__) == typed.keys() | {"__version__"}
    assert set(cs336lm.__all__) <= set(dir(cs336lm))
    for name, module in typed.items():
        __import__(module)
        assert getattr(cs336lm, name) is getattr(sys.modules[module], name)
    with pytest.raises(AttributeError, match="has no attribute 'tokeniser'"):
        cs336lm.tokeniser  # noqa: B018


def test_importing_costs_nothing():
    code = "import sys, cs336lm; print(*sorted(m for m in sys.modules if 'cs336lm' in m))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert modules.split() == ["cs336lm", "cs336lm.lazy", "cs336lm.moved"]

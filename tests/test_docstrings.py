"""The examples in docstrings are sessions of Python, and say what Python says."""

import doctest
import importlib
import re
from pathlib import Path

import cs336lm
import pytest
import tiny_run  # noqa: F401 (one thread)

PACKAGE = Path(cs336lm.__file__).parent
MODULES = sorted(
    ".".join(("cs336lm", *path.relative_to(PACKAGE).with_suffix("").parts))
    for path in PACKAGE.rglob("*.py")
    if re.search(r"^\s+>>> ", path.read_text("utf-8"), re.MULTILINE)
)
FLAGS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL


def test_the_main_names_have_examples():
    having = [
        *("Tokenizer", "train_bpe", "TokenDataset", "get_batch", "ModelConfig", "TransformerLM"),
        *("Linear", "RMSNorm", "RotaryPositionalEmbedding", "AdamW", "clip_gradients", "softmax"),
        *("silu", "cross_entropy", "perplexity", "scaled_dot_product_attention"),
        *("lr_cosine_schedule", "generate"),
    ]
    for name in having:
        assert ">>> " in (getattr(cs336lm, name).__doc__ or ""), name
    assert len(MODULES) > 10


@pytest.mark.parametrize("module", MODULES)
def test_examples(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(module), optionflags=FLAGS)
    assert result.attempted > 0
    assert result.failed == 0

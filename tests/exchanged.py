"""Runs to be exported, and the real packages asked what they make of them."""

from pathlib import Path

import tiny_run  # noqa: F401  (a tiny model is quickest on one thread)
import torch
from cs336lm import ModelConfig, Tokenizer, TransformerLM
from cs336lm.optim import AdamW
from cs336lm.training.checkpoints.state import pack
from cs336lm.training.config import Config
from cs336lm.training.run_directory import RunDirectory

TEXT = "the cat sat on the mat; the dog sat on the log. " * 4
MERGES = [(b"t", b"h"), (b"th", b"e"), (b" ", b"the"), (b"a", b"t"), (b"o", b"n"), (b" ", b"s")]
END = "<|endoftext|>"
SHAPE = {"context_length": 32, "d_model": 32, "num_layers": 2, "num_heads": 4, "d_ff": 64}


def make_tokenizer(pattern: str = "gpt2", special=(END,)) -> Tokenizer:
    tokens = [bytes([i]) for i in range(256)] + [left + right for left, right in MERGES]
    return Tokenizer(dict(enumerate(tokens)), MERGES, special, pattern=pattern)


def make_model(vocab_size: int, seed: int = 0, **shape) -> TransformerLM:
    """A model with gains that are not 1 and logits that are not all alike."""
    torch.manual_seed(seed)
    model = TransformerLM(ModelConfig(**SHAPE | {"vocab_size": vocab_size} | shape))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)
    return model.eval()


def make_run(path: Path, tokenizer: Tokenizer | None, model: TransformerLM, step: int = 1) -> Path:
    run = RunDirectory(path)
    run.prepare(Config(model=model.config), tokenizer)
    run.write_checkpoint(pack(model, AdamW(model.parameters()), step))
    return path


def greedy(model: TransformerLM, ids: list[int], count: int, allowed: int) -> list[int]:
    """The likeliest next ids below ``allowed``, by the model's own forward, nothing else."""
    ids = list(ids)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids]))[0, -1, :allowed].argmax()))
    return ids


def one_line(capsys) -> str:
    """The one line that a command complained in."""
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured
    return lines[0]

"""Every file in configs/ loads, builds and trains, whole and as the twin that its head names."""

import re
import shlex
from pathlib import Path

import pytest
import tiny_run  # noqa: F401 (one thread)
import torch
from cs336lm.cli.main import main
from cs336lm.cli.train import parse
from cs336lm.model import TransformerLM
from cs336lm.optim.build import build_optimizer
from cs336lm.training.config import load_config

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.toml"))
NAMES = [path.stem for path in CONFIGS]
TINY = [
    *("--model.d-model", "16", "--model.num-layers", "2", "--model.num-heads", "2"),
    *("--model.context-length", "32", "--data.batch-size", "4", "--train.grad-accumulation", "1"),
    *("--train.steps", "2", "--train.max-tokens", "None", "--train.max-seconds", "None"),
    *("--optim.warmup-steps", "1", "--train.eval-batches", "None", "--train.eval-tokens", "64"),
    *("--train.device", "cpu", "--train.dtype", "float32", "--train.no-compile"),
]


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    """Flags that name a small tokenizer and its token files."""
    folder = tmp_path_factory.mktemp("stories")
    for name, size in (("train", "0.05"), ("val", "0.01")):
        text = folder / f"{name}.txt"
        assert main(["stories", "--megabytes", size, "--seed", "1", "--out", str(text)]) == 0
    tokenizer, special = str(folder / "tokenizer"), ["--special-token", "<|endoftext|>"]
    learn = ["train-bpe", str(folder / "train.txt"), "--vocab-size", "300", "--out", tokenizer]
    assert main([*learn, *special]) == 0
    flags = ["--data.tokenizer", tokenizer]
    for name in ("train", "val"):
        out = str(folder / f"{name}.npy")
        text = str(folder / f"{name}.txt")
        assert main(["tokenize", text, "--tokenizer", tokenizer, "--out", out]) == 0
        flags += [f"--data.{name}", out]
    return flags


def test_they_are_the_ones_that_are_spoken_of():
    recipes = {"stories", "tinystories", "owt", "low-resource", "leaderboard", "gpt2-small"}
    assert set(NAMES) == recipes | {"laptop"}


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_loads_and_builds(path):
    config = load_config(path)
    vocab_size = config.model.vocab_size or 1000
    config = config.resolved(vocab_size, 10**9)
    with torch.device("meta"):
        model = TransformerLM(config.model)
    optimizer = build_optimizer(model, config.optim)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in model.parameters()}
    assert (
        Path(config.data.train)
        == path.parent / path.read_text().split('train = "')[1].split('"')[0]
    )


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_trains_from_any_token_file(path, stories, tmp_path):
    run = tmp_path / "run"
    vocabulary = ["--model.vocab-size", "None", "--model.d-ff", "None"]
    argv = ["train", "--config", str(path), "--run-dir", str(run), *stories, *TINY, *vocabulary]
    assert main(argv) == 0
    assert main(["evaluate", str(run), "--by-document"]) == 0


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_its_head_has_a_twin_in_minutes(path):
    """Or says, as those that take minutes themselves, how to make it shorter; all flags exist."""
    head = path.read_text().partition("\n[")[0].replace("# ", "").replace("\\\n", " ")
    commands = re.findall(r"cs336lm train --.*", re.sub(r" +", " ", head))
    assert commands, "the head says how to start it"
    for command in commands:
        argv = shlex.split(command.replace(f"--config {path.name}", f"--config {path}"))[2:]
        if argv[-1] != "--find-batch-size":
            parse(argv)
    if path.stem not in ("stories", "laptop"):
        (twin,) = [c for c in commands if f"runs/small-{path.stem}" in c]
        argv = shlex.split(twin.replace(f"--config {path.name}", f"--config {path}"))[2:]
        config = parse(argv).model
        assert (config.d_model, config.num_layers, config.context_length) == (128, 2, 256)
        assert config.vocab_size is None  # the tokenizer's
        assert config.d_ff is None


def test_tinystories_is_the_handouts():
    handout = load_config(CONFIGS[NAMES.index("tinystories")])
    tokens = handout.train.steps * handout.data.batch_size * handout.model.context_length
    assert tokens == 327_680_000
    assert handout.model.d_ff == 1344


def test_the_leaderboards_rates_are_those_of_depth_12():
    from cs336lm.model.presets import depth_tables

    config, preset = load_config(CONFIGS[NAMES.index("leaderboard")]), depth_tables(12)
    smaller = config.data.batch_size * config.model.context_length / 2**19
    for name in ("lr", "min_lr", "matrix_lr", "embedding_lr", "scalar_lr", "matrix_decay"):
        scaled = preset["optim"][name] * smaller**0.5
        assert getattr(config.optim, name) == pytest.approx(scaled, rel=0.07), name
    for name in preset["model"].keys() - {"vocab_size", "context_length"}:
        assert getattr(config.model, name) == preset["model"][name]

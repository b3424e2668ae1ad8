"""From raw text to generated text through the command line, as a user would: the demo, tiny."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cs336lm.cli import demo
from cs336lm.cli.main import main
from cs336lm.errors import UsageError
from cs336lm.text.stories import entropy

# For so little work, starting threads takes longer than what they do.
ENVIRONMENT = {**os.environ, "CS336LM_TRACEBACK": "1", "OMP_NUM_THREADS": "1"}
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The directory of a tiny demo, and what the demo printed."""
    out = tmp_path_factory.mktemp("demo") / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "cs336lm", "demo", "--size", "tiny", "--out", str(out)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stdout


def test_everything_is_there(told):
    out, _ = told
    assert sorted(path.name for path in out.iterdir()) == sorted(demo._FILES)
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert {"tokenizer.json", "vocab.json", "merges.txt"} <= set(os.listdir(out / "tokenizer"))
    run = set(os.listdir(out / "run"))
    assert {"config.toml", "metrics.jsonl", "checkpoints", "tokenizer"} <= run
    assert not list(out.rglob("*.partial"))


def test_the_tokens_are_the_text(told):
    from cs336lm import Tokenizer

    out, _ = told
    tokenizer = Tokenizer.load(out / "tokenizer")
    for name in ("train", "val"):
        tokens = np.load(out / f"{name}.npy", mmap_mode="r")
        text = (out / f"{name}.txt").read_bytes()
        assert tokens.dtype == np.uint16
        assert tokenizer.decode_bytes(tokens.tolist()) == text
        sidecar = json.loads((out / f"{name}.json").read_text())
        assert (sidecar["tokens"], sidecar["bytes"]) == (len(tokens), len(text))
    ends = np.count_nonzero(tokens == tokenizer.encode("<|endoftext|>"))
    assert ends == text.count(b"<|endoftext|>")


def test_the_validation_loss_fell_towards_the_floor(told):
    out, printed = told
    records = [json.loads(line) for line in (out / "run" / "metrics.jsonl").open()]
    losses = [record["val_loss"] for record in records if record.get("val_loss") is not None]
    counts = json.loads((out / "val.json").read_text())
    floor = entropy().nats_per_token(counts["bytes"] / counts["tokens"])
    assert len(losses) >= 3
    assert losses[0] - losses[-1] > 1
    assert losses[-1] > floor
    assert f"{floor:.4f}" in printed
    assert f"{entropy().bits_per_byte:.4f}" in printed
    found = [json.loads(line) for line in printed.splitlines() if line.startswith('{"loss"')]
    evaluated, by_story = found
    above = by_story["floor"]
    assert above["nats_per_document"] == entropy().nats_per_story
    assert f"the model is {above['excess_share']:.1%} above the entropy" in printed
    assert above["excess_share"] > 0
    assert evaluated["loss"] == pytest.approx(losses[-1], rel=0.1)
    assert f"{evaluated['bits_per_byte']:.4f}" in printed


def test_the_demo_shows_commands_that_work(told, capsys):
    out, printed = told
    commands = [line[2:] for line in printed.splitlines() if line.startswith("$ ")]
    names = [command.split()[1] for command in commands]
    assert names == [
        *("stories", "stories", "train-bpe", "tokenize", "tokenize"),
        *("train", "evaluate", "evaluate", "plot", "generate"),
    ]
    assert (
        main(["generate", str(out / "run"), "--prompt", "There once", "--max-new-tokens", "5"]) == 0
    )
    assert capsys.readouterr().out.startswith("There once")


def test_an_earlier_demo_is_replaced_and_nothing_else(told, capsys):
    out, _ = told
    (out / "notes.txt").write_text("mine")
    demo._clear(out)
    assert "replaces" in capsys.readouterr().out
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    with pytest.raises(UsageError, match="not from an earlier demo"):
        demo._clear(out)
    assert (out / "notes.txt").read_text() == "mine"


def test_a_file_is_no_place_for_a_demo(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["demo", "--out", str(tmp_path / "file")]) == 2
    assert "is a file" in capsys.readouterr().err


def test_the_quickstart_runs():
    done = subprocess.run(
        [sys.executable, str((ROOT / "examples") / "quickstart.py")],
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, "STEPS": "3"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert f"{entropy().bits_per_byte:.3f}" in done.stdout
    assert "Once upon a time" in done.stdout

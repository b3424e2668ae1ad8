"""``cs336lm generate``: what it prints, and what it refuses."""

import io
import json

import pytest

from cs336lm import Config, ModelConfig, Tokenizer, Trainer
from cs336lm.cli.main import main
from cs336lm.config import DataConfig, TrainConfig

TEXT = "the cat sat on the mat and the dog sat on the log\n" * 40


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generate")
    (folder / "text.txt").write_text(TEXT + "<|endoftext|>")
    tokenizer = Tokenizer.train(folder / "text.txt", 280, ["<|endoftext|>"])
    tokenizer.save(folder / "tokenizer")
    tokenizer.encode_files([folder / "text.txt"], folder / "tokens.npy")
    config = Config(
        data=DataConfig(folder / "tokens.npy", tokenizer=folder / "tokenizer", batch_size=2),
        model=ModelConfig(context_length=16, d_model=16, num_layers=1, num_heads=2),
        train=TrainConfig(steps=2, device="cpu"),
    )
    Trainer(config, folder / "run").train()
    return folder / "run"


def test_one_prompt_is_continued(run, capsys):
    assert main(["generate", str(run), "--prompt", "the cat", "--max-new-tokens", "5"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("the cat")
    assert out.endswith("\n")


def test_same_seed_same_text_and_json_says_what_the_terminal_says(run, capsys):
    flags = ["generate", str(run), "--prompt", "a dog", "--max-new-tokens", "30", "--seed", "4"]
    assert main(flags) == 0
    shown = capsys.readouterr().out
    assert main([*flags, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert shown == row["prompt"] + row["text"] + "\n"


def test_several_prompts(run, capsys):
    flags = ["--prompt", "a", "--prompt", "the dog", "--max-new-tokens", "4", "--temperature", "0"]
    assert main(["generate", str(run), *flags]) == 0
    out = capsys.readouterr().out
    assert out.startswith("--- 1\na")
    assert "--- 2\nthe dog" in out


def test_prompt_from_standard_input(run, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("the log"))
    assert main(["generate", str(run), "--prompt", "-", "--max-new-tokens", "1"]) == 0
    assert capsys.readouterr().out.startswith("the log")


@pytest.mark.parametrize(
    ("flags", "status", "word"),
    [
        (["--temperature", "-1"], 2, "temperature"),
        (["--top-p", "0"], 2, "top_p"),
        (["--top-k", "0"], 2, "top_k"),
        (["--max-new-tokens", "-1"], 2, "max_new_tokens"),
    ],
)
def test_impossible_values_are_named(run, capsys, flags, status, word):
    assert main(["generate", str(run), "--prompt", "a", *flags]) == status
    captured = capsys.readouterr()
    assert word in captured.err
    assert captured.err.count("\n") == 1


def test_a_directory_that_is_no_run(tmp_path, capsys):
    assert main(["generate", str(tmp_path), "--prompt", "a"]) == 1
    assert str(tmp_path) in capsys.readouterr().err

"""Samples during training: the same draws each time, each step once, and nobody's harm."""

import dataclasses
import io
import json
import sys
from functools import partial

import pytest
import torch
from cs336lm.cli.main import main
from cs336lm.errors import UsageError
from cs336lm.generation import generate
from cs336lm.generation.samples import SEED, TEMPERATURE, TOP_P, Samples
from cs336lm.text.tokenizer import Tokenizer
from cs336lm.training.config import Config, save_config
from cs336lm.training.run_directory import load_run
from cs336lm.training.trackers.jsonl import read_records
from cs336lm.training.trainer import Trainer
from test_distributed import on_ranks, parallel
from tiny_run import MODEL, curve, make_config

PROMPTS = ("Once", "")


def spoken(folder, *, special=("<|endoftext|>",), **train) -> Config:
    """A run of bytes, so that it has a tokenizer."""
    Tokenizer({i: bytes([i]) for i in range(256)}, [], list(special)).save(folder / "tokenizer")
    settings = {"sample_every": 4, "sample_prompts": PROMPTS, "sample_tokens": 5} | train
    model = dataclasses.replace(MODEL, vocab_size=257)
    config = make_config(folder, model=model, **settings)
    return dataclasses.replace(
        config, data=dataclasses.replace(config.data, tokenizer=folder / "tokenizer")
    )


def train(config, run, **options):
    return Trainer(config, run, callbacks=[Samples], **options).train()


def test_samples_are_what_generate_says_and_change_nothing(tmp_path):
    config = spoken(tmp_path, steps=10, activation_checkpointing=True)
    train(config, tmp_path / "run")
    samples = read_records(tmp_path / "run" / "samples.jsonl")
    assert [(s["step"], s["prompt"]) for s in samples] == [
        (step, prompt) for step in (4, 8, 10) for prompt in PROMPTS
    ]
    _, model, tokenizer = load_run(tmp_path / "run", which="last")
    for sample in samples[-2:]:
        expected = generate(model, tokenizer, sample["prompt"], 5, TEMPERATURE, TOP_P, seed=SEED)
        assert sample["text"] == expected
    quiet = dataclasses.replace(config, train=dataclasses.replace(config.train, sample_every=0))
    Trainer(quiet, tmp_path / "quiet").train()
    assert curve(tmp_path / "run") == curve(tmp_path / "quiet")
    assert not (tmp_path / "quiet" / "samples.jsonl").exists()


def test_a_resumed_run_has_each_sample_once(tmp_path):
    config = spoken(tmp_path, steps=12, sample_every=2, checkpoint_every=6)
    train(config, tmp_path / "whole")
    run, killed = tmp_path / "run", RuntimeError("killed")
    trainer = Trainer(config, run, callbacks=[Samples])
    update = trainer.update

    def until_nine(x, y, *, rounds):
        if trainer.progress.step == 9:
            raise killed
        return update(x, y, rounds=rounds)

    trainer.update = until_nine
    with pytest.raises(RuntimeError, match="killed"):
        trainer.train()
    file = run / "samples.jsonl"
    assert [s["step"] for s in read_records(file)] == [2, 2, 4, 4, 6, 6, 8, 8]
    with file.open("ab") as out:
        out.write(b'{"step": 8, "pro')  # cut short
    train(config, run, resume=True)
    assert file.read_bytes() == (tmp_path / "whole" / "samples.jsonl").read_bytes()
    # A run that begins again, since it got to no checkpoint, keeps nothing.
    for checkpoint in (run / "checkpoints").iterdir():
        checkpoint.unlink()
    train(dataclasses.replace(config, train=dataclasses.replace(config.train, steps=2)), run)
    assert [s["step"] for s in read_records(file)] == [2, 2]


def test_what_cannot_be_sampled_is_refused_by_name(tmp_path):
    config = spoken(tmp_path, special=())
    run = tmp_path / "run"
    with pytest.raises(UsageError, match="the prompt has no token"):
        Trainer(config, run, callbacks=[Samples])
    mute = dataclasses.replace(config, data=dataclasses.replace(config.data, tokenizer=None))
    with pytest.raises(UsageError, match=r"train\.sample_every=4 needs data\.tokenizer"):
        Trainer(mute, run, callbacks=[Samples])
    with pytest.raises(UsageError, match=r"callbacks=\[Samples\]"):
        Trainer(config, run).train()
    assert not run.exists()


def test_the_console_shows_a_line_a_sample(tmp_path, capsys):
    config = spoken(tmp_path, steps=4, sample_prompts=("a\n\nb" + "c" * 200,))
    save_config(config, tmp_path / "run.toml")
    flags = ["--train.sample-prompts", "One\nday", "x" * 200]
    run = ["--config", str(tmp_path / "run.toml"), "--run-dir", str(tmp_path / "run")]
    assert main(["train", *run, *flags]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "sample after" in line]
    assert len(said) == 2
    assert said[0].startswith("sample after step 4: One day")
    assert said[1].endswith("x…")
    assert [s["prompt"] for s in read_records(tmp_path / "run" / "samples.jsonl")] == flags[1:]


def test_a_console_that_is_gone_or_a_model_that_is_broken_ends_nothing(tmp_path, monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise OSError(5, "Input/output error")

    config = spoken(tmp_path, steps=4)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Gone())
        shown = partial(Samples, console=True)
        assert Trainer(config, tmp_path / "run", callbacks=[shown]).train().is_done
    assert len(read_records(tmp_path / "run" / "samples.jsonl")) == 2

    trainer = Trainer(config, tmp_path / "broken", callbacks=[Samples])
    update = trainer.update

    def break_it(x, y, *, rounds):
        out = update(x, y, rounds=rounds)
        with torch.no_grad():
            trainer.model.lm_head.weight.fill_(float("nan"))
        return out

    trainer.update = break_it
    with pytest.raises(ValueError, match="training has diverged"):
        trainer.train()
    assert read_records(tmp_path / "broken" / "samples.jsonl") == []


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_the_first_of_many_processes_writes(tmp_path, mode):
    config = spoken(tmp_path, steps=4, sample_every=3)
    train(config, tmp_path / "alone")
    several = parallel(config, mode)
    on_ranks(2, lambda rank: train(several, tmp_path / "run"))
    ours, theirs = (
        (tmp_path / name / "samples.jsonl").read_text().splitlines() for name in ("run", "alone")
    )
    assert [json.loads(line)["step"] for line in ours] == [3, 3, 4, 4]
    assert ours == theirs

"""Validation and evaluation measure the same thing for every run: windows, bytes, precision."""

import json
import math

import pytest
import torch
from cs336lm import Tokenizer
from cs336lm.data import TokenDataset, gather_windows
from cs336lm.evaluation import evaluate
from cs336lm.model import TransformerLM
from cs336lm.model.kernels.fp8 import fp8_linear
from cs336lm.training import validator
from cs336lm.training.distributed import StopVote, World
from cs336lm.training.setup import set_up
from cs336lm.training.stop_signals import StopSignals
from cs336lm.training.trainer import Trainer
from cs336lm.training.validator import validation_loss
from tiny_run import CONTEXT_LENGTH, MODEL, make_config, write_tokens
from torch.utils.flop_counter import FlopCounterMode

RECORDS = [f"{word}!" for word in ("cat", "dog", "a bird", "rain") * 110]


@pytest.fixture
def records(tmp_path):
    """440 short records with ``<|endoftext|>`` after each, their tokenizer, a model."""
    tokenizer = Tokenizer({i: bytes([i]) for i in range(256)}, [], ["<|endoftext|>"])
    source = tmp_path / "records.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in RECORDS))
    tokenizer.encode_files(source, tmp_path / "t.npy", append_eot=True)
    torch.manual_seed(0)
    shape = {"context_length": 16, "d_model": 8, "num_layers": 1, "num_heads": 1}
    model = TransformerLM(type(MODEL)(vocab_size=257, **shape))
    return model, TokenDataset(tmp_path / "t.npy"), tokenizer


def test_a_special_token_has_nats_but_no_bytes_of_text(records):
    model, dataset, tokenizer = records
    figures = evaluate(model, dataset, tokenizer=tokenizer)
    size = sum(map(len, RECORDS)) - 1  # the first token is not predicted
    assert figures.bytes == size
    assert figures.tokens == size + len(RECORDS)
    bits = figures.loss * figures.tokens / math.log(2)
    assert figures.bits_per_byte == pytest.approx(bits / size)
    # Without the tokenizer the sidecar says how many bytes of text there were.
    assert evaluate(model, dataset).bytes == pytest.approx(size, abs=2)


def test_text_that_is_special_tokens_alone_has_no_bits_per_byte(records, tmp_path):
    model, _, tokenizer = records
    (tmp_path / "ends.txt").write_text("<|endoftext|>" * 9)
    tokenizer.encode_files(tmp_path / "ends.txt", tmp_path / "ends.npy")
    figures = evaluate(model, TokenDataset(tmp_path / "ends.npy"), tokenizer=tokenizer)
    assert figures.bits_per_byte is None
    assert figures.tokens == 8


def validated_windows(monkeypatch, tmp_path, **how):
    """Which windows a validation reads, and the loss it finds."""
    read = []

    def gather(dataset, starts, *rest):
        read.append(list(starts))
        return gather_windows(dataset, starts, *rest)

    monkeypatch.setattr(validator, "gather_windows", gather)
    trainer = Trainer(make_config(tmp_path, **how), tmp_path / "run")
    return read, trainer.validate()


@pytest.mark.parametrize("batches", [1, 3, 7])
def test_windows_do_not_depend_on_the_batch_size(tmp_path, monkeypatch, batches):
    write_tokens(tmp_path / "val.npy", 3000)
    windows, losses = [], []
    for batch_size, rounds in ((1, 1), (8, 1), (8, 4), (7, 1), (48, 1), (300, 3)):
        read, loss = validated_windows(
            monkeypatch,
            tmp_path,
            batch_size=batch_size,
            grad_accumulation=rounds,
            eval_batches=batches,
        )
        assert len({len(starts) for starts in read}) == 1, "one shape is compiled once"
        assert len(read[0]) <= batch_size // rounds
        windows.append(sorted(start for starts in read for start in starts))
        losses.append(loss)
    assert all(one == windows[0] for one in windows)
    assert len(windows[0]) == 32 * batches
    assert losses == pytest.approx([losses[0]] * len(losses), rel=1e-6)


@pytest.mark.parametrize("processes", [2, 3, 5, 8])
def test_windows_are_shared_out_among_processes(tmp_path, monkeypatch, processes):
    """Each process' share in turn: together every window counts once, in equally many calls."""
    config = make_config(tmp_path, batch_size=8 * 15 * processes, eval_batches=1)
    setup = set_up(config, tmp_path / "run", resume=False)
    stop = StopVote(setup.world, setup.device, StopSignals())
    alone = validation_loss(setup, stop)
    sums, calls = [], []
    for rank in range(processes):
        world = World(rank, processes, 0)
        counted = []
        monkeypatch.setattr(World, "mean", lambda self, value: value)
        monkeypatch.setattr(validator, "gather_windows", counting(counted))
        sums.append(validation_loss(replaced(setup, world=world), stop))
        calls.append(len(counted))
        assert sum(counted) < 2 * math.ceil(32 / processes), "more processes read less each"
    assert len(set(calls)) == 1
    assert sum(sums) / processes == pytest.approx(alone, rel=1e-6)


def test_a_last_call_of_fewer_windows_weighs_less(tmp_path, monkeypatch):
    """3,232 windows, of which no number from 41 to 80 is a divisor: 79 at a time, then 72."""
    write_tokens(tmp_path / "val.npy", 26_000)
    losses = []
    for batch_size in (32, 80):
        read, loss = validated_windows(
            monkeypatch, tmp_path, batch_size=batch_size, eval_batches=101
        )
        losses.append(loss)
    assert [len(starts) for starts in read] == [79] * 40 + [72]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def counting(calls):
    def gather(dataset, starts, *rest):
        calls.append(len(starts))
        return gather_windows(dataset, starts, *rest)

    return gather


def replaced(setup, **changes):
    from dataclasses import replace

    return replace(setup, **changes)


def test_validation_is_exact_where_training_is_in_eight_bits(tmp_path, monkeypatch):
    monkeypatch.setattr("cs336lm.training.setup.require_fp8", lambda device: None)
    exact = Trainer(make_config(tmp_path), tmp_path / "a").validate()
    trainer = Trainer(make_config(tmp_path, fp8=True), tmp_path / "b")
    assert trainer.validate() == exact
    blocks = trainer.model.layers.modules()
    left = [module.multiply for module in blocks if hasattr(module, "multiply")]
    assert left
    assert all(multiply is fp8_linear for multiply in left), "training goes on in eight bits"


def test_measuring_takes_the_products_of_a_forward_pass_alone(tmp_path):
    """The gradient of the head would take two more of its products."""
    trainer = Trainer(make_config(tmp_path, eval_batches=1), tmp_path / "run")
    x = torch.zeros(1, CONTEXT_LENGTH, dtype=torch.int64)
    with torch.no_grad(), FlopCounterMode(display=False) as forward:
        trainer.model(x)
    with FlopCounterMode(display=False) as validation:
        trainer.validate()
    assert validation.get_total_flops() == 32 * forward.get_total_flops()
    tokens = write_tokens(tmp_path / "t.npy", 4 * CONTEXT_LENGTH + 1)
    with FlopCounterMode(display=False) as evaluation:
        evaluate(trainer.model, TokenDataset(tokens))
    assert evaluation.get_total_flops() == 4 * forward.get_total_flops()

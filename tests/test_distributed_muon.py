"""Muon over real processes: its work is shared, and what comes of it is the same on any number."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from cs336lm.optim import muon
from cs336lm.optim.newton_schulz import orthogonalize_each
from cs336lm.training.checkpoints.sharded import load_sharded, save_sharded
from cs336lm.training.config import OptimConfig
from cs336lm.training.distributed import World
from cs336lm.training.parallel import gather_weights
from cs336lm.training.trainer import Trainer
from test_distributed import on_ranks
from tiny_run import CONTEXT_LENGTH, MODEL, VOCAB_SIZE, make_config

# Five rows are no multiple of anything: of four processes that have slices, one has none of them.
UNEVEN = dataclasses.replace(MODEL, d_ff=5, num_layers=2)
STEPS = 4


def config_of(folder, name, mode):
    optim = OptimConfig(name=name, lr=1e-2, weight_decay=0.5, head_lr=3e-3)
    return make_config(folder, optim=optim, model=UNEVEN, parallel=mode)


def take_steps(trainer):
    """A few steps on a batch each, of which every process takes its share; the losses."""
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(STEPS):
        shape = (2, 8, CONTEXT_LENGTH)
        x, y = torch.randint(VOCAB_SIZE, shape, generator=generator).chunk(
            trainer.world.size, dim=1
        )[trainer.world.rank]
        loss, norm = trainer.update(x, y, rounds=1)
        losses.append([trainer.world.mean(loss).item(), float(norm)])
    return losses


def remembered(trainer):
    """All of what the optimizer remembers, whole, by name."""
    return {
        f"{name} {key}": value.full_tensor() if hasattr(value, "full_tensor") else value
        for name, parameter in trainer.model.named_parameters()
        for key, value in trainer.optimizer.state[parameter].items()
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What a process alone comes to: {optimizer: (losses, weights, what is remembered)}."""
    folder = tmp_path_factory.mktemp("muon")
    expected = {}
    for name in ("muon", "normuon"):
        trainer = Trainer(config_of(folder, name, "ddp"), folder / "run")
        losses = take_steps(trainer)
        expected[name] = losses, trainer.model.state_dict(), remembered(trainer)
    return folder, expected


@pytest.mark.parametrize("processes", [2, 4])
def test_the_same_on_any_number_of_processes_and_nothing_twice(alone, tmp_path, processes):
    """Both optimizers, with copies of the weights and with slices, and slices through a file."""
    folder, expected = alone

    def work(rank):
        counted = []

        def count(matrices, dtype, steps):
            counted.append(len(matrices))
            return orthogonalize_each(matrices, dtype, steps)

        muon.orthogonalize_each = count
        for mode in ("ddp", "fsdp"):
            for name in ("muon", "normuon"):
                losses, weights, memory = expected[name]
                trainer = Trainer(config_of(folder, name, mode), tmp_path / "run")
                counted.clear()
                np.testing.assert_allclose(take_steps(trainer), losses, rtol=2e-5)
                assert len(counted) == STEPS
                (tmp_path / f"{mode} {name} {rank}").write_text(json.dumps(counted[0]))
                for key, value in gather_weights(trainer.model, trainer.world).items():
                    torch.testing.assert_close(value, weights[key], rtol=1e-3, atol=1e-4)
                assert remembered(trainer).keys() == memory.keys()
                for key, value in remembered(trainer).items():
                    if torch.is_tensor(value):
                        torch.testing.assert_close(value, memory[key], rtol=1e-3, atol=1e-4)
        save_sharded(tmp_path / "saved", trainer.model, trainer.optimizer, {"a": 1}, trainer.world)
        before = remembered(trainer)
        again = Trainer(config_of(folder, "normuon", "fsdp"), tmp_path / "run")
        load_sharded(tmp_path / "saved", again.model, again.optimizer)
        for key, value in remembered(again).items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(before[key]))
        trainer.world.leave()

    on_ranks(processes, work)
    for mode in ("ddp", "fsdp"):
        for name in ("muon", "normuon"):
            counts = [
                json.loads((tmp_path / f"{mode} {name} {rank}").read_text())
                for rank in range(processes)
            ]
            assert sum(counts) == 2 * 7
            assert min(counts) >= 1
    # One process alone goes on from what several wrote.
    trainer = Trainer(config_of(folder, "normuon", "ddp"), tmp_path / "run")
    load_sharded(tmp_path / "saved", trainer.model, trainer.optimizer)
    _, weights, memory = expected["normuon"]
    for key, value in remembered(trainer).items():
        torch.testing.assert_close(
            torch.as_tensor(value), torch.as_tensor(memory[key]), rtol=1e-3, atol=1e-4
        )
    for key, value in trainer.model.state_dict().items():
        torch.testing.assert_close(value, weights[key], rtol=1e-3, atol=1e-4)
    take_steps(trainer)


def test_a_process_alone_needs_no_group():
    assert World().group is None

"""Real processes over gloo: the same run on any number of them, whole weights or slices."""

import dataclasses
import itertools
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from cs336lm.data import gather_windows
from cs336lm.errors import UsageError
from cs336lm.training import parallel as parallel_module
from cs336lm.training import validator
from cs336lm.training.checkpoints.sharded import save_sharded
from cs336lm.training.config import save_config
from cs336lm.training.distributed import World
from cs336lm.training.parallel import gather_weights
from cs336lm.training.run_directory import RunDirectory, load_run, verify_checkpoint
from cs336lm.training.trackers.jsonl import read_metrics
from cs336lm.training.trainer import Trainer
from tiny_run import MODEL, curve, make_config
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

# A width that no number of processes divides.
UNEVEN = dataclasses.replace(MODEL, d_ff=30)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def _as_rank(rank, size, port, work):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    work(rank)


def on_ranks(processes, work):
    """What torchrun does, by forks of this process: PyTorch is imported already.

    ``work(rank)`` runs in each of them; all must end well.
    """
    fork = multiprocessing.get_context("fork")
    port = free_port()
    ranks = [
        fork.Process(target=_as_rank, args=(rank, processes, port, work))
        for rank in range(processes)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    assert [process.exitcode for process in ranks] == [0] * processes


def train(processes, config, run_dir, *, resume=False):
    on_ranks(processes, lambda rank: Trainer(config, run_dir, resume=resume).train())


def figures(run_dir, name):
    return [record[name] for record in curve(run_dir) if name in record]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run that all others are to equal, and its configuration."""
    folder = tmp_path_factory.mktemp("alone")
    config = make_config(folder, model=UNEVEN, steps=8, grad_accumulation=2)
    Trainer(config, folder / "run").train()
    return folder / "run", config


def parallel(config, mode):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, parallel=mode))


@pytest.mark.parametrize(("mode", "processes"), [("ddp", 2), ("ddp", 4), ("fsdp", 2), ("fsdp", 4)])
def test_the_same_losses_on_any_number_of_processes(alone, tmp_path, mode, processes):
    expected, config = alone
    train(processes, parallel(config, mode), tmp_path / "run")
    for name in ("train_loss", "val_loss", "grad_norm"):
        np.testing.assert_allclose(
            figures(tmp_path / "run", name), figures(expected, name), rtol=2e-5
        )
    for which in ("best", "last"):
        ours, theirs = (load_run(run, which=which)[1].state_dict() for run in
                        (tmp_path / "run", expected))  # fmt: skip
        for name, weight in theirs.items():
            torch.testing.assert_close(ours[name], weight, rtol=1e-3, atol=1e-4)


def test_slices_with_half_precision_and_recomputed_activations(alone, tmp_path):
    expected, config = alone
    config = parallel(config, "fsdp")
    switches = {"dtype": "bfloat16", "activation_checkpointing": True}
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, **switches))
    train(2, config, tmp_path / "run")
    np.testing.assert_allclose(
        figures(tmp_path / "run", "val_loss"), figures(expected, "val_loss"), rtol=0.01
    )
    weights = load_run(tmp_path / "run", which="last")[1].state_dict().values()
    assert all(weight.dtype == torch.float32 for weight in weights)


def test_sharded_checkpoints_go_on_elsewhere(alone, tmp_path):
    """4 processes, then 2, then one alone with whole weights, then 2 again from that."""
    _, config = alone
    run = tmp_path / "run"

    def until(steps, mode):
        # A schedule of the whole run's length, stopped early.
        optim = dataclasses.replace(config.optim, schedule="constant", warmup_steps=0)
        shorter = dataclasses.replace(config.train, steps=steps, parallel=mode, eval_every=0)
        return dataclasses.replace(config, train=shorter, optim=optim)

    train(4, until(2, "fsdp"), run)
    assert RunDirectory(run).step_checkpoints()[-1].is_dir()
    train(2, until(4, "fsdp"), run, resume=True)
    Trainer(until(6, "ddp"), run, resume=True).train()
    assert RunDirectory(run).step_checkpoints()[-1].is_file()
    train(2, until(8, "fsdp"), run, resume=True)
    Trainer(until(8, "ddp"), tmp_path / "whole").train()
    np.testing.assert_allclose(
        figures(run, "train_loss"), figures(tmp_path / "whole", "train_loss"), rtol=2e-5
    )
    # What is another's is refused without advice to delete it.
    wide = dataclasses.replace(until(9, "ddp"), model=dataclasses.replace(UNEVEN, d_ff=32))
    with pytest.raises(ValueError, match=r"does not match the model: shapes \['lay") as caught:
        Trainer(wide, run, resume=True)
    assert "delete" not in str(caught.value)
    adagrad = dataclasses.replace(config.optim, name="adagrad")
    other = dataclasses.replace(until(9, "ddp"), optim=adagrad)
    with pytest.raises(UsageError, match="the optimizer adamw, which adagrad cannot use"):
        Trainer(other, run, resume=True)
    assert Trainer(other, run, resume=True, new_optimizer=True).progress.step == 8
    # What is damaged is named.
    last = RunDirectory(run).step_checkpoints()[-1]
    shard = next(last.glob("*.distcp"))
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    trainer = Trainer(until(9, "ddp"), run, resume=True)
    assert trainer.progress.step == 6
    assert f"{last.name} is damaged: {shard.name}" in trainer.damaged[last]
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=rf"{last.name} is damaged: the checksum of {shard.name}"):
        verify_checkpoint(last)


def test_a_sharded_checkpoint_and_its_folder_reach_the_disk(tmp_path, monkeypatch):
    path = tmp_path / "checkpoints" / "step-00000001"
    path.parent.mkdir()
    synced, fsync = [], os.fsync

    def note(descriptor):
        synced.append((os.fstat(descriptor).st_ino, path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    model = torch.nn.Linear(2, 2)
    save_sharded(path, model, torch.optim.SGD(model.parameters()), {}, World())
    for file in path.iterdir():
        assert (file.stat().st_ino, False) in synced, file
    assert synced[-1] == (path.parent.stat().st_ino, True), "after the rename"


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path, monkeypatch):
    for name, value in (("RANK", 0), ("LOCAL_RANK", 0), ("WORLD_SIZE", 3)):
        monkeypatch.setenv(name, str(value))
    with pytest.raises(UsageError, match=r"data.batch_size=8 does not divide by 3 processes"):
        Trainer(make_config(tmp_path), tmp_path / "run")


def torchrun(config, run_dir, *flags, resume=False):
    save_config(config, run_dir.with_suffix(".toml"))
    arguments = ["train", "--config", f"{run_dir}.toml", "--run-dir", str(run_dir)]
    arguments += ["--resume"] if resume else []
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2",
         f"--master-port={free_port()}", *flags, "-m", "cs336lm", *arguments],
        stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def workers(process):
    """The process ids of torchrun's children."""
    ids = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout
    return [int(line) for line in ids.split()]


def test_a_process_that_dies_ends_the_job_and_a_restart_goes_on(tmp_path):
    config = make_config(tmp_path, steps=150, checkpoint_every=10, eval_every=50)
    run = tmp_path / "run"
    process = torchrun(config, run, "--max-restarts=1")
    metrics = run / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and len(read_metrics(metrics)) > 30):
        time.sleep(0.02)
    os.kill(workers(process)[-1], signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "training from step " in said
    Trainer(config, tmp_path / "alone").train()
    ours, theirs = figures(run, "train_loss"), figures(tmp_path / "alone", "train_loss")
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@pytest.mark.parametrize(
    ("environment", "world"),
    [
        ({}, World(0, 1, 0)),
        ({"LOCAL_RANK": "3"}, World(0, 1, 0)),
        ({"WORLD_SIZE": "1"}, World(0, 1, 0)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, World(0, 1, 0)),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, World(5, 8, 1)),
        ({"RANK": "5", "WORLD_SIZE": "8", "SLURM_LOCALID": "1"}, World(5, 8, 1)),
        ({"RANK": "5", "WORLD_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_RANK": "2"}, World(5, 8, 2)),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "SLURM_LOCALID": "0"}, World(5, 8, 1)),
        ({"RANK": "5", "WORLD_SIZE": "8"}, "says RANK and WORLD_SIZE, but not LOCAL_RANK: "),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "but not RANK: "),
        ({"WORLD_SIZE": "2"}, "says WORLD_SIZE, but not RANK and LOCAL_RANK: "),
        ({"RANK": "1"}, "says RANK, but not WORLD_SIZE and LOCAL_RANK: "),
        ({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "RANK=2, WORLD_SIZE=2, .* cannot"),
        ({"RANK": "a", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "RANK=a, .* cannot be"),
    ],
)
def test_nobody_believes_to_be_alone_who_is_not(monkeypatch, environment, world):
    names = "RANK WORLD_SIZE LOCAL_RANK SLURM_LOCALID OMPI_COMM_WORLD_LOCAL_RANK MPI_LOCALRANKID"
    for name in names.split():
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if isinstance(world, World):
        assert World.from_environment() == world
    else:
        with pytest.raises(UsageError, match=world):
            World.from_environment()


@pytest.mark.parametrize("listens", [False, True], ids=["nobody", "one that was stopped"])
def test_who_meets_nobody_says_so_in_time(monkeypatch, listens):
    with socket.socket() as first:
        first.bind(("127.0.0.1", 0))
        if listens:  # the system answers for a process that does not
            first.listen(8)
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(first.getsockname()[1]))
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(torch.distributed.DistNetworkError, match=r"answer.* for 0\.5 seconds"):
            World(rank=1, size=2, local_rank=1).join(torch.device("cpu"), 0.5)


def test_one_lock_for_all_processes_of_a_job(alone, tmp_path):
    """The first takes it, the others do not ask; a second job is refused in all its processes."""
    _, config = alone
    shorter = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=2))
    train(2, shorter, tmp_path / "run")
    with RunDirectory(tmp_path / "run").in_use(step=2):
        process = torchrun(shorter, tmp_path / "run", resume=True)
        _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    assert f"cs336lm: {tmp_path}/run is in use by process {os.getpid()} on " in said


@pytest.mark.parametrize(("mode", "processes"), [("ddp", 2), ("fsdp", 1), ("fsdp", 2), ("fsdp", 4)])
def test_all_begin_with_the_weights_that_one_process_draws(
    alone, tmp_path, monkeypatch, mode, processes
):
    _, config = alone
    expected = Trainer(config, tmp_path / "never").model.state_dict()
    cos = Trainer(config, tmp_path / "never").model.layers[0].attn.rope.cos
    fully_shard = parallel_module.fully_shard

    def shard_what_has_no_weights_yet(module, **options):
        assert all(weight.is_meta for weight in module.parameters() if weight.ndim)
        return fully_shard(module, **options)

    monkeypatch.setattr(parallel_module, "fully_shard", shard_what_has_no_weights_yet)

    def compare(rank):
        trainer = Trainer(parallel(config, mode), tmp_path / "run")
        sliced = mode == "fsdp" and processes > 1
        here = [weight.to_local() if sliced else weight for weight in trainer.model.parameters()]
        share = sum(map(torch.numel, here)) / sum(map(torch.numel, expected.values()))
        assert share < 1.2 / processes if sliced else share == 1
        assert torch.equal(trainer.model.layers[0].attn.rope.cos, cos)
        weights = gather_weights(trainer.model, trainer.world)
        if rank == 0:
            assert weights.keys() == expected.keys()
            assert all(torch.equal(weights[name], expected[name]) for name in expected)
        else:
            assert weights == {}, "only the first process holds the whole"

    on_ranks(processes, compare)


def test_gradients_are_exchanged_in_the_last_round_only_and_live_in_the_buckets(alone, tmp_path):
    _, config = alone  # two rounds a step

    def count(rank):
        trainer = Trainer(parallel(config, "ddp"), tmp_path / "run")
        exchanged = []

        def exchange(state, bucket):
            exchanged.append([gradient.data_ptr() for gradient in bucket.gradients()])
            return allreduce_hook(state, bucket)

        ddp = trainer._setup.model._ddp
        ddp.register_comm_hook(None, exchange)
        assert not ddp.broadcast_buffers
        gradients = []
        zero_grad = trainer.optimizer.zero_grad

        def look_and_zero(**options):
            gradients.extend(p.grad.data_ptr() for p in trainer.model.parameters())
            zero_grad(**options)

        trainer.optimizer.zero_grad = look_and_zero
        x = torch.zeros((4, 8), dtype=torch.int64)
        for rounds in (1, 2, 4):
            exchanged.clear()
            gradients.clear()
            trainer.update(x, x, rounds=rounds)
            everything = list(itertools.chain(*exchanged))
            assert len(everything) == len(list(trainer.model.parameters()))
            assert sorted(everything) == sorted(gradients)

    on_ranks(2, count)


def test_slices_of_gradients_are_exchanged_in_the_last_round_only(alone, tmp_path):
    _, config = alone

    def count(rank):
        trainer = Trainer(parallel(config, "fsdp"), tmp_path / "run")
        x = torch.zeros((4, 8), dtype=torch.int64)
        trainer.update(x, x, rounds=1)
        counts = []
        for rounds in (1, 2, 4):
            with torch.profiler.profile() as profile:
                trainer.update(x, x, rounds=rounds)
            events = {event.key: event.count for event in profile.key_averages()}
            counts.append(sum(n for name, n in events.items() if "reduce_scatter" in name))
        assert len(set(counts)) == 1, counts
        assert counts[0] > 0

    on_ranks(2, count)


def test_a_signal_to_one_process_stops_all_of_them_at_one_step(tmp_path):
    config = make_config(tmp_path, steps=40, eval_every=0, checkpoint_every=0, log_every=3)

    def work(rank):
        trainer = Trainer(config, tmp_path / "run")
        update = trainer.update

        def update_and_signal(x, y, *, rounds):
            if rank == 1 and trainer.progress.step == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            return update(x, y, rounds=rounds)

        trainer.update = update_and_signal
        (tmp_path / f"{rank}").write_text(str(trainer.train().progress.step))

    on_ranks(2, work)
    # Voted on after step 6, counted after step 9.
    assert [(tmp_path / f"{rank}").read_text() for rank in range(2)] == ["9", "9"]
    assert RunDirectory(tmp_path / "run").step_checkpoints()[-1].name == "step-00000009.pt"


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_a_signal_to_one_process_ends_a_validation_on_all_of_them(tmp_path, mode):
    config = make_config(
        tmp_path, steps=40, eval_every=3, eval_batches=4, checkpoint_every=0, log_every=1000
    )

    def work(rank):
        gathered = []

        def gather_and_signal(*arguments):
            gathered.append(arguments)
            if rank == 1 and len(gathered) == 4 + 1:  # the first of the second validation
                os.kill(os.getpid(), signal.SIGTERM)
            return gather_windows(*arguments)

        validator.gather_windows = gather_and_signal
        result = Trainer(parallel(config, mode), tmp_path / "run").train()
        (tmp_path / f"{rank}").write_text(f"{result.progress.step} {len(gathered)}")

    on_ranks(2, work)
    assert [(tmp_path / f"{rank}").read_text() for rank in range(2)] == ["3 6", "3 6"]
    assert [record["step"] for record in curve(tmp_path / "run")] == [0]  # none was due
    (last,) = RunDirectory(tmp_path / "run").step_checkpoints()
    assert last.stem == "step-00000003"

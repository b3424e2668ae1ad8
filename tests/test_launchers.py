"""Launchers: all tasks once, when there is room; dead ones again; what an interruption does."""

import os
import signal
import sys
import threading
import time
from functools import partial

import cloudpickle
import pytest
from cs336lm.errors import UsageError
from cs336lm.experiments.launchers.launcher import ATTEMPTS, TaskDied
from cs336lm.experiments.launchers.local import LocalLauncher, visible_gpus
from cs336lm.experiments.launchers.table import LAUNCHERS

# A worker does not find this file: functions go to it whole, not by name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def square(number, place):
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number * number


def dies_at_first(folder, number, place):
    """Ends its process, or its thread's work, the first time that it is called for a number."""
    mark = folder / str(number)
    if not mark.exists():
        mark.write_text("")
        raise TaskDied("as if killed")
    return number


def local(jobs, tmp_path):
    return LocalLauncher(jobs, gpus=[])


def slurm(jobs, tmp_path):
    """The scripts that Slurm would run, as processes of this machine."""
    from cs336lm.experiments.launchers.slurm import SlurmLauncher

    return SlurmLauncher(tmp_path / "slurm", jobs, {"timeout_min": 5}, cluster="local")


@pytest.mark.parametrize("make", [partial(local, 1), partial(local, 3), partial(slurm, 2)])
def test_each_task_gives_its_result_or_what_it_raised(make, tmp_path):
    ended = dict(make(tmp_path).run(square, [1, 2, -3, 4]))
    assert {n: r for n, r in ended.items() if n > 0} == {1: 1, 2: 4, 4: 16}
    assert "-3 is negative" in str(ended[-3])


def test_slurm_runs_dead_tasks_again(tmp_path):
    (tmp_path / "marks").mkdir()
    launcher = slurm(2, tmp_path)
    ended = dict(launcher.run(partial(dies_at_first, tmp_path / "marks"), [1, 2]))
    assert ended == {1: 1, 2: 2}


@pytest.mark.parametrize("jobs", [1, 3])
def test_tasks_are_taken_when_there_is_room(jobs):
    """So that a later task may depend on earlier results."""
    running, most, told = [], [], []

    def tasks():
        for number in range(8):
            assert len(told) >= number - jobs, "taken too early"
            yield number

    def work(number, place):
        running.append(number)
        most.append(len(running))
        time.sleep(0.01)
        running.remove(number)
        return number

    for number, _ in local(jobs, None).run(work, tasks()):
        told.append(number)
    assert sorted(told) == list(range(8))
    assert max(most) <= jobs


def test_a_dead_task_is_run_again_and_no_more_than_that():
    calls = []

    def work(number, place):
        calls.append(number)
        raise TaskDied(f"{number} was killed")

    ((_, error),) = local(1, None).run(work, [1])
    assert isinstance(error, TaskDied)
    assert len(calls) == ATTEMPTS


def test_cores_and_gpus_are_shared_out(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(6), raising=False)
    meet = threading.Barrier(3)

    def work(number, place):
        meet.wait(10)
        return place.environment

    launcher = LocalLauncher(3, gpus=["4", "7"])
    environments = [result for _, result in launcher.run(work, range(3))]
    assert sorted(e["CUDA_VISIBLE_DEVICES"] for e in environments) == ["4", "4", "7"]
    assert {e["OMP_NUM_THREADS"] for e in environments} == {"2"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, GPU-b")
    assert visible_gpus() == ["GPU-a", "GPU-b"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


def test_an_interruption_stops_what_runs():
    stopped = []

    def work(number, place):
        while not place.stopping():
            time.sleep(0.005)
        stopped.append(number)

    launcher = local(2, None)
    results = launcher.run(work, iter(range(100)))

    def interrupted():
        yield 1
        yield 2
        raise KeyboardInterrupt

    results = LocalLauncher(3, gpus=[]).run(work, interrupted())
    with pytest.raises(KeyboardInterrupt):
        next(results)
    assert sorted(stopped) == [1, 2]


def test_the_script_for_slurm_is_what_sbatch_expects(tmp_path, monkeypatch):
    """Written by submitit from our parameters."""
    submitit = pytest.importorskip("submitit")
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    options = {"timeout_min": 90, "slurm_partition": "gpu", "gpus_per_node": 1}
    launcher = LAUNCHERS["slurm"](tmp_path / "logs", 2, options)
    executor = launcher.executor._executor
    text = submitit.slurm.slurm._make_sbatch_string(
        command="python -u", folder=tmp_path / "logs", **executor.parameters
    )
    lines = text.splitlines()
    assert lines[0] == "#!/bin/bash"
    for option in ("--job-name=cs336lm", "--time=90", "--partition=gpu", "--gpus-per-node=1"):
        assert f"#SBATCH {option}" in lines
    assert any(line.startswith("srun ") for line in lines)


def test_wrong_options_are_one_line(tmp_path):
    with pytest.raises(UsageError, match="slurm and ray"):
        LAUNCHERS["local"](tmp_path, 1, {"timeout_min": 3})
    with pytest.raises(UsageError, match="at least one job"):
        LocalLauncher(0)
    with pytest.raises(UsageError, match="--launcher slurm: "):
        LAUNCHERS["slurm"](tmp_path, 1, {"no_such_option": 3})


def wait_for(condition):
    deadline = time.monotonic() + 120
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


def test_a_task_on_ray_outlives_its_node(tmp_path):
    """A cluster of two nodes on this machine; the one that works is killed in the middle."""
    ray = pytest.importorskip("ray")
    from cs336lm.experiments.launchers.ray import RayLauncher
    from ray.cluster_utils import Cluster

    begun, go = tmp_path / "begun", tmp_path / "go"

    def waits(number, place):
        with begun.open("a") as file:
            file.write(".")
        while not go.exists():
            time.sleep(0.05)
        return number * number

    terminated = signal.getsignal(signal.SIGTERM)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        doomed = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        ended = {}
        launcher = RayLauncher(jobs=1)
        driver = threading.Thread(target=lambda: ended.update(launcher.run(waits, [5, 6])))
        driver.start()
        wait_for(lambda: begun.exists())
        cluster.add_node(num_cpus=1)
        cluster.remove_node(doomed, allow_graceful=False)
        wait_for(lambda: len(begun.read_text()) == 2)  # once more, on the new node
        go.touch()
        driver.join(120)
        assert ended == {5: 25, 6: 36}
        assert begun.read_text() == "..."
    finally:
        ray.shutdown()
        cluster.shutdown()
        signal.signal(signal.SIGTERM, terminated)  # Ray sets its own

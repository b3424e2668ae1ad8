"""What is recorded for a GPU, with a stand-in for the GPU's graphs."""

from contextlib import nullcontext

import pytest
import torch
from cs336lm.generation.launching import Arriving, Recording


class Graph:
    """Runs the recorded function again, as a replay does, and keeps account."""

    def __init__(self):
        self.events = []

    def register_generator_state(self, generator):
        self.events.append("generator")

    def capture_begin(self, capture_error_mode):
        self.events.append("begin")

    def capture_end(self):
        self.events.append("end")

    def replay(self):
        self.events.append("replay")


class Stream:
    def wait_stream(self, stream):
        pass


@pytest.fixture
def graphs(monkeypatch):
    made = []

    def make():
        made.append(Graph())
        return made[-1]

    monkeypatch.setattr(torch.cuda, "CUDAGraph", make)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    return made


def test_the_first_call_runs_and_the_second_records(graphs):
    recording = Recording(torch.device("cuda"), torch.Generator())
    calls = []

    def function():
        calls.append(1)
        return torch.tensor([len(calls)])

    assert recording(function).tolist() == [1]
    assert not graphs
    results = [recording(function) for _ in range(3)]
    assert len(calls) == 2
    assert all(result is results[0] for result in results)
    assert [graph.events for graph in graphs] == [
        ["generator", "begin", "end", "replay", "replay", "replay"]
    ]


def test_a_recording_that_fails_is_ended(graphs):
    recording = Recording(torch.device("cuda"), torch.Generator())
    recording(lambda: torch.zeros(1))

    def fail():
        raise ValueError("asked for a value")

    with pytest.raises(ValueError, match="asked for a value"):
        recording(fail)
    assert graphs[0].events[-1] == "end"


def test_on_a_cpu_every_call_is_a_call(graphs):
    recording = Recording(torch.device("cpu"), torch.Generator())
    calls = [recording(lambda: torch.rand(1)).item() for _ in range(3)]
    assert len(set(calls)) == 3
    assert not graphs


def test_values_on_a_cpu_have_arrived():
    assert Arriving(torch.tensor([3, -1])).tolist() == [3, -1]

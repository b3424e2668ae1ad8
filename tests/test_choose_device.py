"""What ``auto`` means, on devices that are pretended to be there."""

import pytest
import torch
from cs336lm.errors import UsageError
from cs336lm.training.devices import choose_device, choose_dtype


@pytest.fixture
def machine(monkeypatch):
    def pretend(cuda=0, mps=0, bfloat16=True):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.mps, "device_count", lambda: mps)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bfloat16)

    return pretend


@pytest.mark.parametrize(
    ("device", "bfloat16", "dtype"),
    [
        ("cuda", True, torch.bfloat16),
        ("cuda:1", True, torch.bfloat16),
        ("cuda", False, torch.float16),  # before Ampere
        ("cpu", True, torch.float32),
        ("mps", True, torch.float32),
    ],
)
def test_auto_dtype_is_the_fastest_that_is_safe(machine, device, bfloat16, dtype):
    machine(cuda=2, bfloat16=bfloat16)
    assert choose_dtype("auto", torch.device(device)) == dtype


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_a_dtype_that_is_named_is_taken(machine, name):
    machine(cuda=1, bfloat16=False)
    for device in ("cuda", "cpu"):
        assert choose_dtype(name, torch.device(device)) == getattr(torch, name)


def test_auto_device_and_each_process_its_own(machine):
    machine(cuda=4, mps=1)
    assert choose_device("auto", 3) == torch.device("cuda", 3)
    assert choose_device("cuda", 2) == torch.device("cuda", 2)
    assert choose_device("cuda:1", 2) == torch.device("cuda", 1)
    with pytest.raises(UsageError, match=r"train\.device='cuda:4'"):
        choose_device("cuda:4")
    machine(mps=1)
    assert choose_device("auto", 0) == torch.device("mps")
    machine()
    assert choose_device("auto", 5) == torch.device("cpu")
    with pytest.raises(UsageError, match="no such device"):
        choose_device("cuda")

"""Which device and precision a run gets, on machines that are only told of."""

import dataclasses
import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from cs336lm import evaluation
from cs336lm.cli.main import main
from cs336lm.errors import UsageError
from cs336lm.model import processor
from cs336lm.serving.loading import load_model
from cs336lm.training import devices
from cs336lm.training.devices import choose_device, choose_dtype, keep_freed_memory
from cs336lm.training.trainer import Trainer
from tiny_run import MODEL, make_config


@pytest.fixture
def machine(monkeypatch):
    """A machine with so many devices, for PyTorch's ears."""

    def make(cuda=0, mps=0):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.mps, "device_count", lambda: mps)

    return make


def test_each_process_of_a_machine_has_its_own_gpu(machine):
    machine(cuda=4)
    for name in ("cuda", "auto"):
        chosen = [choose_device(name, rank) for rank in range(4)]
        assert chosen == [torch.device("cuda", rank) for rank in range(4)]
        with pytest.raises(UsageError, match="no such device"):
            choose_device(name, 4)
    assert choose_device("cuda:2", 0) == torch.device("cuda", 2)
    assert choose_device("cpu", 3) == torch.device("cpu")


def test_auto_takes_the_fastest_kind_there_is(machine):
    for there, kind in (({"cuda": 1, "mps": 1}, "cuda"), ({"mps": 1}, "mps"), ({}, "cpu")):
        machine(**there)
        assert choose_device("auto").type == kind


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps", "xpu"])
def test_a_device_that_is_not_there_is_refused(machine, name):
    machine(cuda=1 if name == "cuda:1" else 0)
    with pytest.raises(UsageError, match=f"train.device='{name}'"):
        choose_device(name)


@pytest.mark.parametrize("name", ["", "gpu", "cuda:x", "cuda:-1"])
def test_a_device_that_is_none_is_refused(machine, name):
    machine(cuda=1)
    with pytest.raises(UsageError, match="must be one of auto, cpu, cuda, cuda:N, mps"):
        choose_device(name)


def test_auto_is_bfloat16_where_a_gpu_has_it(monkeypatch):
    cuda = torch.device("cuda", 0)
    for has_it, expected in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has_it=has_it: has_it)
        assert choose_dtype("auto", cuda) == expected
        assert choose_dtype("float32", cuda) == torch.float32
    for kind in ("cpu", "mps"):
        assert choose_dtype("auto", torch.device(kind)) == torch.float32
        assert choose_dtype("bfloat16", torch.device(kind)) == torch.bfloat16


@pytest.mark.parametrize("is_public", [True, False])
@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("avx512_bf16", torch.bfloat16),
        ("amx_bf16", torch.bfloat16),
        ("avx512_vnni", torch.float32),
    ],
)
def test_auto_is_bfloat16_where_a_processor_has_it(monkeypatch, unit, expected, is_public):
    # As PyTorch says it today, and as versions say it that have no name for it in public.
    if is_public:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {unit: True}, raising=False)
    else:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
        for name in ("avx512_bf16", "amx_tile", "vnni"):
            has_it = unit == name or (unit, name) == ("amx_bf16", "amx_tile")
            monkeypatch.setattr(
                torch.cpu, f"_is_{name}_supported", lambda has_it=has_it: has_it, raising=False
            )
    cpu = torch.device("cpu")
    assert choose_dtype("auto", cpu, 64) == expected
    assert choose_dtype("auto", cpu, 63) == torch.float32
    assert choose_dtype("auto", torch.device("mps"), 64) == torch.float32
    assert choose_dtype("float32", cpu, 64) == torch.float32


@pytest.mark.parametrize(
    ("vendor", "before", "after"),
    [
        ("GenuineIntel", None, "AUTO,STRICT"),
        ("GenuineIntel", "COMPATIBLE", "COMPATIBLE"),
        ("AuthenticAMD", None, None),
    ],
)
def test_products_of_a_server_round_alike_in_any_batch(
    monkeypatch, tmp_path, vendor, before, after
):
    monkeypatch.setattr(processor, "_CPU_INFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(f"vendor_id\t: {vendor}\n")
    monkeypatch.setenv("MKL_CBWR", before or "")
    if before is None:
        monkeypatch.delenv("MKL_CBWR")
    with pytest.raises(ValueError, match="nothing"):
        load_model(tmp_path / "nothing")
    assert os.environ.get("MKL_CBWR") == after


RESIDENT_ONCE_FREED = """
import sys, torch
from pathlib import Path
from cs336lm.training.devices import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
before = resident()
torch.ones(16 << 20)
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators need no advice")
def test_freed_memory_is_kept():
    """64 MB, made and freed: with the process still, or given back to the system."""
    kilobytes = {
        how: int(
            subprocess.check_output([sys.executable, "-c", RESIDENT_ONCE_FREED, how], text=True)
        )
        for how in ("keep", "give back")
    }
    assert kilobytes["keep"] > 60_000
    assert kilobytes["give back"] < 20_000


def test_memory_is_kept_only_where_there_is_something_to_ask(monkeypatch):
    asked = []
    libc = SimpleNamespace(mallopt=lambda *setting: asked.append(setting))
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: libc)
    keep_freed_memory()
    assert asked == [(-1, -1), (-4, 0)]  # M_TRIM_THRESHOLD, M_MMAP_MAX
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: SimpleNamespace())
    keep_freed_memory()
    assert len(asked) == 2


@pytest.mark.parametrize("unit", ["avx512_bf16", "avx512_vnni"])
def test_a_run_and_its_evaluation_choose_alike(monkeypatch, tmp_path, unit):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {unit: True}, raising=False)
    chosen = []
    monkeypatch.setattr(evaluation, "evaluate", lambda *args, dtype, **how: chosen.append(dtype))
    monkeypatch.setattr("cs336lm.cli.evaluate._print_figures", lambda *args: None)
    for width in (32, 64):
        model = dataclasses.replace(MODEL, d_model=width)
        trainer = Trainer(make_config(tmp_path, model=model, steps=1), tmp_path / f"{width}")
        trainer.train()
        assert main(["evaluate", str(tmp_path / f"{width}"), "--dtype", "auto"]) == 0
        assert chosen.pop() == trainer.dtype
        is_half = width == 64 and unit == "avx512_bf16"
        assert trainer.dtype == (torch.bfloat16 if is_half else torch.float32)

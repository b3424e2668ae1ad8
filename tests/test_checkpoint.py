"""A checkpoint restores training exactly, and is whole or not there."""

import copy
import dataclasses
import errno
import io
import multiprocessing
import os
import random
import resource

import pytest
import torch
from cs336lm.files import atomic_write
from cs336lm.model import TransformerLM
from cs336lm.model.config import ModelConfig
from cs336lm.training.checkpoints.archive import read_state, write_state
from cs336lm.training.checkpoints.course import load_checkpoint, save_checkpoint
from cs336lm.training.checkpoints.snapshot import snapshot
from cs336lm.training.checkpoints.state import pack


def make_model(width=8, seed=0):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.Linear(width, 1))
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


def train(model, optimizer, steps, seed):
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(steps):
        loss = model(torch.randn(4, 8, generator=generator)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("kind", ["path", "str", "file", "buffer"])
def test_going_on_from_a_checkpoint_gives_the_same_losses(tmp_path, kind):
    model, optimizer = make_model()
    train(model, optimizer, 5, seed=1)
    path = tmp_path / "c.pt"
    buffer = io.BytesIO()
    if kind == "file":
        with path.open("wb") as file:
            save_checkpoint(model, optimizer, 5, file)
    else:
        save_checkpoint(
            model, optimizer, 5, {"path": path, "str": str(path), "buffer": buffer}[kind]
        )
    expected = train(model, optimizer, 5, seed=2)

    other, other_optimizer = make_model(seed=9)
    train(other, other_optimizer, 2, seed=3)
    if kind == "file":
        with path.open("rb") as file:
            assert load_checkpoint(file, other, other_optimizer) == 5
    else:
        buffer.seek(0)
        source = {"path": path, "str": str(path), "buffer": buffer}[kind]
        assert load_checkpoint(source, other, other_optimizer) == 5
    assert train(other, other_optimizer, 5, seed=2) == expected
    if kind == "path":
        assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


@pytest.fixture
def saved(tmp_path):
    model, optimizer = make_model()
    train(model, optimizer, 1, seed=1)
    path = tmp_path / "c.pt"
    save_checkpoint(model, optimizer, 1, path)
    return path


def test_truncation_anywhere_is_refused_by_name(saved):
    model, optimizer = make_model(seed=5)
    before = copy.deepcopy(model.state_dict())
    whole = saved.read_bytes()
    for length in sorted({0, 1, 3, len(whole) - 1, *range(7, len(whole), 577)}):
        saved.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"c\.pt is truncated") as caught:
            load_checkpoint(saved, model, optimizer)
        assert "\n" not in str(caught.value)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_a_flipped_bit_in_any_tensor_is_refused_by_name(saved):
    model, optimizer = make_model()
    whole = bytearray(saved.read_bytes())
    weights = model.state_dict()["0.weight"]
    train(model, optimizer, 1, seed=1)
    at = bytes(whole).index(model.state_dict()["0.weight"].numpy().tobytes())
    for offset in random.Random(0).sample(range(weights.numel() * 4), 20):
        damaged = bytearray(whole)
        damaged[at + offset] ^= 1
        saved.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"c\.pt is damaged"):
            load_checkpoint(saved, model, optimizer)


def test_refuses_other_files_and_other_models(tmp_path, saved):
    model, optimizer = make_model()
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(
        ValueError, match="is not a checkpoint: it does not contain iteration and model"
    ):
        load_checkpoint(tmp_path / "list.pt", model, optimizer)
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "missing.pt", model, optimizer)
    wide, wide_optimizer = make_model(width=9)
    before = copy.deepcopy(wide.state_dict())
    with pytest.raises(
        ValueError,
        match=r"c\.pt: the checkpoint does not match the model: shapes \['0\.weight' \(8, 8\) "
        r"instead of \(9, 9\), '0\.bias' \(8,\) instead of \(9,\), ",
    ):
        load_checkpoint(saved, wide, wide_optimizer)
    assert all(torch.equal(before[k], v) for k, v in wide.state_dict().items())
    deep = torch.nn.Sequential(model[0], torch.nn.Identity(), *(torch.nn.Linear(1, 1),) * 5)
    with pytest.raises(
        ValueError,
        match=r"model: missing keys "
        r"\['2\.weight', '2\.bias', '3\.weight', '3\.bias', and 6 more\], "
        r"unexpected keys \['1\.weight', '1\.bias'\]$",
    ):
        load_checkpoint(saved, deep, torch.optim.AdamW(deep.parameters()))
    narrow = torch.nn.Sequential(torch.nn.Linear(8, 8, bias=False), torch.nn.Linear(8, 1))
    with pytest.raises(ValueError, match=r"model: unexpected keys \['0\.bias'\]$"):
        load_checkpoint(saved, narrow, torch.optim.AdamW(narrow.parameters()))
    groups = torch.optim.AdamW([{"params": [p]} for p in model.parameters()])
    with pytest.raises(ValueError, match="the checkpoint does not match the optimizer: "):
        load_checkpoint(saved, model, groups)
    with pytest.raises(ValueError, match="the file given is truncated"):
        load_checkpoint(io.BytesIO(b"no"), model, optimizer)


class RunsCode:
    def __reduce__(self):
        return print, ("a checkpoint ran code",)


def test_a_checkpoint_cannot_run_code(tmp_path, capsys):
    model, optimizer = make_model()
    state = pack(model, optimizer, 1, extra=RunsCode())
    write_state(state, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil\.pt"):
        read_state(tmp_path / "evil.pt")
    assert capsys.readouterr().out == ""


def test_atomic_write_leaves_the_old_file_when_it_fails(tmp_path):
    path = tmp_path / "file"
    with atomic_write(path) as file:
        file.write(b"old")

    def fail():
        with atomic_write(path) as file:
            file.write(b"half of the new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_names_the_file_and_keeps_the_old_checkpoint(tmp_path):
    path = tmp_path / "c.pt"
    path.write_bytes(b"old")

    def write_without_space():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            write_state({"model": torch.zeros(10**5)}, path)
        except OSError as error:
            named = error.filename == str(path) and error.errno == errno.EFBIG
            os._exit(7 if named else 8)

    child = multiprocessing.get_context("fork").Process(target=write_without_space)
    child.start()
    child.join(60)
    assert child.exitcode == 7
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


class Block(torch.nn.Module):
    """Has a part that is called as DDP calls what it wraps."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.module = torch.nn.Linear(8, 8)
        self.head = torch.nn.Linear(8, 1)

    def forward(self, x):
        return self.head(self.module(x))


class OnlyModule(Block):
    """All its weights are below ``module``: nothing tells it from a wrapper."""

    def __init__(self, seed=0):
        super().__init__(seed)
        self.head = torch.nn.Flatten()


def ddp(model):
    return torch.nn.parallel.DistributedDataParallel(model)


def compiled_inside(model):
    model.module = torch.compile(model.module)
    return model


WRAPPERS = {
    "plain": lambda model: model,
    "compiled": torch.compile,
    "ddp": ddp,
    "data parallel": torch.nn.DataParallel,
    "compiled ddp": lambda model: torch.compile(ddp(model)),
    "ddp of compiled": lambda model: ddp(torch.compile(model)),
    "compiled inside": compiled_inside,
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A job of one process, which DDP needs."""
    store = tmp_path_factory.mktemp("store") / "store"
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("kind", [Block, OnlyModule])
@pytest.mark.parametrize("saved_as", WRAPPERS)
@pytest.mark.parametrize("loaded_as", WRAPPERS)
def test_wrappers_make_no_difference(tmp_path, alone, kind, saved_as, loaded_as):
    first, second = kind(seed=1), kind(seed=2)
    expected = {name: weight.clone() for name, weight in first.state_dict().items()}
    plain = kind(seed=3)
    saved, loaded = WRAPPERS[saved_as](first), WRAPPERS[loaded_as](second)
    optimizers = [torch.optim.AdamW(model.parameters()) for model in (saved, loaded, plain)]
    save_checkpoint(saved, optimizers[0], 7, tmp_path / "c.pt")
    for model, optimizer in ((loaded, optimizers[1]), (plain, optimizers[2])):
        assert load_checkpoint(tmp_path / "c.pt", model, optimizer) == 7
        for weight, right in zip(model.parameters(), expected.values(), strict=True):
            assert torch.equal(weight, right)


def test_names_that_unwrapping_would_mix_up_stay(tmp_path):
    model = torch.nn.ModuleDict({"_orig_mod": torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2)})})
    model["a"] = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    save_checkpoint(model, optimizer, 1, tmp_path / "c.pt")
    other = copy.deepcopy(model)
    torch.nn.init.zeros_(other["a"].weight)
    load_checkpoint(tmp_path / "c.pt", other, torch.optim.AdamW(other.parameters()))
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name])


def test_says_its_format_and_the_model_it_is_of(tmp_path, alone):
    shape = ModelConfig(vocab_size=9, context_length=8, d_model=16, num_layers=1, num_heads=2)
    model = TransformerLM(shape)
    for wrapped in (model, torch.compile(model), ddp(model)):
        optimizer = torch.optim.AdamW(wrapped.parameters())
        save_checkpoint(wrapped, optimizer, 3, tmp_path / "c.pt")
        state = read_state(tmp_path / "c.pt")
        assert state["format"] == 1
        assert ModelConfig(**state["model_config"]) == shape
    # The shapes are the same, what is computed is not.
    other = TransformerLM(dataclasses.replace(shape, num_heads=4))
    with pytest.raises(ValueError, match=r"c\.pt: .*model\.num_heads 2 instead of 4$"):
        load_checkpoint(tmp_path / "c.pt", other, torch.optim.AdamW(other.parameters()))
    longer = TransformerLM(dataclasses.replace(shape, context_length=64))
    assert load_checkpoint(tmp_path / "c.pt", longer, torch.optim.AdamW(longer.parameters())) == 3


def test_refuses_another_optimizer_and_a_later_format(tmp_path, saved):
    model, optimizer = make_model()
    with pytest.raises(ValueError, match="the state of the optimizer AdamW, not of Adagrad"):
        load_checkpoint(saved, model, torch.optim.Adagrad(model.parameters()))
    write_state(read_state(saved) | {"format": 2}, saved)
    with pytest.raises(ValueError, match="is a checkpoint of format 2, this version of cs336lm"):
        load_checkpoint(saved, model, optimizer)


def test_reads_checkpoints_of_before_there_were_versions(saved):
    state = read_state(saved)
    old = {name: state[name] for name in ("model", "optimizer", "iteration")}
    write_state(old, saved)
    model, optimizer = make_model(seed=4)
    assert load_checkpoint(saved, model, optimizer) == 1
    assert torch.equal(model.state_dict()["0.weight"], old["model"]["0.weight"])


def test_a_snapshot_shares_nothing_with_what_training_changes():
    weight = torch.nn.Parameter(torch.arange(6.0).view(2, 3).t())
    moments = torch.ones(3, dtype=torch.bfloat16)
    state = {"w": weight, "groups": [{"lr": 0.5, "of": (moments, 3)}], "name": "sgd", "none": None}
    taken = snapshot(state)
    with torch.no_grad():
        weight.zero_()
        moments.zero_()
    state["groups"][0]["lr"] = 0.25
    state["groups"].append({})
    assert taken.keys() == state.keys()
    assert torch.equal(taken["w"], torch.arange(6.0).view(2, 3).t())
    assert not taken["w"].requires_grad
    ((group,), (kept, number)) = taken["groups"], taken["groups"][0]["of"]
    assert torch.equal(kept, torch.ones(3, dtype=torch.bfloat16))
    assert kept.dtype == torch.bfloat16
    assert (group["lr"], number, taken["name"], taken["none"]) == (0.5, 3, "sgd", None)
    assert type(group["of"]) is tuple

"""A set of shards is indexed as one array, pickled small; `inspect` opens what training does."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import tiny_run
import torch
from cs336lm.cli.main import main
from cs336lm.data import TokenDataset
from cs336lm.evaluation import evaluate
from cs336lm.model import TransformerLM
from cs336lm.optim import AdamW
from cs336lm.training.checkpoints.state import pack
from cs336lm.training.config import Config
from cs336lm.training.run_directory import RunDirectory, load_run

IDS = np.arange(100, 117, dtype=np.uint16)


@pytest.fixture(params=[[17], [5, 1, 11], [1] * 17, [0, 16, 1]])
def dataset(request, tmp_path):
    """The same row in shards of different sizes."""
    ends = np.cumsum(request.param)
    names = [f"t-{number:05}.npy" for number in range(len(ends))]
    for name, part in zip(names, np.split(IDS, ends[:-1]), strict=True):
        np.save(tmp_path / name, part)
    shards = [{"file": n, "tokens": t} for n, t in zip(names, request.param, strict=True)]
    (tmp_path / "t.json").write_text(json.dumps({"tokens": 17, "shards": shards}))
    return TokenDataset(tmp_path / "t.npy")


def test_a_number_gives_an_id(dataset):
    for index in (*range(-17, 17), np.int64(3), np.uint16(16)):
        found = dataset[index]
        assert found == IDS[index]
        assert type(found) is type(IDS[index])
    assert list(dataset) == list(IDS)


@pytest.mark.parametrize("index", [17, -18, 10**30, 1.0, "a", None, (1, 2), [17], [1.5]])
def test_errors_are_those_of_an_array(dataset, index):
    if index is None:
        pytest.skip("an array gets a new axis")
    with pytest.raises(IndexError) as expected:
        IDS[index]
    with pytest.raises(IndexError) as ours:
        dataset[index]
    assert str(ours.value) == str(expected.value)


@pytest.mark.parametrize("step", [1, 2, 5, -1, -3])
def test_slices_with_a_step(dataset, step):
    for bounds in ((None, None), (2, 15), (-3, 4), (15, 2), (4, 4), (-99, 99)):
        assert np.array_equal(dataset[slice(*bounds, step)], IDS[slice(*bounds, step)])


def test_arrays_of_positions(dataset):
    for index in ([0, -1, 5, 5], [[1, 2], [16, -17]], [], IDS % 2 == 0):
        chosen = np.asarray(index, dtype=None if len(index) else int)
        assert np.array_equal(dataset[chosen], IDS[chosen])
        assert dataset[chosen].dtype == IDS.dtype


def test_a_pickle_holds_the_path_alone(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "long.npy", np.zeros(100_000, dtype=np.uint16))
    for one in (dataset, TokenDataset("long.npy")):
        packed = pickle.dumps(one)
        assert len(packed) < 1000
        monkeypatch.chdir("/")
        again = pickle.loads(packed)
        assert np.array_equal(again[:], one[:])
        assert again.sidecar == one.sidecar


def test_inspect_opens_what_training_opens(dataset, capsys):
    for name in ("t.npy", "t.json", "t"):
        path = dataset.path.with_name(name)
        assert main(["inspect", str(path), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["tokens"] == 17


def test_inspect_refuses_what_training_refuses(tmp_path, capsys):
    np.save(tmp_path / "t.npy", IDS)
    (tmp_path / "t.npy").rename(tmp_path / "array")
    assert main(["inspect", str(tmp_path / "array"), "--json"]) == 0
    capsys.readouterr()
    np.save(tmp_path / "t.npy", IDS)
    (tmp_path / "t.json").write_text(json.dumps({"tokens": 17, "vocab_size": 110}))
    for command in (["inspect", str(tmp_path / "t.npy")], train(tmp_path / "t.npy")):
        assert main(command) == 1
        assert "id 110 at position 10 is outside a vocabulary of 110" in capsys.readouterr().err


def train(data: Path) -> list[str]:
    run = str(data.with_name("run"))
    return ["train", "--data.train", str(data), "--run-dir", run, "--model.context-length", "4"]


def test_a_run_is_loaded_without_drawing_weights(tmp_path):
    """The tables of RoPE, which no checkpoint holds, are there all the same."""
    torch.manual_seed(3)
    model = TransformerLM(tiny_run.MODEL)
    run = RunDirectory(tmp_path)
    run.prepare(Config(model=tiny_run.MODEL), None)
    run.write_checkpoint(pack(model, AdamW(model.parameters()), 1))
    before = torch.get_rng_state()
    _, loaded, _ = load_run(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    ids = torch.arange(8)
    assert torch.equal(loaded(ids), model(ids))
    assert all(p.requires_grad and p.dtype == torch.float32 for p in loaded.parameters())
    tables = dict(model.named_buffers())
    for name, table in loaded.named_buffers():
        assert torch.equal(table, tables[name])
    torch.manual_seed(3)  # and afterwards weights are drawn again
    assert torch.equal(TransformerLM(tiny_run.MODEL).lm_head.weight, model.lm_head.weight)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 1000])
def test_the_batch_size_of_an_evaluation_changes_no_figure(tmp_path, batch_size, monkeypatch):
    torch.manual_seed(0)
    model = TransformerLM(tiny_run.MODEL)
    dataset = TokenDataset(tiny_run.write_tokens(tmp_path / "t.npy", 101))
    rows = []
    model.register_forward_hook(lambda module, inputs, output: rows.append(len(inputs[0])))
    figures = evaluate(model, dataset, batch_size=batch_size)
    assert max(rows) == min(batch_size, 12)
    assert figures.loss == pytest.approx(evaluate(model, dataset).loss, rel=1e-6)

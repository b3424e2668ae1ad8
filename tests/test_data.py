"""Token files are checked before use, and a batch is a pure function of (seed, step)."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from cs336lm.data import BatchLoader, TokenDataset, get_batch, validation_starts
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture
def token_file(tmp_path):
    def write(ids, dtype=np.uint16, sidecar=None):
        path = tmp_path / "tokens.npy"
        np.save(path, np.asarray(ids, dtype=dtype))
        if sidecar is not None:
            path.with_suffix(".json").write_text(json.dumps(sidecar))
        return path

    return write


def test_opens_both_dtypes_and_slices(token_file):
    for dtype in (np.uint16, np.uint32):
        dataset = TokenDataset(token_file(np.arange(100), dtype))
        assert len(dataset) == 100
        assert dataset.dtype == dtype
        assert dataset[3:6].tolist() == [3, 4, 5]
        assert dataset.max_id() == 99


def test_opening_imports_no_torch(token_file):
    path = token_file([1, 2, 3])
    code = (
        "import sys; from cs336lm.data import TokenDataset;"
        f"TokenDataset({str(path)!r}).check_ids(4); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.fixture
def shard_set(tmp_path):
    """Writes ids as shards of these sizes; returns the name that stands for all of them."""

    def write(ids, sizes, dtype=np.uint16, said=None):
        ends = np.cumsum(sizes)
        shards = []
        for number, part in enumerate(np.split(np.asarray(ids, dtype), ends[:-1])):
            name = f"set-{number:05}.npy"
            np.save(tmp_path / name, part)
            shards.append({"file": name, "tokens": said or len(part)})
        sidecar = {"tokens": int(ends[-1]), "shards": shards, "vocab_size": 1000}
        (tmp_path / "set.json").write_text(json.dumps(sidecar))
        return tmp_path / "set.npy"

    return write


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
@pytest.mark.parametrize("sizes", [[100], [40, 60], [1, 2, 90, 7], [0, 30, 0, 0, 70, 0]])
def test_a_set_of_shards_is_one_row(shard_set, token_file, dtype, sizes):
    ids = np.random.default_rng(0).integers(0, 1000, 100)
    name = shard_set(ids, sizes, dtype)
    whole = TokenDataset(token_file(ids, dtype))
    for path in (name, name.with_suffix(""), name.with_suffix(".json"), str(name)):
        dataset = TokenDataset(path)
        assert (len(dataset), dataset.dtype, dataset.max_id()) == (100, dtype, ids.max())
        assert dataset.sidecar["vocab_size"] == 1000
    for start in range(0, 100, 3):
        for stop in (0, start, start + 1, 50, 99, 100, 200):
            part = dataset[start:stop]
            assert part.tolist() == ids[start:stop].tolist()
            assert part.dtype == dtype
    assert dataset[:].tolist() == dataset[-100:].tolist() == ids.tolist()
    for length in (1, 8, 60):
        starts = np.arange(100 - length + 1, dtype=np.uint64)[::-1]
        assert np.array_equal(dataset.windows(starts, length), whole.windows(starts, length))
    with pytest.raises(ValueError, match=rf"the id {ids.max()} at position {ids.argmax()} "):
        dataset.check_ids(ids.max())


def test_batches_of_a_set_are_those_of_one_file(shard_set, token_file):
    ids = np.random.default_rng(1).integers(0, 1000, 500)
    whole, parts = TokenDataset(token_file(ids)), TokenDataset(shard_set(ids, [200, 7, 293]))
    one, other = (BatchLoader(data, 16, 30, seed=5) for data in (whole, parts))
    for step in range(4):
        for rows, same in zip(one.batch(step), other.batch(step), strict=True):
            assert torch.equal(rows, same)
    torch.manual_seed(0)
    x, _ = get_batch(parts, 16, 30, "cpu")
    torch.manual_seed(0)
    assert torch.equal(x, get_batch(ids, 16, 30, "cpu")[0])


def test_sets_that_do_not_fit_together_are_refused(shard_set, tmp_path):
    name = shard_set(range(20), [10, 10], said=11)
    with pytest.raises(ValueError, match=r"set-00000\.npy holds 10 .*set\.json says 11"):
        TokenDataset(name)
    name = shard_set(range(20), [10, 10])
    np.save(tmp_path / "set-00001.npy", np.arange(10, dtype=np.uint32))
    with pytest.raises(ValueError, match=r"set-00001\.npy holds uint32"):
        TokenDataset(name)
    np.save(name, np.arange(20, dtype=np.uint16))
    with pytest.raises(
        ValueError, match=r"set\.npy is not among the shards that .*set\.json lists"
    ):
        TokenDataset(name)
    (tmp_path / "set-00001.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"set-00001"):
        TokenDataset(tmp_path / "set.json")


def test_an_array_and_a_sidecar_of_two_jobs_are_noticed(token_file):
    path = token_file(range(10), sidecar={"tokens": 11})
    with pytest.raises(
        ValueError, match=r"tokens\.npy holds 10 tokens, but .*tokens\.json says 11"
    ):
        TokenDataset(path)
    path.with_suffix(".json").write_text(json.dumps({"tokens": 10}))
    assert len(TokenDataset(path)) == len(TokenDataset(path.with_suffix(""))) == 10
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"tokens\.npy"):
        TokenDataset(path)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros(5, np.int64), "int64"),
        (np.zeros(5, np.float32), "float32"),
        (np.zeros((5, 2), np.uint16), r"\(5, 2\)"),
        (np.zeros((), np.uint16), r"shape \(\)"),
    ],
)
def test_refuses_other_arrays(tmp_path, array, says):
    np.save(tmp_path / "bad.npy", array)
    with pytest.raises(ValueError, match=says):
        TokenDataset(tmp_path / "bad.npy")


def test_refuses_what_is_no_npy(tmp_path, token_file):
    whole = token_file(np.arange(1000)).read_bytes()
    for content in (b"", b"hello, world, this is text", whole[:-1], whole[:40], whole[:3]):
        bad = tmp_path / "bad.npy"
        bad.write_bytes(content)
        with pytest.raises(ValueError, match=r"bad\.npy.*cs336lm tokenize") as refused:
            TokenDataset(bad)
        assert "pickle" not in str(refused.value)  # no advice to load it unsafely
    np.savez(tmp_path / "many.npz", a=np.arange(3))
    with pytest.raises(ValueError, match="archive"):
        TokenDataset(tmp_path / "many.npz")
    with pytest.raises(FileNotFoundError):
        TokenDataset(tmp_path / "missing.npy")
    with pytest.raises(IsADirectoryError):
        TokenDataset(tmp_path)


def test_finds_an_id_outside_the_vocabulary(token_file, monkeypatch):
    monkeypatch.setattr("cs336lm.data.dataset._SCAN_TOKENS", 7)
    ids = np.arange(50) % 10
    ids[33] = 12
    dataset = TokenDataset(token_file(ids))
    assert dataset.max_id() == 12
    dataset.check_ids(13)
    with pytest.raises(ValueError, match=r"id 12 at position 33 .* vocabulary of 12"):
        dataset.check_ids(12)
    dataset.check_ids(65_536)  # no uint16 can be outside
    with pytest.raises(ValueError, match="id 65535 at position 0"):
        TokenDataset(token_file([65535])).check_ids(65535)


def test_names_a_tokenizer_that_did_not_make_the_file(token_file):
    path = token_file([1, 2], sidecar={"tokenizer_sha256": "a" * 64})
    TokenDataset(path).check_tokenizer("a" * 64, "tokenizer/")
    with pytest.raises(ValueError, match="another tokenizer than tokenizer/"):
        TokenDataset(path).check_tokenizer("b" * 64, "tokenizer/")
    path.with_suffix(".json").write_text("{")
    with pytest.raises(ValueError, match=r"tokens\.json is not valid JSON"):
        TokenDataset(path)


def test_refuses_too_short_a_file(token_file):
    dataset = TokenDataset(token_file(np.arange(8)))
    dataset.check_length(7)
    with pytest.raises(ValueError, match="at least 9"):
        dataset.check_length(8)
    with pytest.raises(ValueError, match="too few"):
        get_batch(np.arange(8), 1, 8, "cpu")


def test_get_batch_draws_every_window_uniformly(token_file):
    mapped = TokenDataset(token_file(np.arange(20)))
    for dataset in (np.arange(20), np.load(mapped.path, mmap_mode="r"), mapped):
        torch.manual_seed(0)
        x, y = get_batch(dataset, 5000, 7, "cpu")
        assert x.dtype == y.dtype == torch.int64
        assert x.shape == y.shape == (5000, 7)
        assert torch.equal(y, x + 1)
        counts = torch.bincount(x[:, 0], minlength=13)
        assert len(counts) == 13
        assert counts.min() > 5000 / 13 * 0.75


@given(
    seed=st.integers(0, 2**63),
    step=st.integers(0, 2**40),
    context=st.integers(1, 9),
    ranks=st.sampled_from([1, 2, 4]),
)
def test_a_batch_depends_on_seed_and_step_alone(seed, step, context, ranks):
    tokens = np.arange(200, dtype=np.uint16)

    def loader(rank=0, world_size=1):
        return BatchLoader(tokens, 8, context, seed=seed, rank=rank, world_size=world_size)

    whole = loader()
    whole.batch(step + 1)  # no state: what was asked before changes nothing
    x, y = whole.batch(step)
    assert torch.equal(y, x + 1)
    shares = [loader(rank, ranks).batch(step)[0] for rank in range(ranks)]
    assert torch.equal(torch.cat(shares), x)


def test_steps_and_seeds_differ():
    loader = BatchLoader(np.arange(1 << 16, dtype=np.uint16), 64, 4, seed=0)
    other = BatchLoader(np.arange(1 << 16, dtype=np.uint16), 64, 4, seed=1)
    drawn = {tuple(loader.starts(step)) for step in range(50)}
    assert len(drawn) == 50
    assert tuple(other.starts(0)) not in drawn
    every = np.concatenate([loader.starts(step) for step in range(200)])
    assert every.max() < (1 << 16) - 4
    assert abs(every.mean() / 32766 - 1) < 0.05


@pytest.mark.parametrize("steps", [range(0), range(2), range(3, 40)])
def test_reading_ahead_equals_reading_directly(steps):
    loader = BatchLoader(np.arange(500, dtype=np.uint16), 4, 8, seed=3)
    read = list(loader.iterate(steps))
    assert len(read) == len(steps)
    for step, (x, y) in zip(steps, read, strict=True):
        direct = loader.batch(step)
        assert torch.equal(x, direct[0])
        assert torch.equal(y, direct[1])


def test_reading_ahead_stops_when_left_and_passes_errors_on():
    loader = BatchLoader(np.arange(500, dtype=np.uint16), 4, 8, seed=3)
    batches = loader.iterate(range(10**9))
    next(batches)
    batches.close()

    loader = BatchLoader(np.arange(500, dtype=np.uint16), 4, 8, seed=3)
    loader.starts = lambda step: np.array([0, 1, 2, 10**6])
    with pytest.raises(IndexError, match="1000000"):
        next(loader.iterate(range(5)))


@given(st.integers(2, 400), st.integers(1, 6), st.integers(1, 5), st.integers(1, 20))
def test_validation_windows_lie_inside_and_apart_where_they_can(tokens, batch, batches, context):
    if tokens <= context:
        return
    starts = validation_starts(tokens, batch, batches, context)
    assert starts.shape[1] == batch
    assert 1 <= len(starts) <= batches
    assert starts.min() == 0
    assert starts.max() + context + 1 <= tokens
    if starts.size <= (tokens - 1) // context:
        assert (np.diff(starts.ravel()) >= context).all()


@pytest.mark.parametrize("tokens", [9, 10, 13])
def test_every_window_is_drawn_the_first_and_the_last_too(tokens):
    """A context of 8: ``tokens - 8`` windows have a next id for each of theirs."""
    data = np.arange(tokens, dtype=np.uint16)
    loader = BatchLoader(data, 4, 8, seed=3)
    drawn = {tuple(row.tolist()) for step in range(200) for row in loader.batch(step)[1]}
    expected = {tuple(range(start + 1, start + 9)) for start in range(tokens - 8)}
    assert drawn == expected
    torch.manual_seed(0)
    drawn = {tuple(row.tolist()) for _ in range(200) for row in get_batch(data, 4, 8, "cpu")[1]}
    assert drawn == expected

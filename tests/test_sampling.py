"""The ways of sampling: what each window is, that all are pure functions, and resume exactly."""

import dataclasses
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from cs336lm.cli.main import main
from cs336lm.cli.train import parse
from cs336lm.data import (
    SAMPLERS,
    BatchLoader,
    TokenDataset,
    TokenMixture,
    gather_windows,
    make_plan,
)
from cs336lm.data.sampling import documents as documents_module
from cs336lm.data.sampling import plan as plan_module
from cs336lm.data.sampling.permutation import ShuffledEpochs, permuted
from cs336lm.errors import UsageError
from cs336lm.training.trainer import Trainer
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_run import CONTEXT_LENGTH, curve, make_config, write_tokens

END = 0  # the token that ends a document in these tests


def dataset_of(folder, ids, name="t", dtype=np.uint16):
    np.save(folder / f"{name}.npy", np.asarray(ids, dtype))
    return TokenDataset(folder / f"{name}.npy")


def text_of(lengths, first=1):
    """Documents of these lengths, the end included: 1 1 0 2 2 2 0 ..."""
    parts = [[first + number] * (length - 1) + [END] for number, length in enumerate(lengths)]
    return [token for part in parts for token in part]


def starts_of(plan, steps, batch_size):
    return np.concatenate([plan.starts(step, batch_size) for step in steps]).astype(np.int64)


# The permutation


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_a_permutation_reaches_each_number_once(size, seed):
    keys = np.random.Philox(key=seed).random_raw(6)
    numbers = permuted(np.arange(size, dtype=np.uint64), size, keys)
    assert sorted(numbers.tolist()) == list(range(size))


@pytest.mark.parametrize("size", [1 << 40, (1 << 40) + 1, 10**15])
def test_a_permutation_of_many_needs_no_table(size):
    keys = np.random.Philox(key=1).random_raw(6)
    asked = np.arange(0, size, size // 1000, dtype=np.uint64)
    found = permuted(asked, size, keys)
    assert found.max() < size
    assert len(set(found.tolist())) == len(asked)
    # One alone is what it is among others.
    assert permuted(asked[5:6], size, keys) == found[5]


def test_places_are_random():
    """Each thing comes at each place equally often: chi-squared over 1,000 epochs of seven."""
    shuffled = ShuffledEpochs(7, seed=3)
    orders = shuffled.things(np.arange(7 * 1000)).reshape(-1, 7)
    expected = 1000 / 7
    for place in range(7):
        counts = np.bincount(orders[:, place], minlength=7)
        assert ((counts - expected) ** 2 / expected).sum() < 30  # 6 degrees: p < 0.0001
    pairs = Counter(zip(orders[:, 0].tolist(), orders[:, 1].tolist(), strict=True))
    assert len(pairs) == 42
    assert max(pairs.values()) < 2 * 1000 / 42


# Uniform: what it always was


def test_uniform_is_bit_for_bit_what_it_was():
    """As it was written before there were other ways."""
    tokens = np.arange(5000, dtype=np.uint16)
    for seed, step, batch in ((0, 1, 8), (7, 123, 32), (2**64 - 1, 10**9, 5)):
        generator = np.random.Philox(key=seed, counter=[0, 0, step, 0])
        before = generator.random_raw(batch) % np.uint64(5000 - 16)
        loader = BatchLoader(tokens, batch, 16, seed=seed)
        assert loader.starts(step).tolist() == before.tolist()


# Epochs


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.integers(3, 90),
    context=st.integers(1, 20),
    batch=st.integers(1, 7),
    seed=st.integers(0, 2**64 - 1),
)
def test_an_epoch_has_each_window_once(tokens, context, batch, seed):
    if tokens <= context:
        return
    plan = make_plan(np.arange(tokens), context, seed=seed, sampling="epochs")
    windows = (tokens - 1) // context
    assert plan.samplers[0].windows_per_epoch == windows
    starts = starts_of(plan, range(1, 3 * windows + 1), batch)[: 3 * windows]
    for epoch in starts.reshape(3, windows):
        predicted = np.sort((epoch[:, None] + np.arange(1, context + 1)).ravel())
        assert predicted[0] >= 1
        assert predicted[-1] <= tokens - 1
        # Side by side: as many tokens as fit, each once.
        assert np.array_equal(predicted, np.arange(predicted[0], predicted[0] + len(predicted)))
        assert len(predicted) > tokens - 1 - context


def test_epochs_differ_in_order_and_in_where_they_cut():
    plan = make_plan(np.arange(16 * 50 + 10), 16, seed=0, sampling="epochs")
    epochs = starts_of(plan, range(1, 21), 50).reshape(20, 50)
    assert len({tuple(epoch) for epoch in epochs}) == 20
    assert len({tuple(np.argsort(epoch)) for epoch in epochs}) == 20
    assert len({int(epoch.min()) for epoch in epochs}) > 5
    other = make_plan(np.arange(16 * 50 + 10), 16, seed=1, sampling="epochs")
    assert starts_of(other, [1], 50).tolist() != epochs[0].tolist()


def test_epochs_go_on_where_the_batch_ends():
    """A batch may reach into the next epoch, or over several."""
    small = make_plan(np.arange(33), 8, seed=5, sampling="epochs")
    one = starts_of(small, range(1, 31), 1)
    assert starts_of(small, range(1, 4), 10).tolist() == one.tolist()


# Documents


def slow_starts(ids, context):
    """Where windows begin, by the definition, a token at a time."""
    ends = [at for at, token in enumerate(ids) if token == END and at > 0]
    starts, at = [], 0
    while at is not None and at + context + 1 <= len(ids):
        starts.append(at)
        inside = [end for end in ends if at < end <= at + context]
        after = [end for end in ends if end > at + context]
        at = inside[-1] if inside else (after[0] if after else None)
    return starts


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=60),
    rest=st.integers(0, 30),
    context=st.integers(1, 24),
    scan=st.integers(1, 50),
    kept=st.integers(1, 20),
)
def test_windows_begin_where_documents_begin(tmp_path_factory, lengths, rest, context, scan, kept):
    ids = text_of(lengths) + [99] * rest
    if len(ids) <= context:
        return
    dataset = dataset_of(tmp_path_factory.getbasetemp(), ids)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cs336lm.data.dataset._SCAN_TOKENS", scan)
        patch.setattr(documents_module, "_MOST_KEPT", kept)
        patch.setattr(documents_module, "_SCAN", 3)
        plan = make_plan(dataset, context, seed=1, sampling="documents", document_token=END)
    (sampler,) = plan.samplers
    expected = slow_starts(ids, context)
    assert len(sampler._kept) <= kept
    assert sampler.windows_per_epoch == len(expected)
    found = starts_of(plan, range(1, 2 * len(expected) + 1), 1).reshape(2, -1)
    for epoch in found:
        assert sorted(epoch.tolist()) == expected
    # Every document that fits is whole in some window, unless the file ends.
    seen = {start + 1 + at for start in expected for at in range(context)}
    assert sampler._index.unseen == len(ids) - 1 - len(seen)
    assert sampler._index.documents == len(lengths)
    ends = np.flatnonzero(np.asarray(ids) == END)
    for begin, end in zip([0, *ends], ends, strict=False):
        if end - begin <= context and end <= expected[-1] + context:
            assert any(start <= begin and end <= start + context for start in expected)


def test_a_window_begins_with_the_end_before_its_document(tmp_path):
    dataset = dataset_of(tmp_path, text_of([9, 3, 30, 6, 6, 6, 6, 6, 6]))
    plan = make_plan(dataset, 12, seed=0, sampling="documents", document_token=END)
    x, y = gather_windows(dataset, np.unique(starts_of(plan, range(1, 20), 1)), 12)
    assert x[0].tolist() == [1] * 8 + [END, 2, 2, END]
    assert all(row[0] == END and after != END for row, after in zip(x[1:], y[1:, 0], strict=True))


def test_what_is_cut_off_is_told(tmp_path, capsys):
    dataset_of(tmp_path, text_of([9, 3, 30, 6, 6, 6, 6, 6, 6]), "d")
    flags = ["--data.train", f"{tmp_path}/d.npy", "--data.sampling", "documents"]
    flags += ["--run-dir", f"{tmp_path}/run", "--model.context-length", "12", "--train.steps", "1"]
    flags += ["--model.d-model", "8", "--model.num-heads", "1", "--train.device", "cpu"]
    assert main(["train", *flags]) == 2
    assert "which token ends a document: give its id by --data.document-token" in (
        capsys.readouterr().err
    )
    assert main(["train", *flags, "--data.document-token", "40"]) == 1
    assert "d.npy does not hold the token 40" in capsys.readouterr().err
    assert main(["train", *flags, "--data.document-token", "0"]) == 0
    told = capsys.readouterr().err
    assert "9 documents, 9 tokens each on average, make 5 windows an epoch" in told
    assert "1 are longer than the context of 12 tokens, and 18 tokens (23.08%) are cut off" in told


def test_an_index_of_many_windows_is_bounded(tmp_path):
    dataset = dataset_of(tmp_path, text_of([4] * 2_000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents_module, "_MOST_KEPT", 50)
        plan = make_plan(dataset, 9, seed=1, sampling="documents", document_token=END)
    (sampler,) = plan.samplers
    assert 25 < len(sampler._kept) <= 50
    windows = sampler.windows_per_epoch
    assert len(set(starts_of(plan, [1], windows).tolist())) == windows


# Several files


@pytest.fixture
def three(tmp_path):
    """Files whose ids say which they are and where."""
    sizes = (400, 900, 150)
    return [dataset_of(tmp_path, i * 1000 + np.arange(n), f"f{i}") for i, n in enumerate(sizes)]


def test_weights_are_met_exactly_over_a_block(three, monkeypatch):
    monkeypatch.setattr(plan_module, "_BLOCK", 100)
    mixture = TokenMixture(three, [5, 3, 2])
    plan = make_plan(mixture, 16, seed=2)
    parts = np.searchsorted(mixture.begins, starts_of(plan, range(1, 51), 8), side="right") - 1
    for block in parts.reshape(4, 100):
        assert np.bincount(block).tolist() == [50, 30, 20]
    assert len({tuple(block) for block in parts.reshape(4, 100)}) == 4


@pytest.mark.parametrize("weights", [[1], [0.7, 0.3], [1, 1e-12], [1, 1, 1], [3, 1e-9, 1e-9, 5]])
def test_shares_add_up_and_leave_nobody_out(weights):
    total = sum(weights)
    shares = plan_module.shares_of_block([weight / total for weight in weights])
    assert shares.sum() == plan_module._BLOCK
    assert shares.min() >= 1
    exact = np.asarray(weights) / total * plan_module._BLOCK
    assert np.abs(shares - exact).max() <= len(weights)


@pytest.mark.parametrize("sampling", SAMPLERS)
def test_windows_of_a_mixture_lie_within_one_file(three, sampling, monkeypatch):
    monkeypatch.setattr(plan_module, "_BLOCK", 64)
    mixture = TokenMixture(three, [0.6, 0.3, 0.1])
    if sampling == "documents":
        parts = [np.where(part[:] % 10 == 0, END, part[:]) for part in three]
        for part, ids in zip(three, parts, strict=True):
            np.save(part.path, ids)
        mixture = TokenMixture([TokenDataset(part.path) for part in three], mixture.weights)
    plan = make_plan(mixture, 16, seed=2, sampling=sampling, document_token=END)
    starts = starts_of(plan, range(1, 30), 16)
    homes = np.searchsorted(mixture.begins, starts, side="right") - 1
    assert (starts + 17 <= mixture.begins[homes + 1]).all()
    whole = np.concatenate([part[:] for part in mixture.parts])
    x, y = gather_windows(mixture, starts, 16)
    for row, (inputs, targets) in enumerate(zip(x, y, strict=True)):
        window = whole[starts[row] : starts[row] + 17].tolist()
        assert [*inputs.tolist(), targets[-1].item()] == window


def test_each_file_of_a_mixture_has_epochs_of_its_own(three, monkeypatch):
    monkeypatch.setattr(plan_module, "_BLOCK", 50)
    mixture = TokenMixture(three, [0.5, 0.4, 0.1])
    plan = make_plan(mixture, 16, seed=2, sampling="epochs")
    starts = starts_of(plan, range(1, 101), 5)
    homes = np.searchsorted(mixture.begins, starts, side="right") - 1
    for part, dataset in enumerate(three):
        windows = (len(dataset) - 1) // 16
        mine = starts[homes == part]
        first = mine[: len(mine) // windows * windows].reshape(-1, windows)
        assert len(first) >= 1
        assert all(len(set(epoch.tolist())) == windows for epoch in first)


def test_files_of_two_dtypes_mix(tmp_path):
    parts = [
        dataset_of(tmp_path, range(60), "a", np.uint16),
        dataset_of(tmp_path, range(70_000, 70_060), "b", np.uint32),
    ]
    loader = BatchLoader(TokenMixture(parts, [1, 1]), 32, 8, seed=0)
    x, y = loader.batch(1)
    assert torch.equal(y, x + 1)
    assert {int(row[0]) >= 70_000 for row in x} == {True, False}


# All of them


def plan_of(folder, sampling, mixed):
    ids = np.random.default_rng(0).integers(0, 9, 700)
    one, other = dataset_of(folder, ids, "one"), dataset_of(folder, ids[:300], "other")
    data = TokenMixture([one, other], [0.7, 0.3]) if mixed else one
    return data, make_plan(data, 12, seed=4, sampling=sampling, document_token=END)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("sampling", SAMPLERS)
def test_ranks_see_the_tokens_of_one_process_and_nothing_is_remembered(tmp_path, sampling, mixed):
    data, plan = plan_of(tmp_path, sampling, mixed)
    fresh = plan_of(tmp_path, sampling, mixed)[1]

    def loader(rank=0, world_size=1):
        return BatchLoader(data, 8, 12, seed=4, rank=rank, world_size=world_size, plan=plan)

    for step in (9, 1, 200, 2):
        x, y = loader().batch(step)
        assert plan.starts(step, 8).tolist() == fresh.starts(step, 8).tolist()
        for ranks in (2, 4):
            shares = [loader(rank, ranks).batch(step) for rank in range(ranks)]
            assert torch.equal(torch.cat([share[0] for share in shares]), x)
            assert torch.equal(torch.cat([share[1] for share in shares]), y)


def config_with(folder, sampling, mixed, **train):
    config = make_config(folder, **train)
    write_tokens(folder / "more.npy", 500, seed=9)
    files = {folder / "train.npy": 0.7, folder / "more.npy": 0.3}
    data = dataclasses.replace(
        config.data,
        sampling=sampling,
        document_token=END if sampling == "documents" else None,
        train=files if mixed else config.data.train,
    )
    return dataclasses.replace(config, data=data)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("sampling", SAMPLERS)
def test_n_steps_and_n_more_are_2n(tmp_path, sampling, mixed):
    config = config_with(tmp_path, sampling, mixed, steps=12, checkpoint_every=4)
    Trainer(config, tmp_path / "whole").train()
    killed = Trainer(config, tmp_path / "parts")
    killed.update = dying_after(killed.update, 6)
    with pytest.raises(RuntimeError, match="killed"):
        killed.train()
    resumed = Trainer(config, tmp_path / "parts", resume=True)
    assert resumed.progress.step == 4
    resumed.train()
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")


def dying_after(update, steps):
    taken = []

    def one(x, y, *, rounds):
        taken.append(1)
        if len(taken) > steps:
            raise RuntimeError("killed")
        return update(x, y, rounds=rounds)

    return one


def test_the_ways_differ(tmp_path):
    losses = set()
    for number, sampling in enumerate(SAMPLERS):
        config = config_with(tmp_path, sampling, False, steps=3)
        Trainer(config, tmp_path / str(number)).train()
        losses.add(curve(tmp_path / str(number))[-1]["train_loss"])
    assert len(losses) == len(SAMPLERS)


def test_flags_name_one_file_or_several_with_weights(tmp_path):
    def train_of(*flags):
        return parse(["--data.train", *flags]).data.train

    assert train_of("a.npy") == Path("a.npy")
    assert train_of("None") is None
    assert train_of("a=b.npy") == Path("a=b.npy")
    assert train_of("a.npy=1") == {Path("a.npy"): 1.0}
    mixed = {Path("a.npy"): 0.7, Path("x=b.npy"): 0.3}
    assert train_of("a.npy=0.7", "x=b.npy=.3") == mixed
    (tmp_path / "run.toml").write_text('[data.train]\n"a.npy" = 0.7\n"b.npy" = 0.3')
    config = parse(["--config", f"{tmp_path}/run.toml"])
    assert config.data.train == {tmp_path / "a.npy": 0.7, tmp_path / "b.npy": 0.3}
    for wrong in (("a.npy", "b.npy"), ("a.npy=0.7", "b.npy")):
        with pytest.raises(UsageError, match=r"data\.train\['(a|b)\.npy'\].*must be a number"):
            train_of(*wrong)
    with pytest.raises(UsageError, match=r"weight -1\.0 of b\.npy"):
        train_of("a.npy=1", "b.npy=-1")


def test_a_mixture_is_kept_and_checked_file_by_file(tmp_path):
    config = config_with(tmp_path, "uniform", True, steps=2)
    Trainer(config, tmp_path / "run").train()
    stored = Trainer(config, tmp_path / "run", resume=True).run.load_config()
    assert stored.data.train == config.data.train
    np.save(tmp_path / "more.npy", np.full(CONTEXT_LENGTH, 1, np.uint16))
    with pytest.raises(ValueError, match=r"more\.npy holds 8 tokens, too few"):
        Trainer(config, tmp_path / "b")
    np.save(tmp_path / "more.npy", np.full(50, 200, np.uint16))
    (tmp_path / "more.json").write_text(json.dumps({"vocab_size": 300}))
    with pytest.raises(ValueError, match=r"more\.npy: the id 200"):
        Trainer(config, tmp_path / "b")
    assert math.isfinite(sum(stored.data.train.values()))

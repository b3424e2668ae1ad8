"""Many rows at once, each by its own parameters: what the sampler of one does."""

import numpy as np
import pytest
import torch
from cs336lm.generation.batching.random_streams import stream_key, uniforms
from cs336lm.generation.batching.sampling import BatchSampler, keep_top
from cs336lm.generation.sampling import NO_TOKEN, Sampler, SamplingParams
from hypothesis import given, settings
from hypothesis import strategies as st


def sampled(logits, params, numbers):
    sampler = BatchSampler(params, logits.shape[-1], torch.device("cpu"))
    return sampler(logits, np.array(numbers)).tolist()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    rows=st.lists(
        st.tuples(st.none() | st.integers(1, 45), st.floats(0.02, 1.0)), min_size=1, max_size=6
    ),
    ties=st.booleans(),
    candidates=st.sampled_from([1, 3, 64]),
)
def test_the_same_tokens_are_kept(seed, rows, ties, candidates):
    """As by the sampler of ``generate``, which sorts a whole row; of equals the first."""
    torch.manual_seed(seed)
    logits = torch.randn(len(rows), 40, dtype=torch.float64) * 2
    logits = logits.round() if ties else logits
    top_k = torch.tensor([[min(k or 40, 40)] for k, _ in rows])
    top_p = torch.tensor([[p] for _, p in rows], dtype=torch.float64)
    kept = keep_top(logits, top_k, top_p, candidates=candidates)
    for row, (k, p) in enumerate(rows):
        sampler = Sampler(SamplingParams(top_k=k, top_p=p, seed=0))
        assert torch.equal(kept[row], sampler._keep_top(logits[row : row + 1])[0])


def test_a_number_falls_into_a_tokens_interval():
    shares = torch.tensor([[0.1, 0.0, 0.4, 0.2, 0.3]], dtype=torch.float64)
    drawn = {0.05: 0, 0.0999: 0, 0.1001: 2, 0.4999: 2, 0.5001: 3, 0.7001: 4, 1 - 2**-49: 4}
    for number, token in drawn.items():
        assert sampled(shares.log(), [SamplingParams()], [number]) == [token]
    cut = SamplingParams(top_p=0.6)  # 0.4 and 0.3 of 0.7
    assert sampled(shares.log().expand(2, -1), [cut, cut], [0.571, 0.572]) == [2, 4]
    hot = SamplingParams(temperature=2.0)
    roots = shares[0].sqrt() / shares.sqrt().sum()
    assert sampled(shares.log(), [hot], [roots[0].item() + 1e-9]) == [2]


def test_rows_of_all_kinds_side_by_side():
    logits = torch.tensor([[0.0, 3.0, 1.0]]).repeat(5, 1)
    logits[3, 1] = torch.nan
    logits[4] = -torch.inf
    params = [
        SamplingParams(0.0),
        SamplingParams(),
        SamplingParams(top_k=1),
        SamplingParams(),
        SamplingParams(top_p=0.5),
    ]
    assert sampled(logits, params, [0.9999] * 5) == [1, 2, 1, NO_TOKEN, NO_TOKEN]


@settings(deadline=None)
@given(seeds=st.lists(st.integers(-(2**63), 2**64 - 1), min_size=1, max_size=5))
def test_numbers_depend_on_where_they_are_used(seeds):
    keys = np.array([stream_key(seed, 2) for seed in seeds], dtype=np.uint64)
    positions = np.arange(len(seeds), dtype=np.uint64)
    together = uniforms(keys, positions)
    assert ((together > 0) & (together < 1)).all()
    for i in range(len(seeds)):
        assert uniforms(keys[i : i + 1], positions[i : i + 1])[0] == together[i]


def test_numbers_of_neighbours_have_nothing_in_common():
    """Uniform, and uncorrelated along and across seeds, samples and positions."""
    keys = [stream_key(seed, sample) for seed in range(20) for sample in range(20)]
    assert len(set(keys)) == 400
    table = np.stack(
        [uniforms(np.full(200, key, np.uint64), np.arange(200, dtype=np.uint64)) for key in keys]
    )
    counts = np.histogram(table, bins=20, range=(0, 1))[0]
    spread = (table.size / 20 * 19 / 20) ** 0.5
    assert (abs(counts - table.size / 20) < 5 * spread).all()
    for a, b in ((table[:, 1:], table[:, :-1]), (table[1:], table[:-1]), (table[20:], table[:-20])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / a.size**0.5


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_distribution(temperature):
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0, 0.5]])
    numbers = uniforms(
        np.full(50_000, stream_key(1, 0), np.uint64), np.arange(50_000, dtype=np.uint64)
    )
    draws = sampled(logits.expand(50_000, -1), [SamplingParams(temperature)] * 50_000, numbers)
    seen = np.bincount(draws, minlength=5) / 50_000
    expected = (logits[0] / temperature).softmax(0).numpy()
    assert (abs(seen - expected) < 5 * (expected * (1 - expected) / 50_000) ** 0.5).all()


class SplitMix64:
    """The generator as it was published, with a state."""

    def __init__(self, seed):
        self.state = seed

    def __call__(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) % 2**64
        z = self.state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)


def test_numbers_are_those_of_splitmix64():
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    published = SplitMix64(1234567)
    assert [published() for _ in known] == known
    positions = np.arange(4, dtype=np.uint64)
    found = uniforms(np.full(4, 1234567, dtype=np.uint64), positions)
    assert found.tolist() == [((number >> 16) + 0.5) / 2**48 for number in known]
    # The samples of a prompt are one row of numbers, begun by the first one of its seed.
    for seed in (0, 7, -1, 2**64 - 1):
        row = SplitMix64(SplitMix64(seed % 2**64)())
        assert [stream_key(seed, sample) for sample in range(5)] == [row() for _ in range(5)]

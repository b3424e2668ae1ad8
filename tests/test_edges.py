"""Values at the edge of what is allowed, each of which a one-line breakage got wrong unseen."""

from pathlib import Path

import numpy as np
import pytest
import torch
from cs336lm.data import TokenDataset
from cs336lm.data.validation import validation_starts
from cs336lm.errors import UsageError
from cs336lm.optim.base import at_least_zero
from cs336lm.optim.clipping import clip_gradients


def test_zero_is_not_below_zero() -> None:
    assert at_least_zero("lr", 0.0) == 0.0
    for value in (-1e-30, float("nan")):
        with pytest.raises(UsageError, match="lr must not be below 0"):
            at_least_zero("lr", value)


def test_clipping_adds_a_millionth_to_the_norm() -> None:
    parameter = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    parameter.grad = torch.full((1,), 1e-6, dtype=torch.float64)
    clip_gradients([parameter], 1e-6)
    torch.testing.assert_close(parameter.grad.item(), 0.5e-6, rtol=1e-6, atol=0)


def test_the_largest_id_of_an_empty_file_is_below_all(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([], dtype=np.uint16))
    assert TokenDataset(tmp_path / "a.npy").max_id() == -1


@pytest.mark.parametrize(
    ("tokens", "batches"),
    # Windows of 10 in batches of 3: the last token is only predicted.
    [(10 * 3 * 4 + 1, 4), (10 * 3 * 4, 3), (10 * 3 * 2 + 1, 2), (10 * 3 * 2, 1), (31, 1), (11, 1)],
)
def test_a_validation_has_as_many_batches_as_there_are_windows(tokens: int, batches: int) -> None:
    starts = validation_starts(tokens, batch_size=3, num_batches=9, context_length=10)
    assert starts.shape == (batches, 3)
    assert (starts.min(), starts.max()) == (0, tokens - 1 - 10)
    if tokens > 30:
        assert np.diff(starts.ravel()).min() >= 10
    assert len(validation_starts(tokens, batch_size=3, num_batches=1, context_length=10)) == 1

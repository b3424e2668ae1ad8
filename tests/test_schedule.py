"""Learning rate schedules: the assignment's figures, and what all of them have in common."""

import math
from itertools import pairwise

import pytest
from cs336lm.optim.schedules import (
    SCHEDULES,
    build_schedule,
    lr_constant_schedule,
    lr_cosine_schedule,
    lr_inverse_sqrt_schedule,
    lr_linear_schedule,
    lr_wsd_schedule,
)
from hypothesis import given
from hypothesis import strategies as st


def test_cosine_by_hand():
    """Warm-up over 7, cycle to 21: a quarter, half and three quarters of the wave by hand."""
    rates = [lr_cosine_schedule(it, 1.0, 0.1, 7, 21) for it in range(25)]
    assert rates[:7] == pytest.approx([it / 7 for it in range(7)])
    assert rates[7] == 1.0
    assert rates[14] == pytest.approx(0.55)
    assert lr_cosine_schedule(10, 1.0, 0.0, 6, 22) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert lr_cosine_schedule(18, 1.0, 0.0, 6, 22) == pytest.approx((1 - math.sqrt(0.5)) / 2)
    assert rates[21] == pytest.approx(0.1)
    assert rates[22:] == [0.1] * 3


def test_linear_and_wsd_by_hand():
    assert [lr_linear_schedule(it, 1.0, 0.5, 2, 6) for it in range(8)] == pytest.approx(
        [0, 0.5, 1, 0.875, 0.75, 0.625, 0.5, 0.5]
    )
    rates = [lr_wsd_schedule(it, 1.0, 0.0, 10, 110) for it in range(112)]
    assert rates[10:91] == pytest.approx([1.0] * 81)
    assert rates[91:111] == pytest.approx([1 - i / 20 for i in range(1, 21)], abs=1e-12)
    assert rates[111] == 0.0


def test_the_share_of_wsds_decay():
    half = build_schedule("wsd", decay_share=0.5)
    assert [half(it, 1.0, 0.2, 2, 10) for it in range(12)] == pytest.approx(
        [0, 0.5, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2, 0.2]
    )
    whole = build_schedule("wsd", decay_share=1.0)
    assert [whole(it, 1.0, 0.2, 2, 10) for it in range(12)] == pytest.approx(
        [lr_linear_schedule(it, 1.0, 0.2, 2, 10) for it in range(12)]
    )
    assert build_schedule("wsd")(95, 1.0, 0.0, 0, 100) == lr_wsd_schedule(95, 1.0, 0.0, 0, 100)
    assert build_schedule("cosine", decay_share=0.5) is lr_cosine_schedule


def test_inverse_sqrt_is_vaswanis():
    """Their formula for d_model = 512 and 4,000 steps of warm-up, which gives its own maximum."""

    def theirs(step):
        return 512**-0.5 * min(step**-0.5, step * 4000**-1.5)

    for step in (1, 100, 3999, 4000, 4001, 10_000, 100_000):
        rate = lr_inverse_sqrt_schedule(step, theirs(4000), 0.0, 4000, 10_000)
        assert rate == pytest.approx(theirs(step))
    rates = [lr_inverse_sqrt_schedule(it, 1.0, 0.45, 0, 3) for it in range(7)]
    assert rates == pytest.approx([1, 1, 2**-0.5, 3**-0.5, 0.5, 0.45, 0.45])


@pytest.mark.parametrize("name", SCHEDULES)
@given(it=st.integers(0, 120), warmup=st.integers(1, 50), length=st.integers(1, 50))
def test_time_may_be_counted_in_anything(name, it, warmup, length):
    """In steps, or in seconds of which a step takes a quarter."""
    in_steps = SCHEDULES[name](it, 1.0, 0.1, warmup, warmup + length)
    in_seconds = SCHEDULES[name](it / 4, 1.0, 0.1, warmup / 4, (warmup + length) / 4)
    assert in_seconds == pytest.approx(in_steps)


def test_constant_by_hand():
    rates = [lr_constant_schedule(it, 2.0, 0.1, 4, 6) for it in range(9)]
    assert rates == [0, 0.5, 1, 1.5, 2, 2, 2, 2, 2]
    assert lr_constant_schedule(0, 2.0, 0.1, 0, 6) == 2.0


@pytest.mark.parametrize("name", SCHEDULES)
@given(
    highest=st.floats(1e-6, 10),
    share=st.floats(0, 1),
    warmup=st.integers(0, 50),
    length=st.integers(0, 200),
)
def test_every_schedule_rises_then_falls(name, highest, share, warmup, length):
    lowest, end = highest * share, warmup + length
    rates = [SCHEDULES[name](it, highest, lowest, warmup, end) for it in range(end + 3)]
    assert max(rates) == pytest.approx(rates[warmup])
    assert rates[warmup] == pytest.approx(highest)
    slack = 1e-9 * highest
    assert all(a <= b + slack for a, b in pairwise(rates[: warmup + 1]))
    assert all(a >= b - slack for a, b in pairwise(rates[warmup:]))
    if warmup:
        assert rates[0] == 0
    if name == "constant":
        assert rates[-1] == highest
    elif name == "inverse-sqrt":  # knows no end
        expected = highest * math.sqrt((warmup or 1) / max(end + 2, warmup, 1))
        assert rates[-1] == pytest.approx(max(lowest, expected))
    else:
        assert rates[-1] == lowest
        if length:
            assert rates[end] == pytest.approx(lowest, abs=slack)

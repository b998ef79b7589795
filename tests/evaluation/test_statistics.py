"""Bootstrap intervals against distributions whose resampling can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from legato.errors import LegatoError
from legato.evaluation.statistics import Interval, bootstrap, difference, iqm

SEEDS = st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=6)
Z = 1.959964  # 97.5 % point of the normal distribution


@pytest.mark.parametrize("values", [[3.0, -1.0], [0.2, 0.9, 0.4]])
def test_up_to_three_seeds_the_interval_is_their_range(values: list[float]) -> None:
    """Every draw is the lowest value with probability 1/4 (n = 2) or 1/27 (n = 3): more than 2.5 %."""
    interval = bootstrap(values)
    assert (interval.low, interval.high) == pytest.approx((min(values), max(values)))
    assert interval.mean == pytest.approx(sum(values) / len(values))
    assert (interval.count, interval.confidence) == (len(values), 0.95)


@pytest.mark.parametrize(("confidence", "high"), [(0.95, 0.6), (0.8, 0.4)])
def test_one_success_in_five_has_binomial_quantiles(confidence: float, high: float) -> None:
    """5 mean ~ Binomial(5, 0.2), whose P(0) = .328, P(<=1) = .737, P(<=2) = .942, P(<=3) = .993."""
    interval = bootstrap([0, 0, 1, 0, 0], confidence)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.2, 0.0, high))
    against_zero = difference([0, 0, 1, 0, 0], [0, 0, 0], confidence)
    assert (against_zero.mean, against_zero.low, against_zero.high) == pytest.approx((0.2, 0.0, high))
    assert against_zero.count == 3


def test_many_values_give_the_normal_interval() -> None:
    values = np.random.default_rng(3).normal(5.0, 2.0, 400)
    half = Z * values.std() / np.sqrt(values.size)
    interval = bootstrap(values)
    assert interval.high - interval.mean == pytest.approx(half, rel=0.05)
    assert interval.mean - interval.low == pytest.approx(half, rel=0.05)


def test_many_values_give_welchs_interval_of_a_difference() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.normal(5.0, 2.0, 300), rng.normal(1.0, 0.5, 100)
    half = Z * np.sqrt(a.var() / a.size + b.var() / b.size)
    interval = difference(a, b)
    assert interval.mean == pytest.approx(a.mean() - b.mean())
    assert interval.high - interval.mean == pytest.approx(half, rel=0.05)
    assert interval.mean - interval.low == pytest.approx(half, rel=0.05)
    assert interval.count == 100


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.floats(0.01, 100.0), st.floats(-1e3, 1e3))
def test_interval_stays_inside_the_data_and_follows_scale_and_shift(
    values: list[float], scale: float, shift: float
) -> None:
    interval = bootstrap(values, resamples=200)
    margin = 1e-9 * (1 + max(map(abs, values)))
    assert min(values) - margin <= interval.low <= interval.high <= max(values) + margin
    moved = bootstrap(scale * np.asarray(values) + shift, resamples=200)
    expected = scale * np.array([interval.mean, interval.low, interval.high]) + shift
    tolerance = 1e-9 * (1 + abs(shift) + scale * max(map(abs, values)))
    np.testing.assert_allclose([moved.mean, moved.low, moved.high], expected, rtol=1e-9, atol=tolerance)


def test_same_seed_same_interval_other_seed_another() -> None:
    values = np.random.default_rng(0).normal(size=7)
    kept = values.copy()
    assert bootstrap(values, seed=1) == bootstrap(values, seed=1)
    assert bootstrap(values, seed=1) != bootstrap(values, seed=2)
    assert difference(values, -values, seed=1) == difference(values, -values, seed=1)
    np.testing.assert_array_equal(values, kept)


@pytest.mark.parametrize("values", [[0.1], [0.1] * 3, [-7.0] * 50])
def test_one_value_or_equal_values_have_no_width(values: list[float]) -> None:
    interval = bootstrap(values)
    assert interval.low == interval.mean == interval.high == pytest.approx(values[0])
    assert interval.count == len(values)


def test_difference_with_a_single_seed_knows_no_spread() -> None:
    assert difference([1.0, 3.0, 5.0], [1.0]) == Interval(2.0, 2.0, 2.0, 1)
    assert difference([2.0, 2.0], [0.5, 0.5, 0.5]) == Interval(1.5, 1.5, 1.5, 2)


def test_interval_as_text() -> None:
    interval = Interval(0.7421, 0.7112, 0.7684, 3)
    assert str(interval) == "0.742 [0.711, 0.768] (n=3)"
    assert f"{interval:.1f}" == "0.7 [0.7, 0.8] (n=3)"
    assert f"{Interval(-167.25, -170.0, -160.0, 12):,.0f}" == "-167 [-170, -160] (n=12)"
    assert str(Interval(0.7421, 0.7421, 0.7421, 1)) == "0.742 (n=1)"


def test_iqm_drops_a_quarter_at_each_end() -> None:
    assert iqm([100.0, 1.0, 2.0, -50.0]) == 1.5
    assert iqm(np.array([[9.0, 3.0, 4.0, 5.0], [6.0, -90.0, 700.0, 7.0]])) == 5.5
    assert iqm([1.0, 2.0, 6.0]) == 3.0


@pytest.mark.parametrize("statistic", [bootstrap, iqm, lambda bad: difference([1.0], bad)])
@pytest.mark.parametrize(
    ("values", "message"),
    [([], r"shape \(0,\)"), ([1.0, float("nan")], r"\[1\] is nan"), ([float("-inf")], r"\[0\] is -inf")],
)
def test_no_values_and_values_that_are_no_numbers_are_refused(statistic, values, message) -> None:
    with pytest.raises(LegatoError, match=message) as caught:
        statistic(values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [3.0, [[1.0, 2.0]]])
def test_seeds_lie_along_one_axis(values) -> None:
    with pytest.raises(LegatoError, match="one number per seed"):
        bootstrap(values)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_confidence_is_a_probability(confidence: float) -> None:
    with pytest.raises(LegatoError, match="confidence"):
        bootstrap([1.0, 2.0], confidence)

"""What is kept of a dataset: units there and back, and which returns it holds, by brute force."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.test_trajectories import raw

from legato.data import dataset_statistics
from legato.data import trajectories as logs
from legato.data.dataset_statistics import DatasetStatistics
from legato.data.spec import Spec
from legato.data.trajectories import Trajectories, trajectories
from legato.errors import LegatoError

SPEC, CHOICE = Spec(2, (-0.2, -3.0), (0.8, 1.0)), Spec.discrete(2, 4)


def made(lengths: list[int], seed: int = 0) -> Trajectories:
    given = raw(lengths, seed)
    given["actions"] = np.random.default_rng(seed).uniform(SPEC.low, SPEC.high, (sum(lengths), 2))
    given["observations"] = np.random.default_rng(seed).normal(size=(sum(lengths), 2)) * [1, 10] + [0, 5]
    return trajectories(**given)


# --- units ---


def test_units_are_the_bounds() -> None:
    of = DatasetStatistics.identity(SPEC)
    corners = jnp.array([[-0.2, -3.0], [0.8, 1.0], [0.3, -1.0]])
    np.testing.assert_allclose(of.normalise_actions(corners), [[-1, -1], [1, 1], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(of.normalise_executed(corners), of.normalise_actions(corners))


def test_an_action_whose_bounds_are_equal_has_the_unit_0() -> None:
    of, actions = DatasetStatistics.identity(Spec(2, (-1.0, 0.3), (1.0, 0.3))), jnp.array([[0.5, 0.3], [-1.0, 0.3]])
    np.testing.assert_array_equal(of.normalise_actions(actions), [[0.5, 0], [-1, 0]])
    slope = jax.grad(lambda a: of.normalise_actions(a).sum())(actions)
    np.testing.assert_array_equal(slope, [[1, 0], [1, 0]])
    for squash in (False, True):
        assert of.to_action(jnp.array([0.0, 9.0]), None, squash=squash)[1] == np.float32(0.3)


@given(st.lists(st.floats(-0.99, 0.99), min_size=2, max_size=2))
def test_an_action_and_its_unit_are_inverse(unit: list[float]) -> None:
    of, x = DatasetStatistics.identity(SPEC), np.array(unit, np.float32)
    np.testing.assert_allclose(of.normalise_actions(of.to_action(jnp.arctanh(x), None)), x, atol=1e-5)
    np.testing.assert_allclose(of.normalise_actions(of.to_action(jnp.asarray(x), None, squash=False)), x, atol=1e-6)


def test_actions_stay_within_their_bounds() -> None:
    of = DatasetStatistics.identity(SPEC)
    for squash in (True, False):
        np.testing.assert_allclose(of.to_action(jnp.array([99.0, -99.0]), None, squash=squash), [0.8, -3.0], rtol=1e-6)


def narrow(deviation: float = 0.01, mean: float = 0.7) -> Trajectories:
    """Actions that use a small part of their bounds: 5 % of them far away."""
    data = made([10, 10])
    draws = np.random.default_rng(1).normal(size=(20, 2)) * [deviation, 1.0] + [mean, -1.0]
    return replace(data, actions=np.clip(draws, SPEC.low, SPEC.high).astype(np.float32))


def test_units_may_be_the_deviation_of_the_data() -> None:
    data = narrow()
    of = dataset_statistics.of(data, SPEC, units="deviation")
    unit = np.asarray(of.normalise_actions(jnp.asarray(data.actions)))
    np.testing.assert_allclose(unit.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(unit.std(axis=0), 1, rtol=2e-4)
    np.testing.assert_allclose([of.to_action(u, None) for u in unit], data.actions, atol=1e-5)
    np.testing.assert_array_equal(of.squash(jnp.asarray(unit)), unit)  # what the loss sees has no bounds


def test_in_units_of_the_deviation_actions_keep_to_their_bounds() -> None:
    of = dataset_statistics.of(narrow(), SPEC, units="deviation")
    for squash in (True, False):
        for far, bound in ((1e6, SPEC.high), (-1e6, SPEC.low)):
            np.testing.assert_allclose(of.to_action(jnp.full(2, far), None, squash=squash), bound, atol=1e-5)
    np.testing.assert_allclose(
        of.clip_actions(jnp.full(2, 1e6)), of.normalise_actions(jnp.asarray(SPEC.high)), rtol=1e-5
    )


def test_units_of_the_deviation_do_not_depend_on_the_units_of_the_data() -> None:
    data, wide = narrow(), Spec(2, (-51.2, -3 * 512 - 256.0), (204.8, 256.0))
    scaled = replace(data, actions=data.actions * np.float32([256, 512]) - np.float32([0, 256]))
    one, other = (
        dataset_statistics.of(data, SPEC, units="deviation"),
        dataset_statistics.of(scaled, wide, units="deviation"),
    )
    found = other.normalise_actions(jnp.asarray(scaled.actions))
    np.testing.assert_allclose(one.normalise_actions(jnp.asarray(data.actions)), found, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize(("deviation", "units"), [(0.01, "deviation"), (0.2, "bounds")])
def test_open_units_are_those_of_the_deviation_where_it_is_small(deviation: float, units: str) -> None:
    assert dataset_statistics.units_of(narrow(deviation, 0.3), SPEC) == units
    still = replace(narrow(0.2, 0.3), actions=np.tile(np.float32([0.3, -1.0]), (20, 1)))
    assert dataset_statistics.units_of(still, SPEC) == "bounds"  # a number that never changes asks for nothing
    assert dataset_statistics.units_of(made([3]), CHOICE) == "bounds"


def test_choices_are_numbers_and_vectors_of_one() -> None:
    of, numbers = DatasetStatistics.identity(CHOICE), jnp.array([3, 0], jnp.int32)
    np.testing.assert_array_equal(of.normalise_actions(numbers), numbers)
    found = of.normalise_executed(jnp.array([[3.0], [0.0]]))
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, numbers)
    action = of.to_action(jnp.array([0.0, 5.0, 1.0, 2.0]), None)
    assert action.dtype == jnp.float32
    np.testing.assert_array_equal(action, [1])


# --- of data ---


def test_observations_and_returns_have_units_of_their_own() -> None:
    data = made([4, 1, 7])
    of = dataset_statistics.of(data, SPEC, gamma=0.9)
    seen = np.asarray(of.normaliser(jnp.asarray(data.observations)))
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(seen.std(axis=0), 1, atol=1e-4)
    togo = np.asarray(of.scale_return(jnp.asarray(logs.returns_to_go(data, 0.9))))
    assert np.sqrt((togo**2).mean()) == pytest.approx(1, rel=1e-5)
    assert dataset_statistics.of(data, SPEC, scale=7.0).scale == 7
    assert dataset_statistics.of(data, SPEC, scale=7.0).scale_return(jnp.asarray(14.0)) == 2


def test_nothing_is_divided_by_zero() -> None:
    data = replace(made([3]), rewards=np.zeros(3, np.float32))
    assert dataset_statistics.of(data, SPEC).scale == 1


def test_without_rewards_there_are_units_alone() -> None:
    of = dataset_statistics.of(replace(made([4, 2]), rewards=None), SPEC)
    np.testing.assert_array_equal(of.normaliser.mean, dataset_statistics.of(made([4, 2]), SPEC).normaliser.mean)
    assert (of.scale, of.target) == (1, 0)
    assert not of.deciles.any()


def test_no_gradient_changes_what_is_kept() -> None:
    of = dataset_statistics.of(made([4, 2]), SPEC)
    gradient = jax.grad(lambda it: it.scale_return(jnp.ones(())).sum() + it.normaliser(jnp.ones(2)).sum())(of)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))


# --- which returns ---


@pytest.mark.parametrize("seed", range(3))
def test_the_default_target_is_the_mean_of_the_best_tenth(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 30, 40).tolist()
    data = made(lengths, seed)
    ends = np.cumsum(lengths)
    earned = [float(data.rewards[e - n : e].astype(float).sum()) for n, e in zip(lengths, ends, strict=True)]
    order, steps, best = sorted(range(40), key=lambda i: -earned[i]), 0, []
    for i in order:  # the best, as long as they fit together, and one at least
        steps += lengths[i]
        if steps > sum(lengths) / 10 and best:
            break
        best.append(earned[i])
    found, of = dataset_statistics.support(data), dataset_statistics.of(data, SPEC)
    assert found.target == pytest.approx(np.mean(best), rel=1e-5)
    assert of.target == pytest.approx(np.mean(best), rel=1e-5)
    ranked = sorted(earned)
    for percent, value in found.deciles.items():
        at = percent / 100 * 39
        low, share = int(at), at - int(at)
        between = ranked[low] + share * (ranked[min(low + 1, 39)] - ranked[low])
        assert value == pytest.approx(between, rel=1e-5, abs=1e-5)
    np.testing.assert_allclose(of.deciles, list(found.deciles.values()), rtol=1e-5, atol=1e-5)
    assert list(found.deciles) == list(range(0, 101, 10))


def test_a_discounted_return_is_asked_for_in_discounted_units() -> None:
    """What a network with gamma = 0.5 read at the first steps of the best episodes."""
    given = raw([2, 2, 2, 14])
    given["rewards"] = np.array([1, 1, 4, 6, 2, 2, *[0] * 14])
    of = dataset_statistics.of(trajectories(**given), Spec(2, (-1.0,) * 3, (1.0,) * 3), gamma=0.5)
    assert of.target == pytest.approx(4 + 0.5 * 6)
    np.testing.assert_allclose(np.asarray(of.deciles)[[0, 10]], [0, 7], rtol=1e-6)


def test_returns_near_a_start_are_of_the_episodes_that_began_there() -> None:
    """In units of the starts' spread: the second number is ten times as large, and counts as much."""
    data = made([3] * 50)
    starts = np.random.default_rng(1).normal(size=(5, 2)) * [1, 10] + [0, 5]
    found = dataset_statistics.support(data, starts, nearest=7).near
    begun, earned = data.observations[::3].astype(float), logs.returns(data)
    for start, row in zip(starts, found, strict=True):
        distance = (((begun - start) / begun.std(axis=0)) ** 2).sum(axis=1)
        near = np.sort(earned[np.argsort(distance)[:7]])
        np.testing.assert_allclose(row, near[[0, 3, 6]], rtol=1e-6)
    few = dataset_statistics.support(made([3] * 2), starts, nearest=10).near
    assert few.shape == (5, 3)
    alone = dataset_statistics.support(made([3]), starts).near
    np.testing.assert_allclose(alone, np.full((5, 3), logs.returns(made([3]))[0]))
    assert dataset_statistics.support(data).near is None


def test_without_rewards_nothing_can_be_asked_for() -> None:
    with pytest.raises(LegatoError, match="has no rewards"):
        dataset_statistics.support(replace(made([3]), rewards=None))

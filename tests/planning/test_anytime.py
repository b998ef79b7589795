"""Planning against the clock: by a clock that is told what everything takes."""

from __future__ import annotations

from collections.abc import Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.planning.test_beam import discretiser, model, window_of

from legato.data.dataset_statistics import DatasetStatistics
from legato.data.spec import Spec
from legato.errors import LegatoError
from legato.models.q_functions import QFunction, critics
from legato.planning import anytime, beam
from legato.planning.anytime import Anytime
from legato.planning.beam import Filter, Search

SEARCH = Search(4, beams=3, expand=2, actions=Filter())


class Clock:
    """Ten milliseconds pass between any two looks at it."""

    def __init__(self) -> None:
        self.ticks: Iterator[float] = iter(np.arange(10_000) * 0.01)

    def __call__(self) -> float:
        return float(next(self.ticks))


@pytest.fixture(scope="module")
def planner() -> Anytime:
    return Anytime(model(), discretiser(), SEARCH, 4, clock=Clock())


def asked(planner: Anytime, milliseconds: float) -> anytime.InTime:
    past, count = window_of(np.array([[1, 2, 3, 4, 0, 1]]), 3, 6)
    return planner(past, count, jnp.array([1, 2]), jax.random.key(3), milliseconds)


def test_with_time_enough_it_is_the_search_itself(planner: Anytime) -> None:
    past = window_of(np.array([[1, 2, 3, 4, 0, 1]]), 3, 6)
    whole = eqx.filter_jit(beam.best_return)(
        model(), discretiser(), SEARCH, *past, jnp.array([1, 2]), jax.random.key(3)
    )
    found = asked(planner, 1e9)
    np.testing.assert_array_equal(found.tokens, whole.tokens[0])
    assert found.score == pytest.approx(float(whole.score[0]), rel=1e-5) and not found.late


def test_a_critic_may_judge() -> None:
    spec = Spec(2, (-2.0, -2.0), (2.0, 2.0))
    q_function = QFunction(
        critics(spec, 8, 1, key=jax.random.key(7)), DatasetStatistics.identity(spec), 0.7, shift=-0.5
    )
    past, newest, key = window_of(np.array([[1, 2, 3, 4, 0, 1]]), 3, 6), jnp.array([1, 2]), jax.random.key(3)
    whole = eqx.filter_jit(beam.best_return)(model(), discretiser(), SEARCH, *past, newest, key, q_function)
    found = asked(Anytime(model(), discretiser(), SEARCH, 4, q_function=q_function, clock=Clock()), 1e9)
    np.testing.assert_array_equal(found.tokens, whole.tokens[0])
    assert found.score == pytest.approx(float(whole.score[0]), rel=1e-5)
    assert found.score != pytest.approx(asked(Anytime(model(), discretiser(), SEARCH, 4, clock=Clock()), 1e9).score)


def test_a_step_is_begun_only_if_it_will_be_done(planner: Anytime) -> None:
    """A look comes before and after each step: a step takes 10 ms, and 10 more pass until the next is thought of."""
    assert planner.slowest == pytest.approx(0.01)
    for budget, steps in ((5, 1), (15, 1), (29, 1), (31, 2), (49, 2), (51, 3), (71, 4), (1000, 4)):
        found = asked(planner, budget)
        assert len(found.tokens) == steps
        assert found.late == (budget < 10)


def test_a_shorter_plan_is_one_of_a_shorter_search(planner: Anytime) -> None:
    past = window_of(np.array([[1, 2, 3, 4, 0, 1]]), 3, 6)
    first, _ = jax.random.split(jax.random.key(3))
    begun = eqx.filter_jit(beam.begin)(model(), discretiser(), SEARCH, *past, jnp.array([1, 2]), first)
    found = asked(planner, 5)
    np.testing.assert_array_equal(found.tokens, begun.tokens[0, :1])
    assert found.score == pytest.approx(float(begun.score[0]), rel=1e-5)


@pytest.mark.parametrize("budget", [0.0, -1.0, float("nan")])
def test_no_time_is_no_budget(planner: Anytime, budget: float) -> None:
    with pytest.raises(LegatoError, match="a plan takes time"):
        asked(planner, budget)


@pytest.mark.parametrize("context", [1, 6])
def test_a_context_that_the_model_cannot_read_is_refused(context: int) -> None:
    with pytest.raises(LegatoError, match=f"from 2 to 5 steps in this model, not {context}"):
        Anytime(model(), discretiser(), SEARCH, context)

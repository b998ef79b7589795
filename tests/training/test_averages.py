"""Means of the updates' metrics between rows, and what is said of a value that is not finite."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from legato.errors import LegatoError
from legato.training.averages import Averages


def test_means_are_over_the_updates_since_the_last_row() -> None:
    averages = Averages([3, 4], "update")
    averages.add(2, {"loss": jnp.array([1.0, 5.0])}, 2)
    averages.add(3, {"loss": jnp.array([2.0, 1.0])})
    averages.read([])
    assert averages.mean("loss") == 1.5
    assert averages.take() == [{"loss": 1.0}, {"loss": 2.0}]
    averages.add(4, {"loss": jnp.array([7.0, 8.0])})
    averages.read([])
    other = Averages([3, 4], "update")
    count, sums = averages.state()
    averages.add(5, {"loss": jnp.array([9.0, 10.0])})
    averages.read([])  # what was kept does not follow
    other.restore(count, sums)
    assert other.take() == [{"loss": 7.0}, {"loss": 8.0}]
    assert averages.take() == [{"loss": 8.0}, {"loss": 9.0}]


def test_nothing_is_averaged_of_nothing() -> None:
    averages = Averages([0, 1], "step")
    averages.read([])
    assert averages.take() == [{}, {}]


@pytest.mark.parametrize(
    ("value", "saved", "words"),
    [
        (np.nan, [], "q of seed 4 became nan by step 6; there was no checkpoint yet"),
        (-np.inf, [1, 5], "q of seed 4 became -inf by step 6; the checkpoint of step 5 is kept"),
    ],
)
def test_a_value_that_is_not_finite_is_named(value: float, saved: list[int], words: str) -> None:
    averages = Averages([3, 4], "step")
    averages.add(5, {"q": jnp.array([1.0, 2.0])})
    averages.add(6, {"p": jnp.array([1.0, 2.0]), "q": jnp.array([1.0, value])})
    with pytest.raises(LegatoError) as problem:
        averages.read(saved)
    assert str(problem.value) == words

"""An update is a pure function of one seed, whichever algorithm's it is: by the program that trained two seeds."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from tests.conformance.cases import ALL, FOREIGN, case, other_way_round, seed_of
from tests.learners import is_float, same

pytestmark = FOREIGN
NAMES = pytest.mark.parametrize("name", ALL)


@NAMES
def test_the_same_update_gives_the_same_bits(name: str) -> None:
    """And another one, of the same learner, others: it draws by the update's number."""
    here = case(name)
    learner, metrics = here.advance(here.learner)
    assert same(here.advance(here.learner), (learner, metrics))
    assert not same(here.advance(here.learner, first=8)[0], learner)


@NAMES
def test_a_seed_learns_the_same_whoever_is_beside_it(name: str) -> None:
    """Two seeds and their data change places, bit for bit; they are no twins."""
    here = case(name)
    learner, metrics = here.advance(here.learner)
    swapped = here.advance(here.learner, swapped=True)
    assert same(other_way_round(swapped), (learner, metrics))
    assert not same(other_way_round(learner), learner)


@NAMES
def test_a_learner_keeps_its_structure_shapes_and_types(name: str) -> None:
    here = case(name)
    learner, _ = here.advance(here.learner)
    assert jax.tree.structure(learner) == jax.tree.structure(here.learner)
    for after, before in zip(jax.tree.leaves(learner), jax.tree.leaves(here.learner), strict=True):
        assert (after.shape, after.dtype, after.weak_type) == (before.shape, before.dtype, before.weak_type)
        assert after.shape[0] == 2


@NAMES
def test_metrics_are_one_finite_number_each_and_have_a_column(name: str) -> None:
    here = case(name)
    _, metrics = here.advance(here.learner)
    assert metrics and set(metrics) <= set(here.loop.columns)
    for metric, values in metrics.items():
        assert values.shape == (2,) and np.isfinite(values).all(), metric


@NAMES
def test_what_is_learnt_is_finite_and_reaches_the_policy(name: str) -> None:
    """At the second update at the latest, as an actor may wait for its critics."""
    here = case(name)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(here.learner) if is_float(leaf))
    learner, _ = here.advance(here.advance(here.learner)[0], first=8)
    before, after = here.policies(here.learner), here.policies(learner)
    for i in range(2):
        assert not same(*(seed_of(policy, i) for policy in (before, after)))

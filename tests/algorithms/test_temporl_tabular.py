"""Skips in plain tables: what the paper reports of a grid, a chain whose values are known, and held LQR feedback."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from tests.tabular import chain, learn, zigzag

from legato.algorithms.temporl.skips import greedy_length, skip_targets

targets, best = jax.jit(skip_targets, static_argnums=1), jax.jit(greedy_length)


@pytest.mark.parametrize("seed", [0, 1])
def test_skips_find_the_way_through_the_grid_with_few_decisions(seed: int) -> None:
    """Epsilon 0.1, 10,000 episodes, J = 7: the published area under the curve is 0.99, with 6.8 decisions."""
    found = np.array(learn(zigzag, 60, 4, 7, 10_000, seed).greedy)
    area, decisions = ((found[:, 0] + 1) / 2).mean(), found[:, 1].mean()
    assert area >= 0.98 and decisions <= 8
    assert (found[len(found) // 2 :, 0] == 1).all()


def test_all_skips_that_do_not_pass_the_end_of_a_chain_are_worth_the_same() -> None:
    """Ten steps to a reward of 1, whatever parts they are taken in: gamma^9."""
    found = learn(chain, 11, 2, 6, 3_000, 0, gamma=0.9, epsilon=0.3, limit=200)
    np.testing.assert_allclose(found.skip[0][1], 0.9**9, rtol=1e-9)
    np.testing.assert_allclose(found.skip[7][1][:3], 0.9**2, rtol=1e-9)
    np.testing.assert_allclose(found.skip[0][0], [0.9 ** (9 + j) for j in range(1, 7)], rtol=1e-9)

"""Skips in plain tables: what the paper reports of a grid, a chain whose values are known, and held LQR feedback."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.tabular import chain, learn, zigzag

from legato.algorithms.temporl.skips import greedy_length, skip_targets
from legato.data.replay import Sequences, Transition
from legato.envs.tasks import lqr

targets, best = jax.jit(skip_targets, static_argnums=1), jax.jit(greedy_length)
Length = Callable[[np.ndarray, np.ndarray], np.ndarray]


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


# --- the double integrator, whose feedback is known ---

LONGEST, GAIN = 8, lqr.riccati()[0]


def follow(x: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The next states `[..., 2]`, and what the step pays."""
    return x @ lqr.transition().T + u @ lqr.B.T, lqr.LinearQuadratic.known_reward(x, u, None)


def held_stretch(x: np.ndarray, u: np.ndarray) -> Sequences:
    """From states `[batch, 2]` with actions `[batch, 1]` held."""
    rows = []
    for _ in range(LONGEST):
        after, reward = follow(x, u)
        rows.append((x, u, u, reward, after, np.ones(len(x))))
        x = after
    steps = Transition(*(jnp.asarray(np.stack(column)) for column in zip(*rows, strict=True)))
    return Sequences(steps, jnp.asarray(np.ones((LONGEST, len(x)))))


@pytest.mark.usefixtures("x64")
def test_targets_of_held_feedback_are_the_sampled_data_costs() -> None:
    """Held for j steps, then the best feedback: x' Q_j x + 2 x' N_j u + u' R_j u + (F x + G u)' P (F x + G u)."""
    (gain, p), a = lqr.riccati(), lqr.transition()
    x = np.random.default_rng(0).uniform(-1, 1, (50, 2)) * 0.15  # no action is beyond its bounds
    u = -x @ gain.T
    stretch = held_stretch(x, u)
    after = np.asarray(stretch.steps.next_observation)
    y, mask = map(np.asarray, targets(stretch, 1.0, jnp.asarray(-np.einsum("jbi,ik,jbk->jb", after, p, after))))
    f, g, cost = np.eye(2), np.zeros((2, 1)), np.zeros(50)
    for j in range(LONGEST):
        here = x @ f.T + u @ g.T
        cost += np.einsum("bi,ik,bk->b", here, lqr.Q, here) + lqr.R[0, 0] * u[:, 0] ** 2
        f, g = a @ f, a @ g + lqr.B
        ahead = x @ f.T + u @ g.T
        np.testing.assert_allclose(y[j], -cost - np.einsum("bi,ik,bk->b", ahead, p, ahead), rtol=1e-9)
    assert mask.all()
    np.testing.assert_allclose(y[0], -np.einsum("bi,ik,bk->b", x, p, x), rtol=1e-9)
    assert (np.diff(y, axis=0) <= 0).all()  # the feedback is the best there is: holding it only costs


@pytest.mark.usefixtures("x64")
def test_the_best_length_of_each_state_earns_no_less_than_any_fixed_one() -> None:
    """With bounded actions: holding costs nothing while they are saturated, and the longest of equal ones is taken."""
    starts = np.random.default_rng(1).uniform(-1, 1, (60, 2))

    def bounded(x: np.ndarray) -> np.ndarray:
        return np.clip(-x @ GAIN.T, -1, 1)

    def value(x: np.ndarray) -> np.ndarray:
        total = np.zeros(x.shape[:-1])
        for _ in range(lqr.STEPS):
            x, reward = follow(x, bounded(x))
            total += reward
        return total

    def returns(length_of: Length) -> tuple[float, float]:
        x, total, due = starts, np.zeros(60), np.zeros(60, int)
        u, decisions = bounded(x), 0
        for _ in range(lqr.STEPS):
            asked = due == 0
            u = np.where(asked[:, None], bounded(x), u)
            due = np.where(asked, length_of(x, u), due) - 1
            decisions += asked.sum()
            x, reward = follow(x, u)
            total += reward
        return float(total.mean()), decisions / 60

    def chosen(x: np.ndarray, u: np.ndarray) -> np.ndarray:
        stretch = held_stretch(x, u)
        y, _ = targets(stretch, 1.0, jnp.asarray(value(np.asarray(stretch.steps.next_observation))))
        return np.asarray(best(jnp.asarray(np.round(np.asarray(y), 9).T)))

    adaptive, decisions = returns(chosen)
    fixed = [returns(lambda x, u, j=j: np.full(60, j))[0] for j in range(1, LONGEST + 1)]
    assert adaptive >= max(fixed) - 1e-6 and max(fixed) == fixed[0] > fixed[-1]
    assert decisions < 0.98 * lqr.STEPS

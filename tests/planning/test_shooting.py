"""Planning by shooting against what is known: the linear-quadratic regulator, and a sum written out."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import solve_discrete_are

from legato.errors import LegatoError
from legato.planning import shooting
from legato.planning.shooting import Shooting

# A double integrator: position and speed, pushed.
A = np.array([[1.0, 0.1], [0.0, 1.0]])
B = np.array([[0.0], [0.1]])
Q, R = np.diag([1.0, 0.1]), np.array([[0.01]])
P = solve_discrete_are(A, B, Q, R)
GAIN = np.linalg.solve(R + B.T @ P @ B, B.T @ P @ A)
START = np.array([0.1, 0.0])  # near enough that the regulator never asks for more than the bounds
STEPS = 60
LQR = Shooting(horizon=3, samples=512, iterations=3, elites=64, temperature=0.5)


def pay(s: jax.Array, a: jax.Array) -> jax.Array:
    return -(s @ Q @ s + a @ R @ a)


def cost(how: Shooting, terminal: bool = True, proposals: bool = False) -> float:
    """What 60 steps of planning anew at each cost, in units of the regulator's cost."""

    def value(s: jax.Array) -> jax.Array:
        return -(s @ P @ s) if terminal else jnp.zeros(())

    def step(carry: tuple[jax.Array, jax.Array], key: jax.Array) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        s, mean = carry

        def judge(actions: jax.Array) -> jax.Array:
            end, paid = jax.lax.scan(lambda s, a: (A @ s + B @ a, pay(s, a)), s, actions)
            return paid.sum() + value(end)

        # At rewards as small as these the scores are told apart only when they are stretched.
        others = jnp.zeros((4, how.horizon, 1)) if proposals else None
        mean = shooting.plan(lambda actions: 1e3 * judge(actions), mean, key, how, others)
        paid = -pay(s, mean[0])
        return (A @ s + B @ mean[0], jnp.roll(mean, -1, axis=0).at[-1].set(0)), paid

    start = jnp.asarray(START), jnp.zeros((how.horizon, 1))
    total = jax.jit(lambda: jax.lax.scan(step, start, jax.random.split(jax.random.key(0), STEPS))[1].sum())()
    s, best = START, 0.0
    for _ in range(STEPS):
        u = -GAIN @ s
        assert np.abs(u).max() < 1
        best += float(s @ Q @ s + u @ R @ u)
        s = A @ s + B @ u
    return float(total) / best


@pytest.mark.parametrize("temperature", [0.0, 0.5], ids=["cem", "mppi"])
@pytest.mark.parametrize("proposals", [False, True])
def test_plans_cost_what_the_regulator_does(temperature: float, proposals: bool) -> None:
    """Within a hundredth after three iterations, with the exact value of the end."""
    how = Shooting(**{**vars(LQR), "temperature": temperature})
    assert 1 - 1e-3 <= cost(how, proposals=proposals) <= 1.01


def test_without_a_value_of_the_end_a_short_plan_is_blind() -> None:
    assert cost(LQR, terminal=False) > 1.3


def test_more_iterations_come_nearer() -> None:
    once, often = (cost(Shooting(**{**vars(LQR), "iterations": n})) for n in (1, 6))
    assert often < once and often <= 1.005


# --- one turn, written out ---

WISH = np.array([[0.5, -0.2], [0.1, 0.9]])


def judge(actions: jax.Array) -> jax.Array:
    return -jnp.sum((actions - WISH) ** 2)


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_one_turn_is_its_equation(temperature: float) -> None:
    how = Shooting(horizon=2, samples=16, iterations=1, elites=5, temperature=temperature, deviation=0.7)
    mean, key = jnp.full((2, 2), 0.1), jax.random.key(3)
    others = jnp.asarray(WISH[None] * 0.9)
    found = shooting.plan(judge, mean, key, how, others)
    drawn = 0.1 + 0.7 * np.asarray(jax.random.normal(jax.random.split(key, 1)[0], (16, 2, 2)))
    drawn = np.clip(np.concatenate([drawn, others]), -1, 1)
    scores = -((drawn - WISH) ** 2).sum((1, 2))
    elite = np.argsort(-scores)[:5]
    assert elite[0] == 16  # the proposal is the best
    weight = np.exp(temperature * (scores[elite] - scores[elite].max()))
    expected = (weight[:, None, None] * drawn[elite]).sum(0) / weight.sum()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_sequences_that_lead_nowhere_finite_are_never_followed() -> None:
    def torn(actions: jax.Array) -> jax.Array:
        return jnp.where(actions[0, 0] > 0, jnp.nan, judge(actions))

    found = shooting.plan(torn, jnp.zeros((2, 2)), jax.random.key(0), Shooting(horizon=2, samples=64))
    assert np.isfinite(found).all() and found[0, 0] <= 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples must be at least 1"),
        ({"elites": 65}, "65 elites cannot be chosen from 64 samples"),
        ({"temperature": -1.0}, "temperature must be at least 0"),
        ({"least": 2.0}, "0 < least <= deviation"),
    ],
)
def test_searches_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(LegatoError, match=message):
        Shooting(**options)

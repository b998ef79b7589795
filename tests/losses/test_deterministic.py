"""TD3's losses against their equations, with critics and an actor that are no networks of the house."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.learners import noise, transitions
from tests.losses.test_soft import CRITIC, GAMMA, SPEC, TARGET

from legato.losses import deterministic


def actor(s: jax.Array, epsilon: Any = 0.0) -> jax.Array:
    return SPEC.denormalise(jnp.clip(jnp.tanh(s[..., :2]) + epsilon, -1, 1))


@pytest.mark.usefixtures("x64")
def test_critic_loss_is_its_equation() -> None:
    b, epsilon = transitions(0, SPEC, 16), deterministic.smoothing_noise(noise(0, 16, 2), 0.2, 0.3)
    np.testing.assert_allclose(epsilon, np.clip(0.2 * np.asarray(noise(0, 16, 2)), -0.3, 0.3))
    assert (np.abs(epsilon) == 0.3).any()
    loss, mean = deterministic.critic_loss(CRITIC, TARGET, actor, GAMMA, b, epsilon)
    a = actor(b.next_observation, epsilon)
    assert ((a >= jnp.asarray(SPEC.low)) & (a <= jnp.asarray(SPEC.high))).all()
    v = np.minimum(*map(np.asarray, TARGET(b.next_observation, a)))
    y = np.asarray(b.reward) + GAMMA * np.asarray(b.continues) * v
    q_1, q_2 = map(np.asarray, CRITIC(b.observation, b.action))
    assert loss == pytest.approx(((q_1 - y) ** 2).mean() + ((q_2 - y) ** 2).mean(), rel=1e-6)
    assert mean == pytest.approx(q_1.mean(), rel=1e-6)


def test_actor_loss_is_the_first_critics_alone() -> None:
    s = transitions(1, SPEC, 16).observation
    loss = deterministic.actor_loss(actor, CRITIC, s)
    assert float(loss) == pytest.approx(-float(CRITIC(s, actor(s))[0].mean()), rel=1e-6)


def test_in_units_of_the_values_their_size_has_no_say() -> None:
    """-mean Q / mean |Q|, of which the divisor sends no gradient: Q's own slope, divided."""
    q, mask = jnp.array([1.0, -3.0, 5.0, jnp.nan]), jnp.array([True, True, True, False])
    loss, gradient = jax.value_and_grad(deterministic.normalised_actor_loss)(q, mask)
    assert float(loss) == pytest.approx(-1 / 3, rel=1e-4)
    np.testing.assert_allclose(gradient, [-1 / 9, -1 / 9, -1 / 9, 0], rtol=1e-4)
    assert float(deterministic.normalised_actor_loss(100 * q, mask)) == pytest.approx(float(loss), rel=1e-4)

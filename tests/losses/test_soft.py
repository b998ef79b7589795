"""SAC's losses against their equations, with critics that are no networks of the house; and what sends no gradient."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from tests.learners import noise, transitions

from legato.data.spec import Spec
from legato.losses import soft
from legato.nn.distributions import TanhNormal

SPEC, GAMMA, ALPHA = Spec(3, (-0.2, -0.4), (0.8, 0.1)), 0.9, jnp.asarray(0.3)


class Quadratic(eqx.Module):
    """Q_i(s, a) = -|w_i s[:2] - a|^2."""

    w: jax.Array

    def __call__(self, s: jax.Array, a: jax.Array) -> tuple[jax.Array, jax.Array]:
        q_1, q_2 = (-jnp.sum((w * s[..., :2] - a) ** 2, axis=-1) for w in self.w)
        return q_1, q_2


class Affine(eqx.Module):
    """pi(s): a squashed Gaussian whose mean is w s[:2] and whose deviation is one number."""

    w: jax.Array
    log_std: jax.Array

    def __call__(self, s: jax.Array) -> TanhNormal:
        mean = self.w * s[..., :2]
        return TanhNormal(mean, jnp.broadcast_to(self.log_std, mean.shape), *SPEC.box())


CRITIC, TARGET = Quadratic(jnp.array([0.5, -0.3])), Quadratic(jnp.array([0.4, -0.2]))
ACTOR = Affine(jnp.asarray(0.7), jnp.asarray(-0.5))


@pytest.mark.usefixtures("x64")
def test_critic_loss_is_its_equation() -> None:
    b, eps = transitions(0, SPEC, 16), noise(0, 16, 2)
    loss, mean = jax.jit(soft.critic_loss, static_argnums=4)(CRITIC, TARGET, ACTOR, ALPHA, GAMMA, b, eps)
    a, log_pi = map(np.asarray, ACTOR(b.next_observation).sample(eps))
    v = np.minimum(*map(np.asarray, TARGET(b.next_observation, jnp.asarray(a)))) - 0.3 * log_pi
    y = np.asarray(b.reward) + GAMMA * np.asarray(b.continues) * v
    q_1, q_2 = map(np.asarray, CRITIC(b.observation, b.action))
    assert loss == pytest.approx(((q_1 - y) ** 2).mean() + ((q_2 - y) ** 2).mean(), rel=1e-6)
    assert mean == pytest.approx(q_1.mean(), rel=1e-6)


@pytest.mark.usefixtures("x64")
def test_actor_loss_is_its_equation_and_its_gradient_that_of_differences() -> None:
    s, eps = transitions(1, SPEC, 8).observation, noise(1, 8, 2)
    loss, mean = jax.jit(soft.actor_loss)(ACTOR, CRITIC, ALPHA, s, eps)
    a, log_pi = ACTOR(s).sample(eps)
    q = np.minimum(*map(np.asarray, CRITIC(s, a)))
    assert loss == pytest.approx((0.3 * np.asarray(log_pi) - q).mean(), rel=1e-6)
    assert mean == pytest.approx(float(log_pi.mean()))
    of = jax.jit(lambda x: soft.actor_loss(Affine(x[0], x[1]), CRITIC, ALPHA, s, eps)[0])
    check_grads(of, (jnp.asarray([0.7, -0.5]),), order=1, modes=["rev"])


def test_targets_send_no_gradient() -> None:
    b, eps = transitions(2, SPEC, 16), noise(2, 16, 2)

    def loss(others: Any) -> jax.Array:
        return soft.critic_loss(CRITIC, *others, GAMMA, b, eps)[0]

    gradient = jax.jit(jax.grad(loss))((TARGET, ACTOR, ALPHA))
    assert all(not leaf.any() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(("log_pi", "sign"), [(2.5, -1), (1.5, 1)])  # an entropy of -2.5 is too low, of -1.5 too high
def test_the_temperature_follows_the_slope_of_its_loss(log_pi: float, sign: int) -> None:
    """L_al = -log alpha * mean(log pi + H), with H = -2."""
    slope = jax.grad(lambda log_alpha: -log_alpha * (log_pi - 2))(0.1)
    found = soft.temperature_gradient(jnp.asarray(log_pi), -2)
    assert float(found) == float(slope)
    assert np.sign(found) == sign


def test_the_value_of_a_state_is_the_smaller_one_and_the_entropys_share() -> None:
    q = jnp.array([1.0, 5.0]), jnp.array([2.0, 4.0])
    found = soft.state_value(q, jnp.array([0.5, -1.0]), 0.2)
    np.testing.assert_allclose(found, [1 - 0.1, 4 + 0.2], rtol=1e-6)
    np.testing.assert_allclose(soft.action_cost(jnp.minimum(*q), jnp.array([0.5, -1.0]), 0.2), -found, rtol=1e-6)

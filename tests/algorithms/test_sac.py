"""SAC against the equations in its docstring, written out; and who learns from what."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.learners import check_gradients, close, differences, double, noise, nudged, same, size, transitions

from legato.algorithms.sac import sac
from legato.data.spec import Spec
from legato.nn.ensembles import TwinCritic
from legato.nn.optimisation import descend, polyak
from legato.policy import Step

SPEC = Spec(3, (-0.2, -0.4), (0.8, 0.1))
CONFIG = sac.Config(hidden=8, batch_size=16, gamma=0.9, tau=0.1, action_units="environment")  # as published
PARTS = ("actor", "critic", "target_critic", "log_alpha", "alpha")
init = jax.jit(sac.init, static_argnums=(0, 1))
update = jax.jit(sac.update, static_argnums=0)
critic_loss = jax.jit(sac.critic_loss, static_argnums=2)
drawn = jax.jit(lambda actor, s, eps: actor(s).sample(eps))
valued, follow, exp = jax.jit(TwinCritic.__call__), jax.jit(polyak), jax.jit(jnp.exp)


@pytest.fixture(scope="module")
def fresh() -> sac.Learner:
    return init(CONFIG, SPEC, jax.random.key(0))


@pytest.fixture(scope="module")
def warm(fresh: sac.Learner) -> sac.Learner:
    """After three updates: Adam's moments are set, the targets trail behind."""
    for i in range(3):
        fresh, _ = update(CONFIG, fresh, (transitions(i, SPEC, 16),), jax.random.key(i))
    return fresh


# --- sizes and beginnings ---


def test_parameter_counts() -> None:
    learner = jax.eval_shape(partial(sac.init, sac.Config(), Spec(11, (-1.0,) * 3, (1.0,) * 3)), jax.random.key(0))
    assert size(learner.critic) == size(learner.target_critic) == 139_778
    assert size(learner.actor) == (11 + 1) * 256 + (256 + 1) * 256 + 2 * (256 + 1) * 3
    assert size(sac.policy(sac.Config(), learner)) == size(learner.actor)


def test_targets_begin_as_copies(fresh: sac.Learner) -> None:
    assert same(fresh.critic, fresh.target_critic)


def test_alpha_is_a_fifth_once_and_learnt_from_one(fresh: sac.Learner) -> None:
    assert fresh.alpha == pytest.approx(0.2)
    learner, metrics = update(CONFIG, fresh, (transitions(0, SPEC, 16),), jax.random.key(0))
    assert metrics["alpha"] == pytest.approx(0.2)
    assert -2 < metrics["entropy"] < 0  # above -|A|
    assert learner.alpha == pytest.approx(0.9997, abs=1e-6)
    _, metrics = update(CONFIG, learner, (transitions(0, SPEC, 16),), jax.random.key(1))
    assert metrics["alpha"] == learner.alpha


def test_alpha_rises_where_the_entropy_is_below_its_target() -> None:
    """In a box this small an action's density, in the box's units, is high; the target is -|A|."""
    spec = Spec(3, (-0.05,) * 2, (0.05,) * 2)
    learner = init(CONFIG, spec, jax.random.key(0))
    learner, metrics = update(CONFIG, learner, (transitions(0, spec, 16),), jax.random.key(0))
    assert metrics["entropy"] < -2
    assert learner.alpha == pytest.approx(1.0003, abs=1e-6)


# --- the losses, written out ---


@pytest.mark.usefixtures("x64")
def test_critic_loss_is_its_equation(warm: sac.Learner) -> None:
    warm = double(warm)
    b, eps = transitions(9, SPEC, 16), noise(9, 16, 2)
    loss, mean_q = critic_loss(warm.critic, warm, CONFIG, b, eps)
    a, log_pi = drawn(warm.actor, b.next_observation, eps)
    q_next = np.minimum(*map(np.asarray, valued(warm.target_critic, b.next_observation, a)))
    y = np.asarray(b.reward) + np.asarray(b.continues) * 0.9 * (q_next - float(warm.alpha) * np.asarray(log_pi))
    q1, q2 = map(np.asarray, valued(warm.critic, b.observation, b.action))
    assert loss == pytest.approx(((q1 - y) ** 2).mean() + ((q2 - y) ** 2).mean(), rel=1e-9)
    assert mean_q == pytest.approx(q1.mean(), rel=1e-9)


@pytest.mark.parametrize(("continues", "reads"), [(0.0, False), (1.0, True)])
def test_only_termination_stops_bootstrapping(warm: sac.Learner, continues: float, reads: bool) -> None:
    """A truncated episode is stored with continues = 1: its target reads the next state like any other."""
    b, eps = transitions(9, SPEC, 16, continues), noise(9, 16, 2)
    elsewhere = replace(b, next_observation=jnp.asarray(np.asarray(b.next_observation) + 1))
    here, there = (critic_loss(warm.critic, warm, CONFIG, each, eps)[0] for each in (b, elsewhere))
    assert (here != there) == reads
    if not reads:
        q1, q2 = (np.asarray(q) - np.asarray(b.reward) for q in valued(warm.critic, b.observation, b.action))
        assert here == pytest.approx(float((q1**2).mean() + (q2**2).mean()), rel=1e-5)


@pytest.mark.usefixtures("x64")
def test_actor_loss_is_its_equation(warm: sac.Learner) -> None:
    warm = double(warm)
    s, eps = transitions(9, SPEC, 16).observation, noise(9, 16, 2)
    loss, mean = jax.jit(sac.actor_loss)(warm.actor, warm.critic, warm.alpha, s, eps)
    a, log_pi = drawn(warm.actor, s, eps)
    q = np.minimum(*map(np.asarray, valued(warm.critic, s, a)))
    assert loss == pytest.approx((float(warm.alpha) * np.asarray(log_pi) - q).mean(), rel=1e-9)
    assert mean == pytest.approx(np.asarray(log_pi).mean(), rel=1e-9)


@pytest.mark.usefixtures("x64")
def test_gradient_of_the_actor_loss(warm: sac.Learner) -> None:
    warm, s, eps = double((warm, transitions(9, SPEC, 5).observation, noise(9, 5, 2)))
    check_gradients(lambda actor: sac.actor_loss(actor, warm.critic, warm.alpha, s, eps)[0], (warm.actor,))


def test_targets_send_no_gradient(warm: sac.Learner) -> None:
    b, eps = transitions(9, SPEC, 16, continues=1.0), noise(9, 16, 2)

    def loss(actor: Any, target: Any) -> jax.Array:
        learner = eqx.tree_at(lambda w: (w.actor, w.target_critic), warm, (actor, target))
        return sac.critic_loss(warm.critic, learner, CONFIG, b, eps)[0]

    for leaf in jax.tree.leaves(jax.jit(jax.grad(loss, argnums=(0, 1)))(warm.actor, warm.target_critic)):
        np.testing.assert_array_equal(leaf, 0)


# --- the update ---


def test_critics_take_adams_steps_down_their_loss_alone(fresh: sac.Learner) -> None:
    """Two updates on terminal transitions, whose targets are the rewards: no noise enters, the chain can be redone."""
    learner, critic, adam = fresh, fresh.critic, optax.adam(CONFIG.learning_rate)
    state, down = adam.init(critic), jax.jit(partial(descend, adam))
    gradient = jax.jit(jax.grad(sac.critic_loss, has_aux=True), static_argnums=2)
    for i in range(2):
        b = transitions(20 + i, SPEC, 16, continues=0.0)
        learner, _ = update(CONFIG, learner, (b,), jax.random.key(i))
        critic, state = down(critic, gradient(critic, fresh, CONFIG, b, noise(i, 16, 2))[0], state)
    close(learner.critic, critic, 1e-6)
    assert not same(learner.critic, fresh.critic)


def test_targets_follow_the_new_critics(warm: sac.Learner) -> None:
    learner, _ = update(CONFIG, warm, (transitions(9, SPEC, 16),), jax.random.key(9))
    close(learner.target_critic, follow(warm.target_critic, learner.critic, CONFIG.tau), 1e-7)
    assert not same(learner.target_critic, warm.target_critic)


@pytest.mark.parametrize(
    ("cause", "effects"),
    [
        ("reward", {"critic", "target_critic", "actor"}),
        ("continues", {"critic", "target_critic", "actor"}),
        ("next_observation", {"critic", "target_critic", "actor"}),
        ("action", {"critic", "target_critic", "actor"}),
        ("observation", {"critic", "target_critic", "actor", "log_alpha"}),
        ("previous_action", set()),
        ("key", {"critic", "target_critic", "actor", "log_alpha"}),
        ("actor", {"critic", "target_critic", "actor", "log_alpha"}),
        ("critic", {"critic", "target_critic", "actor"}),
        ("target_critic", {"critic", "target_critic", "actor"}),
        ("alpha", {"critic", "target_critic", "actor"}),
        ("log_alpha", {"log_alpha"}),
    ],
)
def test_who_learns_from_what(warm: sac.Learner, cause: str, effects: set[str]) -> None:
    """Change one input of an update and see which of its results change, bit for bit."""
    b, key = transitions(9, SPEC, 16), jax.random.key(9)
    plain, _ = update(CONFIG, warm, (b,), key)
    if cause == "key":
        changed, _ = update(CONFIG, warm, (b,), jax.random.key(10))
    elif cause in PARTS:
        changed, _ = update(CONFIG, replace(warm, **{cause: nudged(getattr(warm, cause))}), (b,), key)
    else:
        changed, _ = update(CONFIG, warm, (replace(b, **{cause: nudged(getattr(b, cause))}),), key)
    assert differences(plain, changed, PARTS[:-1]) == effects
    assert changed.alpha == exp(changed.log_alpha)


def test_metrics_are_what_they_are_called(warm: sac.Learner) -> None:
    b = transitions(9, SPEC, 16, continues=0.0)
    _, metrics = update(CONFIG, warm, (b,), jax.random.key(9))
    loss, mean_q = critic_loss(warm.critic, warm, CONFIG, b, noise(0, 16, 2))
    assert metrics["critic_loss"] == pytest.approx(float(loss), rel=1e-5)
    assert metrics["q"] == pytest.approx(float(mean_q), rel=1e-5)
    assert metrics["alpha"] == warm.alpha


# --- the policy ---


def remembered(policy: sac.HeldAction, observation: jax.Array) -> Any:
    step = Step(observation, jnp.zeros(()), jnp.zeros(2), jnp.ones((), bool))
    return policy.observe(policy.init_state(()), step)


decide = jax.jit(lambda policy, *given: policy.decide(*given), static_argnums=3)


@pytest.mark.parametrize("key", [None, 3])
def test_one_action_is_held(warm: sac.Learner, key: int | None) -> None:
    policy = sac.policy(CONFIG, warm)
    memory = remembered(policy, noise(1, 3))
    actions, after = decide(policy, memory, None if key is None else jax.random.key(key), 8)
    assert actions.shape == (8, 2)
    np.testing.assert_array_equal(actions, np.repeat(actions[:1], 8, axis=0))
    assert same(memory, after)


def test_greedy_is_the_mode_at_every_length(warm: sac.Learner) -> None:
    policy = sac.policy(CONFIG, warm)
    memory = remembered(policy, noise(1, 3))
    mode = jax.jit(lambda actor, s: actor(s).mode())(warm.actor, noise(1, 3))
    for length in (1, 4, 8):
        actions, _ = decide(policy, memory, None, length)
        np.testing.assert_array_equal(actions[0], mode)


def test_exploration_follows_the_key_and_stays_in_the_box(warm: sac.Learner) -> None:
    policy = sac.policy(CONFIG, warm)
    memory = remembered(policy, noise(1, 3))
    explore = jax.jit(jax.vmap(lambda key: policy.decide(memory, key, 1)[0][0]))
    actions = np.asarray(explore(jax.random.split(jax.random.key(0), 500)))
    assert (actions >= np.array(SPEC.low)).all()
    assert (actions <= np.array(SPEC.high)).all()
    assert (np.std(actions, axis=0) > 0.1 * np.subtract(SPEC.high, SPEC.low)).all()
    eps = noise(5, 4000, 2)
    expected, _ = drawn(warm.actor, np.broadcast_to(noise(1, 3), (4000, 3)), eps)
    np.testing.assert_allclose(np.mean(actions, axis=0), np.mean(expected, axis=0), atol=0.05)


@pytest.mark.parametrize(("updates", "per_decision"), [("decision", True), ("step", False)])
def test_what_it_asks_of_the_training_loop(updates: Any, per_decision: bool) -> None:
    config = sac.Config(action_repeat=4, updates=updates, batch_size=32)
    asked = sac.batches(config)
    assert (asked.size, asked.lengths, asked.per_decision) == (32, (1,), per_decision)
    assert sac.plan_length(config) == 4

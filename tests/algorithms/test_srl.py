"""SRL against the equations in its docstring; who learns from what; and an environment where its model is exact."""

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
from jax.flatten_util import ravel_pytree
from tests.learners import (
    check_gradients,
    close,
    differences,
    double,
    model_loss,
    noise,
    nudged,
    same,
    size,
    transitions,
)

from legato.algorithms.srl import srl
from legato.data.replay import Transition
from legato.data.spec import Spec
from legato.errors import LegatoError
from legato.models import dynamics
from legato.models.dynamics import Dynamics
from legato.nn.ensembles import TwinCritic
from legato.nn.optimisation import descend, polyak
from legato.policy import Step

SPEC = Spec(3, (-0.2, -0.4), (0.8, 0.1))
PUBLISHED = {"action_units": "environment"}
GRU = srl.Config(horizon=3, hidden=8, model_hidden=(8, 6), batch_size=16, gamma=0.9, tau=0.1, **PUBLISHED)
RNN = replace(GRU, cell="rnn")
PARTS = ("actor", "critic", "target_critic", "model", "target_model", "log_alpha", "alpha")
init = jax.jit(srl.init, static_argnums=(0, 1))
update = jax.jit(srl.update, static_argnums=0)
greedy = jax.jit(srl.Actor.greedy, static_argnums=3)
sample = jax.jit(srl.Actor.sample)
valued = jax.jit(TwinCritic.__call__)
predicted = jax.jit(Dynamics.__call__)
actor_loss, follow = jax.jit(srl.actor_loss), jax.jit(polyak)
critic_loss, model_loss_of = jax.jit(srl.critic_loss, static_argnums=2), jax.jit(model_loss)
Batch = tuple[Transition, Transition]


def taught_by(learner: srl.Learner, config: srl.Config = GRU) -> srl.Teacher:
    return srl.Teacher(config, learner.critic, learner.target_model, learner.alpha, learner.termination_model)


def batch(seed: int, continues: float | None = None) -> Batch:
    return transitions(seed, SPEC, 16, continues), transitions(1000 + seed, SPEC, 16, continues)


@pytest.fixture(scope="module")
def fresh() -> srl.Learner:
    return init(GRU, SPEC, jax.random.key(0))


@pytest.fixture(scope="module")
def warm(fresh: srl.Learner) -> srl.Learner:
    """After three updates: Adam's moments are set, the targets trail behind."""
    for i in range(3):
        fresh, _ = update(GRU, fresh, batch(i), jax.random.key(i))
    return fresh


@pytest.fixture(scope="module", params=[GRU, RNN], ids=["gru", "rnn"])
def actor(request: pytest.FixtureRequest) -> srl.Actor:
    """Of either cell, with biases that are not zero."""
    actor = jax.jit(lambda key: srl.init(request.param, SPEC, key).actor)(jax.random.key(0))
    return nudged(actor)


# --- sizes and beginnings ---


def test_parameter_counts() -> None:
    """Those of the official classes, at 11 states and 3 actions."""
    spec = Spec(11, (-1.0,) * 3, (1.0,) * 3)
    learner = jax.eval_shape(partial(srl.init, srl.Config(), spec), jax.random.key(0))
    assert size(learner.actor) == 270_854
    assert size(learner.critic) == size(learner.target_critic) == 139_778
    assert size(learner.model) == size(learner.target_model) == 129_611
    assert size(srl.policy(srl.Config(), learner)) == 270_854
    rnn = jax.eval_shape(partial(srl.init, srl.Config(cell="rnn"), spec), jax.random.key(0))
    assert size(learner.actor) - size(rnn.actor) == 2 * 256 * (3 + 256 + 2)


def test_targets_begin_as_copies(fresh: srl.Learner) -> None:
    assert same(fresh.critic, fresh.target_critic)
    assert same(fresh.model, fresh.target_model)


def test_alpha_is_a_fifth_once_and_learnt_from_one(fresh: srl.Learner) -> None:
    """The entropy of an action is above -|A|, that of a plan below: alpha falls, for it is the action's that counts."""
    assert fresh.alpha == pytest.approx(0.2)
    learner, metrics = update(GRU, fresh, batch(0), jax.random.key(0))
    assert metrics["alpha"] == pytest.approx(0.2)
    assert -2 < metrics["entropy"] < -2 / 3
    assert learner.alpha == pytest.approx(0.9997, abs=1e-6)
    _, metrics = update(GRU, learner, batch(0), jax.random.key(1))
    assert metrics["alpha"] == learner.alpha


def test_alpha_rises_where_the_entropy_is_below_its_target() -> None:
    """In a box this small an action's density, in the box's units, is high; the target is -|A|, not -|A| J.

    With the other cell, all of whose weights take part.
    """
    spec = Spec(3, (-0.05,) * 2, (0.05,) * 2)
    b, before = transitions(0, spec, 16), init(RNN, spec, jax.random.key(0))
    after, metrics = update(RNN, before, (b, b), jax.random.key(0))
    assert -6 < metrics["entropy"] < -2
    assert after.alpha == pytest.approx(1.0003, abs=1e-6)
    moved = jax.tree.map(lambda new, old: np.abs(np.asarray(new) - old).max(), after.actor, before.actor)
    np.testing.assert_allclose(jax.tree.leaves(moved), RNN.learning_rate, rtol=1e-2)  # Adam's first step, every leaf


# --- the actor ---


@jax.jit
def begun(actor: srl.Actor, s: jax.Array) -> jax.Array:
    """What the cell begins with."""
    return actor.l2(jnp.maximum(actor.l1(s), 0))


@jax.jit
def turned(actor: srl.Actor, h: jax.Array, a: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The cell's next state, and the action's mean and logarithm of the deviation."""
    h = actor.cell(h, a)
    return h, actor.mean(h), actor.log_std(h)


def plan(actor: srl.Actor, s: np.ndarray, a_prev: np.ndarray, eps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One state's plan [J, act] and log-densities [J] by the equations of `Actor` and spec 2.1."""
    low, high = np.array(SPEC.low), np.array(SPEC.high)
    h = begun(actor, jnp.asarray(s))
    a, actions, log_pi = a_prev, [], []
    for eps_k in eps:
        h, mean, log_std = turned(actor, h, jnp.asarray(a))
        mean, std = np.asarray(mean), np.exp(np.clip(log_std, -20, 2))
        t = np.tanh(mean + std * eps_k)
        a = low + (high - low) * (t + 1) / 2
        normal = -0.5 * eps_k**2 - np.log(std * np.sqrt(2 * np.pi))
        actions.append(a)
        log_pi.append((normal - np.log((high - low) / 2 * (1 - t**2) + 1e-6)).sum())
    return np.array(actions), np.array(log_pi)


@pytest.mark.usefixtures("x64")
def test_a_plan_is_its_equations(actor: srl.Actor) -> None:
    actor = double(actor)
    s, a_prev, eps = noise(0, 4, 3), noise(1, 4, 2), noise(2, 5, 4, 2)
    actions, log_pi = map(np.asarray, sample(actor, s, a_prev, eps))
    modes = np.asarray(greedy(actor, s, a_prev, 5))
    s, a_prev, eps = map(np.asarray, (s, a_prev, eps))
    for i in range(4):
        expected = plan(actor, s[i], a_prev[i], eps[:, i])
        np.testing.assert_allclose(actions[:, i], expected[0], rtol=1e-9)
        np.testing.assert_allclose(log_pi[:, i], expected[1], rtol=1e-9)
        np.testing.assert_allclose(modes[:, i], plan(actor, s[i], a_prev[i], 0 * eps[:, i])[0], rtol=1e-9)


def test_a_longer_greedy_plan_begins_with_the_shorter(actor: srl.Actor) -> None:
    s, a_prev = noise(0, 4, 3), noise(1, 4, 2)
    long = greedy(actor, s, a_prev, 8)
    for length in (1, 4):
        np.testing.assert_allclose(long[:length], greedy(actor, s, a_prev, length), atol=1e-6)
    assert (np.abs(np.diff(long, axis=0)) > 1e-4).any(axis=(0, 2)).all()  # and is not one action held


def test_earlier_noise_reaches_later_actions_and_never_the_reverse(actor: srl.Actor) -> None:
    """Actions are fed back through the cell, undetached."""
    jacobian = jax.jit(jax.jacobian(lambda eps: sample(actor, noise(0, 3), noise(1, 2), eps)[0]))(noise(2, 4, 2))
    for k, j in np.ndindex(4, 4):
        assert (np.abs(jacobian[k, :, j]).max() > 1e-5) == (j <= k)


@pytest.mark.usefixtures("x64")
def test_gradients_of_a_plan(actor: srl.Actor) -> None:
    """By finite differences through every path: a detached feedback would show."""
    args = double((actor, noise(0, 2, 3), noise(1, 2, 2), noise(2, 3, 2, 2)))
    check_gradients(srl.Actor.sample, args)


# --- the losses, written out ---


@pytest.mark.usefixtures("x64")
def test_critic_loss_is_its_equation(warm: srl.Learner) -> None:
    """One-step TD; a' is the first action of a plan made in s' after a."""
    warm, b, eps = double(warm), transitions(9, SPEC, 16), noise(9, 1, 16, 2)
    loss, mean_q = critic_loss(warm.critic, warm, GRU, b, eps)
    a, log_pi = (np.asarray(x)[0] for x in sample(warm.actor, b.next_observation, b.action, eps))
    q_next = np.minimum(*map(np.asarray, valued(warm.target_critic, b.next_observation, jnp.asarray(a))))
    y = np.asarray(b.reward) + np.asarray(b.continues) * 0.9 * (q_next - float(warm.alpha) * log_pi)
    q1, q2 = map(np.asarray, valued(warm.critic, b.observation, b.action))
    assert loss == pytest.approx(((q1 - y) ** 2).mean() + ((q2 - y) ** 2).mean(), rel=1e-9)
    assert mean_q == pytest.approx(q1.mean(), rel=1e-9)


@pytest.mark.parametrize(("continues", "reads"), [(0.0, False), (1.0, True)])
def test_only_termination_stops_bootstrapping(warm: srl.Learner, continues: float, reads: bool) -> None:
    """A truncated episode is stored with continues = 1: its target reads the next state like any other."""
    b, eps = transitions(9, SPEC, 16, continues), noise(9, 1, 16, 2)
    elsewhere = replace(b, next_observation=jnp.asarray(np.asarray(b.next_observation) + 1))
    here, there = (critic_loss(warm.critic, warm, GRU, each, eps)[0] for each in (b, elsewhere))
    assert (here != there) == reads
    if not reads:
        q1, q2 = (np.asarray(q) - np.asarray(b.reward) for q in valued(warm.critic, b.observation, b.action))
        assert here == pytest.approx(float((q1**2).mean() + (q2**2).mean()), rel=1e-5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("horizon", [1, 4])
def test_actor_loss_is_its_equation(warm: srl.Learner, horizon: int) -> None:
    """Step by step and member by member; with J = 1 what is left is SAC's loss."""
    warm, b, eps = double(warm), transitions(9, SPEC, 16), noise(9, horizon, 16, 2)
    loss, recall = actor_loss(warm.actor, taught_by(warm), b, eps)
    a, log_pi = sample(warm.actor, b.observation, b.previous_action, eps)
    a, log_pi, states, first = map(np.asarray, (a, log_pi, recall.states, b.observation))
    total = 0.0
    for i in range(16):
        z = first[i]
        for k in range(horizon):
            q = min(float(q) for q in valued(warm.critic, z, a[k, i]))
            total += (float(warm.alpha) * float(log_pi[k, i]) - q) / 16
            np.testing.assert_allclose(states[k, i], z, rtol=1e-9)
            z = predicted(warm.target_model, z, a[k, i])
    assert loss == pytest.approx(total, rel=1e-9)
    np.testing.assert_allclose(recall.actions, a, rtol=1e-9)
    np.testing.assert_allclose(recall.log_pi, log_pi, rtol=1e-9)
    if horizon == 1:
        q = np.minimum(*map(np.asarray, valued(warm.critic, b.observation, jnp.asarray(a[0]))))
        assert loss == pytest.approx((float(warm.alpha) * log_pi[0] - q).mean(), rel=1e-9)


@pytest.mark.usefixtures("x64")
def test_gradient_of_the_actor_loss_holds_the_predicted_states_still(warm: srl.Learner) -> None:
    """Finite differences of the loss agree with its gradient exactly when the states are kept where they were."""
    warm, b, eps = double(warm), transitions(9, SPEC, 5), noise(9, 3, 5, 2)
    theta, build = ravel_pytree(warm.actor)
    fixed = (taught_by(replace(warm, alpha=jnp.asarray(0.1 * float(warm.alpha)))), b, eps)
    z = actor_loss(warm.actor, *fixed)[1].states

    @jax.jit
    def held(theta: jax.Array) -> jax.Array:
        a, log_pi = build(theta).sample(b.observation, b.previous_action, eps)
        return jnp.sum(jnp.mean(0.1 * warm.alpha * log_pi - jnp.minimum(*warm.critic(z, a)), axis=1))

    of = jax.jit(jax.value_and_grad(lambda theta: srl.actor_loss(build(theta), *fixed)[0]))
    (_, gradient), h, theta = of(theta), 1e-5, np.asarray(theta)
    for seed in range(4):
        v = np.asarray(noise(seed, theta.size))
        ends = theta + h * v, theta - h * v
        slope, moving = ((f(ends[0]) - f(ends[1])) / (2 * h) for f in (held, lambda at: of(at)[0]))
        assert np.asarray(gradient) @ v == pytest.approx(float(slope), rel=1e-6)
        assert abs(moving - slope) > 1e-3 * abs(slope)  # the states would have mattered


@pytest.mark.usefixtures("x64")
def test_gradient_through_time(warm: srl.Learner) -> None:
    """By finite differences: of the last step's value, through the model to all actions before; the model stays."""
    warm, b, eps = double((warm, transitions(9, SPEC, 5), noise(9, 3, 5, 2)))

    def loss(actor: Any, model: Any) -> jax.Array:
        return srl.actor_loss_through_time(actor, taught_by(replace(warm, target_model=model)), b, eps)[0]

    found, _ = check_gradients(lambda actor: loss(actor, warm.target_model), (warm.actor,))
    for leaf in jax.tree.leaves(jax.jit(jax.grad(loss, argnums=1))(warm.actor, warm.target_model)):
        np.testing.assert_array_equal(leaf, 0)
    z, a, log_pi = (np.asarray(x)[-1] for x in actor_loss(warm.actor, taught_by(warm), b, eps)[1])
    q = np.minimum(*map(np.asarray, valued(warm.critic, z, a)))
    assert found == pytest.approx((float(warm.alpha) * log_pi - q).mean(), rel=1e-9)


def test_the_end_alone_teaches_all_actions_through_time(warm: srl.Learner) -> None:
    """d L / d a_k, with the actions as free variables, is there for every k, where recall has none of other steps."""
    s, actions = noise(0, 3), noise(1, 3, 2)

    def q(actions: jax.Array) -> jax.Array:
        z = dynamics.unroll(warm.target_model, s, actions, through=True)
        return jnp.minimum(*warm.critic(z[-1], actions[-1]))

    slope = jax.jit(jax.grad(q))(actions)
    assert (np.abs(slope).max(axis=1) > 1e-6).all()


def test_an_actor_may_be_taught_through_time(warm: srl.Learner) -> None:
    config = replace(GRU, teaching="through_time")
    one, other = (update(how, warm, batch(9), jax.random.key(9))[0] for how in (GRU, config))
    assert not same(one.actor, other.actor)
    assert same((one.critic, one.model), (other.critic, other.model))


# --- what reaches what ---


def test_value_reaches_an_action_through_its_own_state_only(warm: srl.Learner) -> None:
    """dQ(z_k, a_k) / da_j with the actions as free variables: zero for j < k, because z_k is held still."""
    s, actions = noise(0, 3), noise(1, 3, 2)

    def q(actions: jax.Array) -> jax.Array:
        return jnp.minimum(*warm.critic(dynamics.unroll(warm.target_model, s, actions), actions))

    jacobian = jax.jit(jax.jacobian(q))(actions)
    for k, j in np.ndindex(3, 3):
        assert (np.abs(jacobian[k, j]).max() > 1e-4) == (j == k)


def test_value_reaches_earlier_noise_through_the_cell(warm: srl.Learner) -> None:
    """The same with actions that the actor wrote: Q(z_k, a_k) shapes a_j because the cell read it."""
    b = transitions(9, SPEC, 16)

    def q(eps: jax.Array) -> jax.Array:
        recall = srl.actor_loss(warm.actor, taught_by(warm), b, eps)[1]
        return jnp.minimum(*warm.critic(recall.states, recall.actions)).sum(axis=1)

    jacobian = np.abs(jax.jit(jax.jacobian(q))(noise(1, 3, 16, 2))).max(axis=(2, 3))
    np.testing.assert_array_equal(jacobian > 1e-5, np.tril(np.ones((3, 3), bool)))


def test_the_model_moves_predicted_states_only(warm: srl.Learner) -> None:
    b, eps = transitions(9, SPEC, 16), noise(9, 3, 16, 2)
    zero = jax.tree.map(jnp.zeros_like, warm.target_model)
    teachers = taught_by(warm), taught_by(replace(warm, target_model=zero))
    with_model, without = (actor_loss(warm.actor, teacher, b, eps)[1] for teacher in teachers)
    np.testing.assert_array_equal(with_model.states[0], b.observation)
    np.testing.assert_array_equal(without.states[0], b.observation)
    np.testing.assert_array_equal(np.asarray(without.states)[1:], 0)
    assert (np.abs(np.asarray(with_model.states)[1:]) > 1e-3).all(axis=-1).any()
    assert same((with_model.actions, with_model.log_pi), (without.actions, without.log_pi))


def test_the_actor_loss_sends_no_gradient_to_the_model(warm: srl.Learner) -> None:
    b, eps = transitions(9, SPEC, 16), noise(9, 3, 16, 2)
    gradient = jax.jit(jax.grad(srl.actor_loss, argnums=1, has_aux=True))
    for leaf in jax.tree.leaves(gradient(warm.actor, taught_by(warm), b, eps)[0].model):
        np.testing.assert_array_equal(leaf, 0)


def test_targets_send_no_gradient(warm: srl.Learner) -> None:
    b, eps = transitions(9, SPEC, 16, continues=1.0), noise(9, 1, 16, 2)

    def loss(actor: Any, target: Any) -> jax.Array:
        learner = eqx.tree_at(lambda w: (w.actor, w.target_critic), warm, (actor, target))
        return srl.critic_loss(warm.critic, learner, GRU, b, eps)[0]

    for leaf in jax.tree.leaves(jax.jit(jax.grad(loss, argnums=(0, 1)))(warm.actor, warm.target_critic)):
        np.testing.assert_array_equal(leaf, 0)


# --- the update ---


def test_critics_and_model_take_adams_steps_down_their_own_losses(fresh: srl.Learner) -> None:
    """Two updates on terminal transitions, whose targets are the rewards: no noise enters, the chain can be redone.

    The actor is updated in between; were its loss to leak into critics or model, they would end elsewhere.
    """
    adam = optax.adam(GRU.learning_rate)
    learner, critic, model = fresh, fresh.critic, fresh.model
    of_critic, of_model = adam.init(critic), adam.init(model)
    down = jax.jit(partial(descend, adam))
    slope_q = jax.jit(jax.grad(srl.critic_loss, has_aux=True), static_argnums=2)
    slope_m = jax.jit(jax.grad(model_loss))
    for i in range(2):
        b_q, b_m = batch(20 + i, continues=0.0)
        learner, _ = update(GRU, learner, (b_q, b_m), jax.random.key(i))
        critic, of_critic = down(critic, slope_q(critic, fresh, GRU, b_q, noise(i, 1, 16, 2))[0], of_critic)
        g = slope_m(model, b_m.observation, b_m.action, b_m.next_observation)
        model, of_model = down(model, g, of_model)
    close((learner.critic, learner.model), (critic, model), 1e-6)
    assert differences(learner, fresh, PARTS) == set(PARTS)


def test_targets_follow_the_new_critics_and_model(warm: srl.Learner) -> None:
    learner, _ = update(GRU, warm, batch(9), jax.random.key(9))
    close(learner.target_critic, follow(warm.target_critic, learner.critic, GRU.tau), 1e-7)
    close(learner.target_model, follow(warm.target_model, learner.model, GRU.tau), 1e-7)


def test_a_model_of_differences_measures_them_as_it_learns() -> None:
    """The unit is of the batches that the model saw, the target model's follows, and predictions keep their units."""
    config = replace(GRU, model_target="difference")
    learner = jax.jit(srl.init, static_argnums=(0, 1))(config, SPEC, jax.random.key(0))
    b = batch(9)
    after, metrics = update(config, learner, b, jax.random.key(9))
    change = np.asarray(b[1].next_observation) - np.asarray(b[1].observation)
    np.testing.assert_allclose(after.model.mean_square_delta, (change**2).mean(0), rtol=1e-5)
    old, new = (np.asarray(of.mean_square_delta) for of in (learner.target_model, after.model))
    np.testing.assert_allclose(after.target_model.mean_square_delta, old + GRU.tau * (new - old), rtol=1e-5)
    before = eqx.tree_at(lambda model: model.mean_square_delta, learner.model, after.model.mean_square_delta)
    expected = model_loss_of(before, b[1].observation, b[1].action, b[1].next_observation)
    assert metrics["model_loss"] == pytest.approx(float(expected), rel=1e-5)


def test_fewer_actions_may_be_executed_while_collecting() -> None:
    assert (srl.plan_length(GRU), srl.collect_interval(GRU)) == (GRU.horizon, GRU.horizon)
    assert (
        srl.collect_interval(replace(GRU, execute=2)) == 2 and srl.plan_length(replace(GRU, execute=2)) == GRU.horizon
    )
    with pytest.raises(LegatoError, match="execute must be at most the horizon"):
        replace(GRU, execute=GRU.horizon + 1)


exp = jax.jit(jnp.exp)
CRITICS = {"critic", "target_critic"}
MODELS = {"model", "target_model"}


@pytest.mark.parametrize(
    ("cause", "effects"),
    [
        # the first minibatch teaches the critics, and the actor through them
        ("0.reward", CRITICS | {"actor"}),
        ("0.continues", CRITICS | {"actor"}),
        ("0.observation", CRITICS | {"actor"}),
        ("0.action", CRITICS | {"actor"}),
        ("0.next_observation", CRITICS | {"actor"}),
        ("0.previous_action", set()),
        # the second teaches the model and the actor
        ("1.reward", set()),
        ("1.continues", set()),
        ("1.observation", MODELS | {"actor", "log_alpha"}),
        ("1.action", MODELS),
        ("1.next_observation", MODELS),
        ("1.previous_action", {"actor", "log_alpha"}),
        ("key", CRITICS | {"actor", "log_alpha"}),
        ("actor", CRITICS | {"actor", "log_alpha"}),
        ("critic", CRITICS | {"actor"}),
        ("target_critic", CRITICS | {"actor"}),
        ("model", MODELS),
        ("target_model", {"target_model", "actor"}),
        ("alpha", CRITICS | {"actor"}),
        ("log_alpha", {"log_alpha"}),
    ],
)
def test_who_learns_from_what(warm: srl.Learner, cause: str, effects: set[str]) -> None:
    """Change one input of an update and see which of its results change, bit for bit."""
    b, key = batch(9), jax.random.key(9)
    plain, _ = update(GRU, warm, b, key)
    if cause == "key":
        changed, _ = update(GRU, warm, b, jax.random.key(10))
    elif cause in PARTS:
        changed, _ = update(GRU, replace(warm, **{cause: nudged(getattr(warm, cause))}), b, key)
    else:
        which, name = int(cause[0]), cause[2:]
        other = list(b)
        other[which] = replace(b[which], **{name: nudged(getattr(b[which], name))})
        changed, _ = update(GRU, warm, (other[0], other[1]), key)
    assert differences(plain, changed, PARTS[:-1]) == effects
    assert changed.alpha == exp(changed.log_alpha)


def test_actor_every_three_leaves_it_alone_in_between(warm: srl.Learner) -> None:
    config = replace(GRU, actor_every=3)
    changed, learner = [], replace(warm, updates=jnp.zeros_like(warm.updates))
    for i in range(7):
        before = learner
        learner, _ = update(config, before, batch(i), jax.random.key(i))
        changed.append(differences(before, learner, PARTS))
        if i % 3:
            assert same(before.optimisers["actor"], learner.optimisers["actor"])
    others = CRITICS | MODELS
    assert changed == [set(PARTS), others, others, set(PARTS), others, others, set(PARTS)]


def test_actor_every_one_and_three_agree_when_both_are_due(warm: srl.Learner) -> None:
    both = (update(replace(GRU, actor_every=n), warm, batch(9), jax.random.key(9))[0] for n in (1, 3))
    close(*both, 1e-6)
    assert int(warm.updates) == 3


def test_metrics_are_what_they_are_called(warm: srl.Learner) -> None:
    b_q, b_m = batch(9, continues=0.0)
    _, metrics = update(GRU, warm, (b_q, b_m), jax.random.key(9))
    loss, mean_q = critic_loss(warm.critic, warm, GRU, b_q, noise(0, 1, 16, 2))
    of_model = model_loss_of(warm.model, b_m.observation, b_m.action, b_m.next_observation)
    expected = {"critic_loss": loss, "q": mean_q, "model_loss": of_model, "alpha": warm.alpha}
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(float(value), rel=1e-5)


# --- the policy ---


def remembered(policy: srl.ActionSequence, observation: jax.Array, executed: jax.Array) -> Any:
    step = Step(observation, jnp.zeros(()), executed, jnp.zeros((), bool))
    return policy.observe(policy.init_state(()), step)


def test_a_decision_continues_from_the_executed_action(warm: srl.Learner) -> None:
    policy = srl.policy(GRU, warm)
    s, a_prev = noise(1, 3), noise(2, 2)
    memory = remembered(policy, s, a_prev)
    actions, after = jax.jit(lambda memory: policy.decide(memory, None, 4))(memory)
    np.testing.assert_allclose(actions, greedy(warm.actor, s, a_prev, 4), atol=1e-6)
    assert not np.allclose(actions, greedy(warm.actor, s, jnp.zeros(2), 4), atol=1e-3)
    assert same(memory, after)


def test_memory_begins_with_no_action_executed(warm: srl.Learner) -> None:
    assert same(srl.policy(GRU, warm).init_state(()), remembered(srl.policy(GRU, warm), jnp.zeros(3), jnp.zeros(2)))


def test_exploration_draws_every_action_from_the_plans_distribution(warm: srl.Learner) -> None:
    policy = srl.policy(GRU, warm)
    s, a_prev, n = noise(1, 3), noise(2, 2), 4000
    memory = remembered(policy, s, a_prev)
    decide = jax.jit(jax.vmap(lambda key: policy.decide(memory, key, 3)[0]))
    explored = np.asarray(decide(jax.random.split(jax.random.key(0), n)))  # [n, 3, 2]
    expected, _ = sample(warm.actor, np.broadcast_to(s, (n, 3)), np.broadcast_to(a_prev, (n, 2)), noise(3, 3, n, 2))
    expected = np.asarray(expected).swapaxes(0, 1)
    error = 5 * np.sqrt(2 / n) * expected.std(axis=0)
    assert (np.abs(explored.mean(axis=0) - expected.mean(axis=0)) < error).all()
    np.testing.assert_allclose(explored.std(axis=0), expected.std(axis=0), rtol=0.1)
    steps = np.corrcoef(explored[:, :, 0].T)  # each drawn anew, not one draw for the whole plan
    assert (np.abs(steps[np.triu_indices(3, 1)]) < 0.5).all()


def test_what_it_asks_of_the_training_loop() -> None:
    config = srl.Config(horizon=6, batch_size=32)
    asked = srl.batches(config)
    assert (asked.size, asked.lengths, asked.per_decision) == (32, (1, 1), False)
    assert srl.plan_length(config) == 6


# --- a linear environment whose model is exact (spec 7.9) ---

A = np.array([[1.0, 0.5], [0.0, 1.0]])  # a mass on a line: position and speed
B = np.array([[0.0], [0.5]])
COST, EFFORT, GAMMA, J = np.diag([1.0, 0.1]), 0.2, 0.9, 4
BOX = Spec(2, (-3.0,), (3.0,))


class Linear(Dynamics):
    """s' = A s + B a."""

    a: jax.Array
    b: jax.Array

    def __init__(self, a: np.ndarray, b: np.ndarray):
        super().__init__(2, 1, (1,), key=jax.random.key(0))  # unused
        self.a, self.b = jnp.asarray(a), jnp.asarray(b)

    def __call__(self, s: jax.Array, a: jax.Array) -> jax.Array:
        return s @ self.a.T + a @ self.b.T


def riccati() -> tuple[np.ndarray, np.ndarray]:
    """(P, K): the best controller's cost-to-go s'Ps and its gain, a = -K s, for the discounted cost."""
    p = COST
    for _ in range(500):
        gain = GAMMA * B.T @ p @ A / (EFFORT + GAMMA * B.T @ p @ B)
        p = COST + GAMMA * A.T @ p @ A - GAMMA * A.T @ p @ B @ gain
    return p, gain


VALUE, GAIN = riccati()


def cost(s: jax.Array, a: jax.Array) -> jax.Array:
    return ((s @ jnp.asarray(COST)) * s).sum(-1) + EFFORT * (a**2).sum(-1)


class Quadratic(TwinCritic):
    """The value of any action when the best controller acts ever after: -(cost + gamma s'Ps of the next state)."""

    def __init__(self):
        super().__init__(2, 1, (1,), key=jax.random.key(0))  # unused

    def __call__(self, s: jax.Array, a: jax.Array) -> tuple[jax.Array, jax.Array]:
        s_next = Linear(A, B)(s, a)
        q = -cost(s, a) - GAMMA * ((s_next @ jnp.asarray(VALUE)) * s_next).sum(-1)
        return q, q


def trained_actor(model: Linear, updates: int = 500) -> srl.Actor:
    """An actor that only ever saw L_pi, with the exact critic."""
    config = srl.Config(horizon=J, hidden=32, **PUBLISHED)
    actor, critic = srl.init(config, BOX, jax.random.key(0)).actor, Quadratic()
    adam = optax.adam(optax.cosine_decay_schedule(1e-2, updates))

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        actor, state = carry
        k_s, k_a, k_noise = jax.random.split(key, 3)
        s, a = jax.random.normal(k_s, (64, 2)), jax.random.uniform(k_a, (64, 1), minval=-3, maxval=3)
        b = Transition(s, a, a, jnp.zeros(64), s, jnp.ones(64))
        eps = jax.random.normal(k_noise, (J, 64, 1))
        g, _ = jax.grad(srl.actor_loss, has_aux=True)(actor, srl.Teacher(GRU, critic, model, jnp.array(1e-3)), b, eps)
        return descend(adam, actor, g, state), None

    keys = jax.random.split(jax.random.key(1), updates)
    return jax.lax.scan(step, (actor, adam.init(actor)), keys)[0][0]


def returns(actor: srl.Actor | None, every: int, hold: bool = False) -> jax.Array:
    """Mean return over 12 steps from 64 states of the true system, a plan of `every` steps at a time.

    Without an actor, that of the controller whose value `Quadratic` is.
    """

    def decide(s: jax.Array, a: jax.Array) -> jax.Array:
        if actor is None:
            return -s[None] @ jnp.asarray(GAIN).T
        policy = srl.ActionSequence(actor, BOX)
        return policy.decide(remembered(policy, s, a), None, every)[0]

    def decision(carry: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        (s, a), total = carry, jnp.zeros(64)
        written = jax.vmap(decide)(s, a)
        for k in range(every):
            a = written[:, 0 if hold else k]
            total -= cost(s, a)
            s = Linear(A, B)(s, a)
        return (s, a), total

    start = (0.8 * noise(3, 64, 2), jnp.zeros((64, 1)))
    return jax.lax.scan(decision, start, None, 12 // every)[1].sum(axis=0).mean()


def test_with_an_exact_model_rare_decisions_cost_nothing() -> None:
    """A plan of four made blindly earns what deciding at every step earns, which is what the best controller earns.

    Not so when the model was wrong (it ignored the action), nor when the first action is held.
    """
    a, b = jnp.asarray(np.stack([A, A])), jnp.asarray(np.stack([B, 0 * B]))
    actors = jax.jit(jax.vmap(lambda a, b: trained_actor(Linear(a, b))))(a, b)
    exact, wrong = (jax.tree.map(lambda leaf, i=i: leaf[i], actors) for i in (0, 1))
    score = jax.jit(lambda actor: [returns(actor, 1), returns(actor, J), returns(actor, J, hold=True)])
    best = float(jax.jit(lambda: returns(None, 1))())
    often, rarely, held = map(float, score(exact))
    assert often == pytest.approx(best, rel=0.03)
    assert rarely == pytest.approx(often, rel=0.01)
    assert held < 3 * best
    often, rarely, _ = map(float, score(wrong))
    assert often == pytest.approx(best, rel=0.03)  # the first action needs no model
    assert rarely < 3 * best

"""Behaviour cloning: the loss and its gradient by hand, the best episodes, choices."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax
from tests.data.test_trajectories import raw
from tests.learners import acted, check_gradients, double, episode_of, facts_of, same, size, windows_of

from legato.algorithms.bc import bc
from legato.data import trajectories as logs
from legato.data.spec import Spec
from legato.data.trajectories import About, trajectories
from legato.data.windows import BatchSpec
from legato.errors import LegatoError

SPEC, CHOICE = Spec(3, (-0.2, -0.4), (0.8, 0.1)), Spec.discrete(3, 4)
CONFIG = bc.Config(hidden=8, layers=2, dropout=0.0, learning_rate=1e-2, weight_decay=0.5, warmup=2, clip=0.05)

init = jax.jit(bc.init, static_argnums=(0, 1))
update = jax.jit(bc.update, static_argnums=0)
loss = jax.jit(bc.loss)


@cache
def made(config: bc.Config = CONFIG, spec: Spec = SPEC, seed: int = 0) -> bc.Learner:
    return init(config, spec, jax.random.key(seed), facts_of(spec))


def by_hand(network: bc.Network, x: np.ndarray) -> np.ndarray:
    x = (np.asarray(x, np.float64) - facts_of(SPEC).normaliser.mean) / facts_of(SPEC).normaliser.deviation
    for layer in network.layers[:-1]:
        x = np.maximum(x @ np.asarray(layer.weight, np.float64) + layer.bias, 0)
    return x @ np.asarray(network.layers[-1].weight, np.float64) + network.layers[-1].bias


def test_loss_is_the_mean_square_in_units_of_the_bounds() -> None:
    learner, batch = made(), windows_of(0, SPEC, [1, 0, 1, 1], 1)
    unit = 2 * (np.asarray(batch.actions) - SPEC.low) / np.subtract(SPEC.high, SPEC.low) - 1
    error = ((np.tanh(by_hand(learner.network, batch.observations)) - unit) ** 2).mean(axis=-1)
    assert loss(learner.network, learner.statistics, batch) == pytest.approx(error[[0, 2, 3]].mean(), rel=1e-5)
    elsewhere = replace(batch, returns_to_go=batch.returns_to_go + 1, timesteps=batch.timesteps + 1)
    assert loss(learner.network, learner.statistics, elsewhere) == loss(learner.network, learner.statistics, batch)


def test_loss_of_choices_is_the_cross_entropy() -> None:
    learner, batch = made(spec=CHOICE), windows_of(0, CHOICE, [1, 0, 1, 1], 1)
    logits = log_softmax(by_hand(learner.network, batch.observations), axis=-1)
    error = [-logits[i, 0, int(batch.actions[i, 0])] for i in (0, 2, 3)]
    assert loss(learner.network, learner.statistics, batch) == pytest.approx(np.mean(error), rel=1e-5)


@pytest.mark.usefixtures("x64")
def test_gradient_of_the_loss() -> None:
    learner, batch = double((made(), windows_of(0, SPEC, [1, 0, 1, 1], 1)))
    check_gradients(lambda network: bc.loss(network, learner.statistics, batch), (learner.network,))
    of_facts = jax.jit(jax.grad(lambda statistics: bc.loss(learner.network, statistics, batch)))
    to_facts = of_facts(learner.statistics)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(to_facts))  # statistics are not learnt


def test_an_update_is_a_step_of_adamw() -> None:
    """The second of two updates of a warm-up, the gradient cut to its largest norm, decay of every parameter."""
    learner, flat = made(), lambda tree: np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]).astype(float)
    before, slope = jax.tree.map(np.array, learner), jax.jit(jax.grad(bc.loss))
    moments: list[Any] = [0.0, 0.0]
    for i in range(2):
        batch = windows_of(i, SPEC, [1] * 8, 1)
        gradient = flat(slope(learner.network, learner.statistics, batch))
        after, metrics = update(CONFIG, learner, batch, jax.random.key(i))
        norm = np.linalg.norm(gradient)
        assert norm > 0.05
        assert metrics["gradient_norm"] == pytest.approx(norm, rel=1e-5)
        assert metrics["loss"] == pytest.approx(float(loss(learner.network, learner.statistics, batch)), rel=1e-6)
        gradient *= 0.05 / norm
        moments = [0.9 * moments[0] + 0.1 * gradient, 0.999 * moments[1] + 0.001 * gradient**2]
        mean, variance = moments[0] / (1 - 0.9 ** (i + 1)), moments[1] / (1 - 0.999 ** (i + 1))
        old = flat(learner.network)
        expected = old - 1e-2 * (i + 1) / 2 * (mean / (np.sqrt(variance) + 1e-8) + 0.5 * old)
        np.testing.assert_allclose(flat(after.network), expected, rtol=0, atol=2e-6)
        assert same(after.statistics, learner.statistics)
        assert after.updates == i + 1
        learner = after
    assert same(before, made())


def test_dropout_is_on_in_training_alone() -> None:
    config, batch = replace(CONFIG, dropout=0.5), windows_of(0, SPEC, [1] * 8, 1)
    learner = made(config)
    dry = loss(learner.network, learner.statistics, batch)
    wet = [float(loss(learner.network, learner.statistics, batch, jax.random.key(i))) for i in range(2)]
    assert len({float(dry), *wet}) == 3
    keys = jax.random.split(jax.random.key(0), 4000)
    x = jnp.ones((1, 3))
    network = learner.network
    draws = jax.jit(jax.vmap(lambda key: bc.Network.__call__(replace_last(network), x, key)))(keys)
    plain = jax.jit(bc.Network.__call__)(replace_last(network), x)
    np.testing.assert_allclose(np.mean(draws, axis=0), plain, atol=0.1)  # unbiased behind one layer


def replace_last(network: bc.Network) -> Any:
    """The same without the second hidden layer."""
    return eqx.tree_at(lambda n: n.layers, network, (network.layers[0], network.layers[-1]))


def test_parameter_counts() -> None:
    learner = jax.eval_shape(partial(bc.init, bc.Config(), Spec(11, (-1.0,) * 3, (1.0,) * 3)), jax.random.key(0))
    assert size(learner.network) == (11 + 1) * 256 + 2 * (256 + 1) * 256 + (256 + 1) * 3


# --- the policy ---


def test_the_policy_is_the_network_at_the_newest_observation() -> None:
    learner, episode = made(), episode_of(0, SPEC, 5)
    low, high = np.array(SPEC.low), np.array(SPEC.high)
    expected = low + (np.tanh(by_hand(learner.network, episode.observation)) + 1) / 2 * (high - low)
    policy = bc.policy(CONFIG, learner)
    np.testing.assert_allclose(acted(policy, episode, ()), expected, rtol=0, atol=2e-6)
    with pytest.raises(LegatoError, match="reads no target return"):
        policy.init_state(7.0)
    state = policy.observe(policy.init_state(()), jax.tree.map(lambda leaf: np.asarray(leaf)[1], episode))
    (one, _), (eight, _) = jax.jit(lambda state: [policy.decide(state, None, n) for n in (1, 8)])(state)
    np.testing.assert_array_equal(eight, np.repeat(one, 8, axis=0))


def test_a_choice_is_the_likeliest_or_drawn() -> None:
    learner, episode = made(spec=CHOICE), episode_of(0, CHOICE, 6)
    logits = by_hand(learner.network, episode.observation)
    policy = bc.policy(CONFIG, learner)
    np.testing.assert_array_equal(acted(policy, episode, ())[:, 0], logits.argmax(axis=1))
    state = policy.observe(policy.init_state(()), jax.tree.map(lambda leaf: jnp.asarray(leaf[1]), episode))
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = jax.jit(jax.vmap(lambda key: policy.decide(state, key, 1)[0][0, 0]))(keys)
    shares = np.bincount(np.asarray(drawn).astype(int), minlength=4) / 4000
    np.testing.assert_allclose(shares, np.exp(log_softmax(logits[1])), atol=0.03)


# --- data ---


def test_of_the_best_episodes_or_of_all() -> None:
    """10 + 20 + 30 + 40 steps; the 50 best are those of episodes 1 and 2: 3 no longer fits."""
    given = raw([10, 20, 30, 40])
    given["rewards"] = np.repeat([1.0, 3.0, 1.0, 0.5], [10, 20, 30, 40])  # returns 10, 60, 30, 20
    data = trajectories(**given, about=About("logs"))
    assert bc.select_data(bc.Config(), data) is data
    best = bc.select_data(bc.Config(fraction=0.5), data)
    np.testing.assert_array_equal(logs.returns(best), [60, 30])
    np.testing.assert_array_equal(best.observations, data.observations[10:60])
    np.testing.assert_array_equal(logs.returns(bc.select_data(bc.Config(fraction=0.001), data)), [60])  # one at least
    without = replace(data, rewards=None)
    assert bc.select_data(bc.Config(), without) is without
    with pytest.raises(LegatoError, match=r"^logs has no rewards"):
        bc.select_data(bc.Config(fraction=0.5), without)


def test_single_steps_are_asked_for() -> None:
    assert bc.batches(bc.Config(batch_size=7)) == BatchSpec(7, 1)
    assert bc.plan_length(bc.Config()) == 1

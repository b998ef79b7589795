"""Implicit Q-learning: its losses by hand, its targets at every kind of end, and parts of ways put together."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax
from tests.learners import acted, close, differences, episode_of, facts_of, same, size

import legato
from legato.algorithms.iql import iql
from legato.data.spec import Spec
from legato.data.trajectories import About, Trajectories, trajectories
from legato.data.transitions import LoggedTransition, transitions
from legato.data.windows import BatchSpec
from legato.models.q_functions import min_q, state_value
from legato.nn.mlp import MLP
from legato.nn.optimisation import descend, polyak
from legato.training import offline
from legato.training.checkpoint import Checkpoints
from legato.training.policy_file import fill
from legato.training.run import Run
from legato.training.settings import OfflineSettings, preset

SPEC, CHOICE = Spec(3, (-0.2, -0.4), (0.8, 0.1)), Spec.discrete(3, 4)
CONFIG = iql.Config(hidden=8, batch_size=16, gamma=0.9, tau=0.1, anneal_over=0, reward_shift=-0.5, beta=2.0)
PARTS = ("actor", "critic", "target_critic", "value")

init = jax.jit(iql.init, static_argnums=(0, 1))
update = jax.jit(iql.update, static_argnums=0)
asymmetric, weighed = (jax.jit(of, static_argnums=1) for of in (iql.asymmetric, iql.weights))
valued, judge, targets = jax.jit(state_value), jax.jit(min_q), jax.jit(iql.targets, static_argnums=0)
step_sizes = jax.jit(iql.step_sizes, static_argnums=0)


def outcomes(seed: int, spec: Spec = SPEC, count: int = 16) -> LoggedTransition:
    """Random ones, half of which end their episode."""
    rng = np.random.default_rng(seed)
    s, following = rng.normal(size=(2, count, spec.observation_size)).astype(np.float32)
    a = rng.uniform(spec.low, spec.high, (count, spec.action_size)).astype(np.float32)
    if spec.choices is not None:
        a = rng.integers(0, spec.choices, count).astype(np.int32)
    ends = rng.integers(0, 2, count).astype(np.float32)
    return LoggedTransition(*map(jnp.asarray, (s, a, rng.normal(size=count).astype(np.float32), following, ends)))


@cache
def warm(config: iql.Config = CONFIG, spec: Spec = SPEC) -> iql.Learner:
    """After three updates: Adam's moments are set, the targets trail behind."""
    learner = init(config, spec, jax.random.key(0), facts_of(spec))
    for i in range(3):
        learner, _ = update(config, learner, outcomes(i, spec), jax.random.key(i))
    return learner


def mlp(layers: Any, x: np.ndarray) -> np.ndarray:
    for layer in layers[:-1]:
        x = np.maximum(x @ np.asarray(layer.weight, np.float64) + np.asarray(layer.bias), 0)
    return x @ np.asarray(layers[-1].weight, np.float64) + np.asarray(layers[-1].bias)


def seen(s: Any) -> np.ndarray:
    units = facts_of(SPEC).normaliser
    return (np.asarray(s, np.float64) - np.asarray(units.mean)) / np.asarray(units.deviation)


def judged(critic: Any, s: Any, a: Any, spec: Spec = SPEC) -> np.ndarray:
    """Q_1 and Q_2 written out, `[2, batch]`."""
    if spec.choices is None:
        a = 2 * (np.asarray(a, np.float64) - spec.low) / np.subtract(spec.high, spec.low) - 1
    else:
        a = np.eye(spec.choices)[np.asarray(a)]
    sa = np.concatenate([seen(s), a], axis=-1)
    return np.array([mlp(jax.tree.map(lambda x, i=i: np.asarray(x)[i], critic.q).layers, sa)[..., 0] for i in (0, 1)])


# --- the equations ---


def test_expectile_loss_by_hand() -> None:
    """Of 0.9: 0.9 x 4, 0.1 x 9, 0, 0.9 x 0.25; at a half it is half the square."""
    error = np.float32([2, -3, 0, 0.5])
    np.testing.assert_allclose(asymmetric(error, 0.9), [3.6, 0.9, 0, 0.225], rtol=1e-6)
    np.testing.assert_allclose(asymmetric(error, 0.5), 0.5 * error**2, rtol=1e-6)


def test_the_expectile_of_what_is_seen_minimises_it() -> None:
    """Of 0 and 1, equally often, the tau-expectile is tau."""
    slope = jax.grad(lambda v, tau: asymmetric(jnp.array([0.0, 1.0]) - v, tau).mean())
    slope = jax.jit(slope, static_argnums=1)
    for tau in (0.1, 0.5, 0.9):
        assert slope(tau, tau) == pytest.approx(0, abs=1e-6)
        assert slope(tau - 0.05, tau) < 0 < slope(tau + 0.05, tau)


def test_weights_grow_with_the_advantage_and_are_clipped() -> None:
    advantage = np.float32([-1, 0, 1, 1.6, 50, 1e5])
    expected = [np.exp(-3), 1, np.exp(3), 100, 100, 100]
    np.testing.assert_allclose(weighed(advantage, 3.0), expected, rtol=1e-5)
    np.testing.assert_array_equal(weighed(advantage, 0.0), np.ones(6))


def test_targets_at_a_termination_a_truncation_and_between() -> None:
    """V(s) = s. Rewards are divided by 2, then 1 is taken off; a truncation goes on from where its episode stood."""
    data = trajectories(
        np.array([[1.0], [2.0], [3.0], [10.0], [20.0]]),
        np.zeros((5, 1)),
        np.array([0.0, 4.0, 6.0, 8.0, 2.0]),
        np.array([0, 0, 1, 0, 0]),
        np.array([0, 0, 0, 0, 1]),
        final_observations=np.array([[77.0], [30.0]]),
        about=About("made", low=(-1.0,), high=(1.0,)),
    )
    spec, config = Spec(1, (-1.0,), (1.0,)), replace(CONFIG, reward_scale=2.0, reward_shift=-1.0, gamma=0.5)
    statistics, source = iql.prepare(config, spec, data, None, "")
    assert statistics.scale == 2
    value = jax.eval_shape(lambda key: MLP((1, 1), key=key), jax.random.key(0))
    value = jax.tree.unflatten(
        jax.tree.structure(value), [statistics.normaliser.deviation[:, None], statistics.normaliser.mean]
    )
    at = jax.jit(lambda source, rows: source.at(rows))
    np.testing.assert_allclose(valued(value, statistics, np.float32([[7]])), [7], rtol=1e-5)
    y = targets(config, statistics, value, at(source, np.arange(5)))
    np.testing.assert_allclose(y, [-1 + 1, 1 + 1.5, 2, 3 + 10, 0 + 15], atol=1e-5)
    without = transitions(replace(data, final_observations=None))
    y = targets(config, statistics, value, at(without, without.usable))
    np.testing.assert_allclose(y, [0, 2.5, 2, 13], atol=1e-5)  # the cut step is not learnt from


def test_rewards_are_in_units_of_a_thousandth_of_the_range_of_returns() -> None:
    data = chain(50)
    assert data.rewards is not None
    data = replace(data, rewards=np.arange(data.steps, dtype=np.float32))
    statistics, _ = iql.prepare(replace(CONFIG, reward_scale=0.0), CHAIN, data, None, "")
    returns = np.add.reduceat(np.arange(data.steps, dtype=float), data.offsets[:-1])
    assert statistics.scale == pytest.approx((returns.max() - returns.min()) / 1000, rel=1e-6)


@pytest.mark.parametrize("spec", [SPEC, CHOICE])
def test_an_update_by_hand(spec: Spec) -> None:
    """V first; actor and critics by the new V and the old targets; then the targets."""
    learner, batch = warm(spec=spec), outcomes(9, spec)
    after, metrics = update(CONFIG, learner, batch, jax.random.key(0))
    q = judged(learner.target_critic, batch.observation, batch.action, spec).min(axis=0)
    v = mlp(learner.value.layers, seen(batch.observation))[:, 0]
    assert metrics["value_loss"] == pytest.approx(np.mean(np.where(q > v, 0.7, 0.3) * (q - v) ** 2), rel=1e-4)
    new_v = mlp(after.value.layers, seen(batch.observation))[:, 0]
    weight = np.minimum(np.exp(2 * (q - new_v)), 100)
    assert metrics["weight"] == pytest.approx(weight.mean(), rel=1e-4)
    given = mlp(learner.actor.layers, seen(batch.observation))
    if spec.choices is None:
        unit = 2 * (np.asarray(batch.action) - spec.low) / np.subtract(spec.high, spec.low) - 1
        deviation = np.exp(np.asarray(learner.actor.log_std))
        log_pi = -0.5 * ((unit - np.tanh(given)) / deviation) ** 2 - np.log(deviation * np.sqrt(2 * np.pi))
        log_pi = log_pi.sum(axis=1)
    else:
        log_pi = log_softmax(given, axis=-1)[np.arange(16), np.asarray(batch.action)]
    assert metrics["loss"] == pytest.approx(-np.mean(weight * log_pi), rel=1e-4)
    r = np.asarray(batch.reward) / 2.5 - 0.5
    y = r + 0.9 * np.asarray(batch.continues) * mlp(after.value.layers, seen(batch.next_observation))[:, 0]
    q12 = judged(learner.critic, batch.observation, batch.action, spec)
    assert metrics["critic_loss"] == pytest.approx(((q12 - y) ** 2).mean(axis=1).sum(), rel=1e-4)
    close(after.target_critic, jax.jit(polyak)(learner.target_critic, after.critic, 0.1), 1e-6)
    assert differences(learner, after, PARTS) == set(PARTS)
    assert same(learner.statistics, after.statistics) and after.updates == 4

    def loss(value: Any, q: jax.Array) -> jax.Array:
        return iql.value_loss(value, learner.statistics, batch.observation, q, 0.7)[0]

    @jax.jit
    def stepped(value: Any, q: jax.Array) -> Any:
        return descend(optax.adam(3e-4), value, jax.grad(loss)(value, q), learner.optimisers["value"])[0]

    close(stepped(learner.value, jnp.asarray(q)), after.value, 1e-6)


def test_step_sizes_fall_over_the_run() -> None:
    """The actor's on a cosine to zero; the critics' stays, or falls on a line to a twentieth."""
    config = replace(CONFIG, learning_rate=2.0, anneal_over=100)
    found = [step_sizes(config, np.int32(i)) for i in (0, 50, 100)]
    np.testing.assert_allclose([actor for actor, _ in found], [2, 1, 0], atol=1e-6)
    assert [critics for _, critics in found] == [2, 2, 2]
    found = [step_sizes(replace(config, anneal_critics=True), np.int32(i))[1] for i in (0, 50, 100)]
    np.testing.assert_allclose(found, [2, 1, 0.1], rtol=1e-5)
    assert iql.step_sizes(CONFIG, jnp.asarray(10**6)) == (3e-4, 3e-4)


def test_as_published_all_layers_begin_orthogonal() -> None:
    config = preset("paper", "iql", "hopper-medium.hdf5")[0]
    assert isinstance(config, iql.Config) and config.initialisation == "orthogonal"
    learner = init(replace(config, hidden=8), Spec(3, (-1.0,), (1.0,)), jax.random.key(0))
    weights = [layer.weight for layer in (*learner.actor.layers, *learner.value.layers)]
    weights += [np.asarray(layer.weight)[i] for layer in learner.critic.q.layers for i in (0, 1)]
    for w in (np.asarray(w, np.float64) for w in weights):
        gram = w @ w.T if w.shape[0] < w.shape[1] else w.T @ w
        np.testing.assert_allclose(gram, 2 * np.eye(len(gram)), atol=1e-5)


def test_sizes_and_beginnings() -> None:
    learner = jax.eval_shape(partial(iql.init, iql.Config(), Spec(11, (-1.0,) * 3, (1.0,) * 3)), jax.random.key(0))
    assert size(learner.critic) == size(learner.target_critic) == 139_778
    assert size(learner.actor) == (11 + 1) * 256 + (256 + 1) * 256 + (256 + 1) * 3 + 3
    assert size(learner.value) == (11 + 1) * 256 + (256 + 1) * 256 + 257
    fresh = init(CONFIG, SPEC, jax.random.key(0))
    assert same(fresh.critic, fresh.target_critic)
    assert iql.batches(iql.Config(batch_size=7)) == BatchSpec(7, 1)


def test_dropout_is_of_the_actor_in_training_alone() -> None:
    config, batch = replace(CONFIG, dropout=0.5), outcomes(0)
    learner = warm(config)
    likelihood = jax.jit(lambda *given: iql.log_likelihood(*given).sum())
    dry, *wet = (float(likelihood(learner.actor, learner.statistics, batch, k)) for k in (None, *keys(2)))
    assert len({dry, *wet}) == 3
    losses = [update(config, learner, batch, key)[1] for key in keys(2)]
    assert losses[0]["loss"] != losses[1]["loss"] and losses[0]["critic_loss"] == losses[1]["critic_loss"]


def keys(count: int) -> list[jax.Array]:
    return list(jax.random.split(jax.random.key(5), count))


# --- the policy ---


def test_the_policy_is_the_middle_or_is_drawn_around_it_within_the_bounds() -> None:
    learner, episode = warm(), episode_of(0, SPEC, 5)
    low, high = np.array(SPEC.low), np.array(SPEC.high)
    unit = np.tanh(mlp(learner.actor.layers, seen(episode.observation)))
    policy = iql.policy(CONFIG, learner)
    np.testing.assert_allclose(acted(policy, episode), low + (unit + 1) / 2 * (high - low), rtol=0, atol=2e-6)

    @jax.jit
    def decided(keys: jax.Array) -> Any:
        state = policy.observe(policy.init_state(()), jax.tree.map(lambda leaf: leaf[1], episode))
        one, eight = (policy.decide(state, None, n)[0] for n in (1, 8))
        return one, eight, jax.vmap(lambda key: policy.decide(state, key, 1)[0][0])(keys)

    one, eight, drawn = map(np.asarray, decided(jax.random.split(keys(1)[0], 4000)))
    np.testing.assert_array_equal(eight, np.repeat(one, 8, axis=0))
    assert (drawn >= low - 1e-6).all() and (drawn <= high + 1e-6).all()
    deviation = np.asarray(policy.actor.deviation())
    expected = np.clip(unit[1] + deviation * np.random.default_rng(0).normal(size=(4000, 2)), -1, 1)
    np.testing.assert_allclose((2 * drawn - low - high).mean(0) / (high - low), expected.mean(0), atol=0.07)
    np.testing.assert_allclose(drawn.std(0) * 2 / (high - low), expected.std(0), atol=0.05)


def test_a_choice_is_the_likeliest() -> None:
    learner, episode = warm(spec=CHOICE), episode_of(0, CHOICE, 6)
    logits = mlp(learner.actor.layers, seen(episode.observation))
    assert learner.actor.log_std is None
    np.testing.assert_array_equal(acted(iql.policy(CONFIG, learner), episode)[:, 0], logits.argmax(axis=1))


# --- chains: what is known of the best actions ---

CHAIN = Spec(1, (-1.0,), (1.0,))
LAST = 9


def chain(episodes: int, seed: int = 0) -> Trajectories:
    """Walks of 3 steps of +-1 along 0 ... 9, from anywhere; arriving at 9 pays 1 and ends, everything else is cut.

    Behaviour goes either way, equally often, so no episode leads from 0 to 9: those that arrive began at 6 or later.
    """
    rng, found = np.random.default_rng(seed), []
    for _ in range(episodes):
        s = int(rng.integers(LAST))
        walk: dict[str, list[Any]] = {"observations": [[s]], "actions": [], "rewards": [], "terminations": []}
        while len(walk["actions"]) < 3 and s < LAST:
            a = rng.choice([-1.0, 1.0])
            s = int(np.clip(s + a, 0, LAST))
            walk["observations"].append([s])
            for name, number in (("actions", [a]), ("rewards", float(s == LAST)), ("terminations", s == LAST)):
                walk[name].append(number)
        found.append({name: np.array(column, float) for name, column in walk.items()})
    lengths = [len(walk["actions"]) for walk in found]
    flat: dict[str, Any] = {}
    for name in ("actions", "rewards", "terminations"):
        flat[name] = np.concatenate([walk[name] for walk in found])
    observations = np.concatenate([walk["observations"][:-1] for walk in found])
    ends = np.stack([walk["observations"][-1] for walk in found])
    offsets = np.cumsum([0, *lengths])
    about = About("chain", low=CHAIN.low, high=CHAIN.high)
    nothing = np.zeros(len(observations))
    return trajectories(
        observations, truncations=nothing, offsets=offsets, final_observations=ends, about=about, **flat
    )


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run on the chain."""
    config = iql.Config(expectile=0.95, beta=20.0, gamma=0.9, tau=0.05, learning_rate=1e-2, anneal_critics=True)
    config = replace(config, hidden=16, batch_size=64)
    settings = OfflineSettings(dataset="chain", updates=1000)
    out = tmp_path_factory.mktemp("runs") / "run"
    return offline.start("iql", "cpu", config, settings, out, data=chain(600), quiet=True)


def loaded(run: Run) -> iql.Extracted:
    policy = legato.load(run.path).policy
    assert isinstance(policy, iql.Extracted)
    return policy


def test_values_are_those_of_the_best_actions_and_not_of_behaviour(walked: Run) -> None:
    """0.9^(8 - s) is what going straight earns; behaviour, which turns at random, earns far less from 0 and nothing in
    the 3 steps of an episode."""
    policy = loaded(walked)
    s = np.arange(LAST, dtype=np.float32)[:, None]
    best = 0.9 ** (8 - np.arange(LAST))
    found = np.asarray(valued(policy.value, policy.statistics, s))
    np.testing.assert_allclose(found, best, atol=0.12)
    right, left = (np.asarray(judge(policy.critic, policy.statistics, s, np.full_like(s, a))) for a in (1.0, -1.0))
    np.testing.assert_allclose(right, best, atol=0.12)
    np.testing.assert_allclose(left[1:], 0.9 * best[:-1], atol=0.12)
    assert (right > left).all()
    either = 0.5 * (np.eye(LAST, k=1) + np.eye(LAST, k=-1))
    either[0, 0] = 0.5
    random = np.linalg.solve(np.eye(LAST) - 0.9 * either, 0.5 * (np.arange(LAST) == 8))
    assert (found[:6] > 2 * random[:6]).all()


def test_the_policy_walks_from_one_end_to_the_other(walked: Run) -> None:
    player = legato.load(walked.path)
    memory = player.begin()
    for s in range(LAST):
        actions, memory = player.act(memory, np.array([float(s)]))
        assert actions[0, 0] > 0.25


def test_a_saved_policy_keeps_its_critics(walked: Run) -> None:
    """What was loaded judges as what was trained: the targets of the checkpoint."""
    policy, config = loaded(walked), walked.config
    assert isinstance(config, iql.Config)
    _, state = Checkpoints(walked.path / "checkpoints").load(None)
    skeleton = jax.eval_shape(jax.vmap(partial(iql.init, config, walked.spec)), jax.random.split(keys(1)[0], 1))
    learner = jax.tree.map(
        lambda leaf: jnp.asarray(np.asarray(leaf)[0]), fill(skeleton, state["learner"], "checkpoint")
    )
    assert same(policy, iql.policy(config, learner))
    assert not same(learner.critic, learner.target_critic)
    s, a = np.float32([[3], [8]]), np.float32([[1], [-0.5]])
    q = judge(policy.critic, policy.statistics, s, a)
    np.testing.assert_array_equal(q, judge(learner.target_critic, learner.statistics, s, a))

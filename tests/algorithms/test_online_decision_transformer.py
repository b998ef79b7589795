"""The Online Decision Transformer: densities and the bound on entropy against transcriptions, what is drawn, who moves;
and going on by acting: windows, critics, and the return that was earned.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from tests.learners import acted, close, differences, episode_of, facts_of, nudged, same, windows_of
from tests.tiny import swings

from legato.algorithms.decision_transformer import finetuning as going_on
from legato.algorithms.decision_transformer import online_decision_transformer as odt
from legato.data import episode_replay
from legato.data import trajectories as logs
from legato.data.spec import Spec
from legato.data.windows import Window

SPEC = Spec(3, (-0.2, -0.4), (0.8, 0.1))
K = 4
SMALL = odt.Config(layers=1, heads=1, size=8, context=K, eval_context=2, dropout=0.0, warmup=1, optimiser="adamw")
SMALL = replace(SMALL, learning_rate=1e-2, clip=10.0, weight_decay=0.0, entropy=-50.0)
LAMB = replace(SMALL, optimiser="lamb", warmup=10, weight_decay=1e-3, clip=0.25)
TUNING = going_on.Config(hidden=8, layers=1, batch_size=16, warmup=1, learning_rate=1e-3, episodes=3, reward_scale=2.0)
SLOW = replace(TUNING, average=0.25)
TD3 = replace(TUNING, td3=0.5)

update = jax.jit(odt.update, static_argnums=0)
step = jax.jit(going_on.update, static_argnums=(0, 4))
draw = jax.jit(episode_replay.sample_windows, static_argnums=(2, 3))
start = jax.jit(going_on.init, static_argnums=(0, 1))
loss = jax.jit(odt.loss, static_argnums=6)
outputs = jax.jit(lambda *given: odt.split_outputs(odt.outputs(*given)))
units = jax.jit(lambda statistics, actions: statistics.normalise_actions(actions))


@cache
def made(config: odt.Config = SMALL) -> odt.Learner:
    return jax.jit(odt.init, static_argnums=(0, 1))(config, SPEC, jax.random.key(0), facts_of(SPEC))


@pytest.fixture(scope="module")
def batch() -> Window:
    return windows_of(0, SPEC, [4, 2, 3, 1], K)


# --- the optimiser, as published ---


def test_mean_and_deviation_begin_orthogonal_each() -> None:
    weight = np.asarray(made().network.head.weight, np.float64)
    for half in np.split(weight, 2, axis=1):
        np.testing.assert_allclose(half.T @ half, np.eye(SPEC.action_size), atol=1e-5)


def test_lamb_is_its_equations_and_the_heads_halves_have_trust_ratios_of_their_own() -> None:
    """Two steps written out: Adam's direction with an epsilon of 1e-8, decay, and |w| / |step| per tensor."""
    rate, decay, network = 0.1, 0.01, nudged(made().network)
    optimiser = odt.lamb(lambda _: jnp.asarray(rate), decay)
    state = optimiser.init(network)
    rng = np.random.default_rng(0)
    # Small gradients, to which an epsilon of 1e-6 would make a difference.
    gradients = [
        jax.tree.map(lambda w: jnp.asarray(1e-6 * rng.normal(size=w.shape), jnp.float32), network) for _ in "ab"
    ]
    step = jax.jit(optimiser.update)

    def apart(tree: odt.Network) -> list[np.ndarray]:
        found = []
        for leaf in jax.tree.leaves(tree):
            of_head = leaf is tree.head.weight or leaf is tree.head.bias
            found += np.split(np.asarray(leaf, np.float64), 2 if of_head else 1, axis=-1)
        return found

    weights = apart(network)
    m, v = ([np.zeros_like(w) for w in weights] for _ in "mv")
    for t, gradient in enumerate(gradients, start=1):
        change, state = step(gradient, state, network)
        network = jax.tree.map(lambda w, by: jnp.asarray(np.asarray(w) + np.asarray(by)), network, change)
        for i, g in enumerate(apart(gradient)):
            m[i], v[i] = 0.9 * m[i] + 0.1 * g, 0.999 * v[i] + 0.001 * g**2
            u = m[i] / (1 - 0.9**t) / (np.sqrt(v[i] / (1 - 0.999**t)) + 1e-8) + decay * weights[i]
            long, short = np.linalg.norm(weights[i]), np.linalg.norm(u)
            weights[i] = weights[i] - rate * (long / short if long and short else 1) * u
    for found, expected in zip(apart(network), weights, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_fine_tuning_goes_on_with_the_optimiser_that_there_was(batch: Window) -> None:
    """Its moments and its count, so that the warm-up goes on, and its step size and decay."""
    base, paper = LAMB, going_on.Config(hidden=8, layers=1, batch_size=16, episodes=3, warmup=10)
    before = made(base)
    for i in range(3):
        before, _ = update(base, before, batch, jax.random.key(i))
    fresh = start(paper, base, odt.policy(base, before), jax.random.key(0))
    assert going_on.continues(paper)
    learner = going_on.continued(fresh, before)
    assert same(learner.optimisers["actor"], before.optimisers["network"])
    assert same(learner.optimisers["multiplier"], before.optimisers["multiplier"])
    assert same(learner.actor, before.network)
    g = jax.tree.map(lambda w: np.full_like(w, 0.1), learner.actor)
    of_base, of_paper = odt.optimisers(base)[0], going_on._optimisers(paper, base)["actor"]
    steps = [jax.jit(of.update)(g, learner.optimisers["actor"], learner.actor)[0] for of in (of_base, of_paper)]
    assert same(*steps)


# --- the distribution ---


def test_the_density_is_that_of_a_squashed_normal() -> None:
    """Against SciPy's normal and the derivative of tanh, far into its ends."""
    rng = np.random.default_rng(0)
    mean, log_std, drawn = rng.normal(size=(3, 50, 2)) * np.array([1.0, 0.7, 1.5])[:, None, None]
    expected = stats.norm.logpdf(drawn, mean, np.exp(log_std)) - np.log(1 - np.tanh(drawn) ** 2)
    found = jax.jit(odt.log_density)(*(x.astype(np.float32) for x in (mean, log_std, drawn)))
    np.testing.assert_allclose(found, expected.sum(-1), rtol=1e-4, atol=1e-4)


def test_deviations_keep_to_their_bounds() -> None:
    mean, log_std = jax.jit(odt.split_outputs)(np.float32([[1, 2, -1e3, 1e3], [1, 2, 0, 0]]))
    np.testing.assert_allclose(mean, [[1, 2], [1, 2]])
    np.testing.assert_allclose(log_std, [[-5, 2], [-1.5, -1.5]], atol=1e-5)


def test_the_loss_is_the_equation(batch: Window) -> None:
    """Likelihood of the logged actions and entropy of drawn ones, over the steps that count."""
    learner, noise = made(), np.random.default_rng(1).normal(size=batch.actions.shape)
    read = learner.network, learner.statistics, batch
    value, (nll, entropy) = loss(*read, np.float32(0.3), noise.astype(np.float32), None, 1e-6)
    mean, log_std = (np.asarray(x, np.float64) for x in outputs(*read))
    unit = np.asarray(units(learner.statistics, batch.actions), np.float64)

    def density(u: np.ndarray) -> np.ndarray:
        return (stats.norm.logpdf(u, mean, np.exp(log_std)) - np.log(1 - np.tanh(u) ** 2)).sum(-1)

    there = np.asarray(batch.mask)
    expected = -density(np.arctanh(np.clip(unit, -1 + 1e-6, 1 - 1e-6)))[there].mean()
    surprise = -density(mean + np.exp(log_std) * noise)[there].mean()
    assert float(nll) == pytest.approx(expected, rel=1e-3)
    assert float(entropy) == pytest.approx(surprise, rel=1e-3)
    assert float(value) == pytest.approx(expected - 0.3 * surprise, rel=1e-3)


def test_actions_are_learnt_as_far_inside_their_bounds_as_is_asked(batch: Window) -> None:
    """At an edge of 0.1 an action at its bound is as likely as one at 0.9 of it, and those within are what they are."""

    def nll(unit: float, edge: float) -> float:
        low, high = np.float32(SPEC.low), np.float32(SPEC.high)
        actions = np.broadcast_to(low + (high - low) * np.float32((unit + 1) / 2), batch.actions.shape)
        given = Window(**{**vars(batch), "actions": jnp.asarray(actions)})
        return float(loss(network, learner.statistics, given, np.float32(0), nothing, None, edge)[1][0])

    learner, nothing = made(), np.zeros(batch.actions.shape, np.float32)
    network = jax.tree.map(jnp.zeros_like, learner.network)  # which reads no actions before
    assert nll(1.0, 0.1) == pytest.approx(nll(0.9, 1e-6), rel=1e-5)
    assert nll(0.85, 0.1) == pytest.approx(nll(0.85, 1e-6), rel=1e-5)
    assert nll(1.0, 0.1) != pytest.approx(nll(1.0, 0.01), rel=1e-2)


def test_actions_at_their_bounds_can_be_learnt(batch: Window) -> None:
    low = np.broadcast_to(np.float32(SPEC.low), batch.actions.shape)
    edge = Window(**{**vars(batch), "actions": jnp.asarray(low)})
    learner, metrics = update(SMALL, made(), edge, jax.random.key(0))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((learner.network, metrics)))


@pytest.mark.parametrize(("config", "grows"), [(replace(SMALL, entropy=50.0), True), (SMALL, False)])
def test_lambda_grows_where_there_is_too_little_entropy(config: odt.Config, grows: bool, batch: Window) -> None:
    learner = made(config)
    for i in range(3):
        learner, _ = update(config, learner, batch, jax.random.key(i))
    assert (learner.log_multiplier > made(config).log_multiplier) == grows
    assert float(jnp.exp(made(config).log_multiplier)) == pytest.approx(0.1)


def test_one_batch_can_be_learnt_by_heart(batch: Window) -> None:
    learner, first = update(SMALL, made(), batch, jax.random.key(0))
    for i in range(150):
        learner, last = update(SMALL, learner, batch, jax.random.key(i))
    assert float(last["nll"]) < float(first["nll"]) - 2


@pytest.mark.parametrize("config", [LAMB, SMALL], ids=["lamb", "adamw"])
def test_an_update_moves_network_and_multiplier(config: odt.Config, batch: Window) -> None:
    learner, _ = update(config, made(config), batch, jax.random.key(0))
    assert differences(made(config), learner, ("network", "log_multiplier", "statistics")) == {
        "network",
        "log_multiplier",
    }


def test_lamb_steps_by_the_size_of_what_it_moves(batch: Window) -> None:
    """|change| of each matrix is the step size (a tenth of it, at first) times its own norm (where there is one)."""
    learner, _ = update(LAMB, made(LAMB), batch, jax.random.key(0))
    before, after = (np.asarray(of.network.head.weight) for of in (made(LAMB), learner))
    assert np.linalg.norm(after - before) == pytest.approx(1e-3 * np.linalg.norm(before), rel=1e-3)


# --- acting ---


def test_greedy_is_the_mean_and_a_key_draws_about_it() -> None:
    policy = odt.policy(SMALL, made())

    @jax.jit
    def acts(episode: Any, keys: jax.Array) -> Any:
        state = jax.lax.scan(lambda state, step: (policy.observe(state, step), ()), policy.init_state(()), episode)[0]
        mean, log_std = odt.split_outputs(policy.reader.given(state))
        drawn = jax.vmap(lambda key: policy.decide(state, key, 1)[0][0])(keys)
        unit = policy.statistics.normalise_actions(drawn)
        return mean, log_std, policy.statistics.to_action(mean, None), policy.decide(state, None, 2)[0], unit

    found = acts(episode_of(0, SPEC, 3), jax.random.split(jax.random.key(0), 4000))
    mean, log_std, expected, greedy, unit = map(np.asarray, found)
    np.testing.assert_allclose(greedy[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(greedy[0], greedy[1])
    unit = np.arctanh(np.clip(unit, -1 + 1e-7, 1 - 1e-7))
    np.testing.assert_allclose(unit.mean(0), mean, atol=0.1)
    np.testing.assert_allclose(unit.std(0), np.exp(log_std), rtol=0.06)


def test_it_reads_as_many_steps_as_it_was_told_to() -> None:
    """Two of the four that it was trained on: what lies further back has no say."""
    policy = odt.policy(SMALL, made())
    one, other = episode_of(0, SPEC, 5), episode_of(1, SPEC, 5)

    def joined(at: int) -> Any:
        step = jax.tree.map(lambda a, b: jnp.asarray(np.concatenate([b[:at], a[at:]])), one, other)
        return type(step)(step.observation, jnp.zeros(5), step.executed, step.first)  # the same return is still wanted

    assert np.abs(acted(policy, joined(0))[-1] - acted(policy, joined(4))[-1]).max() > 1e-5
    np.testing.assert_allclose(acted(policy, joined(0))[-1], acted(policy, joined(3))[-1], atol=1e-6)


# --- going on by acting ---


@cache
def begun(tuning: going_on.Config = TUNING) -> going_on.Learner:
    return start(tuning, SMALL, odt.policy(SMALL, made()), jax.random.key(0))


@cache
def replay(tuning: going_on.Config = TUNING) -> episode_replay.EpisodeReplay:
    memory = create(tuning, SMALL, SPEC, 0, 6)
    for seed in range(3):
        environment = episode_of(seed, SPEC, 6)
        fields = (jnp.asarray(5 - seed), jnp.asarray(seed != 1), jnp.asarray(9.0))
        later = (jnp.asarray(np.roll(x, -1, 0)) for x in (environment.executed, environment.reward))
        episode = episode_replay.Episode(environment.observation, *later, *fields)
        memory, _ = remember(tuning, begun(tuning), memory, episode)
    return memory


create = jax.jit(going_on.replay.create, static_argnums=(0, 1, 2, 3, 4))
remember = jax.jit(going_on.replay.add, static_argnums=0)


def test_it_goes_on_with_the_multiplier_that_it_had(batch: Window) -> None:
    taught, _ = update(SMALL, made(), batch, jax.random.key(0))
    learner = start(TUNING, SMALL, odt.policy(SMALL, taught), jax.random.key(1))
    assert float(learner.log_multiplier) == float(taught.log_multiplier) != float(made().log_multiplier)
    assert same(learner.actor, taught.network)


def test_the_replay_begins_with_the_best_logs_in_the_order_in_which_they_go() -> None:
    data = swings()
    earned = logs.returns(data)[going_on.initial_episodes(replace(TUNING, episodes=4), data)]
    np.testing.assert_array_equal(earned, np.sort(logs.returns(data))[-4:])


@pytest.mark.parametrize("count", [3, 10_000])
def test_or_with_logs_of_every_return(count: int) -> None:
    data = swings()
    found = going_on.initial_episodes(replace(TUNING, episodes=count, offline_episodes="all"), data)
    assert len(set(found.tolist())) == len(found) == min(count, len(data.lengths))
    earned, everything = logs.returns(data)[found], np.sort(logs.returns(data))
    assert (np.diff(earned) >= 0).all()
    np.testing.assert_array_equal(earned[[0, -1]], everything[[0, -1]])


@pytest.mark.parametrize(
    ("tuning", "joint", "moved"),
    [
        (SLOW, True, {"actor", "average", "log_multiplier"}),
        (TD3, False, {"critic", "target_critic"}),
        (TD3, True, {"actor", "average", "log_multiplier", "critic", "target_critic", "target_actor"}),
    ],
)
def test_who_moves_when(tuning: going_on.Config, joint: bool, moved: set[str]) -> None:
    names = ("actor", "average", "log_multiplier", "statistics")
    names = (*names, "critic", "target_critic", "target_actor") if tuning.td3 else names
    learner, metrics = step(tuning, begun(tuning), replay(tuning), jax.random.key(0), joint)
    assert differences(begun(tuning), learner, names) == moved
    assert all(np.isfinite(value) for value in metrics.values())


@jax.jit
def values(learner: going_on.Learner, window: Window) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What the targets give for the target actor's actions, and the critics for the logged ones."""
    assert learner.critic is not None and learner.target_critic is not None and learner.target_actor is not None
    statistics = learner.statistics
    s, a = statistics.normaliser(window.observations), statistics.normalise_actions(window.actions)
    mean, _ = odt.split_outputs(odt.outputs(learner.target_actor, statistics, window))
    return jnp.minimum(*learner.target_critic(s, jnp.tanh(mean))), *learner.critic(s, a)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_the_critics_loss_is_the_equation(n: int) -> None:
    """Of windows of four steps: n = 7 reaches to the window's end."""
    learner, drawn = begun(TD3), draw(replay(TD3), jax.random.key(0), 8, 4)
    learner = going_on.Learner(
        **{**vars(learner), "target_actor": nudged(learner.actor), "target_critic": nudged(learner.critic)}
    )
    assert learner.critic is not None and learner.target_critic is not None and learner.target_actor is not None
    found, _ = jax.jit(going_on.critic_loss, static_argnums=2)(learner.critic, learner, replace(TD3, n_step=n), drawn)
    value, q_1, q_2 = map(np.asarray, values(learner, drawn.window))
    drawn = jax.tree.map(np.asarray, drawn)
    errors, furthest = [], 0
    for i, t in np.argwhere(drawn.window.mask):
        y, at = 0.0, int(t)
        while True:
            if at - t == n or not (drawn.has_next[i, at] or drawn.terminated[i, at]):
                y += 0.99 ** (at - t) * value[i, at]
                break
            y += 0.99 ** (at - t) * float(drawn.rewards[i, at]) / 2
            if drawn.terminated[i, at]:
                break
            assert drawn.window.mask[i, at + 1]
            at += 1
        if drawn.has_next[i, t] or drawn.terminated[i, t]:
            errors.append((q_1[i, t] - y) ** 2 + (q_2[i, t] - y) ** 2)
            furthest = max(furthest, at - int(t))
    assert furthest == min(n, 3)
    assert float(found) == pytest.approx(np.mean(errors), rel=1e-4)


def test_the_gradient_of_q_counts_by_its_weight() -> None:
    """With a weight of w the loss has w times -Q / mean |Q| more; its gradient reaches the actor through the mean."""
    learner, drawn = begun(TD3), draw(replay(TD3), jax.random.key(0), 8, 3)
    value, g = jax.jit(jax.value_and_grad(going_on.policy_gradient))(learner.actor, learner, drawn)
    assert -1.0001 <= float(value) <= 1.0001
    mean_part, deviation_part = jnp.split(g.head.weight, 2, axis=-1)
    assert np.abs(mean_part).max() > 0
    np.testing.assert_array_equal(deviation_part, np.zeros_like(deviation_part))


def test_collecting_asks_for_more_than_evaluating() -> None:
    first = np.array([100.0, -100.0])
    asks, tries = going_on.targets(replace(TUNING, collect_target_scale=2.0), first, np.array([300.0, 0.0]), np.ones(2))
    np.testing.assert_array_equal(asks, first)
    np.testing.assert_array_equal(tries, [200, 0])


def test_evaluations_can_ask_for_more_than_the_best_earned() -> None:
    first, best = np.array([100.0, 100.0, -100.0]), np.array([300.0, 20.0, -50.0])
    asks, tries = going_on.targets(
        replace(TUNING, target_increment=0.2, collect_target_scale=1.0), first, best, np.array([1.0, 1.0, 0.5])
    )
    np.testing.assert_allclose(asks, [360, 100, -45])
    np.testing.assert_allclose(tries, asks)


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_it_collects_with_a_share_of_its_deviation(spread: float) -> None:
    learner, noise = begun(), jnp.asarray(going_on.phase(replace(TUNING, exploration_scale=spread), 0).noise)
    collects, acts = going_on.explorer(learner, jnp.asarray(7.0), noise), going_on.policy(learner, jnp.asarray(7.0))

    @jax.jit
    def taken(collects: Any, acts: Any, episode: Any, key: jax.Array) -> Any:
        state = collects.observe(collects.init_state(()), jax.tree.map(lambda leaf: leaf[0], episode))
        plans = acts.decide(state, None, 1)[0], acts.decide(state, key, 1)[0], collects.decide(state, key, 1)[0]
        return [acts.statistics.normalise_actions(plan[0]) for plan in plans]

    found = taken(collects, acts, episode_of(0, SPEC, 1), jax.random.key(3))
    greedy, whole, part = (np.arctanh(np.clip(np.asarray(unit), -1 + 1e-6, 1 - 1e-6)) for unit in found)
    np.testing.assert_allclose(part - greedy, spread * (whole - greedy), atol=1e-3)
    assert np.abs(whole - greedy).max() > 0.1


def test_what_acts_is_a_moving_average_and_what_collects_is_not() -> None:
    before, target = begun(SLOW), jnp.asarray(7.0)
    after, _ = step(SLOW, before, replay(SLOW), jax.random.key(0), True)
    wanted = jax.tree.map(lambda old, new: 0.75 * np.asarray(old) + 0.25 * np.asarray(new), before.actor, after.actor)
    assert not same(after.actor, before.actor)
    close(going_on.policy(after, target).reader.acting.network, wanted, 1e-6)
    close(going_on.deployed(after), wanted, 1e-6)
    assert same(going_on.explorer(after, target, jnp.ones(())).policy.reader.acting.network, after.actor)
    back = going_on.roll_back(SLOW, after, before.actor)
    assert same(back.actor, before.actor) and same(back.average, before.actor)
    whole, _ = step(TD3, begun(TD3), replay(TD3), jax.random.key(0), True)
    assert same(whole.average, whole.actor)


def test_the_critics_come_first_with_a_td3_gradient_alone() -> None:
    tuning = replace(TD3, critic_steps=20, start_steps=10, updates=3, critic_updates=7)
    assert [going_on.phase(tuning, at)[:2] for at in (0, 10, 20)] == [(0, False), (7, False), (3, True)]
    assert going_on.phase(replace(tuning, td3=0.0), 10)[:2] == (3, True)


def test_what_is_saved_is_a_policy_of_odt() -> None:
    found = going_on.policy(begun(), jnp.asarray(7.0))
    assert jax.tree.structure(found) == jax.tree.structure(odt.policy(SMALL, made()))
    assert float(found.statistics.target) == 7.0


def test_a_replay_is_saved_and_restored() -> None:
    kept = going_on.replay.state(replay())
    close(going_on.replay.restore(create(TUNING, SMALL, SPEC, 0, 6), kept), replay(), 0)

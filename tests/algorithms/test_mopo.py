"""MOPO: what it takes from logs, what it imagines, what that is paid, and SAC from logs within it."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.learners import close
from tests.tiny import swings

from legato.algorithms import soft_actor_critic
from legato.algorithms.mbpo import imagination, mopo
from legato.algorithms.mbpo.config import MOPO
from legato.algorithms.mbpo.imagination import Rows
from legato.algorithms.protocol import Counts, Parts
from legato.algorithms.soft_actor_critic import Losses
from legato.data.replay import Transition
from legato.data.spec import Spec
from legato.data.trajectories import Trajectories
from legato.errors import LegatoError
from legato.losses import soft
from legato.policy import LastStep
from legato.training.settings import preset

SPEC = Spec(3, (-2.0,), (2.0,))
TINY = MOPO(
    **{"members": 3, "elites": 2, "model_hidden": (8,), "hidden": 8, "batch_size": 8, "rollouts": 16},
    **{"rollout_length": (4, 4), "retain": 2, "termination": "never", "fit_most": 20, "imagine_every": 100},
)


def swinging(**changes: Any) -> Trajectories:
    """Random logs of episodes that were cut, with what was seen after them."""
    none = np.zeros(102, bool)
    cut = {"terminations": none, "truncations": np.isin(np.arange(102), np.cumsum(np.arange(3, 15)) - 1)}
    final = {"final_observations": np.random.default_rng(5).normal(size=(12, 3))}
    return swings(**{**cut, **final, **changes})


@pytest.fixture(scope="module")
def learner() -> mopo.Learner:
    return jax.jit(partial(mopo.init, TINY, SPEC))(jax.random.key(0))


def rows_of(observations: np.ndarray) -> Rows:
    s = jnp.asarray(observations, jnp.float32)
    return Rows(s, jnp.zeros((len(s), 1)), jnp.zeros(len(s)), s, jnp.ones(len(s)), len(s), len(s) - 1)


# --- the data ---


def test_steps_without_next_observation_are_left_out() -> None:
    """The last one of a cut episode by all, that of a terminated one by the model alone."""
    kinds = {"terminations": np.isin(np.arange(102), [2, 6]), "truncations": np.isin(np.arange(102), [11, 101])}
    data = swings(**kinds, offsets=np.array([0, 3, 7, 12, 102]))
    _, source = mopo.prepare(TINY, SPEC, data, None, "")
    assert sorted(set(range(102)) - set(source.usable.tolist())) == [11, 101]
    rows = mopo.model_rows(source, SPEC)
    left = np.delete(np.arange(102), [2, 6, 11, 101])
    assert rows.filled == len(left) == len(rows.observation)
    order = np.lexsort(np.asarray(rows.observation).T)
    known = np.lexsort(data.observations[left].T)
    np.testing.assert_array_equal(np.asarray(rows.observation)[order], data.observations[left][known])
    np.testing.assert_array_equal(np.asarray(rows.next_observation)[order], data.observations[left + 1][known])
    assert rows.continues.all()  # a time limit is no end
    assert (np.abs(np.diff(order)) > 1).any()  # they are shuffled


def test_with_the_observation_after_them_all_steps_are_learnt_from() -> None:
    data = swinging()
    _, source = mopo.prepare(TINY, SPEC, data, None, "")
    rows = mopo.model_rows(source, SPEC)
    assert rows.filled == data.steps and rows.continues.all()


def test_the_rule_of_the_data_s_environment_ends_what_is_imagined() -> None:
    auto, about = MOPO(rollouts=16), swings().about
    ends = {"terminations": swings().terminations, "truncations": np.zeros(102, bool)}

    def found(environment: str | None, config: MOPO = auto, **changes: Any) -> str:
        data = swinging(about=dataclasses.replace(about, environment=environment), **changes)
        return mopo.for_data(config, SPEC, data).termination

    assert found("Pendulum-v1") == "rule"
    assert found("Pendulum-v1", **ends) == "rule"
    assert found("nowhere/Thing-v0", **ends) == "learned" == found(None, **ends)
    assert found(None) == "never"  # nothing to learn
    with pytest.raises(LegatoError, match="no rule is known"):
        found(None, dataclasses.replace(auto, termination="rule"))
    with pytest.raises(LegatoError, match="lacks the observations after terminations"):
        found(None, final_observations=None, **ends)


# --- what is imagined ---


def test_nothing_follows_an_end(learner: mopo.Learner) -> None:
    """And counts are those of the steps before it."""
    ends = lambda s, a, s_next: s_next[..., 0] > 0.5  # noqa: E731
    base = eqx.tree_at(lambda whole: whole.model, learner.base, dataclasses.replace(learner.base.model, rule=ends))
    starts = np.random.default_rng(0).normal(size=(64, 3))
    found = imagination.imagine(TINY, base, rows_of(starts), 0, jax.random.key(1))
    count = int(found.pool.added)
    rows = np.asarray(found.pool.rows)[:count]
    s, s_next, continues = rows[:, :3], rows[:, 5:8], rows[:, 8]
    np.testing.assert_array_equal(continues == 0, s_next[:, 0] > 0.5)
    assert 0 < (continues == 0).sum() < 16 < count < 64
    followed = {tuple(row) for row in s}
    assert not followed & {tuple(row) for row in s_next[continues == 0]}
    assert float(found.report["imagined_steps"]) == pytest.approx(count / 16)
    # Four steps each, but for those that ended before.
    going = np.array([tuple(row) in followed for row in s_next])
    assert going.sum() == count - 16


def test_after_as_many_refreshes_as_are_kept_the_oldest_is_gone(learner: mopo.Learner) -> None:
    base = learner.base
    for number in (1, 2, 3):
        base = imagination.imagine(TINY, base, rows_of(np.full((4, 3), float(number))), 0, jax.random.key(number))
    width = imagination.pool_width(SPEC)
    assert base.pool.rows.shape == (16 * 4 * 2, width)
    drawn = jax.jit(lambda pool, key: pool.draw(key, 2_000, SPEC))(base.pool, jax.random.key(0))
    assert np.abs(np.asarray(drawn.observation)).min() > 0  # no row that was never written
    first = np.asarray(base.pool.rows)[:, :3]
    begins = {number: int((first == number).all(axis=1).sum()) for number in (1, 2, 3)}
    assert begins == {1: 0, 2: 16, 3: 16}


def test_imagined_rewards_lose_what_they_are_to(learner: mopo.Learner) -> None:
    """With a weight of 0 nothing: bit for bit what MBPO imagines."""
    starts, key = rows_of(np.random.default_rng(1).normal(size=(64, 3))), jax.random.key(2)
    weighted = dataclasses.replace(TINY, penalty=2.0)
    free = dataclasses.replace(TINY, penalty=0.0)
    penalty = mopo.penalty_of(weighted, learner)
    plain = imagination.imagine(TINY, learner.base, starts, 0, key)
    same = imagination.imagine(TINY, learner.base, starts, 0, key, mopo.penalty_of(free, learner))
    less = imagination.imagine(TINY, learner.base, starts, 0, key, penalty)
    np.testing.assert_array_equal(plain.pool.rows, same.pool.rows)
    before, after = np.asarray(plain.pool.rows)[:64], np.asarray(less.pool.rows)[:64]
    lost = penalty(learner.base.model, jnp.asarray(before[:, :3]), jnp.asarray(before[:, 3:4]))["penalty"]
    np.testing.assert_allclose(before[:, 4] - after[:, 4], lost, atol=1e-5)
    np.testing.assert_array_equal(np.delete(before, 4, axis=1), np.delete(after, 4, axis=1))
    assert float(less.report["penalty"]) == pytest.approx(float(lost.mean()), rel=1e-4)
    assert {"uncertainty", "beyond_data"} <= set(less.report)


def test_the_model_is_fitted_once_and_unrolled_by_the_clock(learner: mopo.Learner) -> None:
    at = lambda last, now: mopo.refresh_due(TINY, learner, last and Counts(last, last), Counts(now, now))  # noqa: E731
    assert [at(None, 0), at(50, 99), at(50, 100), at(100, 150), at(100, 250)] == [True, False, True, False, True]
    alone = dataclasses.replace(TINY, real_share=1.0)
    assert not mopo.refresh_due(alone, learner, None, Counts(0, 0))

    statistics, source = mopo.prepare(TINY, SPEC, swinging(), None, "")
    both = jax.jit(jax.vmap(lambda key: mopo.init(TINY, SPEC, key, statistics)))(jax.random.split(jax.random.key(0)))
    keys, shown = jax.random.split(jax.random.key(7)), []
    first, _ = mopo.refresh(TINY, both, source, keys, lambda *told: shown.append(told), None, Counts(0, 0))
    seen = len(shown)
    again, _ = mopo.refresh(TINY, first, source, keys, lambda *told: shown.append(told), Counts(0, 0), Counts(100, 100))
    assert seen > 0 and len(shown) == seen
    for before, after in zip(jax.tree.leaves(first.base.model), jax.tree.leaves(again.base.model), strict=True):
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(again.base.pool.added, 2 * first.base.pool.added)
    np.testing.assert_array_equal(first.base.units.observation.mean[0], statistics.units.observation.mean)
    assert (first.uncertainty_unit > 0).all() and first.uncertainty_unit[0] != first.uncertainty_unit[1]


# --- the update ---


def test_with_real_steps_alone_it_is_sac_from_logs_bit_for_bit() -> None:
    config = dataclasses.replace(TINY, real_share=1.0, penalty=0.0, units="environment", clip_targets=False)
    statistics, source = mopo.prepare(config, SPEC, swinging(), None, "")
    found = jax.jit(lambda key: mopo.init(config, SPEC, key, statistics))(jax.random.key(0))
    sac = found.base.sac
    assert isinstance(config, soft_actor_critic.Options)

    @jax.jit
    def plain(sac: soft_actor_critic.Learner, batch: Any, key: jax.Array) -> soft_actor_critic.Learner:
        a = batch.action / 2
        rows = Transition(batch.observation, a, a, batch.reward, batch.next_observation, batch.continues)
        return soft_actor_critic.update(config, sac, rows, key, target_entropy=-1)[0]

    update = jax.jit(partial(mopo.update, config))
    for key in jax.random.split(jax.random.key(1), 5):
        batch = source.draw(key, mopo.batches(config))
        found, _ = update(found, batch, key)
        sac = plain(sac, batch, key)
    for one, other in zip(jax.tree.leaves(found.base.sac), jax.tree.leaves(sac), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("low", "high", "bounds"),
    [(-2.0, 1.0, (-2.0 - 1.5, 1.0)), (0.0, 1.0, (0.0 - 1.5, 1.0)), (-3.0, -1.0, (-3.0 - 1.5, -0.1))],
)
def test_targets_lie_within_what_the_data_s_rewards_allow(
    learner: mopo.Learner, low: float, high: float, bounds: tuple[float, float]
) -> None:
    """10 steps of the least reward, less the largest penalty, to 10 of the largest; an end may come after one."""
    config = dataclasses.replace(TINY, gamma=0.9, penalty=1.5, penalty_most=2.0)
    numbers = mopo.Statistics(learner.statistics.units, jnp.asarray(0.5), jnp.asarray(low), jnp.asarray(high))
    found = mopo.return_bounds(config, eqx.tree_at(lambda whole: whole.statistics, learner, numbers))
    np.testing.assert_allclose(found, 10 * np.array(bounds), rtol=1e-5)
    free = mopo.return_bounds(dataclasses.replace(config, gamma=1.0), learner)
    assert np.isinf(free).all()


def test_clipped_targets_are_sac_s_between_the_bounds(learner: mopo.Learner) -> None:
    rng, sac = np.random.default_rng(0), learner.base.sac
    s, s_next = (jnp.asarray(rng.normal(size=(8, 3)), jnp.float32) for _ in range(2))
    a = jnp.asarray(rng.uniform(-1, 1, (8, 1)), jnp.float32)
    batch = Transition(s, a, a, 5 * jnp.asarray(rng.normal(size=8), jnp.float32), s_next, jnp.ones(8))
    noise, options = jnp.asarray(rng.normal(size=(8, 1)), jnp.float32), TINY

    @jax.jit
    def losses(low: jax.Array, high: jax.Array) -> tuple[Any, Any]:
        bounds = low, high
        found = mopo.clipped_critic_loss(sac.critic, sac, options, batch, noise, bounds=bounds)
        return found, soft_actor_critic.critic_loss(sac.critic, sac, options, batch, noise)

    wide, plain = losses(jnp.asarray(-jnp.inf), jnp.asarray(jnp.inf))
    np.testing.assert_array_equal(wide, plain)
    narrow, _ = losses(jnp.asarray(-0.5), jnp.asarray(0.25))
    q = sac.critic(s, a)
    a_next, log_pi = sac.actor(s_next).sample(noise)
    v = np.minimum(*sac.target_critic(s_next, a_next)) - sac.alpha * log_pi
    y = np.clip(batch.reward + options.gamma * v, -0.5, 0.25)
    assert {-0.5, 0.25} <= set(np.asarray(y).tolist())
    assert float(narrow[0]) == pytest.approx(float(((q[0] - y) ** 2).mean() + ((q[1] - y) ** 2).mean()), rel=1e-5)
    assert Losses(soft_actor_critic.critic_loss, soft.actor_loss) == soft_actor_critic.CONTINUOUS  # what MBPO has


@pytest.mark.parametrize(
    ("dataset", "length", "weight"),
    [("mujoco/hopper/medium-v0", 5, 5.0), ("walker2d-medium-replay-v2", 1, 2.5), ("halfcheetah-random-v2", 5, 0.5)],
)
def test_the_published_weight_goes_by_the_dataset(dataset: str, length: int, weight: float) -> None:
    config, _ = preset("paper", "mopo", dataset)
    assert (config.rollout_length, config.penalty) == ((length, length), weight)
    assert (config.penalty_units, config.penalty_kind, config.clip_targets) == ("raw", "max_aleatoric", False)


def test_a_plan_is_imagined_by_the_model_of_the_logs(learner: mopo.Learner) -> None:
    """Unrolled in a model in which nothing moves, the actor writes the action that it holds otherwise."""
    still = jax.tree.map(jnp.zeros_like, learner.base.model.ensemble.members)
    base = eqx.tree_at(lambda whole: whole.model.ensemble.members, learner.base, still)
    base = replace(base, report={**base.report, "refits": jnp.ones(())})
    fitted, held = replace(learner, base=base), mopo.policy(TINY, learner)
    _, planner = mopo.compose(TINY, held, {"planner": "unrolled"}, Parts(lambda: fitted))
    seen = LastStep(jnp.ones(SPEC.observation_size), jnp.zeros(SPEC.action_size))
    decide = jax.jit(lambda policy: policy.decide(seen, None, 3)[0])
    close(decide(planner), decide(held), 1e-6)
    with pytest.raises(LegatoError, match="which planner"):
        mopo.compose(TINY, held, {}, Parts(lambda: fitted))

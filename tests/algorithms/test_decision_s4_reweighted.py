"""Decision S4 going on by imitating its own episodes: what each counts, how they are drawn, what moves."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.algorithms.test_decision_s4 import SMALL, SPEC, loss, made
from tests.learners import differences, same
from tests.tiny import swings

from legato.algorithms.decision_s4 import decision_s4 as ds4
from legato.algorithms.decision_s4 import reweighted as rw
from legato.data import episode_replay
from legato.data import trajectories as logs
from legato.data.episode_replay import EpisodeReplay
from legato.data.recurrent_replay import Episode
from legato.data.spec import Spec
from legato.data.windows import Window
from legato.errors import LegatoError
from legato.nn.ssm import groups

TUNING = rw.Config(episodes=4, batch_size=3, warmup=1, learning_rate=1e-3, clip=1e6)
LONGEST, NONE = 7, jnp.asarray(-np.inf)

update = jax.jit(rw.update, static_argnums=(0, 4))
create = jax.jit(rw.replay.create, static_argnums=(0, 1, 2, 3, 4))
remember, weights = (jax.jit(of, static_argnums=0) for of in (rw.replay.add, rw.weights))


@cache
def begun(base: ds4.Config = SMALL) -> rw.Learner:
    return jax.jit(rw.init, static_argnums=(0, 1))(TUNING, base, ds4.policy(base, made(base)), jax.random.key(0))


def replay(*episodes: tuple[int, float]) -> EpisodeReplay:
    """Episodes of so many steps that earned so much, all of it at the first step."""
    memory = create(TUNING, SMALL, SPEC, 0, LONGEST)
    for seed, (steps, earned) in enumerate(episodes):
        rng = np.random.default_rng(seed)
        observations, actions = rng.normal(size=(8, 3)), rng.uniform(SPEC.low, SPEC.high, (8, 2))
        arrays = (jnp.asarray(x, jnp.float32) for x in (observations, actions, earned * (np.arange(8) == 0)))
        episode = Episode(*arrays, jnp.asarray(steps), jnp.asarray(True), jnp.asarray(99.0))
        memory, _ = remember(TUNING, begun(), memory, episode)
    return memory


def test_weights_are_the_equation() -> None:
    """Of three episodes in four slots; the pivot is remembered where it was higher."""
    earned = np.array([10.0, 40.0, 1000.0])
    memory = replay(*((5, e) for e in earned))
    pivot = earned.mean() + 0.4 * earned.std()
    found, at = weights(TUNING, NONE, memory)
    assert float(at) == pytest.approx(pivot, rel=1e-5)
    np.testing.assert_allclose(found[:3], np.clip(np.exp(earned / pivot - 1), 0.01, 10), rtol=1e-4)
    _, at = weights(TUNING, jnp.asarray(5000.0), memory)
    assert float(at) == 5000
    sharp, _ = weights(replace(TUNING, sharpness=100.0), NONE, memory)
    np.testing.assert_allclose(sharp[:3], [0.01, 0.01, 10])


def test_better_counts_more_below_zero_too() -> None:
    found, _ = weights(TUNING, NONE, replay((5, -300.0), (5, -100.0), (5, -200.0)))
    assert found[1] > found[2] > found[0]


def test_episodes_are_drawn_whole_by_the_square_of_their_lengths() -> None:
    memory = replay((1, 0.0), (2, 0.0), (4, 0.0))
    draw = jax.jit(lambda memory, key: episode_replay.sample_episodes(memory, key, 6000, power=2.0))
    window, slot = draw(memory, jax.random.key(0))
    np.testing.assert_allclose(np.bincount(slot) / 6000, np.array([1, 4, 16]) / 21, atol=0.02)
    np.testing.assert_array_equal(np.asarray(window.mask).sum(axis=1), np.array([1, 2, 4])[np.asarray(slot)])
    np.testing.assert_array_equal(np.asarray(window.timesteps)[:, 0], 0)


def test_the_loss_weighs_episodes() -> None:
    """Against the losses of each episode alone, weighed by hand."""
    memory = replay((5, 10.0), (3, 40.0), (6, 20.0))
    window = jax.jit(episode_replay.windows.window, static_argnums=2)
    batch = window(memory.episodes, LONGEST * np.arange(3), LONGEST)
    learner, weight = begun(), np.float32([0.5, 2, 1])

    def lost(batch: Window, weight: np.ndarray | None = None) -> float:
        return float(loss(learner.actor, learner.statistics, SMALL, batch, None, weight))

    each = [lost(jax.tree.map(lambda x, i=i: np.asarray(x)[i : i + 1], batch)) for i in range(3)]
    counts = weight * np.array([5, 3, 6])
    assert lost(batch, weight) == pytest.approx(float(np.sum(each * counts) / counts.sum()), rel=1e-4)
    assert lost(batch, np.ones(3, np.float32)) == pytest.approx(lost(batch), rel=1e-5)


@pytest.mark.parametrize("frozen", [True, False])
def test_an_update_moves_the_actor_and_a_frozen_core_stays(frozen: bool) -> None:
    base = replace(SMALL, freeze_core=frozen)
    learner, metrics = update(TUNING, begun(base), replay((5, 10.0), (3, 40.0)), jax.random.key(0), True)
    assert differences(begun(base), learner, ("actor", "statistics", "pivot")) == {"actor", "pivot"}
    assert all(np.isfinite(value) for value in metrics.values())
    moved = jax.tree.map(lambda a, b: bool((np.asarray(a) != b).any()), begun(base).actor, learner.actor)
    kinds = jax.tree.leaves(groups(begun(base).actor))
    core = [flag for flag, kind in zip(jax.tree.leaves(moved), kinds, strict=True) if kind == "core"]
    assert any(core) != frozen


def test_the_best_logs_come_first_and_what_is_saved_is_a_policy_of_decision_s4() -> None:
    data = swings()
    earned = logs.returns(data)[rw.initial_episodes(TUNING, data)]
    np.testing.assert_array_equal(earned, np.sort(logs.returns(data))[-4:])
    found = rw.policy(begun(), jnp.asarray(7.0))
    assert jax.tree.structure(found) == jax.tree.structure(ds4.policy(SMALL, made(SMALL)))
    assert same(found.network, begun().actor) and float(found.statistics.target) == 7.0


def test_what_cannot_be_fine_tuned_is_refused() -> None:
    rw.check(TUNING, SMALL, SPEC, None)
    with pytest.raises(LegatoError, match="not choices"):
        rw.check(TUNING, SMALL, Spec.discrete(3, 4), None)
    with pytest.raises(LegatoError, match="delayed returns"):
        rw.check(TUNING, replace(SMALL, delay_rewards=True), SPEC, None)

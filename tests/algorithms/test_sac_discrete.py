"""SAC of choices: its losses are their equations, and it finds the better choice."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import legato
from legato.algorithms.sac import discrete, sac
from legato.data.replay import Transition
from legato.data.spec import Spec
from legato.errors import LegatoWarning

init = jax.jit(sac.init, static_argnums=(0, 1))
SPEC, CONFIG, B = Spec.discrete(2, 3), sac.Config(hidden=8, batch_size=16, gamma=0.9), 5


def batch(seed: int, size: int = B) -> Transition:
    rng = np.random.default_rng(seed)
    s, s_next = (jnp.asarray(rng.normal(size=(size, 2)), jnp.float32) for _ in range(2))
    a, before = (jnp.asarray(rng.integers(0, 3, (size, 1)), jnp.float32) for _ in range(2))
    return Transition(s, a, before, jnp.asarray(rng.normal(size=size), jnp.float32), s_next,
                      jnp.asarray(rng.integers(0, 2, size), jnp.float32))  # fmt: skip


def test_losses_are_their_equations() -> None:
    """Row by row and choice by choice."""
    learner, b, nothing = init(CONFIG, SPEC, jax.random.key(0)), batch(1), np.zeros((B, 1), np.float32)
    loss_q, q = jax.jit(discrete.critic_loss, static_argnums=2)(learner.critic, learner, CONFIG, b, nothing)
    of_actor = learner.actor, learner.critic, learner.alpha, b.observation, nothing
    loss_pi, log_pi = jax.jit(discrete.actor_loss)(*of_actor)
    read = jax.jit(lambda network, s: network(s))
    b = jax.tree.map(np.asarray, b)
    alpha, expected = float(learner.alpha), {"q": 0.0, "loss": 0.0, "pi": 0.0, "log": 0.0}
    for i in range(B):
        next_log = np.asarray(read(learner.actor, b.next_observation[i]), float)
        next_q = np.minimum(*(np.asarray(x, float) for x in read(learner.target_critic, b.next_observation[i])))
        value = sum(math.exp(p) * (x - alpha * p) for p, x in zip(next_log, next_q, strict=True))
        y = float(b.reward[i]) + float(b.continues[i]) * 0.9 * value
        q1, q2 = (np.asarray(x, float) for x in read(learner.critic, b.observation[i]))
        a = int(b.action[i, 0])
        expected["loss"] += ((q1[a] - y) ** 2 + (q2[a] - y) ** 2) / B
        expected["q"] += q1[a] / B
        here = np.asarray(read(learner.actor, b.observation[i]), float)
        expected["pi"] += sum(math.exp(p) * (alpha * p - x) for p, x in zip(here, np.minimum(q1, q2), strict=True)) / B
        expected["log"] += sum(math.exp(p) * p for p in here) / B
    found = {"loss": loss_q, "q": q, "pi": loss_pi, "log": log_pi}
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-4), name


def test_it_comes_to_the_better_choice_and_keeps_the_entropy_asked_for() -> None:
    """Choice 2 is paid 1, the others nothing, and every episode is one step long."""
    config = sac.Config(hidden=16, batch_size=64, learning_rate=3e-3, entropy_share=0.5)
    learner, update = init(config, SPEC, jax.random.key(0)), jax.jit(sac.update, static_argnums=0)
    for i in range(400):
        b = batch(i, 64)
        paid = jnp.asarray(np.asarray(b.action)[:, 0] == 2, jnp.float32)
        b = replace(b, reward=paid, continues=jnp.asarray(np.zeros(64, np.float32)))
        learner, metrics = update(config, learner, (b,), jax.random.key(i))
    assert float(metrics["entropy"]) == pytest.approx(0.5 * math.log(3), abs=0.1)
    policy = sac.policy(config, learner)
    state = policy.init_state(())
    plan, draw = (jax.jit(lambda key, length=length: policy.decide(state, key, length)[0]) for length in (2, 1))
    np.testing.assert_array_equal(plan(None), [[2.0], [2.0]])
    drawn = [float(draw(key)[0, 0]) for key in jax.random.split(jax.random.key(0), 40)]
    assert set(drawn) <= {0.0, 1.0, 2.0} and drawn.count(2.0) > 25


def test_it_trains_holds_and_is_loaded(tmp_path: Path) -> None:
    """On CartPole, with choices held for two steps."""
    options = {"steps": 240, "start_steps": 60, "hidden": 8, "batch_size": 8, "eval_every": 120, "eval_episodes": 1}
    run = legato.train("sac", "CartPole-v1", out=tmp_path / "run", quiet=True, action_repeat=2, **options)
    policy = legato.load(run.path)
    actions, _ = policy.act(policy.begin(), np.zeros(4), length=3)
    assert actions.shape == (3, 1) and set(actions.ravel().tolist()) <= {0.0, 1.0}
    data = legato.collect(run, 50, quiet=True)
    assert data.discrete and data.steps == 50


def test_units_of_actions_mean_nothing_to_choices() -> None:
    """Of twenty choices the last is far from 1, which is no unit: as published nothing is warned of."""
    published = sac.Config(action_units="environment")
    sac.check(published, Spec.discrete(2, 20), "Lever-v0")
    with pytest.warns(LegatoWarning, match="is learnt in these units"):
        sac.check(published, Spec(2, (0.0,), (19.0,)), "Valve-v0")

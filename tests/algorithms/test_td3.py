"""TD3 against the equations in its docstring, written out; who moves when, and how far from the bounds."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest
from tests.learners import check_gradients, close, differences, double, noise, nudged, same, size, transitions

from legato.algorithms.td3 import td3
from legato.data.spec import Spec
from legato.errors import LegatoError
from legato.nn.ensembles import TwinCritic
from legato.nn.mlp import MLP
from legato.nn.optimisation import polyak

SPEC = Spec(3, (-0.2, -0.4), (0.8, 0.1))
LOW, HIGH = np.array(SPEC.low), np.array(SPEC.high)
CONFIG = td3.Config(hidden=8, batch_size=16, gamma=0.9, tau=0.1, action_units="environment")  # as published
PARTS = ("actor", "target_actor", "critic", "target_critic")
init = jax.jit(td3.init, static_argnums=(0, 1))
update = jax.jit(td3.update, static_argnums=0)
valued, follow = jax.jit(TwinCritic.__call__), jax.jit(polyak)


@pytest.fixture(scope="module")
def fresh() -> td3.Learner:
    return init(CONFIG, SPEC, jax.random.key(0))


@pytest.fixture(scope="module")
def warm(fresh: td3.Learner) -> td3.Learner:
    """After three updates: Adam's moments are set, the targets trail behind."""
    for i in range(3):
        fresh, _ = update(CONFIG, fresh, (transitions(i, SPEC, 16),), jax.random.key(i))
    return fresh


def test_parameter_counts() -> None:
    learner = jax.eval_shape(partial(td3.init, td3.Config(), Spec(11, (-1.0,) * 3, (1.0,) * 3)), jax.random.key(0))
    assert size(learner.critic) == size(learner.target_critic) == 139_778
    assert size(learner.actor) == (11 + 1) * 256 + (256 + 1) * 256 + (256 + 1) * 3
    assert same(*(jax.tree.map(lambda leaf: np.array(leaf.shape), getattr(learner, part)) for part in PARTS[:2]))


def test_targets_begin_as_copies(fresh: td3.Learner) -> None:
    assert same(fresh.critic, fresh.target_critic) and same(fresh.actor, fresh.target_actor)


# --- the losses, written out ---


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("clip", [0.1, 10.0])
def test_critic_loss_is_its_equation(clip: float, warm: td3.Learner) -> None:
    """With noise that is clipped, and with noise that is not but for the bounds."""
    warm, config = double(warm), replace(CONFIG, smoothing_clip=clip)
    b, eps = transitions(9, SPEC, 16), 3 * noise(9, 16, 2)
    loss, mean_q = jax.jit(td3.critic_loss, static_argnums=2)(warm.critic, warm, config, b, eps)
    unit = np.tanh(np.asarray(jax.jit(MLP.__call__)(warm.target_actor.network, b.next_observation)))
    unit = np.clip(unit + np.clip(0.2 * np.asarray(eps), -clip, clip), -1, 1)
    assert (np.abs(unit) == 1).any() if clip == 10.0 else (np.abs(0.2 * np.asarray(eps)) > clip).any()
    a = (LOW + HIGH) / 2 + (HIGH - LOW) / 2 * unit
    q_next = np.minimum(*map(np.asarray, valued(warm.target_critic, b.next_observation, a)))
    y = np.asarray(b.reward) + np.asarray(b.continues) * 0.9 * q_next
    q1, q2 = map(np.asarray, valued(warm.critic, b.observation, b.action))
    assert loss == pytest.approx(((q1 - y) ** 2).mean() + ((q2 - y) ** 2).mean(), rel=1e-9)
    assert mean_q == pytest.approx(q1.mean(), rel=1e-9)


@pytest.mark.usefixtures("x64")
def test_actor_loss_is_its_equation(warm: td3.Learner) -> None:
    """Of the first critic alone; and its gradient."""
    warm, s = double((warm, transitions(9, SPEC, 5).observation))
    q1, q2 = map(np.asarray, valued(warm.critic, s, jax.jit(lambda actor: actor(s))(warm.actor)))
    loss, _ = check_gradients(lambda actor: td3.actor_loss(actor, warm.critic, s), (warm.actor,))
    assert loss == pytest.approx(-float(q1.mean()), rel=1e-9)
    assert float(q1.mean()) != pytest.approx(float(q2.mean()), rel=1e-3)


def test_targets_send_no_gradient(warm: td3.Learner) -> None:
    b, eps = transitions(9, SPEC, 16, continues=1.0), noise(9, 16, 2)

    def loss(actor: Any, target: Any) -> jax.Array:
        learner = eqx.tree_at(lambda w: (w.target_actor, w.target_critic), warm, (actor, target))
        return td3.critic_loss(warm.critic, learner, CONFIG, b, eps)[0]

    for leaf in jax.tree.leaves(jax.jit(jax.grad(loss, argnums=(0, 1)))(warm.target_actor, warm.target_critic)):
        np.testing.assert_array_equal(leaf, 0)


# --- the update ---


def test_the_actor_and_all_targets_move_every_second_time(fresh: td3.Learner) -> None:
    moved, learner = [], fresh
    for i in range(4):
        before = learner
        learner, metrics = update(CONFIG, learner, (transitions(i, SPEC, 16),), jax.random.key(i))
        moved.append(differences(before, learner, PARTS))
        assert all(np.isfinite(value) for value in metrics.values())
    assert moved == [{"critic"}, set(PARTS)] * 2
    assert int(learner.updates) == 4


def test_targets_take_a_polyak_step(warm: td3.Learner) -> None:
    learner, _ = update(CONFIG, warm, (transitions(5, SPEC, 16),), jax.random.key(5))
    close(learner.target_critic, follow(warm.target_critic, learner.critic, 0.1), 1e-6)
    close(learner.target_actor, follow(warm.target_actor, learner.actor, 0.1), 1e-6)


# --- acting ---


def test_noise_explores_and_is_kept_within_the_bounds(warm: td3.Learner) -> None:
    loud = td3.policy(replace(CONFIG, noise=2.0), td3.Learner(**{**vars(warm), "actor": nudged(warm.actor)}))
    state, decide = loud.init_state(()), jax.jit(lambda policy, *given: policy.decide(*given)[0], static_argnums=3)
    explore = jax.jit(jax.vmap(lambda key: loud.decide(state, key, 1)[0][0]))
    drawn = np.asarray(explore(jax.random.split(jax.random.key(0), 50)))
    assert (drawn >= LOW - 1e-6).all() and (drawn <= HIGH + 1e-6).all()
    assert (np.isclose(drawn, LOW) | np.isclose(drawn, HIGH)).any() and drawn.std(0).min() > 0.05
    plans = [np.asarray(decide(loud, state, None, 3)) for _ in range(2)]
    np.testing.assert_array_equal(*plans)
    np.testing.assert_array_equal(plans[0], np.broadcast_to(plans[0][0], (3, 2)))
    quiet = td3.policy(replace(CONFIG, noise=0.0), warm)
    np.testing.assert_array_equal(decide(quiet, state, jax.random.key(0), 1), decide(quiet, state, None, 1))


@pytest.mark.parametrize("options", [{"actor_every": 0}, {"noise": -0.1}, {"smoothing": float("inf")}])
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(LegatoError, match=next(iter(options))):
        td3.Config(**options)

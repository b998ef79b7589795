"""Learning from logs, in seconds: a return that is asked for is paid, and what was seen long ago is remembered.

Each network has a control beside it that learns from the same data in the same way and cannot do it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from legato.algorithms import algorithm as algorithm_module
from legato.algorithms.decision_s4.config import DS4
from legato.algorithms.decision_transformer.config import DT
from legato.data import dataset_statistics, windows
from legato.data.spec import Spec
from legato.data.trajectories import About, Trajectories, trajectories
from legato.envs import tasks
from legato.player import Player
from legato.training import offline

SPEC = Spec(1, (-1.0,), (1.0,))
KEY = jax.random.key(0)


def learnt(name: str, config: Any, data: Trajectories, spec: Spec, updates: int) -> Any:
    """A learner after so many updates."""
    module = algorithm_module(name)
    known = dataset_statistics.of(data, spec, scale=config.scale)
    learner = jax.jit(jax.vmap(partial(module.init, config, spec), in_axes=(0, None)))(jax.random.split(KEY, 1), known)
    batch_specs = windows.buckets(data.lengths, module.batches(config))
    keys, episodes = jax.random.split(jax.random.key(1), 1), windows.episodes(data, batch_specs=batch_specs)
    learner, _ = offline.advance(module, config, batch_specs, learner, episodes, keys, 0, updates)
    return jax.tree.map(lambda leaf: leaf[0], learner)


def bandit() -> Trajectories:
    """One step, one of two actions, which pays what it is: 1 or -1."""
    actions = np.random.default_rng(0).choice([-1.0, 1.0], (500, 1))
    return trajectories(np.zeros((500, 1)), actions, actions[:, 0], np.ones(500), np.zeros(500), about=About("bandit"))


@pytest.mark.parametrize(
    ("name", "config"),
    [
        (
            "dt",
            DT(context=1, layers=1, size=16, positions="none", learning_rate=1e-2, warmup=10, dropout=0.0, scale=1.0),
        ),
        ("ds4", DS4(layers=1, channels=8, order=4, embedding=8, length=1, learning_rate=1e-2, warmup=10, dropout=0.0)),
    ],
)
def test_the_return_that_is_asked_for_is_paid(name: str, config: Any) -> None:
    def actions(config: Any) -> list[float]:
        learner = learnt(name, config, bandit(), SPEC, 200)
        player = Player(algorithm_module(name).policy(config, learner), SPEC)
        asked = (1.0, -1.0) if config.returns else ((), ())
        return [player.act(player.begin(command), np.zeros(1))[0].item() for command in asked]

    most, least = actions(config)
    assert most > 0.9
    assert least < -0.9
    most, least = actions(replace(config, returns=False))
    assert most == least == pytest.approx(0, abs=0.2)  # the mean of both


def test_a_cue_is_remembered_to_the_end() -> None:
    length = 30
    config = DS4(
        layers=2,
        channels=16,
        order=16,
        embedding=16,
        length=length,
        batch_size=32,
        learning_rate=5e-3,
        warmup=20,
        core_learning_rate=5e-3,
        dropout=0.0,
        clip=1.0,
    )
    spec, data, test = (
        Spec(2, (-1.0,), (1.0,)),
        tasks.record_recall(500, length),
        tasks.record_recall(200, length, seed=1),
    )
    whole = windows.window(windows.episodes(test), jnp.asarray(test.offsets[:-1]), length)

    def correct(config: DS4) -> float:
        learner = learnt("ds4", config, data, spec, 150)
        previous = jnp.where(whole.timesteps[..., None] > 0, whole.previous, 0)
        seen, asked = (
            learner.statistics.normaliser(whole.observations),
            learner.statistics.scale_return(whole.returns_to_go),
        )
        last = learner.network(seen, previous, asked)[:, -1, 0]
        return float(np.mean(np.sign(last) == np.sign(whole.actions[:, -1, 0])))

    assert correct(config) > 0.95
    assert 0.3 < correct(replace(config, history=False)) < 0.7

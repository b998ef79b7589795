"""Probe environments: every link from reward to action, tested where the answer is known.

Bounds are set by the answers. A return may lack 0.05 of an optimum of 1, of which a uniformly random policy earns less
than a quarter. A value may be 0.1 off, which leaves room for what is left of the entropy bonus (0.06); a target that
bootstraps where it must not, or not where it must, or without discount, is 0.5 or more off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.probes import HIGH, LOW

from legato.algorithms import algorithm as algorithm_module
from legato.envs import make_vec
from legato.rollout import Clock, episodes, stack
from legato.training import online, policy_file
from legato.training.run import Run
from legato.training.settings import override, preset

GAMMA = 0.5
MEMBERS = 8  # environments side by side, whether training or testing: one compilation
SMALL = {"model_hidden": (32, 32)}
LEARNERS = {
    "sac": ("sac", {}),
    "td3": ("td3", {}),
    "srl-1": ("srl", {"horizon": 1, **SMALL}),
    "srl-2": ("srl", {"horizon": 2, **SMALL}),
}


@dataclass(frozen=True)
class Probe:
    """An environment, the return of the best policy, and what Q must be at some (x, t, a)."""

    name: str
    optimum: float | None
    values: tuple[tuple[tuple[float, float, float], float], ...]


PROBES = [
    Probe("OneStep", 1.0, (((0, 0, 1.5), 1.0), ((0, 0, -0.5), 0.0))),
    Probe("Constant", None, (((0, 0, -1), 1.0), ((0, 0, 0), 1.0), ((0, 0, 2), 1.0))),
    Probe("Endless", None, (((0, 0, -1), 1 / (1 - GAMMA)), ((0, 0, 2), 1 / (1 - GAMMA)))),
    Probe("Delayed", None, (((1, 0, 0), GAMMA), ((-1, 0, 0), -GAMMA), ((1, 1, 0), 1.0), ((-1, 1, 0), -1.0))),
    Probe("Sign", 1.0, (((1, 0, 1), 1.0), ((-1, 0, -1), 1.0), ((1, 0, -1), 0.0))),
    Probe("Credit", 1.0, (((0, 0, 1.5), GAMMA), ((0, 0, -0.5), 0.0), ((1.5, 1, 0), 1.0))),
]


def train(name: str, algorithm: str, out: Path, **options: Any) -> Run:
    config, settings = override(
        *preset("cpu", algorithm, name),
        **{"hidden": 32, "batch_size": 64, "learning_rate": 3e-3, "anneal_over": 0, "gamma": GAMMA, "tau": 0.05},
        **options,
        **{"steps": 1200, "start_steps": 200, "environments": MEMBERS, "eval_episodes": MEMBERS},
        **{"eval_every": 1200, "checkpoint_every": 1200},
    )
    return online.start(algorithm, "cpu", config, settings, out, quiet=True)


def greedy_return(run: Run) -> float:
    """Mean return of test episodes, deciding as often as in training."""
    policy = policy_file.load(run.policy_path()).policy
    every = algorithm_module(run.algorithm).plan_length(run.config)
    return float(
        episodes(stack([policy]), make_vec(run.settings.env, MEMBERS), run.spec, Clock(every), run.seeds, "test").mean()
    )


def critic(run: Run) -> Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """The critics at the end of a run, from its last checkpoint."""
    return policy_file.newest_learner(run, run.seeds[0]).critic


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_probe(probe: Probe, learner: str, tmp_path: Path) -> None:
    algorithm, options = LEARNERS[learner]
    run = train(f"probe/{probe.name}-v0", algorithm, tmp_path / "run", **options)
    assert (run.spec.low, run.spec.high) == ((LOW,), (HIGH,))
    where, expected = (np.array(column, np.float32) for column in zip(*probe.values, strict=True))
    q, ret = critic(run), greedy_return(run)
    for values in q(jnp.asarray(where[:, :2]), run.spec.normalise(jnp.asarray(where[:, 2:]))):
        np.testing.assert_allclose(values, expected, atol=0.1)
    if probe.optimum is not None:
        assert ret == pytest.approx(probe.optimum, abs=0.05)

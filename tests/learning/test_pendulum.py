"""One short learning run: SRL-4 on Pendulum-v1 against a random and an untrained policy on the same test episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats

from legato.algorithms.srl import srl
from legato.envs import make_vec
from legato.policy import RandomPlans
from legato.rollout import Clock, episodes, stack
from legato.training import online, policy_file
from legato.training.settings import override, preset

EPISODES = 16


def test_srl_4_learns_to_swing_up_a_pendulum(tmp_path: Path) -> None:
    """4000 steps; six seeds ended between -136 and -266, where random plans earn about -1200."""
    config, settings = override(
        *preset("cpu", "srl", "Pendulum-v1"),
        **{"horizon": 4, "hidden": 64, "model_hidden": (64, 64), "batch_size": 64, "learning_rate": 1e-3, "tau": 0.01},
        anneal_over=0,
        **{"steps": 4000, "start_steps": 500, "environments": 4, "eval_every": 4000},
        **{"eval_episodes": EPISODES, "checkpoint_every": 4000},
    )
    run = online.start("srl", "cpu", config, settings, tmp_path / "run", quiet=True)
    environment = make_vec("Pendulum-v1", EPISODES)

    def returns(policy: Any, key: jax.Array | None = None) -> np.ndarray:
        """Of episodes of the test stream, which training never saw; the same ones for everyone."""
        keys = None if key is None else key[None]
        return episodes(stack([policy]), environment, run.spec, Clock(4), run.seeds, "test", keys=keys)[0]

    beginner = srl.policy(config, srl.init(config, run.spec, jax.random.key(0)))
    trained = returns(policy_file.load(run.policy_path()).policy)
    untrained = returns(beginner)
    random = returns(RandomPlans(beginner, run.spec), jax.random.key(1))
    environment.close()
    for baseline in (untrained, random):
        assert stats.wilcoxon(trained, baseline, alternative="greater").pvalue < 1e-3
        assert trained.mean() > baseline.mean() / 2  # returns are negative: at least half way to 0
    assert random.mean() == pytest.approx(-1230, abs=250)  # the yardstick itself is what it should be

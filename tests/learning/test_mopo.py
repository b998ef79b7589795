"""MOPO finds what no logged episode has done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from legato import api
from legato.data import formats, sets
from legato.data import trajectories as logs
from legato.envs import tasks


def paid(observation: np.ndarray) -> np.ndarray:
    distance = np.abs(observation[..., 0])
    return ((distance >= 0.5) & (distance <= 1)).astype(np.float32)


class Annulus(tasks.PointMass):
    """The point mass, paid 1 for every step at such a distance from 0."""

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        observation, _, *others = super().step(action)
        return observation, float(paid(observation)), *others


def annulus() -> gymnasium.Env:
    return Annulus()


def test_it_stays_where_the_logs_only_pass(tmp_path: Path) -> None:
    """Every logged episode spends 25 steps there at most, of 100."""
    data = tasks.record_point_mass(800)
    assert data.final_observations is not None
    after = np.roll(data.observations, -1, axis=0)
    after[data.offsets[1:] - 1] = data.final_observations
    data = replace(data, rewards=paid(after), about=replace(data.about, name="passing", environment=None))
    data = sets.select(data, np.flatnonzero(logs.returns(data) <= 25)[:500])
    formats.save(data, tmp_path / "passing.npz")
    found = api.train(
        *("mopo", annulus),
        **{"dataset": str(tmp_path / "passing.npz"), "out": tmp_path / "run", "quiet": True, "eval_every": 10_000},
    )
    rows = np.genfromtxt(found.path / "metrics.csv", delimiter=",", names=True)
    assert rows["eval_return"][-1] > 60  # the benchmark: 86 to 94

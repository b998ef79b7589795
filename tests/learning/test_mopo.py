"""MOPO finds what no logged episode has done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from legato import api
from legato.data import formats, sets
from legato.data import trajectories as logs
from legato.envs import tasks
from legato.training.run import Run


def last_return(run: Run) -> float:
    rows = np.genfromtxt(run.path / "metrics.csv", delimiter=",", names=True)
    return float(rows["eval_return"][-1])


def test_it_holds_a_mass_that_the_logs_only_push_past(tmp_path: Path) -> None:
    """Episodes that earned 25 at most of nearly 100."""
    data = tasks.record_point_mass(800)
    data = sets.select(data, np.flatnonzero(logs.returns(data) <= 25)[:300])
    path = tmp_path / "passing.npz"
    formats.save(replace(data, about=replace(data.about, name="passing")), path)
    told = {"env": tasks.POINT_MASS, "quiet": True, "eval_episodes": 20}
    mopo = api.train("mopo", dataset=str(path), out=tmp_path / "mopo", **told, updates=4_000, eval_every=4_000)
    bc = api.train("bc", dataset=str(path), out=tmp_path / "bc", **told, updates=2_000, eval_every=2_000)
    assert last_return(bc) < logs.returns(data).max() < 50 < last_return(mopo)

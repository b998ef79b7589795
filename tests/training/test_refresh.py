"""Work between turns: when it is done, that nothing is learnt before the first, and that a stop in it costs nothing."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import common
from tests.fakes.config import ENTRIES
from tests.tiny import logs
from tests.training.test_online import load, rows, same_end, saved

import legato.algorithms
from legato import api
from legato.training.run import Run

ACT = {"steps": 60, "start_steps": 10, "eval_every": 20, "log_every": 10, "checkpoint_every": 20, "eval_episodes": 1}
ACT |= {"refresh_every": 6}
READ = {"updates": 500, "eval_every": 100, "log_every": 50, "checkpoint_every": 100, "refresh_every": 150}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if their folder were in the list."""
    known = {**legato.algorithms._entries(), **{entry.name: entry for entry in ENTRIES}}
    monkeypatch.setattr(legato.algorithms, "_entries", lambda: known)
    common.asked.clear()


def train(kind: str, path: Path, **options: Any) -> Run:
    if kind == "online":
        return api.train("counter", "Pendulum-v1", out=path, quiet=True, seeds=2, **{**ACT, **options})
    dataset = logs(path.parent / "logs.npz") if not (path.parent / "logs.npz").exists() else path.parent / "logs.npz"
    return api.train("reader", dataset=dataset, out=path, quiet=True, seeds=2, **{**READ, **options})


@pytest.mark.parametrize(("kind", "asked"), [("online", [0, *range(6, 56, 6)]), ("offline", [0, 150, 300, 450])])
def test_refreshes_come_on_their_clock_and_before_the_first_update(kind: str, asked: list[int], tmp_path: Path) -> None:
    """Metrics hold what the model said, which is no number before the first refresh."""
    run = train(kind, tmp_path / "run")
    assert common.asked == asked
    assert all(float(row["model"]) == float(row["model"]) for row in rows(run) if row["model"])
    assert int(load(run.path)[1]["loop"]["refreshed"]) == asked[-1]


@pytest.mark.parametrize("kind", ["online", "offline"])
@pytest.mark.parametrize("sent", [1, 2], ids=["saved", "lost"])
def test_a_run_that_is_stopped_in_a_refresh_ends_like_one_left_alone(
    kind: str, sent: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One signal stops it half-way and saves; a second is as a kill: it goes on from the last checkpoint, at which
    no refresh is due.
    """
    whole = train(kind, tmp_path / "whole")
    refresh, count = common.refresh, []

    def stopped(config: Any, learner: Any, source: Any, keys: Any, show: Callable[..., None]) -> Any:
        count.append(int(learner.updates[0]))

        def half_way(done: int, total: int, what: str) -> None:
            if len(count) == 4 and done == 1:
                for _ in range(sent):
                    signal.raise_signal(signal.SIGINT)
            show(done, total, what)

        return refresh(config, learner, source, keys, half_way)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(common, "refresh", stopped)
        train(kind, tmp_path / "run")
    assert len(count) == 4
    left = load(tmp_path / "run")[1]["loop"]
    if sent == 1:
        assert int(left["refreshed"]) == count[2]
    assert saved(tmp_path / "run")[-1] < (60 if kind == "online" else 500)
    api.train(resume=tmp_path / "run", quiet=True)
    same_end(tmp_path / "run", whole.path)

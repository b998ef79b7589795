"""Work between turns: when it is done, that nothing is learnt before the first, and that a stop in it costs nothing."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import common
from tests.fakes.runs import train
from tests.runs import load, rows, same_end, saved

from legato import api

pytestmark = pytest.mark.usefixtures("fakes")


@pytest.fixture(autouse=True)
def none_asked() -> None:
    common.asked.clear()


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

    def stopped(config: Any, learner: Any, source: Any, keys: Any, show: Callable[..., None], *when: Any) -> Any:
        count.append(int(learner.updates[0]))

        def half_way(done: int, total: int, what: str) -> None:
            if len(count) == 4 and done == 1:
                for _ in range(sent):
                    signal.raise_signal(signal.SIGINT)
            show(done, total, what)

        return refresh(config, learner, source, keys, half_way, *when)

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

"""A run that was given an end and then a later one: the numbers of a run that was given that at once."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.runs import train as fake
from tests.runs import same_end
from tests.tiny import nothing_learnt, train

from legato import api
from legato.cli import main
from legato.errors import LegatoError, LegatoWarning
from legato.evaluation import compare as comparing
from legato.evaluation import sweeps
from legato.evaluation.compare import evaluation_of
from legato.evaluation.fas import FASReference
from legato.training import online
from legato.training.run import Run

EVERY: dict[str, Any] = {"eval_every": 200, "log_every": 200, "checkpoint_every": 200, "eval_episodes": 2}


@pytest.mark.usefixtures("fakes")
def test_a_longer_run_is_the_one_that_was_asked_for_at_once(tmp_path: Path) -> None:
    """Its replay buffer held no more than the shorter run makes."""
    whole = fake("online", tmp_path / "whole", steps=80, capacity=10_000)
    fake("online", tmp_path / "longer", steps=40, capacity=10_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = api.train(resume=tmp_path / "longer", steps=80, quiet=True)
        assert Run(run.path).settings == whole.settings  # nor has its config.json been changed by others
    same_end(run.path, whole.path)
    assert json.loads((run.path / "config.json").read_text())["extended"] == [[40, 80]]


@pytest.mark.usefixtures("fakes")
def test_one_that_learns_from_logs_too(tmp_path: Path) -> None:
    whole = fake("offline", tmp_path / "whole", updates=400)
    fake("offline", tmp_path / "longer", updates=200)
    main(["train", "--resume", str(tmp_path / "longer"), "--updates", "400", "--quiet"])
    same_end(tmp_path / "longer", whole.path)


@pytest.mark.usefixtures("fakes")
def test_what_was_measured_before_is_measured_anew_in_its_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "PLAN_LENGTHS", (32,))  # compiles once
    run = fake("online", tmp_path / "run", steps=20, seeds=1, max_episode_steps=20)
    first = api.evaluate(run, max_return=100, offset=200, episodes=1, clocks=False, quiet=True)
    assert (first.steps, first.reference) == ((20,), FASReference(100, 200))
    api.train(resume=run.path, steps=40, quiet=True)
    again = evaluation_of(run.path, quiet=True)
    assert (again.steps, again.reference) == ((40,), FASReference(100, 200))
    assert again.fas is not None
    monkeypatch.setattr(comparing, "evaluate", None)  # is not called again
    assert evaluation_of(run.path, quiet=True).steps == (40,)


def test_step_sizes_that_have_fallen_are_said_to_stay_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_learnt(monkeypatch, online)
    train("sac", tmp_path / "run", steps=200, anneal_over=-1, **{**EVERY, "start_steps": 100})
    with pytest.warns(LegatoWarning, match="goes on with the small step sizes that it came to by 200"):
        api.train(resume=tmp_path / "run", steps=400, quiet=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        api.train(resume=tmp_path / "run", quiet=True)


@pytest.mark.usefixtures("fakes")
def test_an_end_that_is_none_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    fake("online", tmp_path / "acts", steps=200, **EVERY)
    fake("offline", tmp_path / "learns", updates=200)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for run, given, words in (
        ("acts", {"steps": 100}, "ends after 200 steps as it is: a later end is a whole number above 200"),
        ("acts", {"steps": 1e6}, "above 200"),
        ("acts", {"steps": "300"}, "above 200"),
        ("acts", {"steps": True}, "above 200"),
        ("acts", {"updates": 300}, "is counted in steps: give `steps`"),
        ("learns", {"steps": 300}, "is counted in updates: give `updates`"),
    ):
        with pytest.raises(LegatoError, match=words):
            api.train(resume=tmp_path / run, quiet=True, **given)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    shutil.rmtree(tmp_path / "acts" / "checkpoints")
    before = (tmp_path / "acts" / "config.json").read_bytes()
    with pytest.raises(LegatoError):
        api.train(resume=tmp_path / "acts", steps=300, quiet=True)
    assert (tmp_path / "acts" / "config.json").read_bytes() == before

"""What every loop does, told by algorithms of one number, by acting and from logs: whatever ends a run, it can be gone
on with and ends with the numbers of one left alone; what breaks is named; what is measured is written down.

The promises of real algorithms stand in `tests/conformance`, those of real processes in `test_online`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tests.fakes.runs import ACT, train
from tests.runs import last_step, load, rows, same_end, saved
from tests.tiny import struck

from legato import api
from legato.errors import LegatoError
from legato.training import offline, online
from legato.training.checkpoint import Checkpoints
from legato.training.run import Run

pytestmark = pytest.mark.usefixtures("fakes")

KINDS = pytest.mark.parametrize("kind", ["online", "offline"])
MODULES = {"online": online, "offline": offline}
LOOPS: dict[str, Any] = {"online": online.OnlineLoop, "offline": offline.OfflineLoop}
RESUMES: dict[str, Any] = {"online": online.resume, "offline": offline.resume}
# Before this turn a signal comes, and so far it has come with it; the checkpoint before. Neither checkpoint nor
# metrics are due then.
BEFORE, AFTER, EARLIER = {"online": 33, "offline": 200}, {"online": 34, "offline": 250}, {"online": 20, "offline": 200}
UNIT, END = {"online": "step", "offline": "update"}, {"online": 60, "offline": 500}


@pytest.fixture(scope="module")
def wholes(fakes: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Of either kind, in one go. Read only."""
    folder = tmp_path_factory.mktemp("wholes")
    return {kind: train(kind, folder / kind) for kind in LOOPS}


@contextmanager
def signals(kind: str, before: int, *sent: int) -> Iterator[None]:
    """Let signals come before the turn that begins with so many steps or updates."""
    turn = LOOPS[kind].turn

    def interrupt(loop: Any) -> None:
        if loop.session.step == before:
            for number in sent:
                signal.raise_signal(number)
            assert len(sent) == 1, "this turn went on"
        turn(loop)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LOOPS[kind], "turn", interrupt)
        yield


# --- stopped and resumed ---


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@KINDS
def test_a_stopped_run_saves_says_so_and_ends_like_one_left_alone(
    kind: str, sent: signal.Signals, wholes: dict[str, Run], tmp_path: Path
) -> None:
    """The turn at work is finished and saved; double precision elsewhere changes nothing where it goes on."""
    path, handler = tmp_path / "run", signal.getsignal(sent)
    with signals(kind, BEFORE[kind], sent), pytest.raises(KeyboardInterrupt) as stopped:
        train(kind, path)
    at = AFTER[kind]
    assert str(stopped.value) == f"stopped at {UNIT[kind]} {at}; continue with: legato train --resume {path}"
    assert signal.getsignal(sent) is handler
    assert saved(path)[-1] == at
    with jax.enable_x64(sent == signal.SIGHUP):
        api.train(resume=path, quiet=True)
    same_end(path, wholes[kind].path)


@KINDS
def test_a_second_ctrl_c_is_immediate_and_costs_what_a_kill_does(
    kind: str, wholes: dict[str, Run], tmp_path: Path
) -> None:
    """More of the other signals change nothing. It goes on from the checkpoint before, and may be stopped so again."""
    path = tmp_path / "run"
    for go in (lambda: train(kind, path), lambda: api.train(resume=path, quiet=True)):
        with (
            signals(kind, BEFORE[kind] + (kind == "offline") * 50, signal.SIGINT, signal.SIGTERM, signal.SIGINT),
            pytest.raises(KeyboardInterrupt, match=r"^$"),
        ):
            go()
        assert saved(path)[-1] == EARLIER[kind]
    api.train(resume=path, quiet=True)
    same_end(path, wholes[kind].path)


@KINDS
def test_an_evaluation_is_interrupted_too(kind: str, tmp_path: Path) -> None:
    """The second one, between two of its own steps; it is made again, and the run ends like one left alone."""
    environment: dict[str, Any] = {"max_episode_steps": 10} | ({"env": "Pendulum-v1"} if kind == "offline" else {})
    whole, path = train(kind, tmp_path / "whole", **environment), tmp_path / "run"
    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt) as stopped:
        made = struck(patched, MODULES[kind], 2)
        train(kind, path, **environment)
    assert made == [10, 3]
    at = {"online": 40, "offline": 200}[kind]
    assert saved(path)[-1] == at and f"stopped at {UNIT[kind]} {at};" in str(stopped.value)
    assert last_step(path) < at
    api.train(resume=path, quiet=True)
    same_end(path, whole.path)


@KINDS
def test_before_anything_was_measured_there_is_a_checkpoint_and_no_policy(kind: str, tmp_path: Path) -> None:
    """Online, before there is a minibatch, and nothing was learnt."""
    path = tmp_path / "run"
    with signals(kind, 0, signal.SIGINT), pytest.raises(KeyboardInterrupt, match="stopped at"):
        train(kind, path)
    assert saved(path) == [{"online": 1, "offline": 50}[kind]]
    with pytest.raises(LegatoError, match="has no 'last' policy of seed 0 yet; was it stopped early"):
        api.load(path)
    api.train(resume=path, quiet=True)
    assert saved(path)[-1] == END[kind] and api.load(path).card.extra["step"] == END[kind]


@KINDS
def test_an_older_checkpoint_can_be_gone_back_to_and_a_finished_run_is_left(
    kind: str, wholes: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older = saved(wholes[kind].path)[0]
    assert older < END[kind]
    for name, step in (("finished", None), ("back", older)):
        shutil.copytree(wholes[kind].path, tmp_path / name)
        RESUMES[kind](tmp_path / name, step)
        said = capsys.readouterr().err.strip()
        assert (re.search(rf"{END[kind]}/{END[kind]} .* was finished before$", said) is not None) == (step is None)
        same_end(tmp_path / name, wholes[kind].path)


@KINDS
def test_nobody_needs_to_read_what_it_says(kind: str, wholes: dict[str, Run], tmp_path: Path) -> None:
    """A closed terminal: what it says goes into a pipe that nobody reads, and then comes SIGHUP."""
    path, (read, write) = tmp_path / "run", os.pipe()
    os.close(read)
    with os.fdopen(os.dup(write), "w", buffering=1) as nowhere, pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "stderr", nowhere)
        with pytest.raises(BrokenPipeError):
            print("is it closed?", file=sys.stderr, flush=True)  # noqa: T201
        with signals(kind, BEFORE[kind], signal.SIGHUP), pytest.raises(KeyboardInterrupt, match="stopped at"):
            train(kind, path, quiet=False)
        os.dup2(os.open(os.devnull, os.O_WRONLY), nowhere.fileno())  # what is left in the buffer
    os.close(write)
    assert saved(path)[-1] == AFTER[kind]
    api.train(resume=path, quiet=True)
    same_end(path, wholes[kind].path)


@KINDS
def test_a_checkpoint_that_cannot_be_written_ends_the_run_and_costs_what_a_kill_does(
    kind: str, wholes: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a full disk does; what was logged by then is kept."""
    save, path = Checkpoints.save, tmp_path / "run"

    def full(checkpoints: Checkpoints, step: int, state: dict[str, Any]) -> None:
        if step > EARLIER[kind]:
            raise LegatoError("no space left")
        save(checkpoints, step, state)

    with monkeypatch.context() as patched, pytest.raises(LegatoError, match=r"^no space left$"):
        patched.setattr(Checkpoints, "save", full)
        train(kind, path)
    assert saved(path)[-1] == EARLIER[kind]
    assert last_step(path) == {"online": 40, "offline": 300}[kind]
    api.train(resume=path, quiet=True)
    same_end(path, wholes[kind].path)


# --- several seeds ---


@KINDS
def test_a_seed_ends_the_same_whoever_is_beside_it(kind: str, wholes: dict[str, Run], tmp_path: Path) -> None:
    """Of seeds 0 and 1, each alone: what it is measured and logged by, and all its numbers."""
    together = load(wholes[kind].path)[1]
    for seed in (0, 1):
        alone = train(kind, tmp_path / str(seed), seed=seed, seeds=1)
        for name, numbers in load(alone.path)[1]["learner"].items():
            np.testing.assert_allclose(numbers[0], together["learner"][name][seed], rtol=1e-5, err_msg=name)
        ours, theirs = ([row for row in rows(run) if row["seed"] == str(seed)] for run in (wholes[kind], alone))
        assert [row["step"] for row in ours] == [row["step"] for row in theirs]
        for one, other in zip(ours, theirs, strict=True):
            found = ([float(row[name] or 0) for name in row] for row in (one, other))
            np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)
    x = together["learner"]["x"]
    assert abs(x[0] - x[1]) > 1e-4


# --- what breaks ---

SEEDS = (2, 3)  # the second is weak


@KINDS
def test_the_value_and_the_seed_that_broke_are_named_and_the_checkpoint_is_kept(kind: str, tmp_path: Path) -> None:
    """Only the weak seeds break; no policy of later was saved."""
    path, broken_after = tmp_path / "run", {"online": 26, "offline": 230}[kind]
    with pytest.raises(LegatoError) as problem:
        train(kind, path, seed=SEEDS[0], breaks_after=broken_after)
    step, state = load(path)
    assert state["learner"]["weak"].tolist() == [False, True]
    assert step == EARLIER[kind]
    found = re.fullmatch(
        rf"x of seed {SEEDS[1]} became nan by {UNIT[kind]} (\d+); the checkpoint of {UNIT[kind]} {step} is kept",
        str(problem.value),
    )
    assert found, problem.value
    assert broken_after < int(found[1]) <= {"online": 40, "offline": 250}[kind]
    assert all(np.isfinite(state["learner"][name]).all() for name in ("x", "model"))
    assert api.load(path).card.extra["step"] == step
    assert last_step(path) <= broken_after + 4


@KINDS
def test_before_the_first_checkpoint_there_is_none_to_be_kept(kind: str, tmp_path: Path) -> None:
    """Online, the first to notice is the rollout, long before metrics are due; the first cause is named."""
    never = {name: 10_000 for name in ("eval_every", "log_every", "checkpoint_every")}
    with pytest.raises(LegatoError) as problem:
        train(kind, tmp_path / "run", seed=SEEDS[0], breaks_after=1, **never)
    found = re.fullmatch(
        rf"x of seed {SEEDS[1]} became nan by {UNIT[kind]} (\d+); there was no checkpoint yet", str(problem.value)
    )
    assert found, problem.value
    assert int(found[1]) < ACT["steps"]  # of updates, those of the first turn
    assert not (tmp_path / "run" / "policy").exists()


# --- what is measured ---


@KINDS
def test_metrics_have_a_row_per_seed_and_interval(kind: str, wholes: dict[str, Run]) -> None:
    found = rows(wholes[kind])
    every = {"online": 10, "offline": 50}[kind]
    expected = [(str(step), seed) for step in range(every, END[kind] + 1, every) for seed in "01"]
    assert [(row["step"], row["seed"]) for row in found] == expected
    assert saved(wholes[kind].path) == [END[kind] - 2 * every, END[kind]]  # the newest two

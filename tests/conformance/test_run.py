"""A run of every algorithm, from its first file to its last number."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conformance.cases import ALL, FOREIGN, STOPS, TIMES, case, ctrl_c_after, resume, seed_of, train
from tests.learners import same
from tests.runs import load, rows, same_end, saved

from legato import api
from legato.algorithms.mbpo.config import MBPO
from legato.cli import main
from legato.envs import make_vec
from legato.evaluation import prompts
from legato.evaluation.latency import latency
from legato.evaluation.sweeps import asl_clock, sweep
from legato.models import ensemble_fit
from legato.rollout import Clock, episodes, stack
from legato.training.clocks import training_clock
from legato.training.run import Run

pytestmark = FOREIGN
NAMES = pytest.mark.parametrize("name", ALL)


@NAMES
def test_a_run_leaves_its_files_behind(name: str) -> None:
    here = case(name)
    path, times = here.run.path, TIMES[here.entry.learns]
    end = times.get("steps") or times["updates"]
    which = {"last", "best"} | ({"start"} if here.entry.learns == "finetuning" else set())
    for seed in (3, 4):
        assert {found.name for found in (path / "policy" / f"seed-{seed}").iterdir()} == which
        assert api.load(path, seed).card.extra["step"] == end
    assert saved(path)[-1] == end
    found = rows(path)
    assert {row["seed"] for row in found} == {"3", "4"} and int(found[-1]["step"]) == end
    assert list(found[0]) == ["step", "seed", *here.loop.columns]
    own = here.run.config if here.run.method is None else here.run.tuning
    assert Run(path).label == here.run.label and here.entry.label(own) in here.run.label


@NAMES
def test_the_first_turn_finds_its_update_traced(name: str) -> None:
    """Which is what takes long before it: no turn traces it again."""
    assert set(case(name).traced) == {0}


@NAMES
def test_a_run_that_was_stopped_and_resumed_ends_like_one_left_alone(name: str, tmp_path: Path) -> None:
    """Between two checkpoints, two rows of metrics and two episodes' ends."""
    here = case(name)
    with ctrl_c_after(STOPS[here.entry.learns]), pytest.raises(KeyboardInterrupt, match="stopped at"):
        train(name, tmp_path / "run")
    assert saved(tmp_path / "run")[-1] == STOPS[here.entry.learns] < saved(here.run.path)[-1]
    resume(name, tmp_path / "run")
    same_end(tmp_path / "run", here.run.path)


@pytest.mark.parametrize("name", [name for name, found in ALL.items() if issubclass(found.config, MBPO)])
def test_a_run_that_was_stopped_in_a_refit_ends_like_one_left_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second one, after that of the first seed."""
    here, refit, count = case(name), ensemble_fit.refit, []

    def stopped(*args: Any, on_updates: Any) -> Any:
        count.append(args)

        def half_way(updates: int) -> None:
            if len(count) == 4 and updates == 5:
                signal.raise_signal(signal.SIGINT)
            on_updates(updates)

        return refit(*args, on_updates=half_way)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt, match="stopped at"):
        patched.setattr(ensemble_fit, "refit", stopped)
        train(name, tmp_path / "run")
    assert len(count) == 4
    step, state = load(tmp_path / "run")
    assert 0 < int(state["loop"]["refreshed_step"]) < step < saved(here.run.path)[-1]
    resume(name, tmp_path / "run")
    same_end(tmp_path / "run", here.run.path)


def test_a_fine_tuning_can_be_given_a_later_end(tmp_path: Path) -> None:
    """The numbers of one that was asked for it at once; of the others, `training/test_extension` tells."""
    whole = case("ds4-ac").run
    train("ds4-ac", tmp_path / "run", steps=36)
    main(["finetune", "--resume", str(tmp_path / "run"), "--steps", "72", "--quiet"])
    same_end(tmp_path / "run", whole.path)


@NAMES
def test_a_saved_policy_is_the_one_that_was_trained_and_measured(name: str) -> None:
    """Played again, it earns what the metrics say; the one of `best` is of the step that earned most."""
    here, run = case(name), case(name).run
    loaded = [api.load(run.path, seed) for seed in run.seeds]
    trained = here.policies(here.learner)
    for i, player in enumerate(loaded):
        assert same(player.policy, seed_of(trained, i))
    measured = [row for row in rows(run.path) if row["eval_return"]]
    asks = run.conditioned and run.method is None
    command = float(prompts.statistics_of(loaded[0].policy).target) if asks else ()
    clock = training_clock(run.algorithm, run.config) if here.entry.learns == "online" else Clock(1)
    environment = make_vec(run.environment_config, 4)
    earned = episodes(stack([p.policy for p in loaded]), environment, run.spec, clock, run.seeds, "select",
                      command=command).mean(axis=1)  # fmt: skip
    environment.close()
    np.testing.assert_allclose(earned, [float(row["eval_return"]) for row in measured[-2:]], rtol=1e-5)
    for seed in run.seeds:
        of_seed = [row for row in measured if row["seed"] == str(seed)]
        best = max(of_seed, key=lambda row: float(row["eval_return"]))
        assert api.load(run.path, seed, "best").card.extra["step"] == int(best["step"])


@NAMES
def test_it_is_swept_timed_and_collected_with(name: str) -> None:
    run = case(name).run
    player = api.load(run.path)
    environment = make_vec(run.environment_config, 2)
    found = sweep(stack([player.policy]), environment, run.spec, run.seeds[:1], (2,), asl_clock)
    environment.close()
    assert found.returns.shape[0] == 1 and np.isfinite(found.returns).all()
    times = latency(player, 2, calls=5, warmup=1)
    assert times.length == 2 and 0 < times.p50 <= times.p99 < np.inf
    data = api.collect(run, 20, quiet=True)
    assert data.steps == 20 and data.lengths.tolist() == [12, 8]
    low, high = run.spec.float32_bounds
    assert ((data.actions >= low) & (data.actions <= high)).all() and len(np.unique(data.actions)) > 1

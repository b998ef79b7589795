"""Several runs on one environment: their evaluations as kept, or measured now, and the figure of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from legato.envs import Env, EnvironmentConfig
from legato.envs.matching import choose_environment
from legato.errors import LegatoError
from legato.evaluation import store
from legato.evaluation.evaluate import evaluate
from legato.evaluation.fas import GRID
from legato.evaluation.sweep_figures import draw
from legato.evaluation.sweeps import Evaluation
from legato.training.run import Run, Which


def compare(
    runs: Sequence[Run | str | Path],
    figure: str | Path | None = None,
    *,
    which: Which = "last",
    env: Env | None = None,
    env_options: Mapping[str, Any] | None = None,
    max_episode_steps: int | None = None,
    searches: bool = False,
    quiet: bool = False,
) -> list[Evaluation]:
    """The evaluations of several runs on one environment, and the figure of all their curves.

    `env` names the environment where runs have none, or another one; `env_options` and `max_episode_steps` replace
    those of every run (see `train`). With `searches`, those that `evaluate` measured of
    a run follow it. Raises `LegatoError` when the runs are of different environments.
    """
    runs = [run if isinstance(run, Run) else Run(run) for run in runs]
    known = [run.environment_config for run in runs if run.environment]
    usual = known[0] if known else EnvironmentConfig("")  # of runs that name none
    asked = [
        choose_environment(run.environment_config if run.environment else usual, env, env_options, max_episode_steps)
        for run in runs
    ]
    _require_one({environment.label for environment in asked if environment is not None})
    found: list[Evaluation] = []
    for run, environment in zip(runs, asked, strict=True):
        found.append(evaluation_of(run, which, env=environment, quiet=quiet))
        if searches:
            entries = store.read_entries(run).items()
            kept = [store.parse_entry(run, name, body) for name, body in entries if name.startswith(f"{which}+")]
            found += [e for e in kept if e.environment == found[-1].environment and e.asl.x == GRID]
    _require_one({evaluation.environment for evaluation in found})
    if figure is not None:
        draw(found, figure)
    return found


def evaluation_of(
    run: Run | str | Path, which: Which = "last", *, env: Env | EnvironmentConfig | None = None, quiet: bool = False
) -> Evaluation:
    """A run's evaluation as kept in its folder; measured now when there is none in `env` over all lengths.

    Nor is one kept of policies that have learnt on since: it is measured anew, in the scale that it had.
    """
    run = run if isinstance(run, Run) else Run(run)
    body = store.read_entries(run).get(which)
    if body is None:
        return evaluate(run, which=which, env=env, quiet=quiet)
    kept = store.parse_entry(run, which, body)
    known = (
        run.environment_config if run.environment else EnvironmentConfig(kept.environment)
    )  # of files: not named by the user
    asked = env if isinstance(env, EnvironmentConfig) else choose_environment(known, env)
    here = asked is not None and kept.environment == asked.label
    if here and kept.asl.x == GRID and store.is_current(run, kept, which):
        return kept
    targets = kept.prompts.asked if kept.prompts else None
    return evaluate(run, which=which, env=asked, targets=targets, quiet=quiet)


def _require_one(environments: set[str]) -> None:
    if len(environments) > 1:
        raise LegatoError(f"runs of different environments cannot be compared: {', '.join(sorted(environments))}")

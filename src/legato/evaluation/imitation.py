"""How well policies predict logged actions, beside holding the action before, and the logs' own deviation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from legato.algorithms import algorithm as algorithm_module
from legato.data import bounds, formats
from legato.errors import LegatoError, escape_markup
from legato.evaluation.statistics import Interval, bootstrap
from legato.loading import load
from legato.policy import guard_computation
from legato.rollout import stack
from legato.training import held_out
from legato.training.held_out import shares
from legato.training.run import Run, Which


@dataclass(frozen=True)
class Errors:
    """Root mean square errors of predicted actions, in the actions' own units; of discrete ones the share that differs.

    An action that is as far off as `deviation` says no more than the logs' mean; one as far off as `holding`, no more
    than the action before.
    """

    label: str
    dataset: str
    which: str
    seeds: tuple[int, ...]
    episodes: int
    steps: int
    policy: np.ndarray  # [seeds, numbers of an action]
    holding: np.ndarray  # [numbers of an action]: the logged action before, repeated
    deviation: np.ndarray  # [numbers of an action]: the logged mean, or the commonest choice
    discrete: bool = False

    @property
    def share(self) -> Interval:
        """Of the logged deviation, the mean over the numbers of an action, with its interval over seeds."""
        return bootstrap(shares(self.policy, self.deviation))


@guard_computation
def action_errors(run: Run | str | Path, dataset: str | Path, *, which: Which = "last") -> Errors:
    """How far off a run's policies are from the actions in a dataset of episodes that they did not learn from.

    At each step a policy reads what was logged up to it, and its greedy action is held against the logged one; one that
    reads a target return is asked for what the episode earned. No environment is needed. Raises `LegatoError` for data
    of other sizes or of another kind of actions than the policies'.
    """
    run = run if isinstance(run, Run) else Run(run)
    if run.goals:
        raise LegatoError(f"the policies of '{run.place}' are told goals, which logs do not name")
    loaded = [load(run.path, seed, which) for seed in run.seeds]
    spec = run.spec
    data = formats.load(dataset, environment=run.environment or run.place)  # the run knows whether actions are choices
    if spec.choices is not None and not data.discrete:
        data = bounds.as_choices(data, spec.choices, data.about.start)
    policies = stack([player.policy for player in loaded])
    gamma = algorithm_module(run.algorithm).batches(run.config).discount if run.conditioned else 1.0
    found, holding, deviation = held_out.errors(policies, data, spec, conditioned=run.conditioned, gamma=gamma)
    return Errors(
        label=run.label,
        dataset=str(dataset),
        which=which,
        seeds=tuple(run.seeds),
        episodes=len(data),
        steps=data.steps,
        policy=found,
        holding=holding,
        deviation=deviation,
        discrete=data.discrete,
    )


def table(found: Errors) -> Any:
    """One row per number of an action: what policy and holding are off, in its units and as shares of its deviation."""
    from rich.table import Table

    unit = "share that differs" if found.discrete else "root mean square error"
    title = f"{found.label}: actions of {found.episodes} logged episodes, {found.steps} steps ({unit})"
    shown = Table(title=escape_markup(title), title_justify="left", box=None, pad_edge=False)
    for name in ("action", "policy", "held action", "logged deviation", "policy / deviation", "held / deviation"):
        shown.add_column(name, justify="left" if name == "action" else "right")
    means = found.policy.mean(axis=0)
    for i, (mean, held, deviation) in enumerate(zip(means, found.holding, found.deviation, strict=True)):
        ratios = (f"{x / deviation:.3f}" if deviation > 0 else "-" for x in (mean, held))
        shown.add_row(str(i), f"{mean:.4g}", f"{held:.4g}", f"{deviation:.4g}", *ratios)
    return shown

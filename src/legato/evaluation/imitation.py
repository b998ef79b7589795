"""How well policies predict logged actions, beside holding the action before, and the logs' own deviation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from legato.errors import escape_markup
from legato.evaluation.statistics import Interval, bootstrap
from legato.training.held_out import shares


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

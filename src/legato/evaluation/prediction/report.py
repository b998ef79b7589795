"""What came of a prediction, for people and for files."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from legato.errors import escape_markup
from legato.evaluation.prediction.likelihood_curve import Prediction

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = (1, 5, 10, 20, 50, 100)  # steps in tables


@dataclass(frozen=True)
class PredictionReport:
    """What came of one command: a model, and what it is held against."""

    environment: str | None
    predictions: tuple[Prediction, ...]
    oracle: float
    episodes: int
    """real trajectories that were held against"""
    samples: int
    held_out: bool
    """were the real ones of another set than the models learnt from?"""

    @property
    def steps(self) -> int:
        return len(self.predictions[0].likelihood)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, for a file."""
        body = dataclasses.asdict(self)
        for prediction in body["predictions"]:
            prediction |= {k: v.tolist() for k, v in prediction.items() if isinstance(v, np.ndarray)}
        return body


def shown(steps: int) -> list[int]:
    """The steps that a table names."""
    return sorted({step for step in (*SHOWN, steps) if step <= steps})


def table(report: PredictionReport) -> Table:
    """A rich table: log-likelihood at several steps ahead, then errors, a row for each model."""
    from rich.table import Table

    real = "held-out episodes" if report.held_out else "episodes, of those that were learnt from"
    where = escape_markup(report.environment or "steps ahead")
    result = Table(
        title=f"{where} · {report.samples} samples · {report.episodes} {real}",
        caption=f"log-likelihood in nats; bins allow {report.oracle:.1f} at most. error: of the mean, in deviations",
        title_style="bold",
        caption_style="dim",
    )
    steps = shown(report.steps)
    result.add_column("steps ahead", style="bold", no_wrap=True)
    for step in steps:
        result.add_column(str(step), justify="right")
    for p in report.predictions:
        result.add_row(p.label, *(f"{p.likelihood[step - 1]:.1f}" for step in steps))
    for p in report.predictions:
        result.add_row(f"error: {p.label}", *(f"{p.error[step - 1]:.2f}" for step in steps), style="dim")
    for p in report.predictions:
        if p.alive[-1] < 1:
            result.add_row(f"not ended, %: {p.label}", *(f"{100 * p.alive[t - 1]:.0f}" for t in steps), style="dim")
    return result


def draw(report: PredictionReport, path: Path) -> Path:
    """The log-likelihood of every model, step by step ahead."""
    from legato.evaluation.figures import Curve, prediction_curve

    steps = np.arange(1, report.steps + 1)
    return prediction_curve(
        [Curve(p.label, steps, p.likelihood[None]) for p in report.predictions],
        path,
        title=f"{report.environment or 'The data'}: predicted states",
        oracle=report.oracle,
        episodes=report.episodes,
    )

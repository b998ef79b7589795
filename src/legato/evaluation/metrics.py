"""What several runs measured while they were trained, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from legato.errors import LegatoError, escape_markup, quantity, unknown
from legato.training.learning_curve import metric_curves
from legato.training.run import Run
from legato.training.settings import OfflineSettings

if TYPE_CHECKING:
    from legato.evaluation.figures import Curve


def metrics(
    runs: Sequence[Run | str | Path],
    figure: str | Path | None = None,
    *,
    names: Sequence[str] = (),
    seed: int | None = None,
) -> dict[str, list[Curve]]:
    """For each metric by name (all of them by default) its curve in every run that has it, `[seeds, points]` each.

    Of all seeds, or of one: what falls back to 0 now and then is hidden by a mean. Drawn in `figure`, a panel for each
    metric, where one is given. Raises `LegatoError` for no run, for a metric that no run has, a seed that a run lacks,
    and a run whose metrics.csv is gone or was changed.
    """
    from legato.evaluation.figures import Curve, metric_panels

    if not runs:
        raise LegatoError("name at least one run")
    opened = [run if isinstance(run, Run) else Run(run) for run in runs]
    of_seeds = [run.seeds if seed is None else [run.known_seed(seed)] for run in opened]
    curves = [metric_curves(run, chosen) for run, chosen in zip(opened, of_seeds, strict=True)]
    known = list(dict.fromkeys(name for found in curves for name in found))
    if not known:
        raise LegatoError(f"'{opened[0].place}' has measured nothing yet")
    for name in names:
        if name not in known:
            raise LegatoError(unknown("metric", name, known))
    labels = _labels(opened)
    found = {
        name: [Curve(label, *of_run[name]) for label, of_run in zip(labels, curves, strict=True) if name in of_run]
        for name in names or known
    }
    if figure is not None:
        units = {"updates" if isinstance(run.settings, OfflineSettings) else "environment steps" for run in opened}
        title = labels[0] if len(labels) == 1 else f"{quantity(len(labels), 'run')} while training"
        fewest, most = min(map(len, of_seeds)), max(map(len, of_seeds))
        several = f"mean and range over {most if fewest == most else f'{fewest} to {most}'} seeds"
        note = f"seed {seed}" if seed is not None else several if most > 1 else "one seed"
        metric_panels(found, figure, title=title, xlabel=" or ".join(sorted(units)), note=note)
    return found


def _labels(runs: Sequence[Run]) -> list[str]:
    """Of each run its folder's name, and as much of the path as tells it from the others."""
    paths, parts = [run.path for run in runs], 1
    for run in runs:
        if paths.count(run.path) > 1:
            raise LegatoError(f"'{run.place}' is named twice")
    while True:
        labels = [str(Path(*path.parts[-parts:])) for path in paths]
        if len(set(labels)) == len(labels):
            return labels
        parts += 1


def table(found: dict[str, list[Curve]]) -> Any:
    """A rich table of the last values: a row per metric, a column per run; means, and the range over seeds."""
    from rich.table import Table

    labels = list(dict.fromkeys(curve.label for curves in found.values() for curve in curves))
    several = any(len(curve.returns) > 1 for curves in found.values() for curve in curves)
    caption = "mean (lowest to highest seed)" if several else None
    result = Table(title="last values", caption=caption, title_style="bold", caption_style="dim")
    result.add_column("metric", style="bold", overflow="fold")
    for label in labels:
        result.add_column(escape_markup(label), justify="right", overflow="fold")
    for name, curves in found.items():
        cells = {curve.label: _cell(curve) for curve in curves}
        result.add_row(escape_markup(name), *(cells.get(label, "") for label in labels))
    return result


def _cell(curve: Curve) -> str:
    last = curve.returns[:, -1]
    low, mean, high = (f"{value:.4g}" for value in (last.min(), last.mean(), last.max()))
    return mean if low == high else f"{mean} ({low} to {high})"

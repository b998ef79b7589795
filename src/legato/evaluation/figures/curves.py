"""The figures by name: return against time lost, training done, returns asked for; and others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from legato.evaluation.fas import GRID, FASReference, fas
from legato.evaluation.figures.drawing import curve_figure, draw_diagonal, draw_dots, draw_optimum, shade_data
from legato.evaluation.figures.series import Band, Curve, TopAxis
from legato.evaluation.figures.style import FAINT
from legato.evaluation.statistics import bootstrap

if TYPE_CHECKING:  # matplotlib is imported where it is used: it takes a second
    from matplotlib.axes import Axes


def asl_curve(
    curves: Sequence[Curve],
    path: str | Path,
    *,
    title: str,
    reference: FASReference | None = None,
    trained_at: bool = True,
    step_seconds: float | None = None,
    band: Band = "range",
    optimum: tuple[Sequence[int], Sequence[float]] | None = None,
) -> Path:
    """Return against action sequence length (ASL, primitive steps per decision): what rarer decisions cost.

    A dot marks the length each policy was trained with (`trained_at`). `reference` draws the returns that
    score 0 and 1 where they fall inside the figure and scores every curve measured on the FAS grid that
    brings no score of its own (Patel & Siegelmann 2025). `step_seconds`, the length of a primitive step in
    seconds, adds the decisions per second along the top: 0.05 s is 20 Hz at ASL 1.

    `optimum`, lengths and the best policy's mean returns at them, is a dashed line with its name on it. The returns
    that score 0 and 1 are not drawn beside it.
    """
    top = None if step_seconds is None else TopAxis("decisions per second", lambda x: 1 / (x * step_seconds))
    return curve_figure(
        [_scored(curve, reference) for curve in curves],
        path,
        title=title,
        xlabel="action sequence length (primitive steps per decision)",
        reference=reference if optimum is None else None,
        trained_at=trained_at,
        top=top,
        band=band,
        ticks=_length_ticks(curves),
        below=lambda axes: draw_optimum(axes, *optimum) if optimum else [],
    )


def interval_curve(
    curves: Sequence[Curve],
    path: str | Path,
    *,
    title: str,
    reference: FASReference | None = None,
    step_seconds: float | None = None,
    band: Band = "range",
) -> Path:
    """Return against the upper limit N of random decision intervals, uniform on 1..N primitive steps.

    `step_seconds` adds the mean decisions per second along the top, 2 / ((1 + N) step_seconds).
    """
    label = "mean decisions per second"
    top = None if step_seconds is None else TopAxis(label, lambda x: 2 / ((1 + x) * step_seconds))
    return curve_figure(
        curves,
        path,
        title=title,
        xlabel="longest decision interval (primitive steps)",
        reference=reference,
        trained_at=True,
        top=top,
        band=band,
        ticks=_length_ticks(curves),
    )


def delay_curve(
    curves: Sequence[Curve],
    path: str | Path,
    *,
    title: str,
    reference: FASReference | None = None,
    step_seconds: float | None = None,
    band: Band = "range",
) -> Path:
    """Return against the delay of decisions in primitive steps; `step_seconds` adds milliseconds on top."""
    top = None if step_seconds is None else TopAxis("delay (ms)", lambda x: 1000 * x * step_seconds)
    return curve_figure(
        curves, path, title=title, xlabel="delay (primitive steps)", reference=reference, top=top, band=band
    )


def learning_curves(
    curves: Sequence[Curve],
    path: str | Path,
    *,
    title: str,
    xlabel: str = "environment steps",
    reference: FASReference | None = None,
    band: Band = "range",
    level: float | None = None,
    of: str = "the offline policies",
) -> Path:
    """Return against the amount of training, by default primitive environment steps. Nothing is smoothed.

    `level`, the return `of` something that does not learn, is a dotted line.
    """

    def below(axes: Axes) -> list[str]:
        if level is None:
            return []
        axes.update_datalim([(float(curves[0].x[0]), level)])
        axes.autoscale_view()
        axes.axhline(level, color=FAINT, linewidth=1, dashes=(1, 3), zorder=1, gid="level")
        return [f"dotted: {of}"]

    return curve_figure(curves, path, title=title, xlabel=xlabel, reference=reference, band=band, below=below)


def prompt_curve(
    curves: Sequence[Curve],
    path: str | Path,
    *,
    title: str,
    data: tuple[float, float] | None = None,
    target: float | None = None,
    band: Band = "range",
) -> Path:
    """Return achieved against return asked for (x of the curves), with the diagonal where they are equal.

    `data`, the lowest and highest return that was learnt from, shades the stretch in between; a dot marks the return
    that is asked for by default (`target`).
    """

    def below(axes: Axes) -> list[str]:
        return [draw_diagonal(axes, curves, data), shade_data(axes, data), draw_dots(axes, curves, target)]

    return curve_figure(
        curves, path, title=title, xlabel="return asked for", ylabel="return achieved", band=band, below=below
    )


def history_curve(curves: Sequence[Curve], path: str | Path, *, title: str, stretch: int, band: Band = "range") -> Path:
    """Milliseconds per action against the steps of history, from 0 up; the "seeds" of the curves are repetitions."""

    def below(axes: Axes) -> list[str]:
        axes.update_datalim([(float(curves[0].x[0]), 0.0)])
        return []

    fewest = min((len(curve.returns) for curve in curves), default=0)
    return curve_figure(
        curves,
        path,
        title=title,
        xlabel="steps of history",
        ylabel="milliseconds per action",
        band=band,
        below=below,
        note=f"medians of {stretch} actions: mean and {band} over {fewest} episodes",
    )


def prediction_curve(
    curves: Sequence[Curve],
    path: str | Path,
    *,
    title: str,
    oracle: float | None = None,
    episodes: int | None = None,
    band: Band = "range",
) -> Path:
    """Log-likelihood in nats of real states against the steps that they were predicted ahead.

    `oracle`, the most that bins of that width allow, is a dotted line; `episodes` is how many real ones there were.
    """

    def below(axes: Axes) -> list[str]:
        words = [] if episodes is None else [f"{episodes} real episodes"]
        if oracle is None:
            return words
        axes.update_datalim([(float(curves[0].x[0]), oracle)])
        axes.autoscale_view()
        axes.axhline(oracle, color=FAINT, linewidth=1, dashes=(1, 3), zorder=1, gid="oracle")
        return [*words, "dotted: the most that bins allow"]

    return curve_figure(
        curves,
        path,
        title=title,
        xlabel="steps ahead",
        ylabel="log-likelihood (nats)",
        band=band,
        below=below,
    )


def _scored(curve: Curve, reference: FASReference | None) -> Curve:
    """The curve with its FAS, where it can be computed and is not there yet."""
    if reference is None or curve.fas is not None or not np.array_equal(curve.x, GRID):
        return curve
    scores = fas(curve.returns, reference.max_return, reference.offset)
    return replace(curve, fas=bootstrap(scores))


def _length_ticks(curves: Sequence[Curve]) -> list[float]:
    """1 and then round lengths up to the longest: 1, 5, 10, ... 30."""
    longest = max((float(np.max(curve.x)) for curve in curves), default=1.0)
    gap = next(gap for gap in (1, 2, 5, 10, 20, 50, 10 ** len(str(int(longest)))) if longest <= 8 * gap)
    return [1.0, *np.arange(2 * gap if gap == 1 else gap, longest + 1e-9, gap)]

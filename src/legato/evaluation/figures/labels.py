"""Names and scores of curves, at the ends of the lines or in a legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from legato.evaluation.figures.series import Curve
from legato.evaluation.figures.style import HEIGHT, INK, LABEL_CHARACTERS, WIDTH, colour_of
from legato.evaluation.statistics import Interval

if TYPE_CHECKING:  # matplotlib is imported where it is used: it takes a second
    from matplotlib.axes import Axes


def label_of(curve: Curve) -> str:
    """For a legend: the name, and the score on the same line."""
    return curve.label if curve.fas is None else f"{curve.label}  {_score(curve.fas)}"


def _score(interval: Interval) -> str:
    if interval.count == 1:
        return f"FAS {interval.mean:.2f}"
    return f"FAS {interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def label_ends(axes: Axes, curves: Sequence[Curve]) -> bool:
    """Name and score to the right of each line, spread so that none overlap; False if they do not fit."""
    heights = np.array([17.0 if curve.fas is None else 29.0 for curve in curves])
    if heights.sum() > HEIGHT or max(len(curve.label) for curve in curves) > LABEL_CHARACTERS:
        return False
    low, high = axes.get_ylim()
    ends = np.array([np.mean(curve.returns[:, -1]) for curve in curves], np.float64)
    wanted = (ends - low) / (high - low) * HEIGHT
    order = _upwards(wanted, np.array([np.mean(curve.returns) for curve in curves], np.float64))
    left, longest = WIDTH + 24, max(curve.x[-1] for curve in curves)
    for i, place in zip(order, _spread(wanted[order], heights[order], HEIGHT), strict=True):
        curve, (colour, dark) = curves[i], colour_of(i)
        style = {"textcoords": "axes points", "va": "center", "annotation_clip": False}
        leader = {"arrowstyle": "-", "color": colour, "shrinkA": 3, "shrinkB": 3, "linewidth": 0.9}
        if curve.x[-1] < longest:  # it crosses the figure and must not look like data
            leader |= {"linestyle": (0, (1, 3)), "alpha": 0.6}
        axes.annotate("", (curve.x[-1], ends[i]), (left, place), arrowprops=leader, **style)
        shift = 0.0 if curve.fas is None else 6.5
        axes.annotate(curve.label, (0, 0), (left, place + shift), color=dark, weight="bold", **style)
        if curve.fas is not None:
            axes.annotate(_score(curve.fas), (0, 0), (left, place - shift), color=INK, fontsize=9, **style)
    return True


def _upwards(ends: NDArray[np.float64], means: NDArray[np.float64], near: float = 4.0) -> NDArray[np.intp]:
    """Order of the labels from below: by line end; ends less than `near` points apart by mean return."""
    order = np.argsort(ends, kind="stable")
    group = np.cumsum(np.diff(ends[order], prepend=ends[order[0]]) >= near)
    return order[np.lexsort((means[order], group))]


def _spread(wanted: NDArray[np.float64], heights: NDArray[np.float64], room: float) -> NDArray[np.float64]:
    """Centres [labels] nearest to `wanted`, by least squares, that neither overlap nor leave 0..room.

    Labels come from the lowest up. With centre = free + stacked, `stacked` being the lowest packing, labels
    are apart exactly when `free` does not decrease. So the answer is an isotonic regression, clipped to the
    room that is left.
    """
    from scipy.optimize import isotonic_regression

    stacked = np.cumsum(heights) - heights / 2
    return np.clip(isotonic_regression(wanted - stacked).x, 0, room - heights.sum()) + stacked


def draw_legend(axes: Axes, curves: Sequence[Curve]) -> None:
    """Below the axes, in as many columns as the labels leave room for."""
    longest = max(len(label_of(curve)) for curve in curves)
    columns = 3 if longest <= 14 else 2 if longest <= 32 else 1
    below = {"loc": "upper left", "bbox_to_anchor": (0, -50 / HEIGHT), "borderaxespad": 0, "borderpad": 0}
    axes.legend(frameon=False, ncols=columns, handlelength=2.2, columnspacing=2, fontsize=10, **below)

"""The drawing of curves: lines, bands, axes and what stands around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from legato.errors import LegatoError, plain
from legato.evaluation.fas import FASReference
from legato.evaluation.figures.labels import draw_legend, label_ends, label_of
from legato.evaluation.figures.series import Band, Curve, TopAxis
from legato.evaluation.figures.style import (
    COLOURS,
    DASHES,
    FAINT,
    GRID_COLOUR,
    HEIGHT,
    WIDTH,
    apply_style,
    colour_of,
    drawable,
    save,
)
from legato.evaluation.statistics import bootstrap

if TYPE_CHECKING:  # matplotlib is imported where it is used: it takes a second
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def curve_figure(
    curves: Sequence[Curve],
    path: str | Path,
    *,
    title: str,
    xlabel: str,
    ylabel: str = "undiscounted return",
    reference: FASReference | None = None,
    trained_at: bool = False,
    top: TopAxis | None = None,
    band: Band = "range",
    ticks: Sequence[float] | None = None,
    below: Callable[[Axes], list[str]] = lambda axes: [],
    note: str | None = None,
) -> Path:
    """Mean line and band over seeds for each curve; writes `path` (missing folders too) and returns it.

    The band is the lowest to highest seed ("range") or the 95 % bootstrap interval of the mean ("interval");
    one seed has none. Labels stand at the line ends, or in a legend below where they do not fit. The line
    under the title says what is drawn: `note` instead of what the band is, and the words that `below`, which may draw
    more and widen the axes, returns. Raises LegatoError for no curves or a suffix other than .png, .svg and
    .pdf.
    """
    path = drawable(path)
    if not curves:
        raise LegatoError(f"no curves to draw in '{path}'")
    with apply_style():
        figure, axes = _blank()
        draw_lines(axes, curves, band)
        more = below(axes)
        set_axes(axes, curves, xlabel, ylabel, ticks)
        dots = _mark_trained(axes, curves) if trained_at else ""
        notes = [_seeds(curves, band) if note is None else note, dots, _draw_scores(axes, reference), *more]
        if not label_ends(axes, curves):
            draw_legend(axes, curves)
        _head(axes, title, "  ·  ".join(filter(None, notes)), above=_draw_top(axes, top))
        save(figure, path)
    return path


def _blank() -> tuple[Figure, Axes]:
    """A figure whose axes measure WIDTH x HEIGHT points; saved "tight", nothing around them is cut."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 72 / 0.6, HEIGHT / 72 / 0.6))
    FigureCanvasAgg(figure)
    return figure, figure.add_axes((0.2, 0.2, 0.6, 0.6))


def draw_lines(axes: Axes, curves: Sequence[Curve], band: Band, colours: Sequence[int] | None = None) -> None:
    """Bands below, then the lines, each with a white edge that keeps crossings readable.

    `colours` are the places of theirs in the palette, by default one after another.
    """
    from matplotlib.patheffects import Normal, Stroke

    edge = [Stroke(linewidth=3.6, foreground="white"), Normal()]
    alpha = 0.16 * min(1.0, 4 / len(curves))  # many bands, one over the other, would hide the lines
    for i, curve in enumerate(curves):
        place = i if colours is None else colours[i]
        colour, _ = colour_of(place)
        dashes = DASHES[place // len(COLOURS) % len(DASHES)]
        marker = "o" if len(curve.x) == 1 else ""  # one point makes no line
        (line,) = axes.plot(
            curve.x, np.mean(curve.returns, axis=0), linestyle=dashes, color=colour, marker=marker, zorder=3
        )
        line.set(gid=f"curve-{i}", path_effects=edge, label=label_of(curve))
        if len(curve.returns) > 1:
            low, high = _band(curve, band)
            axes.fill_between(curve.x, low, high, color=colour, alpha=alpha, linewidth=0, zorder=2, gid=f"band-{i}")


def _band(curve: Curve, band: Band) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper edge [points] over the seeds."""
    if band == "range":
        return np.min(curve.returns, axis=0), np.max(curve.returns, axis=0)
    intervals = [bootstrap(column) for column in np.asarray(curve.returns).T]
    return np.array([interval.low for interval in intervals]), np.array([interval.high for interval in intervals])


def set_axes(
    axes: Axes,
    curves: Sequence[Curve],
    xlabel: str,
    ylabel: str,
    ticks: Sequence[float] | None,
    *,
    across: int = 7,
    down: int = 6,
    span: tuple[float, float] | None = None,
) -> None:
    """Limits (from the first to the last x, or of `span`), grid, ticks (so many intervals at most), axis labels."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    left, right = span or (min(float(c.x[0]) for c in curves), max(float(c.x[-1]) for c in curves))
    room = 0.015 * (right - left) or 0.5
    axes.set_xlim(left - room, right + room)
    axes.set_ylim(*axes.get_ylim())
    axes.grid(axis="x", visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, pad=6)
    axes.tick_params(axis="x", length=3.5)
    inside = [tick for tick in ticks or () if left <= tick <= right]
    axes.xaxis.set_major_locator(
        FixedLocator(inside) if inside else MaxNLocator(across, steps=[1, 2, 5, 10], integer=True)
    )
    axes.yaxis.set_major_locator(MaxNLocator(down, steps=[1, 2, 2.5, 5, 10]))
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        places = np.array([place for place in axis.get_majorticklocs() if low <= place <= high])
        axis.set_ticks(places, _numbers(places))
    axes.set_xlabel(xlabel, labelpad=7)
    axes.set_ylabel(ylabel, labelpad=8)


def _numbers(values: NDArray[np.float64]) -> list[str]:
    """Axis labels in one unit, short and readable: 0.5, -1,500, 17,000, 250k, 1.5M."""
    largest = np.max(np.abs(values), initial=0)
    scale, unit = (1e6, "M") if largest >= 1e6 else (1e3, "k") if largest >= 1e5 else (1, "")
    decimals = next((n for n in range(3) if np.allclose(np.round(values / scale, n), values / scale, rtol=1e-9)), 3)
    large = [f"{value / scale:,.{decimals}f}" for value in values]
    texts = [
        text if abs(value / scale) >= 1000 else f"{value / scale:.6g}"
        for text, value in zip(large, values, strict=True)
    ]
    return ["0" if text in ("0", "-0") else text.replace("-", "\N{MINUS SIGN}") + unit for text in texts]


def _draw_scores(axes: Axes, reference: FASReference | None) -> str:
    """Hairlines at the returns that score 0 and 1, where they lie inside the figure; the words for them."""
    if reference is None:
        return ""
    low, high = axes.get_ylim()
    levels = {score: score * reference.max_return - reference.offset for score in (0, 1)}
    shown = {score: level for score, level in levels.items() if low <= level <= high}
    for score, level in shown.items():
        axes.axhline(level, color=FAINT, linewidth=1, dashes=(1, 3), zorder=1, gid=f"score-{score}")
    return "dotted: score " + " and ".join(map(str, shown)) if shown else ""


def _mark_trained(axes: Axes, curves: Sequence[Curve]) -> str:
    """A dot on each line at the length its policy was trained with; the words for it, if any was drawn."""
    note = ""
    for i, curve in enumerate(curves):
        length = curve.trained_length
        if length is None or not curve.x[0] <= length <= curve.x[-1]:
            continue
        height = np.interp(length, curve.x, np.mean(curve.returns, axis=0))
        style = {"markersize": 8, "markeredgecolor": "white", "markeredgewidth": 1.4, "clip_on": False}
        axes.plot([length], [height], "o", color=colour_of(i)[0], zorder=5, gid=f"trained-{i}", **style)
        note = "● length trained with"
    return note


def draw_optimum(axes: Axes, x: Sequence[float], returns: Sequence[float]) -> list[str]:
    """The best policy's returns, which fall to the right if anywhere: so its name stands free above the left end."""
    axes.plot(x, returns, color=FAINT, linewidth=1.2, dashes=(4, 2.4), zorder=1.5, gid="optimum")
    style = {"textcoords": "offset points", "ha": "left", "va": "bottom", "fontsize": 9, "color": FAINT, "zorder": 4}
    axes.annotate("known optimum", (x[0], returns[0]), (2, 2.5), gid="optimum-name", **style)
    return []


def draw_diagonal(axes: Axes, curves: Sequence[Curve], data: tuple[float, float] | None) -> str:
    """Where achieved equals asked, as much of it in sight as the data supports; the words for it.

    There are none where it bears its name itself, and none where a single return was asked for.
    """
    left, right = min(float(c.x[0]) for c in curves), max(float(c.x[-1]) for c in curves)
    if left == right:
        return ""
    low, high = (left, right) if data is None else (max(left, data[0]), min(right, data[1]))
    if low <= high:
        axes.update_datalim([(low, low), (high, high)])
        axes.autoscale_view()
    bottom, top = axes.get_ylim()
    line = axes.plot([left, right], [left, right], color=FAINT, linewidth=1.2, dashes=(4, 2.4), zorder=1.5)[0]
    line.set_gid("diagonal")
    axes.set_ylim(bottom, top)
    across, up = WIDTH / (1.03 * (right - left)), HEIGHT / (top - bottom)  # points on paper per unit of return
    first, last = max(left, bottom + 16 / up), min(right, top - 16 / up)  # 16: the name's height and its distance
    room = 52 / np.hypot(across, up)  # half the name's length
    if left >= top or right <= bottom:
        return f"achieved is {'less' if left >= top else 'more'} than asked throughout"
    if first + room > last - room:
        return "dashed: achieved = asked"
    places = np.linspace(first + room, last - room, 39)
    means = np.stack([np.interp(places, curve.x, np.mean(curve.returns, axis=0)) for curve in curves])
    free = np.minimum(np.abs(means - places).min(axis=0), 0.25 * (top - bottom))  # far enough is as good as farther
    best = int(np.argmax(free - 1e-9 * np.abs(places - places.mean())))
    above, angle = np.mean(means[:, best]) < places[best], np.arctan2(up, across)  # it stands on the free side
    away = 3.0 if above else -3.0
    style = {"textcoords": "offset points", "ha": "center", "va": "bottom" if above else "top", "fontsize": 9}
    style |= {"rotation": np.degrees(angle), "rotation_mode": "anchor", "color": FAINT}
    shift = -away * np.sin(angle), away * np.cos(angle)
    axes.annotate("achieved = asked", (places[best], places[best]), shift, gid="diagonal-name", **style)
    return ""


def shade_data(axes: Axes, data: tuple[float, float] | None) -> str:
    """The stretch of returns that the data holds; the words for it."""
    if data is None or data[0] >= data[1]:
        return ""
    axes.axvspan(*data, color=GRID_COLOUR, alpha=0.5, linewidth=0, zorder=0, gid="data")
    return "shaded: returns in the data"


def draw_dots(axes: Axes, curves: Sequence[Curve], target: float | None) -> str:
    """A small dot at each asked return, a large one at the default; the words for it."""
    note = ""
    for i, curve in enumerate(curves):
        style = {"color": colour_of(i)[0], "markeredgecolor": "white", "clip_on": False, "linestyle": "", "marker": "o"}
        means = np.mean(curve.returns, axis=0)
        axes.plot(curve.x, means, markersize=5, markeredgewidth=0.8, zorder=4, gid=f"asked-{i}", **style)
        if target is not None and target in curve.x:
            axes.plot(
                [target],
                means[curve.x == target],
                markersize=9,
                markeredgewidth=1.4,
                zorder=5,
                gid=f"target-{i}",
                **style,
            )
            note = "● asked for by default"
    return note


def _draw_top(axes: Axes, top: TopAxis | None) -> float:
    """The second x axis; returns how many points it takes above the axes."""
    if top is None:
        return 0.0
    ticks = np.asarray(axes.get_xticks(), np.float64)
    shown = np.array([round(value) if value >= 10 else float(f"{value:.2g}") for value in top.convert(ticks)])
    second = axes.secondary_xaxis("top")
    second.set_xticks(ticks, _numbers(shown))
    second.tick_params(length=0, pad=3, labelcolor=FAINT, labelsize=9.5)
    second.spines["top"].set_visible(False)
    second.set_xlabel(top.label, labelpad=5, color=FAINT, fontsize=9.5)
    return 30.0


def _seeds(curves: Sequence[Curve], band: Band) -> str:
    """What the line and the band are."""
    fewest, most = min(len(curve.returns) for curve in curves), max(len(curve.returns) for curve in curves)
    if most == 1:
        return "one seed"
    meaning = "range" if band == "range" else "95 % interval"
    return f"mean and {meaning} over {most if fewest == most else f'{fewest} to {most}'} seeds"


def _head(axes: Axes, title: str, note: str, above: float) -> None:
    """Title and note, flush left, over whatever stands `above` the axes, in points."""
    style = {"textcoords": "axes points", "va": "baseline", "annotation_clip": False}
    axes.annotate(note, (0, 0), (0, HEIGHT + above + 12), color=FAINT, fontsize=9.5, **style)
    axes.annotate(plain(title), (0, 0), (0, HEIGHT + above + 29), fontsize=13.5, weight="bold", **style)

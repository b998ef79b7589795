"""Figures for papers and READMEs: return against time lost or training done, safe for the colour-blind.

Every function takes plain arrays, writes one file and returns its path; the suffix (.png, .svg, .pdf) is the
format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from legato.errors import LegatoError, plain
from legato.evaluation.fas import GRID, Reference, fas
from legato.evaluation.statistics import Interval, bootstrap

if TYPE_CHECKING:  # matplotlib is imported where it is used: it takes a second
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Band = Literal["range", "interval"]

WIDTH, HEIGHT = 5.6 * 72, 3.5 * 72  # of the axes, in points; the file grows around them with the labels
LABEL_CHARACTERS = 32  # labels longer than this go to a legend
METADATA = {
    ".png": {"Software": None},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}  # same data, same bytes

# Okabe & Ito's palette without its yellow, too pale for a line; second, the same hue dark enough for text.
COLOURS = (
    ("#0072B2", "#00639B"),  # blue
    ("#D55E00", "#B34F00"),  # vermilion
    ("#009E73", "#00765A"),  # green
    ("#CC79A7", "#A8487F"),  # purple
    ("#56B4E9", "#1F7DB5"),  # sky
    ("#E69F00", "#946600"),  # orange
    ("#4D4D4D", "#333333"),  # grey
)
DASHES = ("-", (0, (5, 1.6)), (0, (1.2, 1.4)))  # a new one each time the colours run out
INK, FAINT, GRID_COLOUR = "#222222", "#6B6B6B", "#E4E4E4"

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#8C8C8C",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "text.parse_math": False,  # a dollar in somebody's name is a dollar
    "grid.color": GRID_COLOUR,
    "grid.linewidth": 0.8,
    "xtick.color": "#8C8C8C",
    "ytick.color": "#8C8C8C",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "savefig.dpi": 200,
    "svg.hashsalt": "legato",
}


@dataclass(frozen=True, eq=False)
class Curve:
    """One line of a figure. Raises LegatoError for shapes that do not fit, NaN, or x not increasing."""

    label: str
    x: NDArray[np.floating | np.integer]
    """[points], strictly increasing, in the unit of the figure's x axis"""
    returns: NDArray[np.floating]
    """[seeds, points], mean undiscounted episode return of each seed"""
    trained_length: int | None = None
    """J, the action sequence length it was trained with; marked on the line"""
    fas: Interval | None = None
    """Frequency-Averaged Score over the seeds; written beside the label"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", plain(self.label))  # which may come from a file
        x, returns = np.shape(self.x), np.shape(self.returns)
        if len(x) != 1 or x[0] < 1 or len(returns) != 2 or returns[0] < 1 or returns[1] != x[0]:
            raise LegatoError(
                f"curve '{self.label}' has x of shape {x} and returns of shape {returns}; "
                "they must be [points] and [seeds, points]"
            )
        if not (np.all(np.isfinite(self.x)) and np.all(np.isfinite(self.returns))):
            raise LegatoError(f"curve '{self.label}' holds NaN or infinity; leave such points or seeds out")
        if not np.all(np.diff(self.x) > 0):
            raise LegatoError(f"curve '{self.label}' has x {self.x}; it must increase strictly")


@dataclass(frozen=True)
class TopAxis:
    """A second reading of the x axis, along the top: `convert` maps x [ticks] to the numbers shown."""

    label: str
    convert: Callable[[NDArray[np.float64]], NDArray[np.float64]]


def asl_curve(
    curves: Sequence[Curve],
    path: str | Path,
    *,
    title: str,
    reference: Reference | None = None,
    trained_at: bool = True,
    step_seconds: float | None = None,
    band: Band = "range",
) -> Path:
    """Return against action sequence length (ASL, primitive steps per decision): what rarer decisions cost.

    A dot marks the length each policy was trained with (`trained_at`). `reference` draws the returns that
    score 0 and 1 where they fall inside the figure and scores every curve measured on the FAS grid that
    brings no score of its own (Patel & Siegelmann 2025). `step_seconds`, the length of a primitive step in
    seconds, adds the decisions per second along the top: 0.05 s is 20 Hz at ASL 1.
    """
    top = None if step_seconds is None else TopAxis("decisions per second", lambda x: 1 / (x * step_seconds))
    return curve_figure(
        [_scored(curve, reference) for curve in curves],
        path,
        title=title,
        xlabel="action sequence length (primitive steps per decision)",
        reference=reference,
        trained_at=trained_at,
        top=top,
        band=band,
        ticks=_length_ticks(curves),
    )


def interval_curve(
    curves: Sequence[Curve],
    path: str | Path,
    *,
    title: str,
    reference: Reference | None = None,
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
    reference: Reference | None = None,
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
    reference: Reference | None = None,
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
        return [_draw_diagonal(axes, curves, data), _shade(axes, data), _dots(axes, curves, target)]

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
    """Log-likelihood in nats of real states against the steps that they were foretold ahead.

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


def curve_figure(
    curves: Sequence[Curve],
    path: str | Path,
    *,
    title: str,
    xlabel: str,
    ylabel: str = "undiscounted return",
    reference: Reference | None = None,
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
    with styled():
        figure, axes = _blank()
        _draw_lines(axes, curves, band)
        more = below(axes)
        _set_axes(axes, curves, xlabel, ylabel, ticks)
        dots = _mark_trained(axes, curves) if trained_at else ""
        notes = [_seeds(curves, band) if note is None else note, dots, _draw_scores(axes, reference), *more]
        if not _label_ends(axes, curves):
            _legend(axes, curves)
        _head(axes, title, "  ·  ".join(filter(None, notes)), above=_draw_top(axes, top))
        save(figure, path)
    return path


def drawable(path: str | Path) -> Path:
    """The path, if figures of its suffix can be drawn; raises LegatoError if not."""
    path = Path(path)
    if path.suffix not in METADATA:
        raise LegatoError(f"cannot draw '{path}'; the name must end in {', '.join(METADATA)}")
    return path


def save(figure: Figure, path: Path) -> None:
    """Write a figure, cut to what is drawn; missing folders too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", pad_inches=0.12, metadata=METADATA[path.suffix])


def _scored(curve: Curve, reference: Reference | None) -> Curve:
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


@contextmanager
def styled() -> Iterator[None]:
    """matplotlib's own defaults and STYLE, whatever the user's matplotlibrc; restored on the way out."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def _blank() -> tuple[Figure, Axes]:
    """A figure whose axes measure WIDTH x HEIGHT points; saved "tight", nothing around them is cut."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 72 / 0.6, HEIGHT / 72 / 0.6))
    FigureCanvasAgg(figure)
    return figure, figure.add_axes((0.2, 0.2, 0.6, 0.6))


def _colour(i: int) -> tuple[str, str]:
    """(of the line, of its text)."""
    return COLOURS[i % len(COLOURS)]


def _draw_lines(axes: Axes, curves: Sequence[Curve], band: Band) -> None:
    """Bands below, then the lines, each with a white edge that keeps crossings readable."""
    from matplotlib.patheffects import Normal, Stroke

    edge = [Stroke(linewidth=3.6, foreground="white"), Normal()]
    alpha = 0.16 * min(1.0, 4 / len(curves))  # many bands, one over the other, would hide the lines
    for i, curve in enumerate(curves):
        colour, _ = _colour(i)
        dashes = DASHES[i // len(COLOURS) % len(DASHES)]
        marker = "o" if len(curve.x) == 1 else ""  # one point makes no line
        (line,) = axes.plot(
            curve.x, np.mean(curve.returns, axis=0), linestyle=dashes, color=colour, marker=marker, zorder=3
        )
        line.set(gid=f"curve-{i}", path_effects=edge, label=_label(curve))
        if len(curve.returns) > 1:
            low, high = _band(curve, band)
            axes.fill_between(curve.x, low, high, color=colour, alpha=alpha, linewidth=0, zorder=2, gid=f"band-{i}")


def _band(curve: Curve, band: Band) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper edge [points] over the seeds."""
    if band == "range":
        return np.min(curve.returns, axis=0), np.max(curve.returns, axis=0)
    intervals = [bootstrap(column) for column in np.asarray(curve.returns).T]
    return np.array([interval.low for interval in intervals]), np.array([interval.high for interval in intervals])


def _set_axes(axes: Axes, curves: Sequence[Curve], xlabel: str, ylabel: str, ticks: Sequence[float] | None) -> None:
    """Limits, grid, ticks and the two axis labels."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    left, right = min(float(c.x[0]) for c in curves), max(float(c.x[-1]) for c in curves)
    room = 0.015 * (right - left) or 0.5
    axes.set_xlim(left - room, right + room)
    axes.set_ylim(*axes.get_ylim())
    axes.grid(axis="x", visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, pad=6)
    axes.tick_params(axis="x", length=3.5)
    inside = [tick for tick in ticks or () if left <= tick <= right]
    axes.xaxis.set_major_locator(FixedLocator(inside) if inside else MaxNLocator(7, steps=[1, 2, 5, 10], integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
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
    texts = [f"{value / scale:,.0f}" if abs(value / scale) >= 1000 else f"{value / scale:.6g}" for value in values]
    return ["0" if text in ("0", "-0") else text.replace("-", "\N{MINUS SIGN}") + unit for text in texts]


def _draw_scores(axes: Axes, reference: Reference | None) -> str:
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
        axes.plot([length], [height], "o", color=_colour(i)[0], zorder=5, gid=f"trained-{i}", **style)
        note = "● length trained with"
    return note


def _draw_diagonal(axes: Axes, curves: Sequence[Curve], data: tuple[float, float] | None) -> str:
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


def _shade(axes: Axes, data: tuple[float, float] | None) -> str:
    """The stretch of returns that the data holds; the words for it."""
    if data is None or data[0] >= data[1]:
        return ""
    axes.axvspan(*data, color=GRID_COLOUR, alpha=0.5, linewidth=0, zorder=0, gid="data")
    return "shaded: returns in the data"


def _dots(axes: Axes, curves: Sequence[Curve], target: float | None) -> str:
    """A small dot at each asked return, a large one at the default; the words for it."""
    note = ""
    for i, curve in enumerate(curves):
        style = {"color": _colour(i)[0], "markeredgecolor": "white", "clip_on": False, "linestyle": "", "marker": "o"}
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


def _label(curve: Curve) -> str:
    """For a legend: the name, and the score on the same line."""
    return curve.label if curve.fas is None else f"{curve.label}  {_score(curve.fas)}"


def _score(interval: Interval) -> str:
    if interval.count == 1:
        return f"FAS {interval.mean:.2f}"
    return f"FAS {interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _label_ends(axes: Axes, curves: Sequence[Curve]) -> bool:
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
        curve, (colour, dark) = curves[i], _colour(i)
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


def _legend(axes: Axes, curves: Sequence[Curve]) -> None:
    """Below the axes, in as many columns as the labels leave room for."""
    longest = max(len(_label(curve)) for curve in curves)
    columns = 3 if longest <= 14 else 2 if longest <= 32 else 1
    below = {"loc": "upper left", "bbox_to_anchor": (0, -50 / HEIGHT), "borderaxespad": 0, "borderpad": 0}
    axes.legend(frameon=False, ncols=columns, handlelength=2.2, columnspacing=2, fontsize=10, **below)


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

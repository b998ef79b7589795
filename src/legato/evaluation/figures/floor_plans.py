"""The paths of episodes on a floor plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from legato.errors import LegatoError
from legato.evaluation.figures.sheet import Sheet
from legato.evaluation.figures.style import BLUE, COLOURS, GREEN, GREY, INK, VERMILION, apply_style, drawable, save
from legato.evaluation.goals import Floor, GoalEpisode

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def paths(episodes: Sequence[GoalEpisode], floor: Floor, path: str | Path, *, title: str) -> Path:
    """Where episodes led: one panel for all that have the same goal, or one each.

    A ring is a start, a star the goal in what counts as arrived, a dot a step. Raises LegatoError for no episodes and
    a suffix unknown to figures.
    """
    path = drawable(path)
    if not episodes:
        raise LegatoError(f"no journeys to draw in '{path}'")
    together = len({tuple(episode.goal.tolist()) for episode in episodes}) == 1
    panels = [list(episodes)] if together else [[episode] for episode in episodes]
    columns = min(len(panels), 4 if len(panels) <= 12 else 6)
    side = {1: 300.0, 2: 200.0}.get(columns, 130.0 if columns <= 4 else 100.0)
    above, gap, top = (4.0 if together else 18.0), 12.0, 44.0
    arrived = sum(episode.arrived for episode in episodes)
    with apply_style():
        sheet = Sheet(columns * (side + gap), top + -(-len(panels) // columns) * (side + above + gap))
        for i, panel in enumerate(panels):
            row, column = divmod(i, columns)
            axes = sheet.axes(column * (side + gap), top + row * (side + above + gap) + above, side, side)
            _draw_floor(axes, floor, panel[0].goal, side / 300)
            for number, episode in enumerate(panel, i):
                _draw_path(axes, episode, side / 300).set_gid(f"path-{number}")
            if not together:
                said = f"{panel[0].steps} step{'s' * (panel[0].steps != 1)}" if panel[0].arrived else "does not arrive"
                axes.set_title(said, fontsize=8.5, color=INK if panel[0].arrived else COLOURS[1][1], pad=5)
        sheet.head(title, f"{arrived} of {len(episodes)} arrive  ·  ○ start, ★ goal, a dot for each step", above=top)
        save(sheet.figure, path)
    return path


def _draw_floor(axes: Axes, floor: Floor, goal: np.ndarray, scale: float) -> None:
    """Walls and goal."""
    from matplotlib.patches import Circle

    for (x, y), (to_x, to_y) in floor.walls:
        axes.plot([x, to_x], [y, to_y], color=GREY, linewidth=1.4 + scale, solid_capstyle="round", clip_on=False)
    if floor.reach:
        axes.add_patch(Circle(tuple(goal), floor.reach, facecolor=GREEN, alpha=0.2, linewidth=0))
    edge = {"markeredgecolor": "white", "linestyle": "", "zorder": 5, "clip_on": False}
    axes.plot(*goal, marker="*", color=GREEN, markersize=9 + 5 * scale, **edge)
    if len(floor.walls):
        (left, low), (right, high) = floor.walls.min(axis=(0, 1)), floor.walls.max(axis=(0, 1))
        axes.set(xlim=(left, right), ylim=(low, high))
    axes.set_aspect("equal")
    axes.set_axis_off()


def _draw_path(axes: Axes, episode: GoalEpisode, scale: float) -> Any:
    """The line, which it returns, and its start."""
    style = {"linewidth": 1.0 + 0.8 * scale, "markersize": 1.5 + 1.4 * scale, "zorder": 3, "clip_on": False}
    (line,) = axes.plot(*episode.places.T, "-o", color=BLUE if episode.arrived else VERMILION, alpha=0.85, **style)
    ring = {"markeredgecolor": INK, "linestyle": "", "zorder": 4, "clip_on": False}
    axes.plot(*episode.places[0], marker="o", color="white", markersize=4.5 + 2.5 * scale, **ring)
    return line

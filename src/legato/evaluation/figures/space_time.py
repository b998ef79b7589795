"""A field in one dimension over an episode, and what acted on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from legato.envs.space_time import COLOURS, SpaceTime
from legato.evaluation.figures.sheet import Sheet
from legato.evaluation.figures.style import FAINT, INK, apply_style, drawable, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MINUS = "\N{MINUS SIGN}"
WIDE, HIGH = 460.0, 180.0  # of the field, in points
STRIP, LEAST = 9.0, 36.0  # of an actuator, and of all, in points


def space_time(picture: SpaceTime, path: str | Path, *, title: str, note: str) -> Path:
    """The field, time to the right; where actuators are, at its right edge; and below it a strip of each one's action.

    Raises LegatoError for a suffix unknown to figures.
    """
    path = drawable(path)
    steps, actuators = picture.actions.shape
    top, gap, left = 50.0, 9.0, 52.0
    low = max(actuators * STRIP, LEAST)
    with apply_style():
        from matplotlib.colors import LinearSegmentedColormap

        colours = LinearSegmentedColormap.from_list("field", COLOURS)
        sheet = Sheet(left + WIDE + 90, top + HIGH + gap + low + 40)
        end = steps * picture.interval
        axes = sheet.axes(left, top, WIDE, HIGH)
        whole = np.concatenate([picture.field, picture.field[:, :1]], axis=1)  # to the other end of the period
        shown: dict[str, Any] = {"origin": "lower", "aspect": "auto", "cmap": colours}
        image = axes.imshow(
            whole.T,
            extent=(0, end, 0, picture.length),
            vmin=-picture.limit,
            vmax=picture.limit,
            interpolation="bilinear",
            **shown,
        )
        image.set_gid("field")
        axes.set_ylabel("x")
        axes.locator_params("y", nbins=5)
        axes.set(xlim=(0, end), ylim=(0, picture.length))
        _frame(axes)
        style = {"marker": "<", "color": INK, "linestyle": "", "markersize": 4.5, "clip_on": False}
        axes.plot([end + 0.012 * end] * len(picture.places), picture.places, **style)
        below = axes
        if actuators and steps:
            axes.tick_params(labelbottom=False)
            below = sheet.axes(left, top + HIGH + gap, WIDE, low)
            extent = (0, end, 0.5, actuators + 0.5)
            below.imshow(picture.actions.T, extent=extent, vmin=-1, vmax=1, interpolation="nearest", **shown)
            for number in range(1, actuators):
                below.axhline(number + 0.5, color="white", linewidth=0.8)
            below.set_yticks([1, actuators] if actuators > 1 else [1])
            below.set_ylabel("actions", fontsize=9.5)
            _frame(below)
        below.set_xlabel("time")
        bar = sheet.axes(left + WIDE + 22, top, 9, HIGH)
        sheet.figure.colorbar(image, cax=bar)
        ticks = np.linspace(-picture.limit, picture.limit, 5)
        bar.tick_params(length=0, pad=4, labelsize=8.5)
        bar.set_title(picture.symbol, fontsize=9.5, color=FAINT, loc="left", pad=6)
        bar.set_yticks(ticks, [f"{tick:g}".replace("-", MINUS) for tick in ticks])
        note = f"{note.replace('-', MINUS)}  ·  ◂ actuators, their actions from {MINUS}1 (blue) to 1 (orange)"
        sheet.head(title, note, above=top)
        save(sheet.figure, path)
    return path


def _frame(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(True)
    axes.tick_params(length=3, labelsize=9)

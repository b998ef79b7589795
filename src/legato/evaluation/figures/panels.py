"""What runs measured while they were trained: one small panel per metric, all over the same axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from legato.errors import LegatoError, plain
from legato.evaluation.figures.drawing import draw_lines, set_axes
from legato.evaluation.figures.series import Band, Curve
from legato.evaluation.figures.sheet import Sheet
from legato.evaluation.figures.style import COLOURS, apply_style, colour_of, drawable, save

WIDE, HIGH = 250.0, 120.0  # of a panel, in points
ACROSS, DOWN, LEFT = 80.0, 64.0, 60.0  # between two, and left of the first
NAME = 16.0  # of a run's name, in points
STROKES = ("\N{EM DASH}", "\N{EN DASH} \N{EN DASH}", "\N{MIDDLE DOT}" * 3)  # as style.DASHES


def metric_panels(
    panels: Mapping[str, Sequence[Curve]],
    path: str | Path,
    *,
    title: str,
    xlabel: str,
    note: str,
    band: Band = "range",
) -> Path:
    """A panel for each name, in two columns; curves of one label have one colour in all of them.

    One panel alone has twice the width. Raises LegatoError for no panels, and for a suffix unknown to figures.
    """
    path = drawable(path)
    if not panels:
        raise LegatoError(f"nothing to draw in '{path}'")
    every = [curve for curves in panels.values() for curve in curves]
    span = min(float(curve.x[0]) for curve in every), max(float(curve.x[-1]) for curve in every)
    labels = list(dict.fromkeys(curve.label for curve in every))
    columns = min(len(panels), 2)
    wide = WIDE if columns == 2 else 2 * WIDE + ACROSS
    named = len(labels) if len(labels) > 1 else 0
    rows, top = -(-len(panels) // columns), 72.0 + NAME * named
    with apply_style():
        sheet = Sheet(LEFT + columns * (wide + ACROSS), top + rows * (HIGH + DOWN))
        for i, (name, curves) in enumerate(panels.items()):
            row, column = divmod(i, columns)
            axes = sheet.axes(LEFT + column * (wide + ACROSS), top + row * (HIGH + DOWN), wide, HIGH)
            axes.grid(True)
            draw_lines(axes, curves, band, [labels.index(curve.label) for curve in curves])
            lowest = i + columns >= len(panels)
            set_axes(axes, curves, xlabel if lowest else "", "", None, across=5, down=4, span=span)
            axes.tick_params(labelsize=9)
            axes.set_title(plain(name), fontsize=10.5, loc="left", pad=7)
        for i, label in enumerate(labels[:named]):
            line, dark = colour_of(i)
            sheet.write(0, 62 + NAME * i, STROKES[i // len(COLOURS) % len(STROKES)], color=line, weight="bold")
            sheet.write(20, 62 + NAME * i, label, color=dark, weight="bold", fontsize=9.5)
        sheet.head(title, note, above=54)
        save(sheet.figure, path)
    return path

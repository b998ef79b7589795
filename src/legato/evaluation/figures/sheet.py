"""Figures of several axes, placed in points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from legato.errors import plain
from legato.evaluation.figures.style import FAINT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Sheet:
    """A figure whose axes are placed in points from its top left corner; it grows around them when it is saved."""

    def __init__(self, width: float, height: float):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.size = width, height
        self.figure: Figure = Figure(figsize=(width / 72, height / 72))
        FigureCanvasAgg(self.figure)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        across, down = self.size
        axes = self.figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))
        axes.grid(False)
        return axes

    def write(self, left: float, top: float, text: str, **style: Any) -> None:
        """Text whose baseline is `top` points below the upper edge."""
        across, down = self.size
        self.figure.text(left / across, 1 - top / down, text, **{"va": "baseline", **style})

    def head(self, title: str, note: str, above: float) -> None:
        """Title and note, flush left, over what begins `above` points below the upper edge."""
        self.write(0, above - 28, plain(title), fontsize=13.5, weight="bold")
        self.write(0, above - 11, note, fontsize=9.5, color=FAINT)

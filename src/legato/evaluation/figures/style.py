"""How figures look: sizes, colours, fonts, and how they are written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from legato.errors import LegatoError

if TYPE_CHECKING:  # matplotlib is imported where it is used: it takes a second
    from matplotlib.figure import Figure

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
BLUE, VERMILION, GREEN, PURPLE, _, ORANGE, GREY = (line for line, _ in COLOURS)
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


@contextmanager
def apply_style() -> Iterator[None]:
    """matplotlib's own defaults and STYLE, whatever the user's matplotlibrc; restored on the way out."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


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


def colour_of(i: int) -> tuple[str, str]:
    """(of the line, of its text)."""
    return COLOURS[i % len(COLOURS)]

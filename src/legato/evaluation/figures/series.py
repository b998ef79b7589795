"""What curves are drawn of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from legato.errors import LegatoError, plain
from legato.evaluation.statistics import Interval

if TYPE_CHECKING:  # matplotlib is imported where it is used: it takes a second
    pass


Band = Literal["range", "interval"]


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

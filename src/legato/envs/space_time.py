"""A field in one dimension over an episode, as a picture: time to the right, space upwards, what acted on it below.

An environment that has one returns it from a method `picture`, and `legato play` draws it. `pixels` is for films.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

COLOURS = ("#001D33", "#00598F", "#3C93C8", "#A9D5F0", "#FFFFFF", "#F9CDA6", "#E58A48", "#B34F00", "#3D1A00")
"""of a field from its most negative to its most positive value, white at 0, for the colour-blind too"""

STRIP, GAP = 10, 8  # pixels of an actuator, and between field and actuators
SHADES = 120  # on either side of white: in all below the 256 colours of a GIF, which then stores what is new only
LATER, EDGE = 238, 160  # greys of what is still to come, and of the frame


class SpaceTime(NamedTuple):
    """The field at each step of an episode, the start included, and the actions between."""

    field: Float[np.ndarray, "steps_and_one points"]
    """at equal distances on a periodic domain"""
    actions: Float[np.ndarray, "steps actuators"]
    """in [-1, 1]"""
    length: float
    """of the domain"""
    interval: float
    """units of time between two rows of the field"""
    horizon: int
    """steps of a whole episode, for the width of a film"""
    places: tuple[float, ...] = ()
    """where the actuators are"""
    symbol: str = "u"
    """what the field is"""

    @property
    def limit(self) -> float:
        """The value of the strongest colour: the first field's greatest, rounded up, so that a film has one scale."""
        most = float(np.abs(self.field[0]).max()) or 1.0
        unit = 10 ** np.floor(np.log10(most)) / 2
        return float(np.ceil(most / unit) * unit)

    def pixels(self, width: int = 800, height: int = 320) -> UInt8[np.ndarray, "height width rgb"]:
        """The episode so far; what is still to come is grey. Below the field a strip for each actuator, upwards too.

        Field and strips have colours of one scale: strong blue is `-limit` or action -1, strong orange the opposite.
        """
        (steps, actuators), points = self.actions.shape, self.field.shape[1]
        high = height - (GAP + STRIP * actuators if actuators else 0)
        image = np.full((height, width, 3), LATER, np.uint8)
        image[high : high + GAP] = 255
        at = np.arange(width) / (width - 1) * self.horizon  # in steps
        done = int((at <= steps).sum())
        below = np.minimum(at[:done].astype(int), max(steps - 1, 0))
        after = np.minimum(below + 1, steps)
        share = (at[:done] - below)[:, None]
        columns = (1 - share) * self.field[below] + share * self.field[after]  # [done, points]
        up = np.arange(high)[::-1] / high * points
        low = up.astype(int)
        rows = (1 - up % 1) * columns[:, low] + up % 1 * columns[:, (low + 1) % points]
        image[:high, :done] = colours_of(rows.T / self.limit)
        if steps:
            strips = colours_of(self.actions[below].T[::-1])  # [actuators, done, 3]
            image[high + GAP :, :done] = np.repeat(strips, STRIP, axis=0)
        image[high + GAP + STRIP - 1 :: STRIP] = 255
        for edge in (image[0], image[high - 1], image[:high, 0], image[:high, -1]):
            edge[:] = EDGE
        return image


def colours_of(values: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape rgb"]:
    """Values in [-1, 1] as colours; beyond, the strongest."""
    table = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in COLOURS], np.float64)
    levels = np.linspace(-1, 1, len(table))
    fine = np.stack([np.interp(np.linspace(-1, 1, 2 * SHADES + 1), levels, channel) for channel in table.T], axis=-1)
    return fine.round().astype(np.uint8)[np.rint(SHADES * (np.clip(values, -1, 1) + 1)).astype(int)]

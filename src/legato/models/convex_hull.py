"""Convex hulls of few dimensions: how much space a set of observations covers."""

from __future__ import annotations

import numpy as np
from jaxtyping import Real

VERTICES = 1024
"""the most corners of a hull that are kept; of more, those furthest in `DIRECTIONS`, and some between"""
DIRECTIONS = 128
FLAT = 1e-6
"""below this share of the widest axis a set has no extent along an axis, and is given that much"""


def convex_hull(points: Real[np.ndarray, "points k"]) -> tuple[float, Real[np.ndarray, "corners k"]]:
    """Volume and corners of a hull in k <= 3 dimensions: in two its area, in one the range.

    Where Qhull finds no volume, which is so of flat sets and of k points and fewer, the product of the ranges stands in
    for it, each at least `FLAT` of the widest, and the corners are points that are furthest in some direction. The
    volume of points that are all the same is 0.
    """
    from scipy.spatial import ConvexHull, QhullError

    ranges = np.ptp(points, axis=0).astype(np.float64)
    if ranges.max() == 0:
        return 0.0, points[:1]
    if points.shape[1] == 1:
        return float(ranges[0]), points[[points[:, 0].argmin(), points[:, 0].argmax()]]
    try:
        hull = ConvexHull(points.astype(np.float64))
        return float(hull.volume), points[np.sort(hull.vertices)]
    except QhullError:
        return float(np.prod(np.maximum(ranges, FLAT * ranges.max()))), extremes(points)


def extremes(points: np.ndarray) -> np.ndarray:
    """At most `VERTICES`: those furthest in fixed directions, with axes in units of their ranges, and some between."""
    directions = np.random.default_rng(0).normal(size=(points.shape[1], DIRECTIONS)).astype(points.dtype)
    ranges = np.ptp(points, axis=0)
    furthest = points @ (directions / np.where(ranges > 0, ranges, 1)[:, None])
    between = np.linspace(0, len(points) - 1, VERTICES - 2 * DIRECTIONS).astype(int)
    return points[np.unique([*furthest.argmax(axis=0), *furthest.argmin(axis=0), *between])]

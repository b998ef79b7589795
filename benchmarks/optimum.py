"""What the point mass can earn at best: a dynamic program over its states, beside its best linear controller.

python benchmarks/optimum.py [--states 401]

The mean return of an episode of legato/PointMass-v0 over its starts, at rest and uniform in [-2, 2]. Values between the
grid's states are interpolated; half as many velocities as positions, and a tenth of these in actions.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.ndimage import map_coordinates

from legato.envs.tasks import PUSHES

WIDTH = 2.5  # of positions and velocities on the grid
STARTS = np.linspace(-2, 2, 2001)


def step(x: np.ndarray, v: np.ndarray, a: np.ndarray | float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Position, velocity and reward after a push."""
    v = 0.98 * (v + 0.2 * a)
    x = x + 0.1 * v
    return x, v, 1 - np.minimum(1, np.abs(x))


def best_return(states: int) -> float:
    """By backward induction over the steps of an episode."""
    positions, velocities = np.linspace(-WIDTH, WIDTH, states), np.linspace(-WIDTH, WIDTH, states // 2 + 1)
    grid = np.meshgrid(positions, velocities, indexing="ij")
    worth = np.zeros_like(grid[0])
    for _ in range(PUSHES):
        best = np.full_like(worth, -np.inf)
        for a in np.linspace(-1, 1, states // 20 + 1):
            x, v, r = step(*grid, a)
            places = [(z + WIDTH) / (2 * WIDTH) * (n - 1) for z, n in zip((x, v), worth.shape, strict=True)]
            np.maximum(best, r + map_coordinates(worth, places, order=1, mode="nearest"), out=best)
        worth = best
    at_rest = np.interp(STARTS, positions, worth[:, len(velocities) // 2])
    return float(np.trapezoid(at_rest, STARTS) / 4)


def controlled(p: float, d: float) -> float:
    """Of a = -p x - d v."""
    x, v, total = STARTS, np.zeros_like(STARTS), np.zeros_like(STARTS)
    for _ in range(PUSHES):
        x, v, r = step(x, v, np.clip(-p * x - d * v, -1, 1))
        total += r
    return float(total.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=401)
    options = parser.parse_args()
    gains = [(p, d) for p in np.linspace(1, 20, 39) for d in np.linspace(0.5, 10, 39)]
    earned, p, d = max((controlled(*pair), *pair) for pair in gains)
    print(
        f"dynamic program over {options.states} x {options.states // 2 + 1} states: {best_return(options.states):.2f}"
    )
    print(f"a = -{p:.2f} x - {d:.2f} v: {earned:.2f}")
    print(f"no push: {controlled(0, 0):.2f}")


if __name__ == "__main__":
    main()

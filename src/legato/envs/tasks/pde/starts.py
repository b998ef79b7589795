"""States on the attractor of a plant, to begin episodes with, and how chaotic it is.

They are computed on first use in a process and kept, not shipped: 2,048 states of 64 points take about a second or two,
any length of domain and any grid has them, and no file has to agree with the solver. They follow from a seed. A last
digit that another machine rounds otherwise stays small: trajectories part by a factor of exp(0.05 t), which is 3e5
after the 250 units of time that are computed, and float32 hides what is then 1e-10.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32

from legato.envs.tasks.pde.spectral import Plant, advance, mean_squares, substep, to_field, to_modes

TRAJECTORIES, SAMPLES = 128, 16  # side by side on a grid of 64 points, and states of each
BURN_IN, APART = 100.0, 10.0  # units of time before the first state, and between two


def draw_states(plant: Plant, seed: int = 0) -> Float32[np.ndarray, "states points"]:
    """2,048 states of an equation that is chaotic without jets; on finer grids fewer, at the same cost.

    Each trajectory begins with numbers uniform in [-0.4, 0.4] at the grid's points, and takes the plant's sub-steps.
    """
    rng = np.random.default_rng(seed)
    trajectories = max(8, TRAJECTORIES * 64 // plant.points)
    modes = to_modes(np, plant, rng.uniform(-0.4, 0.4, (trajectories, plant.points)))
    none, found = np.zeros(plant.modes), []
    for sample in range(SAMPLES):
        for _ in range(round((APART if sample else BURN_IN) / plant.dt)):
            modes = substep(np, plant, modes, none)
        found.append(to_field(np, plant, modes))
    states = np.concatenate(found).astype(np.float32)
    states.flags.writeable = False  # kept for all who ask
    return states


def lyapunov_exponent(plant: Plant, fields: Float[np.ndarray, "states points"], steps: int, seed: int = 0) -> float:
    """The rate at which neighbouring trajectories part, per unit of time: the largest exponent, without jets.

    A neighbour of each state is brought back to its first distance after every control step (Benettin et al. 1980).
    The first tenth of the steps, in which it turns to the fastest direction, is not counted.
    """
    distance, rng, growth = 1e-6, np.random.default_rng(seed), []
    one = to_modes(np, plant, np.asarray(fields, np.float64))
    other = one + to_modes(np, plant, distance * rng.standard_normal(fields.shape))
    for _ in range(steps):
        one, other = advance(np, plant, np.stack([one, other]), np.zeros(plant.modes))[-1]
        apart = np.sqrt(mean_squares(plant, other - one)[:, :1])
        growth.append(np.log(apart / distance).mean())
        other = one + distance / apart * (other - one)
    return float(np.mean(growth[steps // 10 :])) / plant.interval

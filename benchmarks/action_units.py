"""Is the same plant learnt alike, whatever the unit and the zero of its actions?

    python benchmarks/action_units.py --seeds 3                  # three plants, four scalings each, SAC, TD3 and SRL
    python benchmarks/action_units.py --plants cart --algorithms sac --units environment   # as published: it is not

Each plant is trained with the same seeds in four boxes of actions: its own, [-1, 1]; one a thousandth as wide; one a
thousand times as wide; and one off centre, [3, 4] or so. The environment undoes the change. A row is an algorithm on a
plant, a column a box: the mean return of the policy at the end of training over test episodes, with its 95 % bootstrap
interval over seeds. `same` counts the other boxes whose mean lies in the first one's interval.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

import legato
from legato.algorithms import algorithm as algorithm_module
from legato.algorithms import entries
from legato.envs import make_vec
from legato.evaluation.statistics import bootstrap
from legato.rollout import Clock, episodes, stack


class Cart(gymnasium.Env[np.ndarray, Any]):
    """A point on a line, to be moved to 0 by at most 0.2 a step; an episode has 50 steps, each costs |x|."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.x, self.time = float(self.np_random.uniform(-1, 1)), 0
        return np.array([self.x, -1], np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.x += 0.2 * float(action[0])
        self.time += 1
        observation = np.array([self.x, self.time / 25 - 1], np.float32)
        return observation, -abs(self.x), False, self.time == 50, {}


PLANTS = {
    "cart": (Cart, 2_000),
    "pendulum": (lambda: gymnasium.make("Pendulum-v1"), 8_000),
    "point mass": (lambda: gymnasium.make("legato/PointMass-v0"), 5_000),
}
# Half-width and middle of a box. Powers of two, so that the change itself costs no digits.
BOXES = {"[-1, 1]": (1.0, 0.0), "/ 1024": (2.0**-10, 0.0), "x 1024": (2.0**10, 0.0), "[3, 4]": (0.5, 3.5)}


class Box(gymnasium.Wrapper):
    """The plant with its action, whatever its own bounds, in a box of this half-width and middle."""

    def __init__(self, plant: str, half: float, middle: float):
        super().__init__(PLANTS[plant][0]())
        own: Any = self.env.action_space
        self.low, self.high, self.half, self.middle = own.low, own.high, half, middle
        edge = np.full(own.shape, half, np.float32)
        self.action_space = spaces.Box(np.float32(middle) - edge, np.float32(middle) + edge, dtype=np.float32)

    def step(self, action: Any) -> Any:
        unit = (np.asarray(action, np.float64) - self.middle) / self.half
        own = 0.5 * (self.low + self.high) + 0.5 * (self.high - self.low) * unit
        return self.env.step(own.astype(np.float32))


def earned(algorithm: str, name: str, steps: int, args: argparse.Namespace) -> np.ndarray:
    """The mean return of each seed's last policy over test episodes, deciding as in training."""
    options: dict[str, Any] = {
        "steps": steps,
        "start_steps": min(1_000, steps // 5),
        "eval_every": steps,
        "checkpoint_every": steps,
    }
    options |= {"eval_episodes": 1, "seeds": args.seeds, "action_units": args.units}
    with tempfile.TemporaryDirectory() as folder:
        run = legato.train(algorithm, name, out=Path(folder) / "run", quiet=True, **options)
        policies = stack([legato.load(run.path, seed).policy for seed in run.seeds])
    environment = make_vec(name, args.seeds * args.episodes)
    clock = Clock(algorithm_module(algorithm).plan_length(run.config))
    found = episodes(policies, environment, run.spec, clock, run.seeds, "test").mean(axis=1)
    environment.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=20, help="test episodes per seed")
    parser.add_argument("--plants", nargs="+", choices=PLANTS, default=list(PLANTS))
    parser.add_argument("--algorithms", nargs="+", choices=entries("online"), default=[*entries("online")])
    parser.add_argument("--units", choices=("bounds", "environment"), default="bounds", help="action_units")
    args = parser.parse_args()

    print(f"{'':18}" + "".join(f"{name:>30}" for name in BOXES) + f"{'same':>8}")
    for plant in args.plants:
        for box, (half, middle) in BOXES.items():
            entry: Any = partial(Box, plant, half, middle)
            gymnasium.register(f"box/{plant.replace(' ', '-')}-{list(BOXES).index(box)}-v0", entry_point=entry)
        for algorithm in args.algorithms:
            names = [f"box/{plant.replace(' ', '-')}-{i}-v0" for i in range(len(BOXES))]
            returns = [earned(algorithm, name, PLANTS[plant][1], args) for name in names]
            first = bootstrap(returns[0])
            same = sum(first.low <= found.mean() <= first.high for found in returns[1:])
            cells = "".join(f"{format(bootstrap(found), '.3f').rpartition(' ')[0]:>30}" for found in returns)
            print(f"{algorithm + ', ' + plant:18}{cells}{f'{same} of {len(returns) - 1}':>8}", flush=True)


if __name__ == "__main__":
    main()

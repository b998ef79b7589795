"""Are actions learnt that use a small part of their bounds?

    python benchmarks/narrow_actions.py --seeds 3

Four episodes of InvertedPendulum-v5, whose bounds are 3, by a linear regulator that keeps the pole upright: left alone,
its actions deviate by 0.0026; pushed by an unlogged force, by 0.067. Behaviour cloning learns from each in
units of the bounds and of the logs' deviation, and earns 1000 where it keeps the pole upright. `--data FILE` are logs
of one's own instead.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import legato
from legato.algorithms import entries
from legato.data import formats
from legato.data.trajectories import About, from_episodes
from legato.evaluation.statistics import bootstrap
from legato.options import types

ENV = "InvertedPendulum-v5"
GAIN = np.array([1.8125, 9.9361, 1.8642, 1.7557])  # of a regulator that weighs positions 1, speeds 0.1, actions 0.1
PUSHES = {"left alone": 0.0, "pushed": 0.071}


def record(push: float, path: Path) -> None:
    """Four episodes, the regulator's actions logged, and a random force of this deviation that is not."""
    environment: Any = gymnasium.make(ENV)
    rng, episodes = np.random.default_rng(0), []
    for seed in range(4):
        observation, _ = environment.reset(seed=seed)
        steps: dict[str, list[Any]] = {name: [] for name in ("observations", "actions", "rewards", "ended")}
        while not steps["ended"] or not steps["ended"][-1]:
            action = np.clip(GAIN @ observation, -3, 3)
            steps["observations"].append(observation)
            steps["actions"].append([action])
            observation, reward, terminated, truncated, _ = environment.step(np.array([action + push * rng.normal()]))
            steps["rewards"].append(reward)
            steps["ended"].append(terminated or truncated)
        episode = {name: np.array(values) for name, values in steps.items() if name != "ended"}
        none = np.zeros(len(steps["ended"]), bool)
        episodes.append({**episode, "terminations": none, "truncations": np.array(steps["ended"])})
    formats.save(from_episodes(episodes, About(path.stem, ENV, low=(-3.0,), high=(3.0,))), path)


def main() -> None:
    known = [name for name, found in entries("offline").items() if "action_units" in types(found.config)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=1_000)
    parser.add_argument("--algorithms", nargs="+", choices=known, default=["bc"])
    parser.add_argument("--data", nargs="*", type=Path, help="logs of InvertedPendulum-v5")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = {path.stem: path for path in args.data or ()}
        for which, push in {} if args.data else PUSHES.items():
            record(push, path := folder / f"{which}.npz")
            sets[which] = path
        print(f"{'':24}{'deviation':>10}{'units of bounds':>30}{'units of deviation':>30}")
        for which, path in sets.items():
            deviation = formats.load(path).actions.std()
            for algorithm in args.algorithms:
                cells = []
                for units in ("bounds", "deviation"):
                    options = {"seeds": args.seeds, "updates": args.updates, "eval_every": args.updates}
                    run = legato.train(
                        algorithm,
                        ENV,
                        dataset=str(path),
                        out=folder / f"{which}-{algorithm}-{units}",
                        action_units=units,
                        quiet=True,
                        **options,
                    )
                    rows = (run.path / "metrics.csv").read_text().splitlines()
                    place = rows[0].split(",").index("eval_return")
                    earned = [float(row.split(",")[place]) for row in rows[1:] if row.split(",")[place]]
                    cells.append(format(bootstrap(np.array(earned[-args.seeds :])), ".0f"))
                print(f"{algorithm + ', ' + which:24}{deviation:>10.4f}{cells[0]:>30}{cells[1]:>30}", flush=True)


if __name__ == "__main__":
    main()

"""MOPO where imitation must fail: rewards that the logged controllers never sought.

    python benchmarks/mopo.py annulus    # a point mass that is to stay where all that was logged only passes through
    python benchmarks/mopo.py weight     # the same for several penalties: what each says of itself without being played
    python benchmarks/mopo.py sets       # Pendulum and Hopper, from random actions and from the replay of SAC

Each prints one table of mean greedy returns over `--seeds` seeds (trained side by side) with their range.

annulus: 500 episodes of the library's point mass, each with at most 25 of its 100 steps at 0.5 <= |x| <= 1, where every
step pays 1 and nothing else does. A controller that goes there and stays is paid for nearly all steps.

sets: `random` are uniform actions, `replay` is the whole replay of SAC, preset cpu, stopped while it learns.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import legato
from legato.data import sets
from legato.data import trajectories as logs
from legato.data.trajectories import Trajectories
from legato.envs import tasks
from legato.envs.checked import Checked
from legato.envs.environments import GymnasiumEnvironments
from legato.models.uncertainty import advised_weight
from legato.rollout import Clock, episodes, stack
from legato.training import offline
from legato.training.run import Run
from legato.training.settings import OfflineSettings, override, preset

WITHIN = (0.5, 1.0)
PASSING = 25
"""steps that a logged episode spends there at most"""
WEIGHTS = (0.0, 0.5, 1.0, 2.5, 5.0)


class Annulus(tasks.PointMass):
    """The point mass, paid 1 where it is at such a distance from 0."""

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        observation, _, terminated, truncated, info = super().step(action)
        return observation, float(paid(observation)), terminated, truncated, info


def paid(observation: np.ndarray) -> np.ndarray:
    """The new reward of arriving at these observations."""
    distance = np.abs(observation[..., 0])
    return ((WITHIN[0] <= distance) & (distance <= WITHIN[1])).astype(np.float32)


def passing(recorded: int = 800, kept: int = 500) -> Trajectories:
    """Episodes that pass through, with the new rewards."""
    data = tasks.record_point_mass(recorded)
    assert data.final_observations is not None
    after = np.concatenate([data.observations[1:], data.observations[:1]])
    after[data.offsets[1:] - 1] = data.final_observations
    about = replace(data.about, name="annulus", environment=None)
    data = replace(data, rewards=paid(after), about=about)
    return sets.select(data, np.flatnonzero(logs.returns(data) <= PASSING)[:kept])


@dataclass(frozen=True)
class Recorded:
    """Where sets are recorded."""

    env: str
    random: int
    """steps of uniform actions"""
    replay: int
    """steps after which SAC is stopped"""


RECORDED = (Recorded("Pendulum-v1", 20_000, 4_000), Recorded("Hopper-v5", 50_000, 15_000))
ENVS = [task.env for task in RECORDED]


def recorded(task: Recorded, folder: Path) -> dict[str, Trajectories]:
    """The two sets of an environment."""
    run = legato.train("sac", task.env, out=folder / task.env, steps=task.replay, quiet=True)
    found = {
        "random": legato.collect(run, task.random, random=True, quiet=True),
        "replay": legato.collect(run, replay=True, quiet=True),
    }
    return {
        kind: replace(data, about=replace(data.about, name=f"{task.env} {kind}", environment=task.env))
        for kind, data in found.items()
    }


def learnt(
    algorithm: str, data: Trajectories, make: Callable[[], gymnasium.Env], options: argparse.Namespace, **changes: Any
) -> tuple[np.ndarray, Run, list[dict[str, float]]]:
    """Greedy returns of each seed's last policy, its run's folder and last metrics."""
    settings = {"seeds": options.seeds, **changes}
    config, found = override(*preset("cpu", algorithm, data.about.name), **{"dataset": data.about.name, **settings})
    assert isinstance(found, OfflineSettings)
    found = replace(found, eval_every=found.updates, checkpoint_every=found.updates)
    with tempfile.TemporaryDirectory() as folder:
        run = offline.start(algorithm, "cpu", config, found, Path(folder) / "run", data=data, quiet=True)
        policies = stack([legato.load(run.path, seed).policy for seed in run.seeds])
        rows = np.atleast_1d(np.genfromtxt(run.path / "metrics.csv", delimiter=",", names=True))
        members = [Checked(make(), "played") for _ in range(len(run.seeds) * options.episodes)]
        played = GymnasiumEnvironments("played", members)
        returns = episodes(policies, played, run.spec, Clock(1), run.seeds, "test").mean(axis=1)
        played.close()
    names = rows.dtype.names or ()
    return returns, run, [dict(zip(names, row.tolist(), strict=True)) for row in rows[-len(run.seeds) :]]


def cell(values: np.ndarray) -> str:
    """A mean and the range."""
    return f"{values.mean():.1f} ({values.min():.1f} to {values.max():.1f})"


def of_mopo(options: argparse.Namespace) -> dict[str, Any]:
    """Options of it that were given."""
    return {name: value for name in ("updates", "real_share") if (value := getattr(options, name)) is not None}


def beside(options: argparse.Namespace) -> dict[str, tuple[str, dict[str, Any]]]:
    """What MOPO is compared with, and how each is trained."""
    told = of_mopo(options)
    return {
        "BC": ("bc", {}),
        "10%BC": ("bc", {"fraction": 0.1}),
        "IQL": ("iql", {}),
        "MOPO": ("mopo", told),
        "the same, penalty = 0": ("mopo", {**told, "penalty": 0.0}),
        "SAC from the logs (real_share = 1)": ("mopo", {**told, "real_share": 1.0}),
    }


def annulus(options: argparse.Namespace) -> None:
    data = passing(kept=options.logged)
    earned = logs.returns(data)
    print(f"| staying in the annulus, {options.seeds} seeds | return |\n|---|---|")
    print(f"| logged: mean, best of {len(data)} | {earned.mean():.1f}, {earned.max():.1f} |", flush=True)
    for name, (algorithm, changes) in beside(options).items():
        print(f"| {name} | {cell(learnt(algorithm, data, Annulus, options, **changes)[0])} |", flush=True)


def own_sets(options: argparse.Namespace) -> None:
    columns = beside(options)
    print(f"| {options.seeds} seeds | logged: mean, best | {' | '.join(columns)} |\n|---|---|{'---|' * len(columns)}")
    with tempfile.TemporaryDirectory() as folder:
        for task in [task for task in RECORDED if task.env in options.envs]:
            for kind, data in recorded(task, Path(folder)).items():
                earned = logs.returns(data)
                print(f"| {task.env}, {kind} | {earned.mean():.1f}, {earned.max():.1f} | ", end="", flush=True)
                for algorithm, changes in columns.values():
                    returns, *_ = learnt(algorithm, data, partial(gymnasium.make, task.env), options, **changes)
                    print(f"{cell(returns)} | ", end="", flush=True)
                print(flush=True)


def weight(options: argparse.Namespace) -> None:
    data, beyond, told = passing(kept=options.logged), {}, of_mopo(options)
    print("| penalty | imagined return of a roll-out | uncertainty | beyond the data, % | return when played |")
    print("|---|---|---|---|---|")
    for value in WEIGHTS:
        returns, _, last = learnt("mopo", data, Annulus, options, **told, penalty=value)
        mean = {name: float(np.mean([row[name] for row in last])) for name in last[0]}
        imagined = (mean["imagined_reward"] + mean["penalty"]) * mean["imagined_steps"]
        beyond[value] = mean["beyond_data"]
        found = f"{imagined:.3f} | {mean['uncertainty']:.2f} | {100 * beyond[value]:.1f}"
        print(f"| {value:g} | {found} | {cell(returns)} |", flush=True)
    print(f"advised without playing: {advised_weight(beyond)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("annulus", "weight", "sets"))
    parser.add_argument("--envs", nargs="+", default=ENVS, choices=ENVS, help="whose sets are learnt from")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=30, help="that each seed is played for")
    parser.add_argument("--logged", type=int, default=500, help="episodes that are learnt from")
    parser.add_argument("--updates", type=int, help="of MOPO; by default the preset's")
    parser.add_argument("--real-share", type=float, help="of its minibatches; by default the preset's")
    given = parser.parse_args()
    {"annulus": annulus, "weight": weight, "sets": own_sets}[given.part](given)

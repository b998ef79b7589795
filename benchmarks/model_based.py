"""How soon do policies that learn from imagined steps reach what they should? MBPO and CMLO beside the library's SAC.

    python benchmarks/model_based.py reach --tasks LQR Pendulum --out runs/model-based      # steps until a return
    python benchmarks/model_based.py controls --out runs/model-based      # a model that must not help, on LQR
    python benchmarks/model_based.py refits --out runs/model-based        # the trigger against a clock, equal refits

Each part trains what is not in `--out` yet, `--seeds` seeds side by side, presets `cpu`, and prints a table. `reach`:
the returns of greedy evaluations (10 episodes, never trained on) and the first step at which a seed's reaches the
task's threshold. `controls`: a model fitted once, one that learnt from shuffled actions, and none at all, at equal
updates. `refits`: on LQR, whose friction changes half-way, the returns of training episodes, the number of refits and
how long after the change the first came; the clock's period is the trigger's mean interval. Intervals are of 95 % over
seeds (Student's t).
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from naming import assigned
from scipy import stats

from legato import api
from legato.algorithms import entry


@dataclass(frozen=True)
class Task:
    """Where a return is to be reached."""

    env: str
    threshold: float
    steps: int
    """of MBPO"""
    longer: int
    """of SAC"""
    episodes: int = 10
    """of an evaluation"""


TASKS = {
    "LQR": Task("legato/LQR-v0", -6.5, 3_000, 12_000, episodes=100),
    "Pendulum": Task("Pendulum-v1", -250.0, 2_500, 8_000),
    "InvertedPendulum": Task("InvertedPendulum-v5", 1000.0, 3_000, 24_000),
    "Hopper": Task("Hopper-v5", 1000.0, 30_000, 100_000),
    "KuramotoSivashinsky-8jets": Task("legato/KuramotoSivashinsky-8jets-v0", -60.0, 10_000, 50_000),
    "KuramotoSivashinsky": Task("legato/KuramotoSivashinsky-v0", -356.0, 10_000, 50_000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["reach", "controls", "refits"])
    parser.add_argument("--tasks", nargs="+", default=["LQR"], choices=list(TASKS))
    parser.add_argument("--algorithms", nargs="+", default=["mbpo", "sac"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], dest="options", help="options of MBPO that differ")
    options = parser.parse_args()
    {"reach": reach, "controls": controls, "refits": refits}[options.part](options)


def trained(name: str, algorithm: str, task: Task, options: argparse.Namespace, **given: Any) -> Path:
    """The run in that folder, made now unless it is there."""
    out = options.out / task.env.split("/")[-1] / name
    if out.exists():
        return Path(api.train(resume=out, quiet=True).path)
    of_model = assigned(options.options) if fits_model(algorithm) else {}
    settings = {
        "steps": task.steps,
        "eval_episodes": task.episodes,
        "seeds": options.seeds,
        "preset": "cpu",
        "quiet": True,
        **of_model,
        **given,
    }
    return Path(api.train(algorithm, task.env, out=out, **settings).path)


def fits_model(algorithm: str) -> bool:
    """Does it learn a model between turns?"""
    return "refresh" in entry(algorithm).offers


def columns(run: Path, *names: str) -> Mapping[str, np.ndarray]:
    """Columns of metrics.csv, `[seeds, rows]` each; NaN where a row has none. `step` is the first."""
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    seeds = sorted({int(row["seed"]) for row in rows})
    found = {
        name: np.array([[float(row[name] or "nan") for row in rows if int(row["seed"]) == seed] for seed in seeds])
        for name in names
    }
    return {"step": np.array([float(row["step"]) for row in rows if int(row["seed"]) == seeds[0]]), **found}


def interval(values: np.ndarray) -> str:
    """A mean and its interval of 95 %."""
    mean, half = values.mean(), 0.0
    if len(values) > 1:
        half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return f"{mean:.1f} [{mean - half:.1f}, {mean + half:.1f}]"


def returns_of(run: Path) -> tuple[np.ndarray, np.ndarray]:
    """Steps, and the returns of evaluations `[seeds, evaluations]`."""
    found = columns(run, "eval_return")
    there = ~np.isnan(found["eval_return"]).any(axis=0)
    return found["step"][there], found["eval_return"][:, there]


def first_reached(steps: np.ndarray, returns: np.ndarray, threshold: float) -> list[str]:
    """Of each seed the first step at which it did."""
    reached = returns >= threshold
    return [str(int(steps[row.argmax()])) if row.any() else "never" for row in reached]


def reach(options: argparse.Namespace) -> None:
    """How soon."""
    print("| task | policy | steps | reaches | at, per seed | return at the end | per seed | best |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.tasks:
        task = TASKS[name]
        for algorithm in options.algorithms:
            steps = {} if fits_model(algorithm) else {"steps": task.longer}
            at, returns = returns_of(trained(algorithm, algorithm, task, options, **steps))
            reached = " ".join(first_reached(at, returns, task.threshold))
            each = " ".join(f"{x:.1f}" for x in returns[:, -1])
            best = " ".join(f"{x:.1f}" for x in returns.max(axis=1))
            row = (name, algorithm, int(at[-1]), task.threshold, reached, interval(returns[:, -1]), each, best)
            print("|", " | ".join(map(str, row)), "|", flush=True)


CONTROLS: dict[str, dict[str, Any]] = {
    "mbpo": {},
    "fitted once": {"refit_every": 0, "imagine_every": 250},
    "shuffled actions": {"shuffle_actions": True},
    "no model": {"real_share": 1.0},
}


def controls(options: argparse.Namespace) -> None:
    """What must not help."""
    print("| | median return of the last four evaluations, per seed | mean |\n|---|---|---|")
    for name, changes in CONTROLS.items():
        folder = name.replace(" ", "-")
        _, returns = returns_of(trained(folder, "mbpo", TASKS[options.tasks[0]], options, **changes))
        late = np.median(returns[:, -4:], axis=1)
        print(f"| {name} | {' '.join(f'{x:.1f}' for x in late)} | {interval(late)} |", flush=True)


def refits(options: argparse.Namespace) -> None:
    """The trigger against a clock."""
    task = TASKS["LQR"]
    half = task.steps // 2
    print(
        "| | mean return of training episodes | refits | steps from the change to the next refit |\n|---|---|---|---|"
    )
    for friction in (half, None):
        given: dict[str, Any] = {"log_every": 10}
        given |= {} if friction is None else {"env_options": {"friction_after": friction}}
        kind = "stationary" if friction is None else "changing"
        run = trained(f"cmlo-{kind}", "cmlo", task, options, **given)
        first = columns(run, "refits")["refits"][:, -1]
        period = round((task.steps - 250) / max(first.mean() - 1, 1) / 10) * 10
        clock = trained(f"clock-{kind}-{period}", "mbpo", task, options, refit_every=period, imagine_every=20, **given)
        for name, path in ((f"{kind}: trigger", run), (f"{kind}: every {period} steps", clock)):
            found = columns(path, "return", "refits")
            after = [
                found["step"][(found["step"] > half) & (row > row[found["step"] <= half][-1])][:1] - half
                for row in found["refits"]
            ]
            late = " ".join(str(int(a[0])) if len(a) else "never" for a in after)
            mean = np.nanmean(found["return"][:, found["step"] > 500], axis=1)
            print(f"| {name} | {interval(mean)} | {interval(found['refits'][:, -1])} | {late} |", flush=True)


if __name__ == "__main__":
    main()

"""How soon do policies that learn from imagined steps reach what they should? MBPO and CMLO beside the library's SAC.

    python benchmarks/model_based.py reach --tasks LQR Pendulum --out runs/model-based      # steps until a return
    python benchmarks/model_based.py controls --out runs/model-based      # a model that must not help, on LQR
    python benchmarks/model_based.py refits --seeds 5 --out runs/model-based   # triggers against clocks

Each part trains what is not in `--out` yet, `--seeds` seeds side by side, presets `cpu`, and prints a table. Intervals
are of 95 % over seeds (Student's t).

`reach`: the returns of greedy evaluations (10 episodes, never trained on) and the first step at which a seed's reaches
the task's threshold. `controls`: a model fitted once, one that learnt from shuffled actions, and none at all, at equal
updates. `refits`: CMLO's triggers against a clock with as many refits: returns of training episodes in the
second half, refits, and how many steps after half-way the first of them came; with `--tasks LQR` also where the
friction begins half-way, and against a clock with a quarter more.
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
    period: int = 250
    """steps between two fits"""
    start: int | None = None
    """random steps of SAC, and between its evaluations, where its preset does not know the task"""


FIELD = "legato/KuramotoSivashinsky"
TASKS = {
    "LQR": Task("legato/LQR-v0", -6.5, 3_000, 12_000, episodes=100),
    "Pendulum": Task("Pendulum-v1", -250.0, 2_500, 8_000),
    "InvertedPendulum": Task("InvertedPendulum-v5", 1000.0, 3_000, 24_000),
    "Hopper": Task("Hopper-v5", 1000.0, 30_000, 30_000),
    "KuramotoSivashinsky-8jets": Task(
        "legato/KuramotoSivashinsky-8jets-v0", -60.0, 3_000, 15_000, period=500, start=500
    ),
    "KuramotoSivashinsky": Task("legato/KuramotoSivashinsky-v0", -348.0, 4_000, 15_000, period=500, start=500),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["reach", "controls", "refits"])
    parser.add_argument("--tasks", nargs="+", default=["LQR"], choices=list(TASKS))
    parser.add_argument("--algorithms", nargs="+", default=["mbpo", "sac"])
    parser.add_argument("--controls", nargs="+", default=list(CONTROLS), choices=list(CONTROLS))
    parser.add_argument("--triggers", nargs="+", default=["paper", "cusum"])
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
            if steps and task.start:
                steps |= {"start_steps": task.start, "eval_every": task.start}
            at, returns = returns_of(trained(algorithm, algorithm, task, options, **steps))
            reached = " ".join(first_reached(at, returns, task.threshold))
            each = " ".join(f"{x:.1f}" for x in returns[:, -1])
            best = " ".join(f"{x:.1f}" for x in returns.max(axis=1))
            row = (name, algorithm, int(at[-1]), task.threshold, reached, interval(returns[:, -1]), each, best)
            print("|", " | ".join(map(str, row)), "|", flush=True)


CONTROLS: dict[str, dict[str, Any]] = {
    "mbpo": {},
    "fitted once": {"refit_every": 0},
    "shuffled actions": {"shuffle_actions": True},
    "no model": {"real_share": 1.0},
}


def controls(options: argparse.Namespace) -> None:
    """What must not help."""
    print("| | median return of the last four evaluations, per seed | mean |\n|---|---|---|")
    task = TASKS[options.tasks[0]]
    for name in options.controls:
        folder, changes = name.replace(" ", "-"), CONTROLS[name]
        # Unrolled as often, whatever it is fitted.
        changes = changes if "refit_every" not in changes else {**changes, "imagine_every": task.period}
        _, returns = returns_of(trained(folder, "mbpo", task, options, **changes))
        late = np.median(returns[:, -4:], axis=1)
        print(f"| {name} | {' '.join(f'{x:.1f}' for x in late)} | {interval(late)} |", flush=True)


@dataclass(frozen=True)
class Setting:
    """Where the trigger is held against a clock."""

    task: Task
    changes: bool = False
    """does the friction begin half-way?"""


SETTINGS = {
    "LQR, friction from half-way on": Setting(TASKS["LQR"], changes=True),
    "LQR": Setting(TASKS["LQR"]),
    "Pendulum": Setting(TASKS["Pendulum"]),
    "Hopper": Setting(TASKS["Hopper"]),
}
CHECK = 20
"""steps between two looks of the trigger, and between two times that the model is unrolled"""
FEWER = 0.8
"""of the clock's refits the trigger has, where its period is shorter"""


def refits(options: argparse.Namespace) -> None:
    """Triggers against clocks."""
    print("| task | refitted | return after half-way | the trigger's is better by | refits | first after half-way |")
    print("|---|---|---|---|---|---|")
    notes = []
    for name, setting in SETTINGS.items():
        if setting.task not in [TASKS[asked] for asked in options.tasks]:
            continue
        half = setting.task.steps // 2
        given: dict[str, Any] = {"log_every": CHECK}
        if setting.changes:
            given["env_options"] = {"friction_after": half}
        kind = "changing" if setting.changes else "stationary"
        for trigger in options.triggers:
            run = trained(f"{trigger}-{kind}", "cmlo", setting.task, options, trigger=trigger, **given)
            intervals = np.concatenate(refit_intervals(run))
            rows = {f"by `{trigger}`": run}
            for share in (1.0, FEWER) if setting.changes else (1.0,):
                period = max(CHECK, round(share * intervals.mean() / CHECK) * CHECK)
                clock = {"refit_every": period, "imagine_every": CHECK, **given}
                rows[f"every {period} steps"] = trained(
                    f"clock-{kind}-{period}", "mbpo", setting.task, options, **clock
                )
            ours = late_returns(run, half)
            for how, path in rows.items():
                late, counts = late_returns(path, half), columns(path, "refits")["refits"][:, -1]
                better = "" if path == run else difference(ours, late)
                print(f"| {name} | {how} | {interval(late)} | {better} | {counts.mean():.1f} | ", end="")
                print(" ".join(first_after(path, half)), "|", flush=True)
            low, middle, high = np.percentile(intervals, [10, 50, 90])
            notes.append(f"{name}, `{trigger}`: {low:.0f}, {middle:.0f}, {high:.0f} steps apart (deciles 1, 5, 9); ")
            notes[-1] += f"correlation of the shift with the newest error {shift_correlation(run):.2f}"
    print("\n" + "\n".join(notes))


def refit_intervals(run: Path) -> list[np.ndarray]:
    """Of each seed the steps between its refits."""
    found = columns(run, "refits")
    return [np.diff(found["step"][np.flatnonzero(np.diff(row, prepend=0) > 0)]) for row in found["refits"]]


def late_returns(run: Path, half: int) -> np.ndarray:
    """Of each seed the mean return of training episodes that end after `half` steps."""
    found = columns(run, "return")
    return np.nanmean(found["return"][:, found["step"] > half], axis=1)


def first_after(run: Path, half: int) -> list[str]:
    """Of each seed the steps until its first refit after `half`."""
    found = columns(run, "refits")
    before, later = found["step"] <= half, found["step"] > half
    places = [np.flatnonzero(later & (row > row[before][-1])) for row in found["refits"]]
    return [str(int(found["step"][place[0]]) - half) if len(place) else "never" for place in places]


def shift_correlation(run: Path) -> float:
    """Of S with the elites' error on the newest steps, over all looks of all seeds."""
    found = columns(run, "shift", "prediction_error")
    known = found["prediction_error"] > 0
    return float(np.corrcoef(found["shift"][known], found["prediction_error"][known])[0, 1])


def difference(ours: np.ndarray, others: np.ndarray) -> str:
    """Of two means, with its interval of 95 % (Welch)."""
    if min(len(ours), len(others)) < 2:
        return f"{ours.mean() - others.mean():.1f}"
    low, high = stats.ttest_ind(ours, others, equal_var=False).confidence_interval()
    return f"{ours.mean() - others.mean():.1f} [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    main()

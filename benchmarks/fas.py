"""FAS of many policies on many tasks, all trained in one run: the tables of docs/results.md.

    python benchmarks/fas.py --out runs/fas                                  # Pendulum: SAC-1 ... 16, SRL-4, 8, 16
    python benchmarks/fas.py --out runs/fas --tasks InvertedPendulum-v5 Reacher-v5 \
        --algorithms sac sac:action_repeat=8 td3 srl:horizon=8 srl:horizon=8@mppi srl:horizon=8@unrolled
    python benchmarks/fas.py --out runs/ablation --tasks Pendulum-v1 --steps 6000 --set hidden=64 batch_size=64 \
        --algorithms srl:horizon=16 srl:horizon=16,execute=-1

After a colon stand options that differ from the preset's, after an @ a planner that searches in the run's model instead
of asking its actor. Trains with one update per primitive step, several seeds side by side; evaluates over the 16 action
sequence lengths, random intervals and delays, on episodes that training never saw. What is in `--out` already is not
computed again, but for searches.

`oracle` is the FAS of a policy that loses nothing by deciding rarely: its return of one step at every length. Where
nothing is random, that is the score of the same policy unrolled in a copy of the environment.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from naming import assigned
from scipy import stats

from legato import api
from legato.algorithms import entry
from legato.evaluation.compare import evaluation_of
from legato.evaluation.fas import GRID
from legato.evaluation.sweep_figures import draw
from legato.evaluation.sweeps import INTERVALS, Evaluation
from legato.options import types
from legato.training.run import Which
from legato.training.settings import Settings

DEFAULT = [f"sac:action_repeat={j}" for j in (1, 2, 4, 8, 16)] + [f"srl:horizon={j}" for j in (4, 8, 16)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=["Pendulum-v1"])
    parser.add_argument("--algorithms", nargs="+", default=DEFAULT)
    parser.add_argument("--set", nargs="*", default=[], dest="common", help="options of all that know them")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--which", nargs="+", default=["last", "best"], choices=["last", "best"])
    options = parser.parse_args()
    if strange := set(assigned(options.common)) - set().union(*map(known_options, options.algorithms)):
        parser.error(f"none of the algorithms has an option {min(strange)}")
    together: dict[str, list[float]] = {}
    for task in options.tasks:
        found = {name: trained(name, task, options) for name in options.algorithms}
        for which in options.which:
            evaluations = {name: evaluation(name, run, which) for name, run in found.items()}
            for what, rho in show(evaluations).items():
                together.setdefault(f"{what}, {which} policies", []).append(rho)
            named = [replace(e, label=label(name, e)) for name, e in evaluations.items()]
            for sweep in ("asl", "intervals", "delay"):
                if all(getattr(e, sweep) is not None for e in named):
                    draw(named, options.out / task / f"{sweep}-{which}.png", sweep)
    for what, rho in together.items():
        if len(rho) > 1:
            average = f"{np.mean(rho):.2f} on average over {len(rho)} tasks"
            print(f"FAS and the return with {what}: correlation of ranks {average}")


def label(name: str, e: Evaluation) -> str:
    """`SRL-16, execute -1`: what a run calls itself, and what differs beside J."""
    given = assigned(re.split(r"[:,]", name.partition("@")[0])[1:])
    others = [f"{k} {v}".replace("_", " ") for k, v in given.items() if k not in ("horizon", "action_repeat")]
    return ", ".join([e.label, *others])


def known_options(name: str) -> set[str]:
    """What the algorithm of `srl:horizon=8@mppi` and its runs may be told."""
    algorithm = re.split("[:@]", name)[0]
    return {*types(entry(algorithm).config), *types(Settings)}


def trained(name: str, task: str, options: argparse.Namespace) -> Path:
    """The run of a policy such as `srl:horizon=8@mppi`, made now unless it is there."""
    name = name.partition("@")[0]
    algorithm, _, given = name.partition(":")
    changes = assigned(given.split(","))
    common = {k: v for k, v in assigned(options.common).items() if k not in changes}
    common = {k: v for k, v in common.items() if k in known_options(name)}
    out = options.out / task / re.sub(r"[^\w:=,.+-]", "", name)
    if out.exists():
        return Path(api.train(resume=out, quiet=True).path)
    steps = {} if options.steps is None else {"steps": options.steps}
    settings: dict[str, Any] = {"out": out, "seeds": options.seeds, "quiet": True, **steps, **common, **changes}
    return Path(api.train(algorithm, task, preset=options.preset, **settings).path)


def evaluation(name: str, run: Path, which: Which) -> Evaluation:
    planner = name.partition("@")[2]
    if not planner:
        return evaluation_of(run, which, quiet=True)
    return api.evaluate(run, which=which, search={"planner": planner}, quiet=True)


def show(evaluations: dict[str, Evaluation]) -> dict[str, float]:
    """Print a task's table. Returns what `rank_correlations` does."""
    first = next(iter(evaluations.values()))
    seeds, episodes = len(first.seeds), first.asl.returns.shape[-1]
    print(f"\n{first.environment}, {first.which} policy, {seeds} seeds x {episodes} episodes per point")
    names = "policy", "FAS [95 % interval over seeds]", "per seed", "oracle", "R(1)", "R(J)", "worst R(1..J)"
    names += "R(8)", "R(16)", "R(30)", "decisions/s", "ms per decision"
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for name, e in evaluations.items():
        fas, per_seed = e.fas, e.fas_per_seed
        text = "unknown" if fas is None else f"{fas.mean:.3f} [{fas.low:.3f}, {fas.high:.3f}]"
        each = "" if per_seed is None else " ".join(f"{x:.3f}" for x in per_seed)
        up_to_j = [e.asl.at(n).mean for n in GRID if n <= e.trained_length]
        r = {n: f"{e.asl.at(n).mean:.0f}" for n in GRID}
        nearest = min(GRID, key=lambda n, e=e: abs(n - e.trained_length))
        returns = [r[1], r[nearest], f"{min(up_to_j):.0f}", r[8], r[16], r[30]]
        rate = "" if e.step_seconds is None else f"{1 / (e.trained_length * e.step_seconds):.1f}"
        ms = "" if e.latency is None else f"{e.latency.p50:.3f}"
        oracle = "" if e.fas_of_oracle is None else f"{e.fas_of_oracle.mean:.3f}"
        print(f"| {name} | {text} | {each} | {oracle} | {' | '.join(returns)} | {rate} | {ms} |", flush=True)
    return rank_correlations(list(evaluations.values()))


def rank_correlations(evaluations: list[Evaluation]) -> dict[str, float]:
    """Does FAS say which policy does well where decisions come at random, or late? Returns correlations of ranks."""
    found: dict[str, float] = {}
    if any(e.fas_per_seed is None for e in evaluations) or len(evaluations) < 3:
        return found
    scores = np.concatenate([np.asarray(e.fas_per_seed) for e in evaluations])
    for what, sweeps in {
        "random intervals of up to 16 steps": [
            e.intervals and e.intervals.returns[:, INTERVALS.index(16)] for e in evaluations
        ],
        "delays of up to the interval": [e.delay and e.delay.returns.mean(axis=1) for e in evaluations],
    }.items():
        if any(returns is None for returns in sweeps):
            continue
        earned = np.concatenate([returns.mean(axis=-1) for returns in sweeps if returns is not None])
        r, rho = np.corrcoef(scores, earned)[0, 1], np.corrcoef(stats.rankdata(scores), stats.rankdata(earned))[0, 1]
        print(f"FAS and the return with {what}, {len(scores)} policies: r {r:.2f}, of ranks {rho:.2f}")
        found[what] = rho
    return found


if __name__ == "__main__":
    main()

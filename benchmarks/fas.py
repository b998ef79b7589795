"""FAS of SRL-J and every SAC-J on one environment, all in one run: the tables of docs/results.md.

    python benchmarks/fas.py --out runs/pendulum [--seeds 3] [--env Pendulum-v1] [--steps N]
        [--horizons 4 8 16] [--repeats 1 2 4 8 16] [--which last best]

Trains each algorithm with the `cpu` preset, one update per primitive step, several seeds side by side; evaluates over
the 16 action sequence lengths on episodes that training never saw; prints one table per `--which`. A second call with
the same `--out` takes the runs that are there and trains the others.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--env", default="Pendulum-v1")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--horizons", type=int, nargs="*", default=[4, 8, 16])
    parser.add_argument("--repeats", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    parser.add_argument("--paper-updates", action="store_true", help="SAC-J updates once per decision, as published")
    parser.add_argument("--which", nargs="+", default=["last", "best"], choices=["last", "best"])
    options = parser.parse_args()

    from legato import api

    updates = "decision" if options.paper_updates else "step"
    cases = [("sac", {"action_repeat": j, "updates": updates}) for j in options.repeats]
    cases += [("srl", {"horizon": j}) for j in options.horizons]
    runs = []
    for algorithm, extra in cases:
        out = options.out / f"{algorithm}-{next(iter(extra.values()))}"
        if options.steps:
            extra = {**extra, "steps": options.steps}
        if not out.exists():
            api.train(algorithm, options.env, preset=options.preset, out=out, seeds=options.seeds, **extra)
        runs.append(out)
    for which in options.which:
        evaluations = [api.evaluation_of(run, which) for run in runs]
        show(evaluations)
        api.draw(evaluations, options.out / f"curves-{which}.png")


def show(evaluations) -> None:
    from legato.evaluation.fas import GRID

    first = evaluations[0]
    seeds, episodes = len(first.seeds), first.asl.returns.shape[-1]
    print(f"\n{first.environment}, {first.which} policy, {seeds} seeds x {episodes} episodes per point")
    print("| policy | FAS [95 % interval over seeds] | per seed | R(1) | R(J) | worst R(1..J) | R(8) | R(16) | R(30) |")
    print("|---|---|---|---|---|---|---|---|---|")
    for e in evaluations:
        fas, per_seed = e.fas, e.fas_per_seed
        text = "unknown" if fas is None else f"{fas.mean:.3f} [{fas.low:.3f}, {fas.high:.3f}]"
        each = "" if per_seed is None else " ".join(f"{x:.3f}" for x in per_seed)
        up_to_j = [e.asl.at(n).mean for n in GRID if n <= e.trained_length]
        r = {n: f"{e.asl.at(n).mean:.0f}" for n in GRID}
        returns = [r[1], r[e.trained_length], f"{min(up_to_j):.0f}", r[8], r[16], r[30]]
        print(f"| {e.label} | {text} | {each} | {' | '.join(returns)} |")


if __name__ == "__main__":
    main()

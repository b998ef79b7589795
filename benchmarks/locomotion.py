"""What learning from logs scores: every algorithm on every dataset, with negative controls beside them.

    python benchmarks/locomotion.py --datasets bench/hopper/medium-v0 bench/walker2d/medium-v0
    python benchmarks/locomotion.py --datasets ... --algorithms bc 10%bc dt ds4 dt-blind dt-markov ds4-blind ds4-markov
    python benchmarks/locomotion.py --datasets ... --algorithms dt dt:positions=timestep ds4:norm=True,batch_size=16
    python benchmarks/locomotion.py --datasets ... --algorithms bc tt tt@horizon=5,beams=32

Datasets are what `legato train --dataset` takes; they must name their environment and, for normalised scores, the
returns of a random and of an expert policy. Every cell is the `last` policy of `--seeds` seeds, asked for the return
that the data supports (the mean of its best tenth), in `--episodes` test episodes each: the mean over seeds, with a
95 % bootstrap interval. Runs and scores are kept under `--out`: what is there already is not computed again. After a
colon stand options of the algorithm or of training that differ from the preset's; after an @ options of the search with
which the policies of the column before the @ are played.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from naming import assigned

import legato
from legato.algorithms import entries, entry
from legato.data import formats
from legato.data import trajectories as logs
from legato.envs import make_vec
from legato.evaluation.latency import latency
from legato.evaluation.normalised import NormalisationScores, normalisation_scores
from legato.evaluation.statistics import bootstrap
from legato.rollout import Clock, episodes, stack
from legato.training.policy_file import LoadedPolicy
from legato.training.run import Run

# All that learn from logs, and the variants that the tables compare them with.
ALGORITHMS: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in entries("offline")} | {
    "10%bc": ("bc", {"fraction": 0.1}),
    "dt-blind": ("dt", {"returns": False}),
    "dt-markov": ("dt", {"history": False}),
    "ds4-blind": ("ds4", {"returns": False}),
    "ds4-markov": ("ds4", {"history": False}),
}


def variant(name: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The algorithm, and the options and those of the search, that a column's name stands for."""
    trained, _, search = name.partition("@")
    base, _, others = trained.partition(":")
    if base not in ALGORITHMS:
        raise argparse.ArgumentTypeError(f"'{base}' is none of {', '.join(ALGORITHMS)}")
    algorithm, changes = ALGORITHMS[base]
    known = entry(algorithm).play
    if search and not known:
        raise argparse.ArgumentTypeError(f"'{base}' does not search, so there is no '@{search}'")
    if wrong := set(assigned(search.split(","))) - set(known):
        raise argparse.ArgumentTypeError(f"'{min(wrong)}' is no option of a search: {', '.join(known)}")
    return algorithm, {**changes, **assigned(others.split(","))}, assigned(search.split(","))


def column(name: str) -> str:
    variant(name)
    return name


def folder(name: str, dataset: str, options: argparse.Namespace) -> Path:
    """Where the run of a column is kept."""
    return Path(options.out) / re.sub(r"\W+", "-", dataset) / re.sub(r"[^\w:=,.+-]", "", name.partition("@")[0])


def trained(name: str, dataset: str, options: argparse.Namespace) -> Run:
    """The run of a column; trained now if need be, or to its end if the benchmark was stopped."""
    path = folder(name, dataset, options)
    if path.exists():
        return legato.train(resume=path, quiet=True)
    algorithm, changes, _ = variant(name)
    changes = {**changes, "seeds": options.seeds, "eval_every": 10**9}  # at the end only
    return legato.train(algorithm, dataset=dataset, preset=options.preset, out=path, quiet=True, **changes)


def loaded(name: str, dataset: str, options: argparse.Namespace) -> list[LoadedPolicy]:
    """The last policies of a column, one per seed."""
    run = trained(name, dataset, options)
    return [legato.load(run.path, seed, search=variant(name)[2]) for seed in run.seeds]


def scored(name: str, dataset: str, options: argparse.Namespace) -> list[float]:
    """Returns of the last policies, `[seeds]`: means over so many episodes of each."""
    later = f"-from-{options.first_episode}" if options.first_episode else ""
    kept = folder(name, dataset, options) / re.sub(r"[^\w=,.+-]", "", f"scores{name.partition('@')[2]}{later}.json")
    if kept.exists():
        body = json.loads(kept.read_text())
        if body.get("episodes", options.episodes) != options.episodes:
            print(f"({name} on {dataset} was scored over {body['episodes']} episodes)", file=sys.stderr)
        return body["returns"]
    run = trained(name, dataset, options)
    assert run.environment is not None
    environment = make_vec(run.environment, options.seeds * options.episodes)
    policies = stack([player.policy for player in loaded(name, dataset, options)])
    first = options.first_episode
    found = episodes(policies, environment, run.spec, Clock(1), run.seeds, "test", first_episode=first).mean(axis=1)
    environment.close()
    kept.write_text(json.dumps({"returns": found.tolist(), "episodes": options.episodes}) + "\n")
    return found.tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", required=True)
    parser.add_argument("--algorithms", nargs="+", type=column, default=["bc", "10%bc", "dt", "ds4"])
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--first-episode", type=int, default=0, help="others are other test episodes")
    parser.add_argument("--out", default="runs/locomotion")
    options = parser.parse_args()
    print(f"| dataset | behaviour | {' | '.join(options.algorithms)} |")
    print("|---|" + "---|" * (1 + len(options.algorithms)))
    table: list[list[float]] = []
    for dataset in options.datasets:
        data = formats.load(dataset)
        scale = normalisation_scores(data.about.environment or "", data.about.reference) or NormalisationScores(
            0.0, 100.0, "nobody"
        )
        row, cells = [float(scale.score(logs.returns(data)).mean())], []
        for name in options.algorithms:
            interval = bootstrap(scale.score(scored(name, dataset, options)))
            row.append(interval.mean)
            cells.append(f"{interval.mean:.1f} [{interval.low:.1f}, {interval.high:.1f}]")
        table.append(row)
        print(f"| {dataset} | {row[0]:.1f} | {' | '.join(cells)} |", flush=True)
    means = np.mean(table, axis=0)
    print("| mean | " + " | ".join(f"{mean:.1f}" for mean in means) + " |")
    players = [loaded(name, options.datasets[0], options)[0] for name in options.algorithms]
    costs = [latency(player, 1).p50 for player in players]  # side by side, now
    print("| ms per action, p50 | | " + " | ".join(f"{cost:.2f}" for cost in costs) + " |")


if __name__ == "__main__":
    main()

"""Several seeds in one process against as many runs one after another: wall and CPU seconds, compilation included.

python benchmarks/seeds.py [--algorithm srl] [--seeds 4] [--steps 3000] [--env Pendulum-v1] [--preset cpu]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time

from legato.algorithms import entries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithm", choices=entries("online"), default="srl")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--env", default="Pendulum-v1")
    parser.add_argument("--preset", default="cpu")
    options, rest = parser.parse_known_args()
    together = train(options, rest, seed=0, seeds=options.seeds)
    apart = [train(options, rest, seed=seed, seeds=1) for seed in range(options.seeds)]
    wall, cpu = (sum(column) for column in zip(*apart, strict=True))
    print(f"| {options.seeds} seeds of {options.algorithm}, {options.env}, {options.steps} steps | wall s | CPU s |")
    print("|---|---|---|")
    print(f"| in one process | {together[0]:.1f} | {together[1]:.1f} |")
    print(f"| one after another | {wall:.1f} | {cpu:.1f} |")
    print(f"| ratio | {together[0] / wall:.2f} | {together[1] / cpu:.2f} |")


def train(options: argparse.Namespace, rest: list[str], seed: int, seeds: int) -> tuple[float, float]:
    """(wall, CPU) seconds of one command."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", "from legato.cli import main; main()", "train", options.algorithm]
        command += ["--env", options.env, "--preset", options.preset, "--steps", str(options.steps), "--quiet"]
        command += ["--seed", str(seed), "--seeds", str(seeds), "--out", f"{folder}/run", *rest]
        before, start = os.times(), time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        return time.perf_counter() - start, cpu


if __name__ == "__main__":
    main()

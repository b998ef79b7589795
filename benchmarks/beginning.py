"""What it costs to begin: compiling what a seed knows at first, with every optimisation and with one level of them.

python benchmarks/beginning.py [--algorithms sac srl ...] [--preset cpu]

Hopper's sizes. `equal` says whether both programs give the same numbers to the bit.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import jax
import numpy as np

from legato.algorithms import algorithm as algorithm_module
from legato.algorithms import entries
from legato.data.dataset_statistics import DatasetStatistics
from legato.data.spec import Spec
from legato.training.initialise import OPTIONS, init_learners
from legato.training.settings import preset

SPEC = Spec(11, (-1.0,) * 3, (1.0,) * 3)


def main() -> None:
    # What prepares its data cannot begin without.
    known = [name for name, found in entries().items() if "prepare" not in found.offers]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", nargs="+", choices=known, default=known)
    parser.add_argument("--preset", default="cpu")
    options = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    print("| algorithm | wall s, every optimisation | one level | CPU s, every optimisation | one level | equal |")
    print("|---|---|---|---|---|---|")
    for name in options.algorithms:
        whole, least = (compiled(name, options.preset, how) for how in ({"xla_backend_optimization_level": 3}, OPTIONS))
        numbers = (f"{a:.1f} | {b:.1f}" for a, b in zip(whole[:2], least[:2], strict=True))
        equal = jax.tree.all(jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), whole[2], least[2]))
        print(f"| {name} | {' | '.join(numbers)} | {'yes' if equal else 'no'} |")


def compiled(name: str, which: str, how: dict[str, Any]) -> tuple[float, float, list[np.ndarray]]:
    """(wall, CPU) seconds of the compiler, and every number that the program gives."""
    config, _ = preset(which, name, "Hopper-v5")
    shared = (DatasetStatistics.identity(SPEC),) if name in entries("offline") else ()
    given = (jax.random.split(jax.random.key(0), 1),), shared
    program = init_learners.lower(algorithm_module(name), (config, SPEC), *given)
    wall, cpu = time.perf_counter(), time.process_time()
    made = program.compile(compiler_options=how)
    spent = time.perf_counter() - wall, time.process_time() - cpu
    return *spent, [np.asarray(leaf) for leaf in jax.tree.leaves(made(*given))]


if __name__ == "__main__":
    main()

"""What planning with a trajectory model costs: plans over beams, horizon and context, and an update, at Hopper's sizes.

    python benchmarks/planning.py [--rounds 3] [--quick]

Plans are the published model's (random weights, expansion 2), wall and CPU seconds of the quickest of so many rounds,
compilation before and named apart. `taskset -c 0` gives the CPU seconds of one thread. Floors are matrix products
(counted, not measured) at the rate of this machine's own product of 2048 x 2048 matrices, measured in the same run.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timing import best, peak

from legato.algorithms.trajectory_transformer import trajectory_transformer as tt
from legato.algorithms.trajectory_transformer.config import TT
from legato.data.spec import Spec
from legato.data.tokens import Windows
from legato.data.trajectories import About, trajectories

SPEC = Spec(11, (-1.0,) * 3, (1.0,) * 3)
PLANS = ((32, 5, 2), (32, 5, 5), (64, 5, 5), (32, 15, 5), (128, 5, 5), (128, 15, 5))  # beams, horizon, context


def tokens_of(config: TT, beams: int, horizon: int, context: int) -> int:
    """Tokens that the blocks read in a plan after a full window."""
    n, m = SPEC.observation_size, SPEC.action_size
    width = n + m + 2
    first = (context - 1) * width + n
    reads = (horizon - 1) * beams * ((context - 1) * width + n)
    return first + reads + horizon * beams * config.expand * (m + 1)


def of_tokens(config: TT, count: int, seen: float) -> float:
    """GFLOP of the blocks for so many tokens that see `seen` others each, forward."""
    d = config.size
    return config.layers * count * (24 * d * d + 4 * d * seen) / 1e9


def plan(config: TT, beams: int, horizon: int, context: int, rounds: int, rate: float) -> None:
    """One row of the table."""
    config = replace(config, beams=beams, horizon=horizon, context=context)
    rng = np.random.default_rng(0)
    rows, over = 2000, np.arange(2000) % 1000 == 999
    data = trajectories(
        rng.normal(size=(rows, 11)), rng.uniform(-1, 1, (rows, 3)), rng.normal(size=rows), 0 * over, over,
        about=About("random", low=SPEC.low, high=SPEC.high),
    )  # fmt: skip
    statistics, source = tt.prepare(config, SPEC, data, None, "")
    policy = tt.policy(config, tt.init(config, SPEC, jax.random.key(0), statistics))
    past = jnp.asarray(source.tokens[: context - 1], jnp.int32)
    state = policy.init_state(())
    newest = jnp.asarray(source.tokens[context, :11], jnp.int32)
    memory = tt.Memory(past, jnp.asarray(context - 1), newest, state.goal, state.time + 1, state.foreign)
    search = jax.jit(lambda policy, memory, key: policy.plans(memory, key).score)
    before = time.perf_counter()
    compiled = search.lower(policy, memory, jax.random.key(0)).compile()
    compiling = time.perf_counter() - before
    wall, cpu = (ms / 1000 for ms in best(lambda: compiled(policy, memory, jax.random.key(0)), rounds))
    count = tokens_of(config, beams, horizon, context)
    flops = of_tokens(config, count, context * 8)
    print(
        f"| {beams} x {horizon}, {context} | {wall:.3f} | {cpu:.3f} | {count:,} | {flops:.1f} | "
        f"{flops / rate / wall:.2f} | {compiling:.1f} |",
        flush=True,
    )


def update(config: TT, batch: int, rounds: int, rate: float, name: str) -> None:
    """One row of the table."""
    rng, width = np.random.default_rng(0), 16
    source = Windows(
        jnp.asarray(rng.integers(0, 100, (batch, config.window, width)), jnp.int32),
        jnp.ones((batch, config.window), bool),
        jnp.zeros((batch, 11), jnp.int32),
    )
    held = [tt.init(config, SPEC, jax.random.key(0))]
    step = jax.jit(lambda learner: tt.update(config, learner, source, jax.random.key(1)), donate_argnums=0)

    def call() -> Any:
        held[0], metrics = step(held[0])
        return metrics

    wall, cpu = (ms / 1000 for ms in best(call, rounds))
    places = batch * (config.window * width - 1)
    heads = 2 * places * config.size * (config.bins + 1) / 1e9
    flops = 3 * (of_tokens(config, places, config.window * width) + heads)
    print(
        f"| {name} | {wall:.3f} | {cpu:.3f} | {flops:.1f} | {flops / rate:.3f} | {flops / rate / wall:.2f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="only 32 x 5 after a full window, and one update")
    options = parser.parse_args()
    rounds = options.rounds
    rate = peak(rounds)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"matrix products: {rate:.0f} GFLOP/s on this machine, now; {cores} cores\n")
    print("| beams x horizon, context | wall s | CPU s | tokens read | GFLOP | fraction of peak | compiling, s |")
    print("|---|---|---|---|---|---|---|")
    for beams, horizon, context in PLANS[1:2] if options.quick else PLANS:
        plan(TT(), beams, horizon, context, rounds, rate)
    print(
        "\n| update, 159 tokens a window | wall s | CPU s | GFLOP | floor, s | fraction of peak |"
        "\n|---|---|---|---|---|---|"
    )
    update(TT(), 64, rounds, rate, "batch 64")
    if not options.quick:
        update(TT(dropout=0.0), 64, rounds, rate, "batch 64, no dropout")
        update(TT(dtype="bfloat16"), 64, rounds, rate, "batch 64, bfloat16")


if __name__ == "__main__":
    main()

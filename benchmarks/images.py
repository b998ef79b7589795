"""What images cost SAC: bytes of the replay, milliseconds per update and per decision, beside a vector.

    python benchmarks/images.py [--shapes 12x12x1 64x64x3 84x84x4] [--hidden 64] [--batch 64]

`stored` are the bytes that a transition takes in the replay, its two images included; `twice` is what both of them
would take as float32 numbers. Times are the least of `--rounds`, with nothing else running.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from timing import best

from legato.algorithms.sac import sac
from legato.algorithms.sac.config import SAC
from legato.data import replay
from legato.data.spec import Spec
from legato.player import Player
from legato.training.online import advance

ROWS = 2000
BLOCK = 200  # of them are put into the replay at once
TOGETHER = 20  # updates of a dispatch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["12x12x1", "64x64x3", "84x84x4"])
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    config = SAC(hidden=options.hidden, batch_size=options.batch)
    vector = Spec(11, (-1.0,) * 3, (1.0,) * 3)
    print("| observation | stored, bytes | twice as float32 | ms per update | ms per decision |\n|---|---|---|---|---|")
    for name in ["11 numbers", *options.shapes]:
        shape = None if name == "11 numbers" else tuple(map(int, name.split("x")))
        spec = vector.with_images(shape)
        twice = 4 * (2 * spec.observation_size + 2 * spec.action_size + 2)
        update, decision = time_update(config, spec, options.rounds), time_decision(config, spec, options.rounds)
        print(f"| {name} | {replay.row_bytes(spec):,.0f} | {twice:,} | {update:.2f} | {decision:.3f} |", flush=True)


def rows_of(spec: Spec, count: int, seed: int = 0) -> replay.Rows:
    rng = np.random.default_rng(seed)
    images = rng.integers(256, size=(count + 1, spec.observation_size)).astype(np.float32)
    rest = rng.uniform(-1, 1, (count, 2 * spec.action_size + 1)).astype(np.float32)
    packed = np.concatenate([images[:-1], rest, images[1:], np.ones((count, 1), np.float32)], axis=1)
    return replay.split_images(packed, spec)


def time_update(config: SAC, spec: Spec, rounds: int) -> float:
    """Milliseconds."""
    key = jax.random.key(0)[None]
    learner = jax.vmap(partial(sac.init, config, spec))(key)
    add = jax.jit(replay.add)
    buffer = replay.create(spec, ROWS)
    for seed in range(ROWS // BLOCK):
        buffer = add(buffer, rows_of(spec, BLOCK, seed), jnp.array(BLOCK))
    buffer = jax.tree.map(lambda leaf: leaf[None], buffer)
    row, count = jax.tree.map(lambda leaf: leaf[None], rows_of(spec, 1)), jnp.ones(1, jnp.int32)

    def call() -> jax.Array:
        nonlocal learner, buffer
        learner, buffer, metrics = advance(sac, config, TOGETHER, learner, buffer, row, count, key, 0)
        return metrics["critic_loss"]

    return best(call, rounds)[0] / TOGETHER


def time_decision(config: SAC, spec: Spec, rounds: int, calls: int = 200) -> float:
    """Milliseconds."""
    player = Player(sac.new_policy(config, spec, jax.random.key(0)), spec)
    seen = np.zeros(spec.shape or spec.observation_size, np.uint8 if spec.images else np.float32)
    memory = player.begin()
    player.act(memory, seen)
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            _, memory = player.act(memory, seen)
        found.append(1000 * (time.perf_counter() - start) / calls)
    return min(found)


if __name__ == "__main__":
    main()

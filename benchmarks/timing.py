"""What the benchmarks share: the quickest of several rounds, and what this machine's matrix products reach."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def best(call: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """(wall, CPU) milliseconds of the quickest round, compilation before."""
    jax.block_until_ready(call())
    found = []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(call())
        found.append((1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)))
    return min(wall for wall, _ in found), min(cpu for _, cpu in found)


def peak(rounds: int) -> float:
    """GFLOP/s of a product of 2048 x 2048 matrices."""
    x, product = jnp.ones((2048, 2048)), jax.jit(jnp.matmul)
    return 2 * 2048**3 / 1e6 / best(lambda: product(x, x), rounds)[0]

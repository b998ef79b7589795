"""What learning from logs costs: an update of DT, DS4 and BC, drawing its batch, and acting, at the sizes of Hopper.

    python benchmarks/offline.py [--rounds 10]

Milliseconds are the best of so many rounds of compiled calls, CPU seconds beside them. The floor of an update is its
matrix products (counted, not measured) at the rate of this machine's own product of 2048 x 2048 matrices, measured in
the same run. Two ways of computing a layer are compared with the ways not taken. Data and weights are random: neither
changes what is computed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timing import best, peak

from legato.algorithms.bc import bc
from legato.algorithms.bc.config import BC
from legato.algorithms.decision_s4 import decision_s4
from legato.algorithms.decision_s4.config import DS4
from legato.algorithms.decision_transformer import decision_transformer
from legato.algorithms.decision_transformer.config import DT
from legato.data import formats, windows
from legato.data.spec import Spec
from legato.data.streams import Stream
from legato.data.trajectories import Trajectories, trajectories
from legato.evaluation.latency import latency
from legato.nn.mlp import Linear, apply_rows
from legato.nn.ssm import FEW, S4D, convolve
from legato.player import Player
from legato.training import offline

SPEC = Spec(11, (-1.0,) * 3, (1.0,) * 3)
STEPS, EPISODE = 50_000, 1000


def dense(layers: list[tuple[int, int, int]]) -> float:
    """GFLOP of products `(rows, inputs, outputs)`, forward and, twice as much, backward."""
    return sum(6 * rows * inputs * outputs for rows, inputs, outputs in layers) / 1e9


def of_dt(config: DT) -> float:
    """GFLOP of an update: the last block computes a third of its queries."""
    draw, d = decision_transformer.batches(config), config.size
    n, t = draw.size * 3 * draw.length, 3 * draw.length
    products = []
    for layer in range(config.layers):
        m = n if layer < config.layers - 1 else n // 3
        products += [(n, d, 2 * d), (m, d, d), (m, t, 2 * d), (m, d, d), (m, d, 4 * d), (m, 4 * d, d)]
    return dense([*products, (n // 3, SPEC.observation_size + SPEC.action_size + 1, d), (n // 3, d, SPEC.action_size)])


def of_ds4(config: DS4) -> float:
    """GFLOP of an update's dense layers; the convolutions are not counted."""
    n, h = config.batch_size * config.length, config.channels
    return dense([(n, SPEC.observation_size + SPEC.action_size + 1, h), (n, h, h * (1 + config.layers))])


def ways(rounds: int) -> None:
    """Two choices of code against their alternatives: value and gradients of one layer, alone."""

    def cost(f: Callable[..., Any], *args: Any) -> float:
        call = jax.jit(jax.grad(lambda *args: jnp.sum(jnp.sin(f(*args))), argnums=tuple(range(len(args)))))
        return best(lambda: call(*args), rounds)[0]

    print("\n| a layer, forward and backward | as it is, ms | the other way, ms |\n|---|---|---|")
    key = jax.random.key(0)
    u = jax.random.normal(key, (16, 250, 64))
    for modes in (16, 48):
        layer = S4D(64, 2 * modes, key=key)
        by_fft = cost(lambda layer, u: convolve(u, layer.kernel(u.shape[-2])) + layer.d * u, layer, u)
        by_products = cost(S4D.chunked, layer, u)
        name = f"S4D, {modes} modes, 64 channels, 16 x 250 steps"
        if modes <= FEW:
            print(f"| {name} | products {by_products:.1f} | FFT {by_fft:.1f} |", flush=True)
        else:
            print(f"| {name} | FFT {by_fft:.1f} | products {by_products:.1f} |", flush=True)
    x = jax.random.normal(key, (64 * 60, 128))
    wide = Linear(128, 512, key=key)
    ours, theirs = cost(apply_rows, wide, x), cost(Linear.__call__, wide, x)
    print(f"| linear, 3,840 rows, 128 to 512 | transposed first {ours:.1f} | in passing {theirs:.1f} |", flush=True)


def streaming(data: Trajectories, rounds: int) -> None:
    """DT's updates from a set on the device, and from mapped files whose windows a thread draws ahead."""
    config, count = DT(), 10
    draw = decision_transformer.batches(config)
    keys, on_device = jax.random.split(jax.random.key(1), 1), windows.episodes(data)
    learner = decision_transformer.init(config, SPEC, jax.random.key(0))
    held = [jax.tree.map(lambda leaf: leaf[None], learner)]

    def turn(source: Any) -> Any:
        held[0], metrics = offline.advance(decision_transformer, config, (draw,), held[0], source, keys, 0, count)
        return metrics

    with tempfile.TemporaryDirectory() as folder:
        formats.save(data, Path(folder) / "logs.arrays")
        with Stream(formats.load(str(Path(folder) / "logs.arrays")), [0], draw, count) as stream:
            device, mapped = (
                best(f, rounds)[0] / count for f in (lambda: turn(on_device), lambda: turn(stream.take()))
            )
    print("\n| DT, K=20, batch 64, per update | ms |\n|---|---|")
    print(f"| drawn on the device | {device:.1f} |\n| streamed from mapped files | {mapped:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    over = np.arange(STEPS) % EPISODE == EPISODE - 1
    observations = rng.normal(size=(STEPS, SPEC.observation_size))
    actions = rng.uniform(-1, 1, (STEPS, SPEC.action_size))
    logged = trajectories(observations, actions, rng.normal(size=STEPS), 0 * over, over)
    data = windows.episodes(logged)
    rate = peak(rounds)
    print(f"matrix products: {rate:.0f} GFLOP/s on this machine, now\n")

    whole = DS4()
    updates: list[tuple[str, ModuleType, Any, float | None]] = [
        ("DT, K=20, batch 64", decision_transformer, DT(), of_dt(DT())),
        ("DT, no dropout", decision_transformer, DT(dropout=0.0), of_dt(DT())),
        ("DT, bfloat16", decision_transformer, DT(dtype="bfloat16"), of_dt(DT())),
        ("DT, for a cache", decision_transformer, DT(decoding="cache"), of_dt(DT(decoding="cache"))),
        ("DS4 (S4D), batch 64 x 1000", decision_s4, whole, of_ds4(whole)),
        ("DS4 (S5), batch 64 x 1000", decision_s4, replace(whole, core="s5"), of_ds4(whole)),
        ("BC, batch 64", bc, BC(), None),
    ]
    print("| update | ms | CPU ms | GFLOP | floor, ms | fraction of peak |\n|---|---|---|---|---|---|")
    for name, module, config, flops in updates:
        learner = module.init(config, SPEC, jax.random.key(0))
        learner = jax.tree.map(lambda leaf: leaf[None], learner)
        count, keys = 2, jax.random.split(jax.random.key(1), 1)
        held = [learner]

        def call(module: ModuleType = module, config: Any = config, held: list[Any] = held, keys: Any = keys) -> Any:
            held[0], metrics = offline.advance(module, config, (module.batches(config),), held[0], data, keys, 0, 2)
            return metrics

        wall, cpu = (ms / count for ms in best(call, rounds))
        floor = "" if flops is None else f"{flops:.1f} | {1000 * flops / rate:.0f} | {1000 * flops / rate / wall:.2f}"
        print(f"| {name} | {wall:.1f} | {cpu:.1f} | {floor or ' | | '} |", flush=True)

    print("\n| drawing a batch | ms |\n|---|---|")
    for name, draw in (
        ("64 windows of 20", windows.BatchSpec(64, 20)),
        ("64 x 1000", windows.BatchSpec(64, 1000, whole=True)),
    ):
        drawn = jax.jit(lambda data, key, draw=draw: data.draw(key, draw))
        print(f"| {name} | {best(lambda drawn=drawn: drawn(data, jax.random.key(0)), rounds)[0]:.2f} |", flush=True)

    streaming(logged, rounds)
    ways(rounds)
    print("\n| acting, one action | p50 ms | mean ms | p99 ms | parameters |\n|---|---|---|---|---|")
    for name, module, config in (
        ("DT, 20 steps re-encoded", decision_transformer, DT()),
        ("DT, cached", decision_transformer, DT(decoding="cache")),
        ("DS4 (S4D)", decision_s4, DS4()),
        ("DS4 (S4)", decision_s4, DS4(core="s4")),
        ("DS4 (S5)", decision_s4, DS4(core="s5")),
        ("BC", bc, BC()),
    ):
        learner = module.init(config, SPEC, jax.random.key(0))
        cost = latency(Player(module.policy(config, learner), SPEC), 1)
        size = sum(leaf.size for leaf in jax.tree.leaves(learner.network))
        print(f"| {name} | {cost.p50:.3f} | {cost.mean:.3f} | {cost.p99:.3f} | {size:,} |", flush=True)


if __name__ == "__main__":
    main()

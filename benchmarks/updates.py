"""Milliseconds per update of SAC, SRL, USAC and MBPO's ensemble at Hopper's sizes, beside this machine's multiply peak.

    python benchmarks/updates.py [--threads 1 2] [--horizons 2 4 8 16] [--hidden 256] [--batch 256] [--only-model]

Each number of threads runs in its own process, bound to that many cores. In the same process the peak is measured as
the best of NumPy's and XLA's 2048^3 product, before and after. `GFLOP` counts the update's matrix products by hand from
the network sizes; `XLA` is the compiler's own count of the whole update (it counts the body of a loop once).
Times are the least of `--repeats` dispatches of `--updates` updates each, sampling from the replay buffer included.
The ensemble is as published (7 networks of 4 x 200, 256 rows each); `imagined` is one step of 50,000 rows in its five
elites, everything that is not a network included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from functools import partial
from itertools import pairwise

OBSERVATION, ACTION = 11, 3  # Hopper


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--horizons", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--updates", type=int, default=20, help="updates per dispatch")
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--only-model", action="store_true", help="the ensemble and what is imagined in it alone")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        measure(options)
        return
    print("| update | threads | ms | GFLOP | XLA | GFLOP/s | peak GFLOP/s | fraction of peak |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    cores = sorted(os.sched_getaffinity(0))
    for threads in options.threads:
        if threads > len(cores):
            print(f"this machine gives {len(cores)} cores, not {threads}", file=sys.stderr)
            continue
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(threads)}
        bind = partial(os.sched_setaffinity, 0, cores[:threads])
        command = [sys.executable, __file__, *sys.argv[1:], "--child"]
        subprocess.run(command, check=True, preexec_fn=bind, env=environment)


def measure(options: argparse.Namespace) -> None:
    from legato.algorithms.sac import sac
    from legato.algorithms.srl import srl
    from legato.algorithms.unrolled_sac import unrolled_sac
    from legato.data.spec import Spec

    spec = Spec(OBSERVATION, (-1.0,) * ACTION, (1.0,) * ACTION)
    threads = len(os.sched_getaffinity(0))
    sizes = {"hidden": options.hidden, "batch_size": options.batch}
    cases = [("SAC", sac, sac.Config(**sizes))]
    cases += [(f"SRL-{j}", srl, srl.Config(horizon=j, **sizes)) for j in options.horizons]
    cases += [("USAC", unrolled_sac, unrolled_sac.Config(**sizes))]
    cases = [] if options.only_model else cases
    before = peak()
    rows = [(name, *time_update(module, config, spec, options), count(spec, config)) for name, module, config in cases]
    rows += [time_ensemble(options), time_imagined(options)]
    best = max(before, peak())
    for name, seconds, xla, flop in rows:
        rate = flop / seconds / 1e9
        print(
            f"| {name} | {threads} | {1e3 * seconds:.2f} | {flop / 1e9:.2f} | {xla / 1e9:.2f} | {rate:.0f} "
            f"| {best:.0f} | {rate / best:.0%} |",
            flush=True,
        )


def time_update(module, config, spec, options) -> tuple[float, float]:
    """(seconds per update, XLA's FLOP count of one update)."""
    import jax
    import jax.numpy as jnp

    from legato.data import replay
    from legato.training.online import _minibatches, advance

    key = jax.random.key(0)
    learner = jax.vmap(partial(module.init, config, spec))(key[None])
    buffer = replay.create(spec, 100_000)
    buffer = replay.Replay(jax.random.normal(key, buffer.rows.shape), jnp.full((), 100_000), spec)
    buffer = jax.tree.map(lambda leaf: leaf[None], buffer)

    one = jax.jit(lambda learner, batch, key: module.update(config, learner, batch, key))
    batch = _minibatches(jax.tree.map(lambda leaf: leaf[0], buffer), module.batches(config), key)
    analysis = one.lower(jax.tree.map(lambda leaf: leaf[0], learner), batch, key).compile().cost_analysis()

    rows, counts = jnp.zeros((1, 1, buffer.rows.shape[-1])), jnp.zeros(1, jnp.int32)
    times = []
    for i in range(options.repeats + 2):
        start = time.perf_counter()
        learner, buffer, metrics = advance(
            module, config, options.updates, learner, buffer, rows, counts, key[None], i * options.updates
        )
        jax.block_until_ready((learner, metrics))
        times.append(time.perf_counter() - start)
    return min(times[2:]) / options.updates, float(analysis["flops"] if analysis is not None else "nan")


MEMBERS, ELITES, WIDTHS = 7, 5, (200, 200, 200, 200)
IMAGINED = 50_000


def published_ensemble():
    import jax

    from legato.data.normaliser import none
    from legato.models import ensemble

    inputs, outputs = none(OBSERVATION + ACTION), none(OBSERVATION + 1)
    return jax.jit(lambda key: ensemble.init(inputs, outputs, WIDTHS, MEMBERS, key=key))(jax.random.key(0))


def time_ensemble(options) -> tuple[str, float, float, float]:
    """The name, seconds and FLOP counts of one update of all members, in the dispatches in which they are fitted."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from legato.models import ensemble
    from legato.models.ensemble_fit import FitOptions, refit

    model, rng, rows = published_ensemble(), np.random.default_rng(0), 20_000
    x, y = (rng.standard_normal((rows, n)).astype(np.float32) for n in (OBSERVATION + ACTION, OBSERVATION + 1))
    batch = [jnp.asarray(np.broadcast_to(side[:256], (MEMBERS, 256, side.shape[1]))) for side in (x, y)]
    analysis = jax.jit(jax.grad(ensemble.loss)).lower(model, *batch).compile()
    ends = [time.perf_counter()]
    most = (options.repeats + 2) * options.updates
    how = FitOptions(held_out=0.001, patience=options.repeats + 2, epoch=options.updates, most=most)
    refit(
        *(model, jnp.asarray(x), jnp.asarray(y), rows, how, ELITES, jax.random.key(1)),
        on_updates=lambda done: ends.append(time.perf_counter()),
    )
    times = np.diff(ends)
    forward = mlp(OBSERVATION + ACTION, *WIDTHS, 2 * (OBSERVATION + 1))
    flop = MEMBERS * 256 * (3 * forward - 2 * (OBSERVATION + ACTION) * WIDTHS[0])
    cost = analysis.cost_analysis() or {}
    return "ensemble", min(times[2:]) / options.updates, float(cost.get("flops", "nan")), float(flop)


def time_imagined(options) -> tuple[str, float, float, float]:
    """The same of one imagined step of many rows."""
    import jax
    import jax.numpy as jnp

    from legato.models import environment_model
    from legato.models.environment_model import EnvironmentModel

    model = EnvironmentModel(published_ensemble(), jnp.arange(ELITES))
    s = jax.random.normal(jax.random.key(0), (IMAGINED, OBSERVATION))

    @jax.jit
    def step(model, s, key):
        still = lambda s, key: jnp.zeros((len(s), ACTION))  # noqa: E731
        return environment_model.roll_out(model, still, s, 1, 1, key)

    compiled = step.lower(model, s, jax.random.key(0)).compile()
    times = []
    for i in range(options.repeats + 2):
        start = time.perf_counter()
        jax.block_until_ready(compiled(model, s, jax.random.key(i)))
        times.append(time.perf_counter() - start)
    flop = IMAGINED * mlp(OBSERVATION + ACTION, *WIDTHS, 2 * (OBSERVATION + 1))
    cost = compiled.cost_analysis() or {}
    return "imagined", min(times[2:]), float(cost.get("flops", "nan")), float(flop)


def mlp(*sizes: int) -> int:
    """Floating-point operations of one example, forward."""
    return sum(2 * m * n for m, n in pairwise(sizes))


def count(spec, config) -> float:
    """Floating-point operations of one update's matrix products: forward 1, gradient of weights 1, of inputs 1."""
    s, a, h, b = spec.observation_size, spec.action_size, config.hidden, config.batch_size

    critic = 2 * mlp(s + a, h, h, 1)
    critic_inputs = 2 * (2 * a * h + 2 * h * h + 2 * h)  # the gradient of Q with respect to the action only
    train_critic = 3 * critic - 2 * (2 * (s + a) * h)  # no gradient with respect to the first layer's input
    members = getattr(config, "members", 0)
    if members or not hasattr(config, "horizon"):
        actor = mlp(s, h, h) + 2 * h * 2 * a
        per_example = actor + critic + train_critic + (3 * actor - 2 * s * h) + critic + critic_inputs
        if not members:
            return float(b * per_example)
        steps, first = config.model_steps, 2 * config.model_hidden[0]
        train_models = 3 * steps * mlp(s + a, *config.model_hidden, s) - (s + steps * a) * first
        return float(b * per_example + b // members * members * train_models)
    j = config.horizon
    start, cell, heads = mlp(s, h, h), 2 * (h + a) * 3 * h, 2 * h * 2 * a
    model = mlp(s + a, *config.model_hidden, s)
    train_model = 3 * model - 2 * (s + a) * config.model_hidden[0]
    train_actor = 3 * (start + j * (cell + heads)) - 2 * s * h - 2 * 3 * h * a
    recall = (j - 1) * model + j * (critic + critic_inputs)
    return float(b * (start + cell + heads + critic + train_critic + train_model + train_actor + recall))


def peak(n: int = 2048, repeats: int = 6) -> float:
    """GFLOP/s of the better of NumPy's and XLA's float32 product of two n x n matrices."""
    import jax
    import numpy as np

    x = np.random.default_rng(0).standard_normal((n, n)).astype(np.float32)
    on_device = jax.device_put(x)
    product = jax.jit(lambda x: x @ x)
    times = []
    for _ in range(repeats):
        for multiply in (lambda: x @ x, lambda: product(on_device).block_until_ready()):
            start = time.perf_counter()
            multiply()
            times.append(time.perf_counter() - start)
    return 2 * n**3 / min(times[2:]) / 1e9


if __name__ == "__main__":
    main()

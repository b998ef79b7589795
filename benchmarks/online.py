"""Environment steps per second of the whole online loop: environment, rollout, replay, updates.

    python benchmarks/online.py [--env Hopper-v5] [--horizons 4] [--steps 600] [--hidden 256] [--batch 256]

Trains SAC and SRL-J at one update per primitive step, times the second half of the steps (the first compiles and
fills), and times the updates alone in the same process: `update share` is the part of the loop that they take.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="Hopper-v5")
    parser.add_argument("--horizons", type=int, nargs="*", default=[4])
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--batch", type=int, default=256)
    options = parser.parse_args()
    print(f"| {options.env} | steps/s | ms/step | ms/update alone | update share |")
    print("|---|---|---|---|---|", flush=True)
    sizes = {
        "hidden": options.hidden,
        "batch_size": options.batch,
        "steps": options.steps,
        "start_steps": options.batch,
    }
    cases = [("sac", {}), *(("srl", {"horizon": j}) for j in options.horizons)]
    for algorithm, extra in cases:
        name, per_step, per_update = measure(algorithm, options.env, {**sizes, **extra})
        print(
            f"| {name} | {1 / per_step:.1f} | {1e3 * per_step:.2f} | {1e3 * per_update:.2f} "
            f"| {per_update / per_step:.0%} |",
            flush=True,
        )


def measure(algorithm: str, env: str, options: dict) -> tuple[str, float, float]:
    """(label, seconds per environment step, seconds per update)."""
    import jax

    from legato.training import online
    from legato.training.run import Run
    from legato.training.session import Session
    from legato.training.settings import Settings, override, preset

    config, settings = override(*preset("paper", algorithm, env), **options)
    assert isinstance(settings, Settings)
    settings = dataclasses.replace(settings, eval_every=10**9, log_every=10**9, checkpoint_every=10**9)
    with tempfile.TemporaryDirectory() as folder:
        spec = online.check(algorithm, config, settings)
        run = Run.create(Path(folder) / "run", algorithm, "paper", config, settings, spec)
        session = Session(run, quiet=True)
        loop = online.OnlineLoop(session)
        half = settings.steps // 2
        while session.step < half:
            loop.turn()
        jax.block_until_ready(session.learner)
        start, first = time.perf_counter(), session.step
        while session.step < settings.steps:
            loop.turn()
        jax.block_until_ready(session.learner)
        per_step = (time.perf_counter() - start) / (session.step - first)

        policies, length = loop.algorithm.policy(config, session.learner), loop.rollout.clock.plan_length
        rows, counts = loop._rows(loop.rollout.run(policies, length, loop.act_keys)[0])
        start, calls = time.perf_counter(), max(1, 200 // loop.turn_updates)
        for _ in range(calls):
            session.learner, loop.replay, _ = online.advance(
                loop.algorithm,
                config,
                loop.turn_updates,
                session.learner,
                loop.replay,
                rows,
                counts,
                loop.update_keys,
                0,
            )
        jax.block_until_ready(session.learner)
        per_update = (time.perf_counter() - start) / calls / loop.turn_updates
        label = loop.run.label
        loop.close()
        session.checkpoints.close()
        return label, per_step, per_update


if __name__ == "__main__":
    main()

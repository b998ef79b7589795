"""What an action costs as an episode grows: time per action and memory per environment, Hopper's sizes, batch 1.

    python benchmarks/history.py [--steps 1000] [--stretch 100] [--episodes 5] [--out [docs/figures/history.png]]

NumPy in, NumPy out, one action per decision. The Decision Transformer has the paper's sizes: K = 20, 3 layers of width
128, once re-encoding its window at every decision and once with a cache; Decision S4 its default sizes with the core
s4d. Weights are untrained: they change what is done, not how long it takes.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--stretch", type=int, default=100, help="actions that a row sums up")
    parser.add_argument("--episodes", type=int, default=5)
    parser.add_argument("--out", type=Path, nargs="?", const=Path("docs/figures/history.png"), default=None)
    options = parser.parse_args()

    import jax
    import numpy as np

    from legato.algorithms.decision_s4 import decision_s4
    from legato.algorithms.decision_transformer import decision_transformer
    from legato.data.spec import Spec
    from legato.evaluation import figures
    from legato.evaluation.latency import history
    from legato.player import Player

    spec = Spec(11, (-1.0,) * 3, (1.0,) * 3)
    cases = (
        ("DT (window)", decision_transformer, decision_transformer.Config(context=20, layers=3, size=128)),
        (
            "DT (cache)",
            decision_transformer,
            decision_transformer.Config(context=20, layers=3, size=128, decoding="cache"),
        ),
        ("DS4", decision_s4, decision_s4.Config(core="s4d")),
    )
    found = {}
    for name, module, config in cases:
        policy = module.policy(config, module.init(config, spec, jax.random.key(0)))
        found[name] = history(Player(policy, spec), steps=options.steps, episodes=options.episodes)

    print(f"Milliseconds per action of {options.episodes} episodes, untrained weights: mean, p50, p99")
    print("| steps of history | " + " | ".join(found) + " |")
    print("|---" * (len(found) + 1) + "|")
    for row in zip(*(times.stretches(options.stretch) for times in found.values()), strict=True):
        cells = [f"{s.mean:.3f}, {s.p50:.3f}, {s.p99:.3f}" for s in row]
        print(f"| {row[0].first} to {row[0].last} | " + " | ".join(cells) + " |")
    print("| memory per environment | " + " | ".join(f"{times.memory:,} bytes" for times in found.values()) + " |")

    if options.out is not None:
        ends = np.array([s.last for s in next(iter(found.values())).stretches(options.stretch)])
        curves = [figures.Curve(name, ends, times.medians(options.stretch)) for name, times in found.items()]
        title = "What an action costs as an episode grows"
        print(figures.history_curve(curves, options.out, title=title, stretch=options.stretch))


if __name__ == "__main__":
    main()

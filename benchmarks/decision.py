"""Milliseconds per decision as a user calls it: one observation in NumPy, the plan out in NumPy, batch 1.

    python benchmarks/decision.py [--presets paper cpu] [--lengths 1 8 16] [--calls 3000] [--threaded]
    python benchmarks/decision.py --run RUN --search horizon=16 search=mean    # a run's policy instead

The planners search in an SRL learner's model by its critics: 64 sequences of 5 actions, 3 times.

`--threaded` restores JAX's own way on a CPU, where another thread computes.
"""

from __future__ import annotations

import argparse

from naming import assigned


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["paper", "cpu"], choices=["paper", "cpu"], help="which sizes")
    parser.add_argument("--run", help="time this run's policy instead")
    parser.add_argument("--search", nargs="*", default=[], help="how it is to search")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--threaded", action="store_true", help="let JAX hand the computation to another thread")
    options = parser.parse_args()

    import jax

    import legato
    from legato.algorithms.model_planner import ModelPlanner
    from legato.algorithms.sac import sac
    from legato.algorithms.srl import srl
    from legato.algorithms.srl.config import SRL
    from legato.algorithms.srl.planner import SRLModel
    from legato.data.spec import Spec
    from legato.evaluation.latency import latency
    from legato.planning.shooting import Shooting
    from legato.player import Player
    from legato.policy import Policy
    from legato.training.settings import preset

    def rows(name: str, player: Player) -> None:
        for length in options.lengths:
            t = latency(player, length, calls=options.calls)
            print(f"| {name} | {length} | {t.p50:.3f} | {t.p99:.3f} | {t.mean:.3f} | {t.per_action:.4f} |")

    columns = "| actions | p50 ms | p99 ms | mean ms | p50 ms per action |\n|---|---|---|---|---|---|"
    jax.config.update("jax_cpu_enable_async_dispatch", options.threaded)
    if options.run:
        print(f"| policy {columns}")
        player = legato.load(options.run, search=assigned(options.search) or None)
        rows(", ".join(options.search) or "as trained", player)
        return
    spec = Spec(11, (-1.0,) * 3, (1.0,) * 3)
    for name in options.presets:
        config, _ = preset(name, "srl", "Hopper-v5")
        assert isinstance(config, SRL)
        print(f"| preset {name}: width {config.hidden}, model {config.model_hidden}, Hopper's sizes {columns}")
        learner = srl.init(config, spec, jax.random.key(0))
        plain = sac.Config(hidden=config.hidden)
        policies: dict[str, Policy] = {"SAC": sac.policy(plain, sac.init(plain, spec, jax.random.key(0)))}
        policies["SRL"] = srl.policy(config, learner)
        model = SRLModel(learner.actor, learner.critic, learner.model)
        for planner, how in {"unrolled": None, "MPPI": Shooting(), "CEM": Shooting(temperature=0.0)}.items():
            policies[f"{planner}, in the model"] = ModelPlanner(model, spec, how)
        for policy, acting in policies.items():
            rows(policy, Player(acting, spec))


if __name__ == "__main__":
    main()

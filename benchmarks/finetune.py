"""Does a policy from logs get better by acting, and never much worse?

    python benchmarks/finetune.py toy                     # a point mass: what collapses, and what does not
    python benchmarks/finetune.py scratch                 # Pendulum, without logs
    python benchmarks/finetune.py locomotion --datasets bench/hopper/medium-v0 bench/walker2d/medium-v0
    python benchmarks/finetune.py locomotion --datasets ... --methods ds4-ac odt-online odt-online:td3=1.0
    python benchmarks/finetune.py speed --dataset bench/hopper/medium-v0  # steps per second, updates included
    python benchmarks/finetune.py gap --dataset bench/hopper/medium-v0    # recurrence and convolution; an action's cost

Offline policies are trained first, by the preset `cpu`, and all runs are kept under `--out`: what is there already is
not computed again. Scores are of test episodes that no evaluation on the way has seen: the offline policy (`start`),
the one at the end (`last`) and the one that evaluated best (`best`). After a colon stand options that differ from the
preset's.
"""

from __future__ import annotations

import argparse
import csv
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from naming import assigned

import legato
from legato.algorithms import entries
from legato.algorithms.decision_s4.config import DS4, DS4AC
from legato.data import formats
from legato.envs import make_vec, tasks
from legato.evaluation.latency import latency
from legato.evaluation.normalised import NormalisationScores, normalisation_scores
from legato.evaluation.statistics import bootstrap
from legato.rollout import Clock, episodes, stack
from legato.training import finetune, offline
from legato.training.learning_curve import learning_curve
from legato.training.run import Run, Which
from legato.training.settings import FinetuneSettings, OfflineSettings, finetuning_preset

KINDS: tuple[Which, ...] = ("start", "last", "best")

# --- a point mass ---

TOY: dict[str, dict[str, Any]] = {
    "critics first, then both": {},
    "critics for a tenth of that, actor's steps ten times as large": {"critic_steps": 6_400, "learning_rate": 1e-4},
    "the same, regularised towards the best so far": {
        "critic_steps": 6_400,
        "learning_rate": 1e-4,
        "regularisation_weight": 1.0,
    },
}


def toy(options: argparse.Namespace) -> None:
    out = Path(options.out or "runs/finetune-toy")
    path, data = out / "offline", tasks.record_point_mass(worst=0.7)
    if not (path / "policy").exists():
        config = DS4(layers=3, channels=32, order=16, embedding=64, scale=100.0, dropout=0.0)
        config = DS4(**{**vars(config), "batch_size": 32, "learning_rate": 1e-3, "warmup": 100})
        settings = OfflineSettings(dataset=data.about.name, env=tasks.POINT_MASS, targets=(95.0,), seeds=options.seeds)
        settings = OfflineSettings(**{**vars(settings), "updates": 900, "eval_every": 900, "checkpoint_every": 900})
        offline.start("ds4", "cpu", config, settings, path, data=data, quiet=True)
    common = {"every": 20, "updates": 1, "critic_updates": 2, "critic_steps": 72_000, "start_steps": 1_000}
    common |= {"noise": (0.3, 0.3, 0.05), "noise_over": 72_000, "tau": 0.01, "hidden": 64, "weight_decay": 0.0}
    common |= {
        "learning_rate": 1e-5,
        "reward_scale": 10.0,
        "n_step": 1,
        "regularisation_weight": 0.0,
        "norm": False,
        "offline_steps": 0,
    }
    print("| point mass, asked for 95 | offline | lowest on the way | at the end | per seed |\n|---|---|---|---|---|")
    for name, changes in TOY.items():
        tuning = DS4AC(**{**common, **changes})
        settings = FinetuneSettings(env=tasks.POINT_MASS, seeds=options.seeds, capacity=20_000, target=95.0)
        steps = tuning.critic_steps + 72_000
        rarely = {"eval_every": 8_000, "checkpoint_every": 8_000}
        settings = FinetuneSettings(**{**vars(settings), "steps": steps, **rarely})
        where = out / re.sub(r"\W+", "-", name)
        if where.exists():
            finetune.resume(where, quiet=True)
        else:
            finetune.start(path, "ds4-ac", "cpu", tuning, settings, where, quiet=True)
        start, last = (scores(Run(where), which, tasks.POINT_MASS, 30) for which in ("start", "last"))
        _, on_the_way = learning_curve(Run(where))
        each = " ".join(f"{a:.1f}->{b:.1f}" for a, b in zip(start, last, strict=True))
        print(f"| {name} | {start.mean():.1f} | {on_the_way.min():.1f} | {last.mean():.1f} | {each} |", flush=True)


def scores(run: Run, which: Which, env: str, count: int) -> np.ndarray:
    """Mean returns of test episodes, by seed."""
    policies = stack([legato.load(run.path, seed, which).policy for seed in run.seeds])
    environment = make_vec(env, len(run.seeds) * count)
    found = episodes(policies, environment, run.spec, Clock(1), run.seeds, "test").mean(axis=1)
    environment.close()
    return found


# --- locomotion ---


def variant(name: str) -> tuple[str, dict[str, Any]]:
    """The method and its options, `ds4-ac:regularisation_weight=0.5`."""
    method, _, others = name.partition(":")
    if method not in entries("finetuning"):
        raise argparse.ArgumentTypeError(f"'{method}' is none of {', '.join(entries('finetuning'))}")
    return method, assigned(others.split(","))


def column(name: str) -> str:
    variant(name)
    return name


def trained(algorithm: str, dataset: str, out: Path, seeds: int) -> Run:
    """The offline run."""
    path = out / re.sub(r"\W+", "-", dataset) / algorithm
    if path.exists():
        return legato.train(resume=path, quiet=True)
    return legato.train(algorithm, dataset=dataset, out=path, quiet=True, seeds=seeds, eval_every=10**9)


def locomotion(options: argparse.Namespace) -> None:
    out = Path(options.out or "runs/finetune")
    print("| dataset | method | start | last | best | last - start, per seed | lowest on the way |")
    print("|---|---|---|---|---|---|---|")
    for dataset in options.datasets:
        about = formats.load(dataset).about
        assert about.environment is not None
        scale = normalisation_scores(about.environment, about.reference) or NormalisationScores(0.0, 100.0, "nobody")
        for name in options.methods:
            method, changes = variant(name)
            algorithm = entries("finetuning")[method].continues[0]
            source = trained(algorithm, dataset, out, options.seeds)
            where = source.path.with_name(re.sub(r"[^\w:=,.+-]", "", name))
            if where.exists():
                run = legato.finetune(resume=where, quiet=True)
            else:
                given = {"steps": options.steps, **changes}
                run = legato.finetune(source, about.environment, method=method, out=where, quiet=True, **given)
            found = {w: scale.score(scores(run, w, about.environment, options.episodes)) for w in KINDS}
            cells = []
            for values in found.values():
                interval = bootstrap(values)
                cells.append(f"{interval.mean:.1f} [{interval.low:.1f}, {interval.high:.1f}]")
            gains = " ".join(f"{gain:+.1f}" for gain in found["last"] - found["start"])
            lowest = scale.score(learning_curve(run)[1].mean(axis=0).min())
            print(f"| {dataset} | {name} | {' | '.join(cells)} | {gains} | {lowest:.1f} |", flush=True)


# --- what it costs ---


def speed(options: argparse.Namespace) -> None:
    """One seed, after everything was compiled: at the published ratio of updates to steps, and at the preset's."""
    source = trained("ds4", options.dataset, Path(options.out or "runs/finetune"), options.seeds)
    preset, _ = finetuning_preset("cpu", "ds4-ac", "")
    assert isinstance(preset, DS4AC)
    for what, critics in (("as published", 1), ("preset", preset.critics_per_actor)):
        wall, cpu = timed(source, options.count, critics_per_actor=critics)
        print(f"{what}: {1 / wall:.0f} steps a second, {1e3 * cpu:.2f} ms of CPU each, updates included", flush=True)


def timed(source: Run, count: int, **changes: Any) -> tuple[float, float]:
    """Seconds by the clock and of CPU per step, over `count` steps with the actor."""
    quick: dict[str, Any] = {"start_steps": 1_000, "critic_steps": 2_000, "critic_updates": 1, "eval_episodes": 1}
    quick |= {"steps": 3_000 + count, "eval_every": 10**9, "checkpoint_every": 10**9, "offline_steps": 0, **changes}
    clock: dict[int, tuple[float, float]] = {}
    turn = finetune.FinetuningLoop.turn

    def watched(loop: finetune.FinetuningLoop) -> None:
        clock[loop.session.step] = (time.perf_counter(), time.process_time())
        turn(loop)

    finetune.FinetuningLoop.turn = watched  # pyright: ignore[reportAttributeAccessIssue]
    with tempfile.TemporaryDirectory() as folder:
        legato.finetune(source, out=Path(folder) / "run", seed=0, seeds=1, quiet=True, **quick)
    finetune.FinetuningLoop.turn = turn
    first, last = 3_000, max(clock)
    wall, cpu = ((clock[last][i] - clock[first][i]) / (last - first) for i in (0, 1))
    return wall, cpu


def scratch(options: argparse.Namespace) -> None:
    """Decision S4 that has never seen a log, on Pendulum."""
    with tempfile.TemporaryDirectory() as folder:
        given = {"steps": 15_000, "target": -150.0, "seeds": options.seeds}
        run = legato.finetune("ds4", "Pendulum-v1", out=Path(folder) / "run", quiet=True, **given)
        start, last = (scores(run, which, "Pendulum-v1", 30) for which in KINDS[:2])
        print(f"Pendulum from scratch, {given['steps']} steps: {start.mean():.0f} -> ", end="")
        interval = bootstrap(last)
        print(f"{interval.mean:.0f} [{interval.low:.0f}, {interval.high:.0f}]; {' '.join(f'{x:.0f}' for x in last)}")


def gap(options: argparse.Namespace) -> None:
    """What a policy costs, and how far its two views are apart: on a logged episode before and after, and on the way.

    Of the methods asked for, where they have been run, and of a Decision Transformer.
    """
    import jax.numpy as jnp

    from legato.algorithms.decision_s4.decision_s4 import Network, Recurrent
    from legato.algorithms.decision_s4.stored_states import walk
    from legato.data import trajectories as logs

    out = Path(options.out or "runs/finetune")
    data = formats.load(options.dataset)
    episode = data.episode(int(np.argmax(data.lengths)))
    togo = logs.returns_to_go(data)[episode]
    print("| policy | steps | parameters | ms per action, p50 | largest gap | on the way |\n|---|---|---|---|---|---|")
    for name in (*options.methods, "dt"):
        if name == "dt":
            path = trained("dt", options.dataset, out, 1).path
        else:
            path = out / re.sub(r"\W+", "-", options.dataset) / re.sub(r"[^\w:=,.+-]", "", name)
        for which in KINDS[:2] if name != "dt" else KINDS[1:2]:
            loaded = legato.load(path, which=which)
            count = sum(leaf.size for leaf in _arrays(loaded.policy))
            cost, apart, on_the_way = latency(loaded, 1).p50, "", ""
            if isinstance(loaded.policy, Recurrent):
                statistics, network = loaded.policy.statistics, loaded.policy.network
                assert isinstance(network, Network)
                actions = statistics.normalise_actions(jnp.asarray(data.actions[episode]))
                previous = jnp.concatenate([jnp.zeros_like(actions[:1]), actions[:-1]])
                seen = statistics.normaliser(jnp.asarray(data.observations[episode]))
                given = seen, previous, statistics.scale_return(jnp.asarray(togo))
                apart = f"{float(jnp.max(jnp.abs(network(*given) - walk(network, given)[1] @ network.out))):.1e}"
                if which == "last":
                    on_the_way = f"{max(float(row['gap']) for row in _rows(path) if row.get('gap')):.1e}"
            step, label = loaded.card.extra.get("step") if name != "dt" else "", f"{name}, {which}"
            print(f"| {label} | {step} | {count:,} | {cost:.3f} | {apart} | {on_the_way} |", flush=True)


def _rows(path: Path) -> list[dict[str, str]]:
    with (path / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def _arrays(policy: Any) -> list[Any]:
    """What was learnt: the network alone, without what is made ready of it."""
    import equinox as eqx
    import jax

    acting = policy.reader.acting if hasattr(policy, "reader") else getattr(policy, "acting", policy)
    network = acting.network
    return jax.tree.leaves(eqx.filter(network, eqx.is_array))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("toy", "scratch", "locomotion", "speed", "gap"))
    parser.add_argument("--datasets", nargs="+", default=[])
    parser.add_argument("--dataset", default="bench/hopper/medium-v0")
    parser.add_argument("--methods", nargs="+", type=column, default=["ds4-ac"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--episodes", type=int, default=10, help="test episodes per seed")
    parser.add_argument("--count", type=int, default=5_000, help="steps to time")
    parser.add_argument("--out", default=None)
    options = parser.parse_args()
    {"toy": toy, "scratch": scratch, "locomotion": locomotion, "speed": speed, "gap": gap}[options.what](options)


if __name__ == "__main__":
    main()

"""Do sequence policies learn what they should? Small tasks whose answers are known, with negative controls beside them.

    python benchmarks/toys.py paths      # shortest paths from random walks: does the policy obey the return asked for?
    python benchmarks/toys.py keys       # Key-to-Door from random moves: is credit given over a gap?
    python benchmarks/toys.py recall     # a cue, 399 steps of noise, an answer: how far back does memory reach?
    python benchmarks/toys.py rooms      # four rooms, from guided walks: does a search reach the goal it is given?
                                         # --out rooms.png draws where it went
    python benchmarks/toys.py maze       # four rooms with one goal, from parts of the way: are they put together?

Each prints one table of means over `--seeds` seeds (trained side by side), a few minutes on two cores. The tasks and
what is expected of them: Chen et al. 2021 (arXiv 2106.01345), section 5 and appendix; Janner et al. 2021 (arXiv
2106.02039), section 4; and `legato.envs.tasks`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import legato
from legato.algorithms.bc.config import BC
from legato.algorithms.decision_s4.config import DS4
from legato.algorithms.decision_transformer.config import DT
from legato.algorithms.iql.config import IQL
from legato.algorithms.trajectory_transformer.config import TT
from legato.data.trajectories import Trajectories
from legato.envs import make, make_vec, tasks
from legato.evaluation.figures import drawable, floor_plans
from legato.evaluation.goals import floor, play_goal_episode
from legato.loading import compose
from legato.player import Player
from legato.rollout import Clock, episodes, stack
from legato.training import offline
from legato.training.policy_file import LoadedPolicy
from legato.training.settings import OfflineSettings


def trained(algorithm: str, config: Any, data: Trajectories, updates: int, seeds: int) -> list[LoadedPolicy]:
    """The policies of so many seeds after so many updates."""
    settings = OfflineSettings(dataset=data.about.name, updates=updates, seeds=seeds)
    settings = replace(settings, eval_every=updates, log_every=updates, checkpoint_every=updates)
    with tempfile.TemporaryDirectory() as folder:
        run = offline.start(algorithm, "cpu", config, settings, Path(folder) / "run", data=data, quiet=True)
        return [legato.load(run.path, seed) for seed in run.seeds]


def shown(title: str, head: tuple[str, ...], rows: list[tuple[str, list[np.ndarray]]]) -> None:
    """Means over seeds and their range; a seed that has no value is left out."""
    print(f"\n{title}\n{'':34}" + "".join(f"{name:>24}" for name in head))
    for name, columns in rows:
        there = [v[~np.isnan(v)] for v in columns]
        cells = (f"{v.mean():.1f} ({v.min():.1f} to {v.max():.1f})" if len(v) else "never" for v in there)
        print(f"{name:34}" + "".join(f"{cell:>24}" for cell in cells), flush=True)


def earned(players: Sequence[Player], env: str, asked: Any, test: int, **options: Any) -> np.ndarray:
    """Each seed's mean return over test episodes."""
    environment = make_vec(env, len(players) * test, **options)
    policies, spec = stack([player.policy for player in players]), players[0].spec
    found = episodes(policies, environment, spec, Clock(1), list(range(len(players))), "test", command=asked)
    environment.close()
    return found.mean(axis=1)


# --- shortest paths ---


def walk(player: Player, start: int, asked: float) -> int | None:
    """Steps to the goal from a start; None for a miss."""
    environment = make("legato/ShortestPath-v0")
    observation, _ = environment.reset(seed=0, options={"start": start})
    memory, reward = player.begin(asked), 0.0
    for step in range(1, tasks.LIMIT + 1):
        actions, memory = player.act(memory, observation, reward=reward)
        observation, reward, terminated, _, _ = environment.step(int(actions[0, 0]))
        if terminated:
            return step
    return None


def paths(seeds: int) -> None:
    data = tasks.record_shortest_path(1000)
    config = DT(context=10, layers=2, heads=2, size=64, positions="none", learning_rate=1e-3, warmup=100, scale=10.0)
    distance = tasks.distances()
    starts = [node for node in range(tasks.NODES) if distance[node] > 0]

    def row(name: str, players: Sequence[Player], asked: Any) -> tuple[str, list[np.ndarray]]:
        found = [[walk(player, node, asked(node)) for node in starts] for player in players]
        reached = np.array([[steps is not None for steps in of_seed] for of_seed in found])
        best = np.array([[steps == distance[node] for node, steps in zip(starts, s, strict=True)] for s in found])
        length = np.array([np.mean([steps for steps in of_seed if steps is not None] or [np.nan]) for of_seed in found])
        return name, [100 * reached.mean(axis=1), 100 * best.mean(axis=1), length]

    dt = trained("dt", config, data, 1600, seeds)
    blind = trained("dt", replace(config, returns=False), data, 1600, seeds)
    rows = [
        row("DT, asked for -distance", dt, lambda node: -float(distance[node])),
        row("DT, asked for -1", dt, lambda node: -1.0),
        row("DT, asked for -9", dt, lambda node: -9.0),
        row("the same network without returns", blind, lambda node: 0.0),
        row("BC", trained("bc", BC(learning_rate=1e-3), data, 1600, seeds), lambda node: ()),
    ]
    shown(
        f"shortest paths on a graph, from {len(data)} random walks ({seeds} seeds, {len(starts)} starts)",
        ("reaches goal, %", "shortest path, %", "steps when reached"),
        rows,
    )


# --- Key-to-Door ---


def keys(seeds: int, test: int = 300) -> None:
    config = DT(
        context=15,
        layers=2,
        heads=2,
        size=64,
        learning_rate=2e-3,
        warmup=100,
        batch_size=128,
        scale=1.0,
        episode_length=15,
        dropout=0.0,
    )
    clone = BC(learning_rate=1e-3, batch_size=256)

    def success(players: Sequence[Player], asked: Any) -> np.ndarray:
        return 100 * earned(players, "legato/KeyToDoor-v0", asked, test)

    rows = []
    for count, updates in ((10_000, 1_800), (1_000, 900)):
        data = tasks.record_key_to_door(count)
        dt = trained("dt", config, data, updates, seeds)
        blind = trained("dt", replace(config, returns=False), data, 300, seeds)
        alone = trained("dt", replace(config, history=False), data, updates, seeds)
        best = np.mean(data.rewards.sum() / len(data)) if data.rewards is not None else 0.0
        share = float(best)
        bc = trained("bc", clone, data, 500, seeds)
        rows += [
            (f"{count} episodes: DT, asked for 1", [success(dt, 1.0)]),
            ("DT, asked for 0", [success(dt, 0.0)]),
            ("the same, without returns", [success(blind, 1.0)]),
            ("the same, without history", [success(alone, 1.0)]),
            ("BC", [success(bc, ())]),
            (
                f"{100 * share:.0f}%BC (the successes)",
                [success(trained("bc", replace(clone, fraction=share), data, 500, seeds), ())],
            ),
        ]
    shown(f"Key-to-Door ({seeds} seeds, {test} test episodes each)", ("success, %",), rows)


# --- recall ---


def recall(seeds: int, length: int = 400, updates: int = 300, test: int = 100) -> None:
    data = tasks.record_recall(1000, length)
    long = DS4(
        channels=64,
        order=64,
        embedding=64,
        layers=3,
        learning_rate=1e-3,
        core_learning_rate=1e-3,
        warmup=100,
        batch_size=32,
        length=length,
        dropout=0.0,
        scale=1.0,
    )
    short = DT(
        context=20, layers=2, size=64, learning_rate=1e-3, warmup=100, scale=1.0, episode_length=length, dropout=0.0
    )

    def correct(players: Sequence[Player]) -> np.ndarray:
        return 50 + 50 * earned(players, "legato/RecallLong-v0" if length == 400 else "legato/Recall-v0", 1.0, test)

    rows = [
        (f"DS4 after {updates} updates", [correct(trained("ds4", long, data, updates, seeds))]),
        ("the same, without history", [correct(trained("ds4", replace(long, history=False), data, updates, seeds))]),
        ("DT, a window of 20", [correct(trained("dt", short, data, updates, seeds))]),
    ]
    shown(f"recall over {length} steps ({seeds} seeds, {test} test episodes each; chance: 50)", ("correct, %",), rows)


# --- four rooms ---


def arrives(player: Player, pairs: int, told: bool) -> float:
    """The share of held-out starts and goals at which the policy arrives; `told` of a goal or, by turns, of another."""
    environment = make(tasks.FOUR_ROOMS)
    places = [environment.reset(seed=1_000_000 + i) for i in range(pairs)]
    there = 0.0
    for i, (observation, info) in enumerate(places):
        goal = info["goal"] if told else places[(i + 1) % pairs][1]["goal"]
        environment.reset(options={"start": observation, "goal": info["goal"]})
        memory, reward, over = player.begin(goal), 0.0, False
        while not over:
            actions, memory = player.act(memory, observation)
            observation, paid, terminated, truncated, _ = environment.step(actions[0])
            reward, over = float(paid), terminated or truncated
        there += reward
    return 100 * there / pairs


def drawn(player: Player, figure: Path, count: int = 12) -> None:
    """Where the policy goes in as many test episodes."""
    found = [play_goal_episode(player.policy, tasks.FOUR_ROOMS, player.spec, Clock(1), 0, i) for i in range(count)]
    print(floor_plans.paths(found, floor(tasks.FOUR_ROOMS), figure, title="TT in four rooms"))


def rooms(seeds: int, pairs: int = 100, figure: Path | None = None) -> None:
    rows, players = [], []
    for count in (500, 2000):
        data = tasks.record_four_rooms(count)
        config = TT(
            returns=False,
            goals="later",
            search="likelihood",
            bins=25,
            edges="uniform",  # so that the likeliest token is where the guide's steps are densest
            centres="mean",
            cosine_embeddings=True,
            layers=2,
            heads=4,
            size=64,
            window=6,
            context=3,
            horizon=1,  # a longer search by likelihood likes plans that stop
            beams=4,
            action_cdf=0.0,
            observation_k=0,
            dropout=0.0,
            batch_size=128,
            label_smoothing_bins=0.7,
            optimiser="muon",
            learning_rate=5e-3,
            weight_decay=0.01,
            warmup=100,
            anneal_over=-1,
            action_weight=1.0,
        )
        players = trained("tt", config, data, 2500, seeds)
        for name, told in ((f"{count} walks: TT, told the goal", True), ("told another goal", False)):
            rows.append((name, [np.array([arrives(player, pairs, told) for player in players])]))
    shown(f"four rooms ({seeds} seeds, {pairs} held-out pairs of start and goal)", ("arrives, %",), rows)
    if figure is not None:
        drawn(players[0], figure)


# --- four rooms, one goal ---


def maze(seeds: int, count: int = 4000, test: int = 100) -> None:
    data = tasks.record_sparse_rooms(count)
    iql = IQL(
        expectile=0.9,
        beta=10.0,
        reward_shift=-1.0,
        hidden=64,
        layers=3,  # with two, V runs on through walls for much longer
        batch_size=128,
        learning_rate=3e-3,
        tau=0.01,
        anneal_over=-1,
        anneal_critics=True,
    )
    clone = BC(learning_rate=1e-3, batch_size=256, dropout=0.0, anneal_over=-1)
    share = float(data.lengths[data.terminations[data.offsets[1:] - 1]].sum() / data.steps)

    search = TT(
        penalty=None,
        bins=25,
        edges="uniform",
        centres="mean",
        cosine_embeddings=True,
        layers=2,
        size=64,
        window=4,
        context=3,
        horizon=2,
        beams=16,
        expand=2,
        action_cdf=0.0,
        dropout=0.0,
        batch_size=64,
        label_smoothing_bins=0.7,
        optimiser="muon",
        learning_rate=5e-3,
        weight_decay=0.01,
        warmup=100,
        anneal_over=-1,
        action_weight=1.0,
    )

    def row(name: str, players: Sequence[Player]) -> tuple[str, list[np.ndarray]]:
        rooms: tuple[Any, ...] = (tasks.ACROSS, None)
        return name, [100 * earned(players, tasks.SPARSE_ROOMS, (), test, room=room) for room in rooms]

    valued = trained("iql", iql, data, 20_000, seeds)
    model = trained("tt", search, data, 1_500, seeds)
    rows = [
        row("TT, by its own values", model),
        row("TT(+Q), by IQL's Q", [compose(p, critic=q) for p, q in zip(model, valued, strict=True)]),
        row("IQL", valued),
        row("the same, beta = 0 (imitation)", trained("iql", replace(iql, beta=0.0), data, 5_000, seeds)),
        row("BC", trained("bc", clone, data, 5_000, seeds)),
        row(
            f"{100 * share:.0f}%BC (walks that arrived)",
            trained("bc", replace(clone, fraction=share), data, 5_000, seeds),
        ),
    ]
    found = 100 * data.terminations.sum() / count
    shown(
        f"four rooms with one goal ({seeds} seeds, {test} test episodes each), from {count} short outings, of which "
        f"{found:.1f} % came upon it, none from the room across",
        ("from the room across, %", "from anywhere, %"),
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("paths", "keys", "recall", "rooms", "maze"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--length", type=int, default=400, help="of recall, 100 or 400")
    parser.add_argument("--out", type=Path, help="of rooms: where the first seed of the larger set went")
    options = parser.parse_args()
    if options.out is not None and drawable(options.out).exists():
        parser.error(f"'{options.out}' exists and is not overwritten")
    if options.task == "recall":
        recall(options.seeds, options.length)
    elif options.task == "rooms":
        rooms(options.seeds, figure=options.out)
    else:
        {"paths": paths, "keys": keys, "maze": maze}[options.task](options.seeds)


if __name__ == "__main__":
    main()

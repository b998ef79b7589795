"""Fine-tuning: a policy that was trained from logs is trained further by acting.

A run of its own, which never touches the one it began with: it carries a copy of the offline policies (`start`), and
its `best` is never worse than these by its own evaluations. One turn of the loop collects some primitive steps; whole
episodes go into the algorithm's replay, and one compiled call makes the turn's updates. Seed by seed, side by side, and
all randomness from (seed, step): a resumed run repeats what an unbroken one does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from legato.algorithms import finetuner
from legato.data import trajectories as logs
from legato.data.recurrent_replay import Episode
from legato.data.trajectories import Trajectories
from legato.envs import make_vec
from legato.errors import LegatoError, plain
from legato.policy import Policy
from legato.rollout import Clock, Rollout, episodes, stack
from legato.training import policy_file
from legato.training.initialise import over_seeds
from legato.training.policy_file import fill, named_leaves
from legato.training.progress import Progress
from legato.training.run import Run
from legato.training.running_episodes import RunningEpisodes, padded_episode, put_episodes, side_by_side
from legato.training.session import Session, where_seed
from legato.training.settings import FinetuneSettings, environment_card, environment_config, from_scratch
from legato.training.starting_point import (
    check,
    continued_learners,
    describe_environment,
    load_initial,
    load_logs,
    new_initial,
)

# Of a loop, as checkpoints keep them.
NUMBERS = ("offline_return", "best_target", "target_scale", "eval_target", "collect_target", "stored")


def start(
    source: str | Path,
    method: str,
    preset: str,
    tuning: Any,
    settings: FinetuneSettings,
    out: str | Path | None = None,
    *,
    base: Mapping[str, Any] | None = None,
    quiet: bool = False,
    dataset: str | None = None,
) -> Run:
    """Fine-tune a run's policies, or new ones of an algorithm that `source` names, in a new run folder.

    `base` changes hyper-parameters of that algorithm, such as its sizes; policies of a run have theirs already.
    Everything that can be refused is refused before the folder exists, and before the replay is allocated.
    """
    if not settings.env:
        known = "" if from_scratch(source) else f"neither '{source}' nor its data names an environment: "
        raise LegatoError(f"{known}name one with `env`")
    if from_scratch(source):
        origin = new_initial(str(source), method, preset, settings, base or {})
    elif base:
        raise LegatoError(f"the policies of '{source}' have their sizes already: leave out base ({', '.join(base)})")
    else:
        origin = load_initial(Run(source), settings)
    spec = check(method, tuning, settings, origin, quiet=quiet)
    before = continued_learners(origin, method, tuning, settings)
    known = load_logs(origin.run, dataset) if origin.run and finetuner(method).reads_logs(tuning) else None
    data = {**((origin.run and origin.run.data) or {}), "environment": settings.env}
    data["start"] = origin.name if origin.run else None
    run = Run.create(out, origin.algorithm, preset, origin.config, settings, spec, data, method=method, tuning=tuning)
    for seed, loaded in zip(run.seeds, origin.policies, strict=True):
        policy_file.save(run.path / "policy" / f"seed-{seed}" / "start", loaded.policy, loaded.card)
    session = Session(run, quiet=quiet)
    session.train(FinetuningLoop(session, data=known, before=before))
    return run


def resume(
    path: str | Path,
    from_step: int | None = None,
    *,
    steps: int | None = None,
    quiet: bool = False,
    fresh_episodes: bool = False,
) -> Run:
    """Go on from a run's newest checkpoint (or that of `from_step`) to the end it was given, or to so many `steps`.

    `fresh_episodes` leaves the unfinished ones, for an environment that does not repeat itself from its seed.
    """
    run = Run(path)
    run.extend("steps", steps)
    session = Session(run, resume=True, from_step=from_step, quiet=quiet, fresh_episodes=fresh_episodes)
    session.train(FinetuningLoop(session))
    return run


class FinetuningLoop:
    """Fine-tuning by acting of policies from logs (see `session.Loop`)."""

    def __init__(self, session: Session, *, data: Trajectories | None = None, before: Any = None):
        """`data` are the logs that the replay begins with, `before` the learners whose optimisers go on."""
        run = session.run
        assert isinstance(run.settings, FinetuneSettings)
        assert run.method is not None and run.tuning is not None
        self.session, self.run, self.settings, self.finetuner_config = session, run, run.settings, run.tuning
        self.module: Any = session.entry.load()
        self.replay_module: Any = self.module.replay
        s, seeds, spec, base, tuning = self.settings, run.seeds, run.spec, run.config, run.tuning
        self.members = len(seeds) * s.environments
        keys = jax.vmap(lambda seed: jax.random.split(jax.random.key(seed), 3))(jnp.array(seeds))  # [seeds, 3]
        init_keys, self.act_keys, self.update_keys = keys[:, 0], keys[:, 1], keys[:, 2]
        offline = stack([policy_file.load(run.policy_path(seed, "start")).policy for seed in seeds])
        session.init_learner(self.module, (tuning, base), (offline, init_keys), members=self.members)
        # Of each seed, what the best policy so far acts by.
        self.best_deployed = jax.tree.map(jnp.copy, self.module.deployed(session.learner))
        room = describe_environment(environment_config(s), run.label)[1] or self.module.longest_episode(base)
        empty = over_seeds(self.replay_module.create, (tuning, base, spec, s.capacity, room), size=len(seeds))
        self.replay = empty()
        self.environments = make_vec(environment_config(s), self.members)
        self.rollout = Rollout(self.environments, spec, Clock(1), seeds, "train")
        self.eval_environments = make_vec(environment_config(s), len(seeds) * s.eval_episodes)
        statistics = session.learner.statistics
        first = np.asarray(statistics.target) if s.target is None else np.full(len(seeds), s.target, np.float32)
        self.first_target = first.astype(np.float32)  # the targets to begin with
        # Targets of evaluations, and of collecting.
        self.eval_target, self.collect_target = self.first_target.copy(), self.first_target.copy()
        self.offline_return = np.full(len(seeds), -np.inf)  # mean returns of the offline policies
        self.best_target = self.first_target.copy()  # the best policies' targets
        # Scales of the targets' increments above those: each regression halves one.
        self.target_scale = np.ones(len(seeds))
        self.running_episodes = RunningEpisodes(self.members, len(seeds), spec)
        self.stored = np.zeros(len(seeds), np.int64)
        self.episodes: list[list[tuple[float, float]]] = [[] for _ in seeds]
        self.on_new_best = over_seeds(self.module.on_new_best, (tuning,))
        self.policies = over_seeds(self.module.policy)
        self.explorers = over_seeds(self.module.explorer, axes=(0, 0, None))
        # Traced as the loop will call it: the first turn finds the trace.
        carried = True, session.learner, self.replay, self.update_keys, 0, 1
        metrics = sorted(advance.eval_shape(self.module, tuning, *carried)[1])
        nothing = side_by_side([None] * len(seeds), spec)
        put = put_episodes.eval_shape(self.replay_module, tuning, session.learner, self.replay, nothing)
        self.replay_metric_names = sorted(put[1])
        # Since the last row.
        self.replay_metrics: dict[str, np.ndarray] = {name: np.zeros(len(seeds)) for name in self.replay_metric_names}
        self.columns = ["return", "length", "episodes", "eval_return", "target", *metrics, *self.replay_metric_names]
        self.title, self.end, self.command = f"{run.label} in {s.env}", s.steps, run.resume_command("finetune")
        if before is not None:
            session.learner = over_seeds(self.module.continued)(session.learner, before)
        if data is not None:
            self._fill(data)

    def _fill(self, data: Trajectories) -> None:
        """Begin with logged episodes, as if each had been asked for what is asked for first."""
        for i in self.module.initial_episodes(self.finetuner_config, data):
            at = data.episode(int(i))
            paid = logs.rewards(data)[at]
            rows = list(zip(data.observations[at], data.actions[at], paid, strict=True))
            end = data.observations[at.stop - 1] if data.final_observations is None else data.final_observations[i]
            terminated = bool(data.terminations[at.stop - 1])
            steps = [(*row, end) for row in rows]
            self._remember(
                [[padded_episode(steps, self.run.spec, float(ask), terminated=terminated)] for ask in self.first_target]
            )

    # --- the loop ---

    def close(self) -> None:
        self.environments.close()
        self.eval_environments.close()

    def begin(self, progress: Progress) -> None:
        """Evaluate the offline policies."""
        session = self.session
        if session.step or np.isfinite(self.offline_return).all():
            return
        self.offline_return = self._measure(self._acting())
        self._saved(self.offline_return)
        session.log(self.offline_return)
        progress.note(0, f"return {self.offline_return.mean():.1f} offline{self._over()}")
        self._compare()

    def _compare(self) -> None:
        """Warn where an offline policy's return is far outside its data: the environment may have another reward."""
        if (self.run.data or {}).get("start") is None:
            return  # from scratch
        low, *_, high = np.asarray(self.session.learner.statistics.deciles).T
        strange = np.abs(self.offline_return - (low + high) / 2) > high - low
        for i in np.flatnonzero(strange)[:1]:
            earned = f"seed {self.run.seeds[i]} earns {self.offline_return[i]:.4g} in '{self.settings.env}'"
            known = f"the returns of its data were {low[i]:.4g} to {high[i]:.4g}"
            line = plain(f"warning: {earned}, {known}: does it have the reward of the data?")
            print(line, file=sys.stderr)  # noqa: T201

    def _over(self) -> str:
        return f" over {len(self.run.seeds)} seeds" if len(self.run.seeds) > 1 else ""

    def turn(self) -> None:
        """Collect some steps, put the episodes that ended into the replay, and make the turn's updates."""
        session, s, steps = self.session, self.settings, self.finetuner_config.every
        phase = self.module.phase(self.finetuner_config, session.step)
        asked = self._episode_targets(phase.target_variation)
        policies = self.explorers(session.learner, jnp.asarray(asked), jnp.asarray(phase.noise, jnp.float32))
        try:
            experience, ended = self.rollout.run(policies, -(-steps // s.environments), self.act_keys)
        except LegatoError:
            session.averages.read(session.checkpoints.steps())  # a NaN loss is named instead of what it led to
            raise
        for episode in ended:
            self.episodes[episode.member // s.environments].append((episode.ret, episode.length))
        self._remember(self.running_episodes.add(experience, np.repeat(asked, s.environments)))
        session.step += len(experience.reward) * s.environments
        count = phase.updates if self.stored.min() > 0 else 0
        if count:
            session.learner, metrics = advance(
                self.module,
                self.finetuner_config,
                phase.joint,
                session.learner,
                self.replay,
                self.update_keys,
                session.updates,
                count,
            )
            session.averages.add(session.step, metrics, count)
            session.updates += count
        if not phase.joint:  # what acts did not change
            session.refreshed = session.counts

    @property
    def ready(self) -> bool:
        """Is there an episode of every seed?"""
        return bool(self.stored.min() > 0)

    def apply(self, change: Callable[[Any, Any], tuple[Any, Any]]) -> None:
        """Replace learner and source of batches."""
        self.session.learner, self.replay = change(self.session.learner, self.replay)

    def _episode_targets(self, target_variation: float) -> np.ndarray:
        """What an episode that begins in this turn is asked for, by seed."""
        draw = [
            np.random.default_rng([seed, self.session.step]).uniform(-target_variation, target_variation)
            for seed in self.run.seeds
        ]
        return (self.collect_target * (1 + np.array(draw))).astype(np.float32)

    def _remember(self, done: list[list[Episode]]) -> None:
        """Put episodes into the replays, one of each seed at a time."""
        for turn in range(max(map(len, done))):
            there = [found[turn] if turn < len(found) else None for found in done]
            stacked = side_by_side(there, self.run.spec)
            self.replay, metrics = put_episodes(
                self.replay_module, self.finetuner_config, self.session.learner, self.replay, stacked
            )
            for name, values in jax.device_get(metrics).items():
                self.replay_metrics[name] = np.maximum(self.replay_metrics[name], values)
            self.stored += stacked.steps

    # --- measuring and saving ---

    def rows(self, means: list[dict[str, float]], evaluated: np.ndarray | None) -> list[dict[str, float]]:
        """With the episodes that ended since the last row, and what is asked for."""
        for i, row in enumerate(means):
            if self.episodes[i]:
                row["return"], row["length"] = (float(x) for x in np.mean(self.episodes[i], axis=0))
            row["episodes"] = len(self.episodes[i])
            if evaluated is not None:
                row["eval_return"] = float(evaluated[i])
            row["target"] = float(self.eval_target[i])
            row |= {name: float(values[i]) for name, values in self.replay_metrics.items() if self.episodes[i]}
            self.episodes[i] = []
        self.replay_metrics = {name: np.zeros_like(values) for name, values in self.replay_metrics.items()}
        return means

    def _acting(self) -> Policy[Any]:
        return self.policies(self.session.learner, jnp.asarray(self.eval_target))

    def _measure(self, policies: Policy[Any]) -> np.ndarray:
        pause = partial(self.session.pause, self.session.step)
        seeds, spec = self.run.seeds, self.run.spec
        return episodes(policies, self.eval_environments, spec, Clock(1), seeds, "select", pause=pause).mean(axis=1)

    def _saved(self, returns: np.ndarray) -> np.ndarray:
        """Keep `last`, and `best` where it is better than all before. Returns where."""
        session = self.session
        policy_file.keep(
            self.run, self._acting(), returns > session.best, session.step, environment_card(self.settings)
        )
        better = session.keep_best(returns)
        self.best_target = np.where(better, self.eval_target, self.best_target)
        self.best_deployed = where_seed(jnp.asarray(better), self.module.deployed(session.learner), self.best_deployed)
        session.learner = self.on_new_best(session.learner, jnp.asarray(better))
        self.eval_target, self.collect_target = (
            np.asarray(target, np.float32)
            for target in self.module.targets(self.finetuner_config, self.first_target, session.best, self.target_scale)
        )
        return better

    def evaluate(self, progress: Progress) -> np.ndarray:
        """Mean greedy return per seed, and what follows from it."""
        session, s = self.session, self.settings
        returns = self._measure(self._acting())
        at, best = min(session.step, s.steps), session.best
        progress.note(at, f"return {returns.mean():.1f}{self._over()}")
        below = self.offline_return - returns > s.regression_tolerance * np.abs(self.offline_return)
        fallen = best - returns > s.regression_tolerance * np.abs(best)
        self.target_scale = np.where(fallen, self.target_scale / 2, self.target_scale)
        self._saved(returns)
        for i in np.flatnonzero(below | fallen if s.rollback else below):
            level, whose = (self.offline_return, "the offline policy") if below[i] else (session.best, "its best")
            text = f"seed {self.run.seeds[i]} earns {returns[i]:.1f}, {whose} {level[i]:.1f}"
            progress.note(at, text + ("; rolled back to its best" if s.rollback else ""))
        if s.rollback and fallen.any():
            back = over_seeds(self.module.roll_back, (self.finetuner_config,))(session.learner, self.best_deployed)
            session.learner = where_seed(jnp.asarray(fallen), back, session.learner)
            self.eval_target, self.collect_target = (
                np.where(fallen, self.best_target, asked) for asked in (self.eval_target, self.collect_target)
            )
            policy_file.keep(self.run, self._acting(), np.zeros(len(fallen), bool), session.step, environment_card(s))
        return returns

    def state(self) -> dict[str, Any]:
        """The replay, the best so far, the episodes in progress, and what is asked for."""
        finished = [(i, *episode) for i, of_seed in enumerate(self.episodes) for episode in of_seed]
        return {
            "best_deployed": named_leaves(self.best_deployed),
            "replay": self.replay_module.state(self.replay),
            "rollout": self.rollout.state(),
            "running_episodes": self.running_episodes.state(),
            "loop": {
                "episode_target": self.running_episodes.targets.copy(),
                **{name: getattr(self, name).copy() for name in NUMBERS},
                "episodes": np.array(finished, np.float64).reshape(-1, 3),
            },
            "replay_metrics": {name: values.copy() for name, values in self.replay_metrics.items()},
        }

    def restore(self, state: dict[str, Any], fresh_episodes: bool) -> None:
        self.best_deployed = fill(self.best_deployed, state["best_deployed"], str(self.session.checkpoints.folder))
        self.replay = self.replay_module.restore(self.replay, state["replay"])
        loop = state["loop"]
        for name in NUMBERS:
            setattr(self, name, loop[name].copy())
        self.replay_metrics = {name: values.copy() for name, values in state.get("replay_metrics", {}).items()}
        for i, ret, length in loop["episodes"]:
            self.episodes[int(i)].append((float(ret), float(length)))
        self.running_episodes.restore(state["running_episodes"], loop["episode_target"], fresh_episodes)
        noise = jnp.asarray(0.0, jnp.float32)
        explorers = self.explorers(self.session.learner, jnp.asarray(self.collect_target), noise)
        self.rollout.restore(state["rollout"], explorers, fresh=fresh_episodes)


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=(3,))
def advance(
    module: ModuleType,
    tuning: Any,
    joint: bool,
    learner: Any,
    replay: Any,
    keys: PRNGKeyArray,
    first: int,
    count: Int[Array, ""] | int,
) -> tuple[Any, dict[str, Float[Array, " seeds"]]]:
    """`count` updates of every seed in one dispatch. Returns the sums of their metrics too.

    The i-th update of a run draws from `fold_in(key, i)`, whichever call makes it.
    """

    def one_seed(learner: Any, replay: Any, key: PRNGKeyArray) -> tuple[Any, dict[str, Array]]:
        @partial(jax.jit, inline=True)  # traced once, though asked for its shapes and for itself
        def update(learner: Any, i: Array) -> tuple[Any, dict[str, Array]]:
            return module.update(tuning, learner, replay, jax.random.fold_in(key, i), joint)

        def turn(i: Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            learner, metrics = update(carry[0], i)
            return learner, jax.tree.map(jnp.add, carry[1], metrics)

        shapes = jax.eval_shape(update, learner, jnp.asarray(first))[1]
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return jax.lax.fori_loop(first, first + count, turn, (learner, nothing))

    return jax.vmap(one_seed)(learner, replay, keys)

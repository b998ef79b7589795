"""The online loop: environment <-> replay <-> updates, for any algorithm that learns from transitions.

One turn of the loop is one decision interval: the rollout collects a plan's worth of primitive steps, then one
compiled call stores them and makes all their updates. Several seeds are trained side by side along a leading axis. All
randomness derives from (seed, step), so a checkpoint holds no generator and a resumed run repeats what an unbroken one
does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from legato.algorithms import algorithm as algorithm_module
from legato.algorithms import entries, entry
from legato.data import replay as replay_buffer
from legato.data.device_memory import refuse_beyond
from legato.data.replay import HeldDecisions, Replay, ReplayBatchSpec, Sequences, Transition
from legato.data.spec import Spec
from legato.data.trajectories import About, Trajectories
from legato.envs import describe, episode_limit, make, make_vec, try_environment
from legato.errors import LegatoError
from legato.options import COUNTED, for_run
from legato.policy import Policy, RandomPlans
from legato.rollout import Experience, Rollout, episodes
from legato.training import policy_file
from legato.training.checkpoint import Checkpoints
from legato.training.clocks import collecting, training_clock
from legato.training.progress import Progress
from legato.training.run import Run
from legato.training.session import Session
from legato.training.settings import OfflineSettings, Settings, environment_card, environment_config


def start(
    algorithm: str,
    preset: str,
    config: Any,
    settings: Settings,
    out: str | Path | None = None,
    *,
    quiet: bool = False,
) -> Run:
    """Train from nothing in a new run folder. Everything that can be refused is refused before the folder exists."""
    spec = check(algorithm, config, settings)
    if "for_environment" in entry(algorithm).offers:
        config = entry(algorithm).function("for_environment")(config, spec, environment_config(settings))
    steps, updates = turn(algorithm, config, settings)
    in_all = max(1, round(settings.steps / steps * updates))
    run = Run.create(out, algorithm, preset, for_run(config, in_all), settings, spec)
    session = Session(run, quiet=quiet)
    session.train(OnlineLoop(session))
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
    session.train(OnlineLoop(session))
    return run


def load_replay(run: Run, seed: int | None = None) -> Trajectories:
    """The episodes in the replay buffer of a run's newest checkpoint, of its first seed if none is named.

    They are what `replay.to_trajectories` finds. Raises `LegatoError` for a run that kept decisions instead of
    primitive steps.
    """
    place = run.seeds.index(run.known_seed(seed))
    if isinstance(run.settings, OfflineSettings):
        raise LegatoError(f"'{run.place}' learnt from '{run.settings.dataset}' and has no replay buffer")
    if not isinstance(run.settings, Settings):
        raise LegatoError(f"the replay of '{run.place}' is a fine-tuning's: play its policy instead, with `steps`")
    if algorithm_module(run.algorithm).batches(run.config).per_decision:
        raise LegatoError(
            f"'{run.place}' kept one row per decision (updates decision), not the steps between: "
            "play its policy instead, with `steps`"
        )
    checkpoints = Checkpoints(run.path / "checkpoints", create=False)
    _, state = checkpoints.load()
    checkpoints.close()
    kept = jax.tree.map(lambda array: array[place], state["replay"])
    about = About.of(f"the replay buffer of '{run.place}'", run.settings.env, run.spec)
    return replay_buffer.to_trajectories(
        kept["rows"], int(kept["added"]), run.settings.environments, run.spec, about, kept.get("frames")
    )


def check(algorithm: str, config: Any, settings: Settings) -> Spec:
    """The spec of the environment; raises `LegatoError` when algorithm, environment and settings do not fit."""
    module = algorithm_module(algorithm)
    choice = environment_config(settings)
    environment = make(choice)
    by_acting, from_logs = (
        ", ".join(name for name, found in entries(learns).items() if found.discrete) for learns in ("online", "offline")
    )
    instead = f"learn them by acting with {by_acting}, or from logs with {from_logs}"
    discrete = entry(algorithm).discrete
    spec = describe(
        environment, settings.env, user=algorithm, discrete=discrete, images=entry(algorithm).images, instead=instead
    )
    limit = episode_limit(environment)
    try_environment(environment, settings.env)
    plan = max(module.plan_length(config), collecting(algorithm, config).plan_length)
    if limit is not None and plan > limit:
        raise LegatoError(f"a plan of {plan} steps is longer than an episode of '{settings.env}' ({limit} steps)")
    ahead = max(module.batches(config).lengths)
    if limit is not None and ahead > limit:
        named = [each for each, value in vars(config).items() if each.endswith(("_step", "_steps")) and value == ahead]
        name = next(iter(named), "a sequence of")
        raise LegatoError(f"{name} {ahead} is longer than an episode of '{settings.env}' ({limit} steps)")
    steps = turn(algorithm, config, settings)[0]
    if settings.capacity < (2 * steps if spec.images else steps):  # of images, two may be new with every step
        twice = " of two images each" if spec.images else ""
        raise LegatoError(f"capacity {settings.capacity} is smaller than what a turn adds: {steps} steps{twice}")
    if settings.capacity < module.batches(config).size:
        raise LegatoError(f"capacity {settings.capacity} is smaller than a minibatch ({module.batches(config).size})")
    refuse_large(settings, spec, steps)
    if "check" in entry(algorithm).offers:
        entry(algorithm).function("check")(config, spec, settings.env)
    if settings.backend != "gymnasium":
        make_vec(choice, 1, settings.backend).close()  # is it installed, and does it know the environment?
    return spec


def replay_rows(settings: Settings, turn_steps: int) -> int:
    """Transitions that a seed's replay buffer keeps: no more than the run makes, but for two turns."""
    return min(settings.capacity, max(-(-settings.steps // turn_steps), 2) * turn_steps)


def refuse_large(settings: Settings, spec: Spec, turn_steps: int) -> None:
    """Raises `LegatoError` where the replay buffers are larger than the memory."""
    rows, size = replay_rows(settings, turn_steps), replay_buffer.row_bytes(spec)
    what = f"a replay of {rows} transitions of {size:.0f} bytes" + (f", {settings.seeds} times" * (settings.seeds > 1))
    refuse_beyond(round(settings.seeds * rows * size), what, "lower `capacity`, or `seeds`")


def turn(algorithm: str, config: Any, settings: Settings) -> tuple[int, int]:
    """Primitive steps per seed, and updates, of one turn of the loop. Raises `LegatoError` when it has no update."""
    module = algorithm_module(algorithm)
    steps = collecting(algorithm, config).plan_length * settings.environments
    counted = settings.environments if module.batches(config).per_decision else steps
    updates = round(settings.updates_per_step * counted)
    if updates < 1:
        raise LegatoError(f"updates_per_step {settings.updates_per_step} gives no update in {counted} steps")
    if updates * max(1, settings.steps // steps) > COUNTED:
        raise LegatoError(f"updates_per_step {settings.updates_per_step} gives more updates than can be counted")
    return steps, updates


class OnlineLoop:
    """Learning by acting (see `session.Loop`)."""

    def __init__(self, session: Session):
        run = session.run
        assert isinstance(run.settings, Settings)
        self.session, self.run, self.settings, self.config = session, run, run.settings, run.config
        self.algorithm = algorithm_module(run.algorithm)
        self.batches: ReplayBatchSpec = self.algorithm.batches(self.config)
        self.turn_steps, self.turn_updates = turn(run.algorithm, self.config, self.settings)
        refuse_large(self.settings, run.spec, self.turn_steps)
        s, seeds, spec = self.settings, run.seeds, run.spec
        self.members = len(seeds) * s.environments
        keys = jax.vmap(lambda seed: jax.random.split(jax.random.key(seed), 3))(jnp.array(seeds))  # [seeds, 3]
        init_keys, self.act_keys, self.update_keys = keys[:, 0], keys[:, 1], keys[:, 2]
        session.init_learner(self.algorithm, (self.config, spec), (init_keys,), members=self.members)
        kept = replay_rows(s, self.turn_steps)
        rows = jax.vmap(lambda _: replay_buffer.create(spec, kept, s.environments))
        self.replay: Replay = rows(jnp.arange(len(seeds)))
        environments = make_vec(environment_config(s), self.members, s.backend)
        self.rollout = Rollout(environments, spec, collecting(run.algorithm, self.config), seeds, "train")
        self.eval_environments = make_vec(environment_config(s), len(seeds) * s.eval_episodes)
        self.stored = np.zeros(len(seeds), np.int64)  # transitions so far
        self.held_decisions = HeldDecisions(self.members, spec)
        self.episodes: list[list[tuple[float, float]]] = [[] for _ in seeds]  # (return, length) since the last row
        # Traced as the loop will call it: the first turn finds the trace.
        row = np.zeros((len(seeds), self.turn_steps, self.held_decisions.open.shape[-1]), np.float32)
        fresh = replay_buffer.split_images(row, spec)
        counts = jax.ShapeDtypeStruct((len(seeds),), jnp.int32)
        carried = self.turn_updates, session.learner, self.replay, fresh, counts, self.update_keys, 0
        metrics = sorted(advance.eval_shape(self.algorithm, self.config, *carried)[2])
        self.columns = ["return", "length", "episodes", "eval_return", *metrics]
        self.title, self.end, self.command = f"{run.label} on {s.env}", s.steps, run.resume_command("train")

    def begin(self, progress: Progress) -> None:
        """Nothing is measured before the first turn."""

    def close(self) -> None:
        self.rollout.environments.close()
        self.eval_environments.close()

    def turn(self) -> None:
        """Collect a plan's worth of steps, then store them and make all their updates in one dispatch."""
        session = self.session
        try:
            experience, ended = self.rollout.run(self._explorer(), self.rollout.clock.plan_length, self.act_keys)
        except LegatoError:
            session.averages.read(session.checkpoints.steps())  # a NaN loss is named instead of what it led to
            raise
        for episode in ended:
            self.episodes[episode.member // self.settings.environments].append((episode.ret, episode.length))
        rows, counts = self._rows(experience)
        self.stored += counts
        waits = "refresh" in session.entry.offers and session.refreshed is None  # for what is fitted first
        count = self.turn_updates if self.ready and not waits else 0
        session.learner, self.replay, metrics = advance(
            self.algorithm,
            self.config,
            count,
            session.learner,
            self.replay,
            rows,
            counts,
            self.update_keys,
            session.updates,
        )
        session.step += self.turn_steps
        session.updates += count
        if count:
            session.averages.add(session.step, metrics)

    def _explorer(self) -> Policy[Any]:
        """What collects now."""
        found, random = self.session.entry, self.session.step < self.settings.start_steps
        if "explorer" in found.offers:
            step = self.session.step
            return found.function("explorer")(self.config, self.session.learner, self.run.spec, step, random)
        policies = self.algorithm.policy(self.config, self.session.learner)
        return RandomPlans(policies, self.run.spec, hold=True) if random else policies

    @property
    def ready(self) -> bool:
        """Is there a whole minibatch?"""
        return bool(self.stored.min() >= self.batches.size)

    def apply(self, change: Callable[[Any, Any], tuple[Any, Any]]) -> None:
        """Replace learner and source of batches."""
        self.session.learner, self.replay = change(self.session.learner, self.replay)

    def _rows(self, experience: Experience) -> tuple[replay_buffer.Rows, np.ndarray]:
        """What to store of each seed, `[seeds, rows, width]`, and how many of the rows are real, not padding."""
        rows, counts = self._packed(experience)
        return replay_buffer.split_images(rows, self.run.spec), counts

    def _packed(self, experience: Experience) -> tuple[np.ndarray, np.ndarray]:
        seeds, rows = len(self.run.seeds), experience.rows()
        if not self.batches.per_decision:  # [steps, members, width] -> [seeds, steps * environments, width]
            rows = rows.reshape(len(rows), seeds, -1, rows.shape[-1]).swapaxes(0, 1)
            return rows.reshape(seeds, -1, rows.shape[-1]), np.full(seeds, self.turn_steps, np.int32)
        done = self.held_decisions.fold(rows, experience.plan_begins, experience.plan_ends)
        each = self.settings.environments
        per_seed = [list(chain(*done[i : i + each])) for i in range(0, len(done), each)]
        padded = np.zeros((seeds, self.turn_steps, rows.shape[-1]), np.float32)
        for i, found in enumerate(per_seed):
            padded[i, : len(found)] = found
        return padded, np.array([len(found) for found in per_seed], np.int32)

    # --- measuring and saving ---

    def evaluate(self, progress: Progress) -> np.ndarray:
        """Mean greedy return per seed, deciding as often as in training; keeps the `last` and the `best` policy."""
        session, seeds, end = self.session, self.run.seeds, self.settings.steps
        policies = self.algorithm.policy(self.config, session.learner)
        pause, clock = partial(session.pause, session.step), training_clock(self.run.algorithm, self.config)
        stepped = self.eval_environments, self.run.spec, clock, seeds, "select"
        returns = episodes(policies, *stepped, pause=pause).mean(axis=1)
        better = session.keep_best(returns)
        policy_file.keep(self.run, policies, better, session.step, environment_card(self.settings))
        text = f"return {returns.mean():.1f}" + (f" over {len(seeds)} seeds" if len(seeds) > 1 else "")
        progress.note(min(session.step, end), text)
        return returns

    def rows(self, means: list[dict[str, float]], evaluated: np.ndarray | None) -> list[dict[str, float]]:
        """With the returns and lengths of the episodes that ended since the last row."""
        for i, row in enumerate(means):
            if self.episodes[i]:
                row["return"], row["length"] = (float(x) for x in np.mean(self.episodes[i], axis=0))
            row["episodes"] = len(self.episodes[i])
            if evaluated is not None:
                row["eval_return"] = float(evaluated[i])
            self.episodes[i] = []
        return means

    def state(self) -> dict[str, Any]:
        """The filled part of the replay, the episodes in progress, and what was not logged yet."""
        filled = int(min(self.stored.max(), self.replay.capacity))
        finished = [(i, *episode) for i, of_seed in enumerate(self.episodes) for episode in of_seed]
        return {
            "replay": replay_buffer.filled_part(self.replay, filled),
            "rollout": self.rollout.state(),
            "loop": {
                "stored": self.stored.copy(),
                "episodes": np.array(finished, np.float64).reshape(-1, 3),
                "held_decisions": self.held_decisions.open.copy(),
            },
        }

    def restore(self, state: dict[str, Any], fresh_episodes: bool) -> None:
        self.replay = replay_buffer.refill(self.replay, state["replay"])
        loop = state["loop"]
        self.stored = loop["stored"].copy()
        for i, ret, length in loop["episodes"]:
            self.episodes[int(i)].append((float(ret), float(length)))
        self.held_decisions.open[:] = loop["held_decisions"]
        policies = self.algorithm.policy(self.config, self.session.learner)
        self.rollout.restore(state["rollout"], policies, fresh=fresh_episodes)


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=(3, 4))
def advance(
    algorithm: ModuleType,
    config: Any,
    count: int,
    learner: Any,
    replay: Replay,
    rows: PyTree,
    counts: Int[Array, " seeds"],
    keys: PRNGKeyArray,
    first_update: int,
) -> tuple[Any, Replay, dict[str, Float[Array, " seeds"]]]:
    """Store the rows and make `count` updates, for every seed, in one dispatch. Returns the metrics' means too.

    The rows are those of `replay.add`. The i-th update of a run draws from `fold_in(key, i)`, whichever call makes it.
    """
    batches: ReplayBatchSpec = algorithm.batches(config)

    def one_seed(learner: Any, replay: Replay, rows: Any, n: Array, key: PRNGKeyArray):
        replay = replay_buffer.add(replay, rows, n)

        def update(learner: Any, i: Array) -> tuple[Any, dict[str, Array]]:
            k_sample, k_update = jax.random.split(jax.random.fold_in(key, i))
            return algorithm.update(config, learner, _minibatches(replay, batches, k_sample), k_update)

        if not count:
            return learner, replay, {}
        learner, metrics = jax.lax.scan(update, learner, first_update + jnp.arange(count))
        return learner, replay, jax.tree.map(jnp.mean, metrics)

    return jax.vmap(one_seed)(learner, replay, rows, counts, keys)


def _minibatches(replay: Replay, batches: ReplayBatchSpec, key: PRNGKeyArray) -> tuple[Transition | Sequences, ...]:
    keys = jax.random.split(key, len(batches.lengths))
    return tuple(
        replay_buffer.sample(replay, k, batches.size)
        if length == 1
        else replay_buffer.sequences(replay, k, batches.size, length)
        for k, length in zip(keys, batches.lengths, strict=True)
    )

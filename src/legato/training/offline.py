"""The offline loop: dataset -> updates, for any algorithm that learns from logged episodes.

The data lies on the device and is sampled inside the compiled call that makes many updates; mapped files too large for
that are drawn from on the host, ahead of time. Several seeds are trained side by side along a leading axis. All
randomness derives from (seed, update), so a checkpoint holds no generator and a resumed run repeats what an unbroken
one does. An environment is needed only to evaluate.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from legato.algorithms import algorithm as algorithm_module
from legato.algorithms import entry
from legato.data import sets, windows
from legato.data.streams import Stream, should_stream
from legato.data.tokens import Encoded
from legato.data.trajectories import Trajectories, fingerprint
from legato.data.transitions import Transitions
from legato.data.windows import BatchSpec, Episodes, Window
from legato.envs import make_vec
from legato.options import for_run
from legato.rollout import Clock, episodes
from legato.training import held_out, logged_data, policy_file
from legato.training.initialise import over_seeds
from legato.training.progress import Progress
from legato.training.run import Run
from legato.training.session import Session
from legato.training.settings import OfflineSettings, environment_card, environment_config

HELD = "held_out_error"  # the column of metrics
HELD_STEPS = 2_000  # of the held-out episodes that are predicted at an evaluation, at most, but for the first episode
DISPATCH = 50  # updates per compiled call: seconds at most, so that Ctrl-C is answered


def start(
    algorithm: str,
    preset: str,
    config: Any,
    settings: OfflineSettings,
    out: str | Path | None = None,
    *,
    quiet: bool = False,
    data: Trajectories | None = None,
) -> Run:
    """Train from nothing in a new run folder. Everything that can be refused is refused before the folder exists.

    `data` stands in for the dataset that the settings name; such a run cannot be resumed from its name alone.
    """
    data, held = logged_data.split_holdout(settings, logged_data.read(settings) if data is None else data)
    spec, data = logged_data.check(algorithm, config, settings, data)
    config = for_run(config, settings.updates)
    if "for_data" in entry(algorithm).offers:
        config = entry(algorithm).function("for_data")(config, spec, data)
    about = data.about
    found = {
        "environment": settings.env or about.environment,
        "reference": about.reference,
        "episodes": len(data),
        "steps": data.steps,
        "fingerprint": fingerprint(data),
        "path": str(Path(settings.dataset).absolute()) if Path(settings.dataset).exists() else None,
    }
    run = Run.create(out, algorithm, preset, config, settings, spec, found)
    session = Session(run, unit="update", quiet=quiet)
    session.train(OfflineLoop(session, data, held=held))
    return run


def resume(
    path: str | Path,
    from_step: int | None = None,
    *,
    updates: int | None = None,
    quiet: bool = False,
    dataset: str | None = None,
    data: Trajectories | None = None,
) -> Run:
    """Go on from a run's newest checkpoint (or that of `from_step`) to the end it was given, or to so many `updates`.

    `dataset` says where its dataset is now.
    """
    run = Run(path)
    run.extend("updates", updates)
    data, held = logged_data.load_parts(run, dataset, data)
    session = Session(run, unit="update", resume=True, from_step=from_step, quiet=quiet)
    session.train(OfflineLoop(session, data, held=held, place=dataset))
    return run


class OfflineLoop:
    """Learning from logs (see `session.Loop`)."""

    members = None

    def __init__(
        self, session: Session, data: Trajectories, *, held: Trajectories | None = None, place: str | None = None
    ):
        """`held` are the episodes that are not learnt from; `place`, where the dataset was said to be now."""
        run = session.run
        assert isinstance(run.settings, OfflineSettings)
        self.session, self.run, self.settings, self.config = session, run, run.settings, run.config
        self.held_out = held
        self.algorithm = algorithm_module(run.algorithm)
        s, seeds, spec, config = self.settings, run.seeds, run.spec, run.config
        self.batch_specs: tuple[BatchSpec, ...] = windows.buckets(data.lengths, self.algorithm.batches(config))
        discount = self.batch_specs[0].discount
        self.stream: Stream | None = None
        self.data: Any = None
        if "prepare" in session.entry.offers:
            prepared = session.entry.function("prepare")(config, spec, data, run.path, fingerprint(data))
            self.statistics, self.data = prepared
        else:
            self.statistics = self.algorithm.statistics(config, spec, data)
            if not should_stream(data, s.stream):
                self.data = windows.episodes(data, discount, self.batch_specs)
        if self.data is None:
            self.batch_specs = self.batch_specs[-1:]  # all windows of a chunk have one shape
            self.open = lambda step: Stream(data, seeds, self.batch_specs[0], DISPATCH, first=step, gamma=discount)
        keys = jax.vmap(lambda seed: jax.random.split(jax.random.key(seed)))(jnp.array(seeds))  # [seeds, 2]
        init_keys, self.update_keys = keys[:, 0], keys[:, 1]
        session.init_learner(self.algorithm, (config, spec), (init_keys,), (self.statistics,))
        self.policies = over_seeds(self.algorithm.policy, (config,))
        self.eval_environments = make_vec(environment_config(s), len(seeds) * s.eval_episodes) if s.env else None
        self.targets: tuple[float | None, ...] = (None,)
        if run.conditioned:
            self.targets = s.targets or (float(self.statistics.target),)
        self.eval_names = ["eval_return", *(f"eval_return_{t:g}" for t in self.targets[1:] if t is not None)]
        source = self.data or windows.episodes(sets.select(data, [0]))  # of any episode: only shapes are asked for
        # Traced as the loop will call it: unless windows are streamed, the first turn finds the trace.
        carried = self.batch_specs, session.learner, source, self.update_keys, 0, 1
        metrics = sorted(advance.eval_shape(self.algorithm, config, *carried)[1])
        self.shown = "loss" if "loss" in metrics else metrics[0]
        measured = [*(self.eval_names if s.env else ()), *([HELD] if held is not None else ())]
        self.columns = [*measured, *metrics]
        self.title, self.end = f"{run.label} on {s.dataset}", s.updates
        self.command = run.resume_command("train", place)

    def begin(self, progress: Progress) -> None:
        """Nothing is measured before the first update."""

    def close(self) -> None:
        if self.eval_environments is not None:
            self.eval_environments.close()
        if self.stream is not None:
            self.stream.close()

    def turn(self) -> None:
        """A dispatch of updates."""
        session = self.session
        count = min(DISPATCH, self.settings.updates - session.step)
        if (source := self.data) is None:
            self.stream = self.stream or self.open(session.step)
            source = jax.tree.map(lambda leaf: leaf[:count], self.stream.take())
        session.learner, metrics = advance(
            self.algorithm,
            self.config,
            self.batch_specs,
            session.learner,
            source,
            self.update_keys,
            session.step,
            count,
        )
        session.step += count
        session.updates += count
        session.averages.add(session.step, metrics, count)

    @property
    def ready(self) -> bool:
        """The data is there from the first."""
        return True

    def apply(self, change: Callable[[Any, Any], tuple[Any, Any]]) -> None:
        """Replace learner and source of batches."""
        self.session.learner, self.data = change(self.session.learner, self.data)

    def evaluate(self, progress: Progress) -> tuple[np.ndarray | None, np.ndarray | None] | None:
        """Mean greedy return `[seeds, targets]` and held-out error `[seeds]`; keeps the `last` and the `best` policy.

        Each is None without environment, or without episodes that are held out.
        """
        session, seeds = self.session, self.run.seeds
        policies = self.policies(session.learner)
        apart = None if self.held_out is None else self._held_out(policies, self.held_out)
        found = None
        if self.eval_environments is not None:
            stepped = self.eval_environments, self.run.spec, Clock(1), seeds, "select"
            pause = partial(session.pause, session.step)
            commands = [() if target is None else target for target in self.targets]
            returns = [episodes(policies, *stepped, command=c, pause=pause).mean(axis=1) for c in commands]
            found = np.stack(returns, axis=1)
        if found is not None:
            scores = found[:, 0]
        else:  # the newest is the best one where nothing tells them apart
            scores = np.full(len(seeds), np.inf) if apart is None else -apart
        origin = {"environment": (self.run.data or {}).get("environment"), "dataset": self.settings.dataset}
        origin |= environment_card(self.settings) if self.settings.env else {}
        policy_file.keep(self.run, policies, scores > session.best, session.step, origin)
        if found is not None or apart is not None:
            session.keep_best(scores)
        text = f"{self.shown} {session.averages.mean(self.shown):.4g}"
        if apart is not None:
            text += f", held-out error {apart.mean():.3g} of the actions' deviation"
        if found is not None:
            text += ", " + self._worded(found.mean(axis=0))
        measured = found is not None or apart is not None
        progress.note(session.step, text + (f" over {len(seeds)} seeds" if measured and len(seeds) > 1 else ""))
        return (found, apart) if measured else None

    def _worded(self, means: np.ndarray) -> str:
        asked = [f" asked for {t:.0f}" if t is not None else "" for t in self.targets]
        return ", ".join(f"return {mean:.1f}{words}" for mean, words in zip(means, asked, strict=True))

    def rows(
        self, means: list[dict[str, float]], evaluated: tuple[np.ndarray | None, np.ndarray | None] | None
    ) -> list[dict[str, float]]:
        """With what was measured."""
        found, apart = evaluated or (None, None)
        for i, row in enumerate(means):
            if apart is not None:
                row[HELD] = float(apart[i])
            if found is not None:
                row |= dict(zip(self.eval_names, map(float, found[i]), strict=True))
        return means

    def _held_out(self, policies: Any, held: Trajectories) -> np.ndarray:
        """Errors `[seeds]` of predicting the actions of held-out episodes, as shares of their deviation."""
        some = sets.select(held, np.arange(max(1, int(np.searchsorted(held.offsets, HELD_STEPS, side="right")) - 1)))
        told = {"conditioned": self.run.conditioned, "gamma": self.batch_specs[0].discount}
        found, _, deviation = held_out.errors(policies, some, self.run.spec, **told)
        return held_out.shares(found, deviation)

    def state(self) -> dict[str, Any]:
        """All that it carries is the session's."""
        return {}

    def restore(self, state: dict[str, Any], fresh_episodes: bool) -> None:
        """Nothing is left to restore."""


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=(3,))
def advance(
    algorithm: ModuleType,
    config: Any,
    batch_specs: tuple[BatchSpec, ...],
    learner: Any,
    source: Episodes | Encoded | Transitions | Window,
    keys: PRNGKeyArray,
    first: int,
    count: int,
) -> tuple[Any, dict[str, Float[Array, " seeds"]]]:
    """`count` updates of every seed in one dispatch. Returns the sums of their metrics too.

    `source` is what the batches are drawn from, or the windows of these very updates, `[count, seeds, ...]`. The i-th
    update of a run draws from `fold_in(key, i)`, whichever call makes it. Of several buckets it
    draws from `bucket_of(source, i)`.
    """

    def one_seed(learner: Any, key: PRNGKeyArray, given: Window | None) -> tuple[Any, dict[str, Array]]:
        @partial(jax.jit, inline=True)  # traced once, though asked for its shapes and for itself
        def update(learner: Any, i: Array) -> tuple[Any, dict[str, Array]]:
            k_draw, k_update = jax.random.split(jax.random.fold_in(key, i))

            def from_bucket(batch_spec: BatchSpec, learner: Any) -> tuple[Any, dict[str, Array]]:
                return algorithm.update(config, learner, cast(Episodes, source).draw(k_draw, batch_spec), k_update)

            if given is not None:
                return algorithm.update(config, learner, jax.tree.map(lambda leaf: leaf[i - first], given), k_update)
            if len(batch_specs) == 1:
                return from_bucket(batch_specs[0], learner)
            # The index is the same for all seeds (unbatched), so `switch` stays a switch under vmap.
            # One branch runs.
            bucket = windows.bucket_of(cast(Episodes, source), jnp.asarray(i))
            return jax.lax.switch(bucket, [partial(from_bucket, batch_spec) for batch_spec in batch_specs], learner)

        def turn(i: Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            learner, metrics = update(carry[0], i)
            return learner, jax.tree.map(jnp.add, carry[1], metrics)

        shapes = jax.eval_shape(update, learner, jnp.asarray(first))[1]
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return jax.lax.fori_loop(first, first + count, turn, (learner, nothing))

    given = source if isinstance(source, Window) else None
    return jax.vmap(one_seed, in_axes=(0, 0, 1))(learner, keys, given)

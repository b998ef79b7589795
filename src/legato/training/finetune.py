"""Fine-tuning: a policy that was trained from logs goes on learning by acting.

A run of its own, which never touches the one it began with: it carries a copy of the offline policies (`start`), and
its `best` is never worse than these by its own evaluations. One turn of the loop collects some primitive steps; whole
episodes go into the algorithm's replay, and one compiled call makes the turn's updates. Seed by seed, side by side, and
all randomness from (seed, step): a resumed run repeats what an unbroken one does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from legato.algorithms import algorithm as algorithm_module
from legato.algorithms import entries, entry, finetuner, finetuners_of
from legato.data import facts as data_facts
from legato.data import histories
from legato.data import trajectories as logs
from legato.data.histories import Episode
from legato.data.spec import Spec
from legato.data.trajectories import Trajectories
from legato.envs import World, describe, episode_limit, make, make_vec, try_environment
from legato.errors import LegatoError, plain
from legato.policy import Policy
from legato.rollout import Clock, Experience, Rollout, episodes, stack
from legato.training import offline, policy_file
from legato.training.averages import Averages
from legato.training.beginning import begin
from legato.training.checkpoint import Checkpoints
from legato.training.interruption import attended
from legato.training.policy_file import LoadedPolicy, fill, match, named_leaves
from legato.training.progress import Progress
from legato.training.run import Metrics, Run, kept_history
from legato.training.settings import FinetuneSettings, change_options, environment_card, from_scratch, world_of
from legato.training.settings import preset as named_preset

SHORTEST = 64  # rows of the shortest padding that an episode is put into the replay with


def tuned_by(source: Run | str, method: str | None) -> str:
    """The tuner of the policies of a run, or of an algorithm: this, or the usual one.

    Raises `LegatoError` where there is none.
    """
    algorithm = source if isinstance(source, str) else source.algorithm
    known = finetuners_of(algorithm)
    if isinstance(source, Run):
        if source.method is not None:
            start = (source.data or {}).get("start")
            again = f", or from '{start}', where it began" if start else ""
            raise LegatoError(f"'{source.place}' is a fine-tuning itself: go on with --resume {source.place}{again}")
        if not known:
            able = " and ".join(name for name in entries() if finetuners_of(name))
            raise LegatoError(f"'{source.place}' is a run of {algorithm}, which cannot be fine-tuned: {able} can")
    if method is not None and method not in known:
        raise LegatoError(f"a policy of {algorithm} is fine-tuned by {' or '.join(known)}, not by '{method}'")
    return method or known[0]


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
        raise LegatoError(f"{known}name one with --env")
    if from_scratch(source):
        origin = untrained(str(source), method, preset, settings, base or {})
    elif base:
        raise LegatoError(f"the policies of '{source}' have their sizes already: leave out base ({', '.join(base)})")
    else:
        origin = begun(Run(source), settings)
    spec = check(method, tuning, settings, origin, quiet=quiet)
    before = trained(origin, method, tuning, settings)
    known = logged(origin.run, dataset) if origin.run and finetuner(method).reads_logs(tuning) else None
    data = {**((origin.run and origin.run.data) or {}), "environment": settings.env}
    data["start"] = origin.name if origin.run else None
    run = Run.create(out, origin.algorithm, preset, origin.config, settings, spec, data, method=method, tuning=tuning)
    for seed, loaded in zip(run.seeds, origin.policies, strict=True):
        policy_file.save(run.path / "policy" / f"seed-{seed}" / "start", loaded.policy, loaded.card)
    Loop(run, quiet=quiet, data=known, before=before).train()
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
    loop = Loop(run, resume=True, from_step=from_step, quiet=quiet, fresh_episodes=fresh_episodes)
    run.keep_end()
    loop.train()
    return run


@dataclass(frozen=True)
class Origin:
    """What a fine-tuning begins with."""

    name: str
    """the run's path, or the algorithm's name where there is no run"""
    algorithm: str
    config: Any
    policies: list[LoadedPolicy]
    """one per seed"""
    run: Run | None = None


def seeds_of(settings: FinetuneSettings) -> range:
    return range(settings.seed, settings.seed + settings.seeds)


def begun(before: Run, settings: FinetuneSettings) -> Origin:
    """The policies of a run. Raises `LegatoError` where it has none of a seed."""
    policies = [policy_file.load(before.policy_path(seed, settings.which)) for seed in seeds_of(settings)]
    return Origin(str(before.path), before.algorithm, before.config, policies, before)


def untrained(algorithm: str, method: str, preset: str, settings: FinetuneSettings, base: Mapping[str, Any]) -> Origin:
    """New policies, which know nothing, of the preset's hyper-parameters but for those in `base`.

    Raises `LegatoError` where nobody says what return to ask for.
    """
    if settings.target is None:
        raise LegatoError("policies that begin from scratch must be told what return to ask for: give --target")
    spec, _ = described(world_of(settings), method)
    config = change_options(algorithm, named_preset(preset, algorithm, settings.env)[0], base)
    module = algorithm_module(algorithm)
    numbers = jnp.asarray(max(abs(settings.target), 1.0)), jnp.asarray(settings.target)  # the unit, and what is asked
    policies = []
    for seed in seeds_of(settings):
        key = jax.random.split(jax.random.key(seed), 4)[3]  # the first three are those of the loop
        card = policy_file.Card(algorithm, config, spec, {**environment_card(settings), "seed": seed, "step": 0})
        learner = module.init(config, spec, key)
        learner = eqx.tree_at(lambda whole: (whole.facts.scale, whole.facts.target), learner, numbers)
        policies.append(LoadedPolicy(module.policy(config, learner), card))
    return Origin(algorithm, algorithm, config, policies)


def same_world(before: Run, env: str) -> dict[str, Any]:
    """Options and time limit of a run's environment, where it is fine-tuned in the same."""
    if not before.settings.env or before.settings.env != env:
        return {}
    return {"env_options": before.settings.env_options, "max_episode_steps": before.settings.max_episode_steps}


def check(method: str, tuning: Any, settings: FinetuneSettings, origin: Origin, *, quiet: bool = False) -> Spec:
    """The spec. Raises `LegatoError` where policy, tuner, environment and memory do not fit."""
    spec, limit = described(world_of(settings), method)
    try_environment(make(world_of(settings)), settings.env)
    loaded = origin.policies[0]
    for what, here, there in (
        ("observations of so many numbers", loaded.spec.observation_size, spec.observation_size),
        ("discrete actions", loaded.spec.choices, spec.choices),
        ("actions of so many numbers", loaded.spec.action_size, spec.action_size),
        ("bounds of the actions", (loaded.spec.low, loaded.spec.high), (spec.low, spec.high)),
    ):
        if here != there:
            raise LegatoError(
                f"the policies of '{origin.name}' and '{settings.env}' differ in {what}: {here} and {there}"
            )
    module, base = finetuner(method), origin.config
    module.check(tuning, base, spec, limit)
    replay = module.replay
    rows, row = replay.size(tuning, base, spec, settings.capacity, limit or module.longest_episode(base))
    if limit is not None and limit + 1 > rows:
        raise LegatoError(f"capacity {settings.capacity} does not hold one episode of '{settings.env}' ({limit} steps)")
    allowed = settings.memory * 2**30 / settings.seeds
    needed = histories.fitting(rows, row, allowed, settings.capacity, smaller=replay.SMALLER)
    each = " per seed" if settings.seeds > 1 else ""
    if not quiet:
        print(f"the replay takes {needed / 2**30:.2f} GiB{each}", file=sys.stderr)  # noqa: T201
    if settings.target is not None and origin.run is not None:
        low, high = (float(cast(Any, loaded.policy).facts.deciles[i]) for i in (0, -1))
        data_facts.warn([settings.target], low, high)
    return spec


def trained(origin: Origin, method: str, tuning: Any, settings: FinetuneSettings) -> Any:
    """The learners that a run ended with, where a tuner goes on with their optimisers; None where it does not."""
    found = entry(method, "finetuning")
    if origin.run is None or "continues" not in found.offers or not found.function("continues")(tuning):
        return None
    if settings.which != "last":
        raise LegatoError(
            f"the optimiser goes on from where '{origin.name}' ended, not from its {settings.which} policy: "
            "leave out which, or begin with a new one (continue_optimiser off)"
        )
    facts = cast(Any, origin.policies[0].policy).facts
    return policy_file.newest_learners(origin.run, seeds_of(settings), facts)


def logged(before: Run, dataset: str | None = None) -> Trajectories:
    """The data that the offline policies learnt from. Raises `LegatoError` where it is not there any more."""
    return offline.learnt(before, dataset)


def described(world: World, method: str) -> tuple[Spec, int | None]:
    """What an environment is like, and after how many steps it ends its episodes."""
    environment = make(world)
    spec = describe(environment, world.name, user=method, discrete=True)
    limit = episode_limit(environment)
    environment.close()
    return spec, limit


class Loop:
    """One fine-tuning run in progress."""

    def __init__(
        self,
        run: Run,
        *,
        resume: bool = False,
        from_step: int | None = None,
        quiet: bool = False,
        data: Trajectories | None = None,
        before: Any = None,
        fresh_episodes: bool = False,
    ):
        assert isinstance(run.settings, FinetuneSettings)
        assert run.method is not None and run.tuning is not None
        self.run, self.settings, self.tuning, self.quiet = run, run.settings, run.tuning, quiet
        self.entry = entry(run.method, "finetuning")
        self.module: Any = self.entry.load()
        self.replay: Any = self.module.replay
        self.checkpoints = Checkpoints(run.path / "checkpoints", create=not resume)
        loaded = self.checkpoints.load(from_step) if resume else None
        self._build(loaded and loaded[1])
        if before is not None:
            self.learner = jax.jit(jax.vmap(self.module.continued))(self.learner, before)
        if data is not None:
            self._fill(data)
        columns = ["return", "length", "episodes", "eval_return", "target", *self.metric_names, *self.met_names]
        if loaded is not None:
            step, state = loaded
            with self.checkpoints.restoring(state, len(run.seeds), self.world.count):
                self._restore(state, fresh_episodes)
            kept = kept_history(run, self.reported, state.get("history"))
            self.checkpoints.discard_after(step)
            if fresh_episodes:
                run.mark_fresh_episodes(step)
            self.metrics = Metrics(run, columns, self.reported, kept)
        else:
            self.metrics = Metrics(run, columns)

    def _build(self, state: dict[str, Any] | None) -> None:
        s, seeds, spec, base, tuning = self.settings, self.run.seeds, self.run.spec, self.run.config, self.tuning
        self.step = self.updates = 0  # primitive steps and updates so far, per seed
        self.reported = 0  # primitive steps that were measured and logged
        self.pause: Callable[[int], None] = lambda step: None  # stops the run where Ctrl-C asked for it
        keys = jax.vmap(lambda seed: jax.random.split(jax.random.key(seed), 3))(jnp.array(seeds))  # [seeds, 3]
        init_keys, self.act_keys, self.update_keys = keys[:, 0], keys[:, 1], keys[:, 2]
        offline = stack([policy_file.load(self.run.policy_path(seed, "start")).policy for seed in seeds])
        if state is not None:
            with self.checkpoints.restoring(state, s.seeds, s.seeds * s.environments):
                asked = begin.eval_shape(self.module, (tuning, base), (offline, init_keys))
                match(asked, state["learner"], str(self.checkpoints.folder))
        self.learner = begin(self.module, (tuning, base), (offline, init_keys))
        self.kept = self._copied(self.module.deployed(self.learner))  # of each seed, the best so far
        room = described(world_of(s), self.run.label)[1] or self.module.longest_episode(base)
        empty = jax.jit(jax.vmap(lambda _: self.replay.create(tuning, base, spec, s.capacity, room)))
        self.memory = empty(jnp.arange(len(seeds)))
        self.world = make_vec(world_of(s), len(seeds) * s.environments)
        self.rollout = Rollout(self.world, spec, Clock(1), seeds, "train")
        self.judge = make_vec(world_of(s), len(seeds) * s.eval_episodes)
        first = np.asarray(self.learner.facts.target) if s.target is None else np.full(len(seeds), s.target, np.float32)
        self.first = first.astype(np.float32)  # the targets to begin with
        self.asks, self.tries = self.first.copy(), self.first.copy()  # what is asked for in evaluations, in collecting
        self.level = np.full(len(seeds), -np.inf)  # what the offline policies earn
        self.best = np.full(len(seeds), -np.inf)
        self.best_asks = self.first.copy()  # what the best were asked for
        self.trust = np.ones(len(seeds))  # how much more than that may be asked for: halved by every fall
        self.open: list[list[tuple[np.ndarray, ...]]] = [[] for _ in range(self.world.count)]
        self.prompt = np.zeros(self.world.count, np.float32)  # what each running episode was asked for
        self.stored = np.zeros(len(seeds), np.int64)
        self.averages = Averages(seeds, "step")
        self.recent: list[list[tuple[float, float]]] = [[] for _ in seeds]
        self.improved = jax.jit(jax.vmap(partial(self.module.improved, tuning)))
        self.policies = jax.jit(jax.vmap(self.module.policy))
        self.explorers = jax.jit(jax.vmap(self.module.explorer, in_axes=(0, 0, None)))
        # Traced as the loop will call it: the first turn finds the trace.
        carried = True, self.learner, self.memory, self.update_keys, 0, 1
        self.metric_names = sorted(advance.eval_shape(self.module, tuning, *carried)[1])
        one = jax.eval_shape(lambda t: jax.tree.map(lambda leaf: leaf[0], t), (self.learner, self.memory))
        padded = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, _padded([], spec, 0.0, SHORTEST)))
        self.met_names = sorted(jax.eval_shape(partial(self.replay.add, tuning), *one, padded)[1])
        self.met: dict[str, np.ndarray] = {name: np.zeros(len(seeds)) for name in self.met_names}  # since the last row

    def _fill(self, data: Trajectories) -> None:
        """Begin with logged episodes, as if each had been asked for what is asked for first."""
        for i in self.module.initial_episodes(self.tuning, data):
            at = data.episode(int(i))
            paid = logs.rewards(data)[at]
            rows = list(zip(data.observations[at], data.actions[at], paid, strict=True))
            end = data.observations[at.stop - 1] if data.ends is None else data.ends[i]
            terminated = bool(data.terminations[at.stop - 1])
            steps = [(*row, end) for row in rows]
            self._remember([[_padded(steps, self.run.spec, float(ask), terminated=terminated)] for ask in self.first])

    @staticmethod
    def _copied(tree: Any) -> Any:
        return jax.tree.map(jnp.copy, tree)

    # --- the loop ---

    def train(self) -> None:
        """Run to the last step; save on the way; leave checkpoint and policies behind whatever ends it."""
        s = self.settings
        with attended(
            f"{self.run.label} in {s.env}",
            s.steps,
            start=self.step,
            command=self.run.resume_command("finetune"),
            save=self._checkpoint,
            close=self._close,
            quiet=self.quiet,
        ) as (progress, self.pause):
            if not self.step and not np.isfinite(self.level).all():
                self._begin(progress)
            if self.reported < self.step:  # it was stopped in an evaluation
                self._report(self.reported, progress)
            while self.step < s.steps:
                self._turn()
                self._report(self.reported, progress)
                self.pause(self.step)

    def _close(self) -> None:
        self.metrics.close()
        self.world.close()
        self.judge.close()
        self.checkpoints.close()  # last: a full disk shows here, and nothing else may be lost by it

    def _begin(self, progress: Progress) -> None:
        """Measure what the offline policies earn."""
        self.level = self._measure(self._acting())
        self._saved(self.level)
        self._log(self.level)
        progress.note(0, f"return {self.level.mean():.1f} offline{self._over()}")
        self._compare()

    def _compare(self) -> None:
        """Say where an offline policy earns what its data never did: an environment may be paid otherwise."""
        if (self.run.data or {}).get("start") is None:
            return  # from scratch
        low, *_, high = np.asarray(self.learner.facts.deciles).T
        strange = np.abs(self.level - (low + high) / 2) > high - low
        for i in np.flatnonzero(strange)[:1]:
            earned = f"seed {self.run.seeds[i]} earns {self.level[i]:.4g} in '{self.settings.env}'"
            known = f"the returns of its data were {low[i]:.4g} to {high[i]:.4g}"
            line = plain(f"warning: {earned}, {known}: is it paid as the data were?")
            print(line, file=sys.stderr)  # noqa: T201

    def _over(self) -> str:
        return f" over {len(self.run.seeds)} seeds" if len(self.run.seeds) > 1 else ""

    def _turn(self) -> None:
        s, steps = self.settings, self.tuning.every
        phase = self.module.phase(self.tuning, self.step)
        asked = self._prompts(phase.variation)
        policies = self.explorers(self.learner, jnp.asarray(asked), jnp.asarray(phase.noise, jnp.float32))
        try:
            experience, ended = self.rollout.run(policies, -(-steps // s.environments), self.act_keys)
        except LegatoError:
            self.averages.read(self.checkpoints.steps())  # a loss that turned NaN is named instead of what it led to
            raise
        for episode in ended:
            self.recent[episode.member // s.environments].append((episode.ret, episode.length))
        self._remember(self._episodes(experience, np.repeat(asked, s.environments)))
        self.step += len(experience.reward) * s.environments
        count = phase.updates if self.stored.min() > 0 else 0
        if count:
            self.learner, metrics = advance(
                self.module,
                self.tuning,
                phase.joint,
                self.learner,
                self.memory,
                self.update_keys,
                self.updates,
                count,
            )
            self.averages.add(self.step, metrics, count)
            before, self.updates = self.updates, self.updates + count
            refreshes = "refresh" in self.entry.offers
            if refreshes and self.replay.refresh_due(self.tuning, before, self.updates, phase.joint):
                self.memory = renew(self.replay, self.learner, self.memory)

    def _prompts(self, variation: float) -> np.ndarray:
        """What an episode that begins in this turn is asked for, by seed."""
        draw = [np.random.default_rng([seed, self.step]).uniform(-variation, variation) for seed in self.run.seeds]
        return (self.tries * (1 + np.array(draw))).astype(np.float32)

    def _episodes(self, experience: Experience, asked: np.ndarray) -> list[list[Episode]]:
        """The episodes that ended, by seed; the others stay open."""
        done: list[list[Episode]] = [[] for _ in self.run.seeds]
        fields = (experience.observation, experience.action, experience.reward, experience.next_observation)
        for t in range(len(experience.reward)):
            for member, rows in enumerate(self.open):
                if not rows:
                    self.prompt[member] = asked[member]
                rows.append(tuple(field[t, member] for field in fields))
                terminated = bool(experience.terminated[t, member])
                if terminated or experience.truncated[t, member]:
                    episode = _padded(rows, self.run.spec, float(self.prompt[member]), terminated=terminated)
                    done[member // self.settings.environments].append(episode)
                    self.open[member] = []
        return done

    def _remember(self, done: list[list[Episode]]) -> None:
        """Put episodes into the replays, one of each seed at a time."""
        for turn in range(max(map(len, done))):
            there = [found[turn] if turn < len(found) else None for found in done]
            rows = max(len(episode.rewards) for episode in there if episode is not None)
            batch = [_resized(e, rows) if e is not None else _padded([], self.run.spec, 0.0, rows) for e in there]
            stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *batch)
            self.memory, metrics = put(self.replay, self.tuning, self.learner, self.memory, stacked)
            for name, values in jax.device_get(metrics).items():
                self.met[name] = np.maximum(self.met[name], values)
            self.stored += stacked.steps

    # --- measuring and saving ---

    def _report(self, before: int, progress: Progress) -> None:
        """Evaluate, log and checkpoint when their time has come; the end of the run counts for all three."""
        s = self.settings

        def due(every: int) -> bool:
            return self.step // every > before // every or self.step >= s.steps

        progress.step(min(self.step, s.steps))
        if due(s.eval_every) or due(s.log_every) or due(s.checkpoint_every):
            self.averages.read(self.checkpoints.steps())
        evaluated = self._evaluate(progress) if due(s.eval_every) else None
        if evaluated is not None or due(s.log_every):
            self._log(evaluated)
            self.metrics.speed(self.step, progress.rate(self.step))
        self.reported = self.step
        if due(s.checkpoint_every):
            self._checkpoint()

    def _log(self, evaluated: np.ndarray | None) -> None:
        for i, (seed, row) in enumerate(zip(self.run.seeds, self.averages.take(), strict=True)):
            if self.recent[i]:
                row["return"], row["length"] = (float(x) for x in np.mean(self.recent[i], axis=0))
            row["episodes"] = len(self.recent[i])
            if evaluated is not None:
                row["eval_return"] = float(evaluated[i])
            row["target"] = float(self.asks[i])
            row |= {name: float(values[i]) for name, values in self.met.items() if self.recent[i]}
            self.metrics.write(self.step, seed, row)
            self.recent[i] = []
        self.met = {name: np.zeros_like(values) for name, values in self.met.items()}

    def _acting(self) -> Policy[Any]:
        return self.policies(self.learner, jnp.asarray(self.asks))

    def _measure(self, policies: Policy[Any]) -> np.ndarray:
        pause = partial(self.pause, self.step)
        seeds, spec = self.run.seeds, self.run.spec
        return episodes(policies, self.judge, spec, Clock(1), seeds, "select", pause=pause).mean(axis=1)

    def _saved(self, returns: np.ndarray) -> np.ndarray:
        """Keep `last`, and `best` where it is better than all before. Returns where."""
        better = returns > self.best
        policy_file.keep(self.run, self._acting(), better, self.step, environment_card(self.settings))
        self.best = np.maximum(self.best, returns)
        self.best_asks = np.where(better, self.asks, self.best_asks)
        self.kept = chosen(jnp.asarray(better), self.module.deployed(self.learner), self.kept)
        self.learner = self.improved(self.learner, jnp.asarray(better))
        self.asks, self.tries = (
            np.asarray(target, np.float32)
            for target in self.module.targets(self.tuning, self.first, self.best, self.trust)
        )
        return better

    def _evaluate(self, progress: Progress) -> np.ndarray:
        """Mean greedy return per seed, and what follows from it."""
        s = self.settings
        returns = self._measure(self._acting())
        progress.note(min(self.step, s.steps), f"return {returns.mean():.1f}{self._over()}")
        below = self.level - returns > s.drop * np.abs(self.level)
        fallen = self.best - returns > s.drop * np.abs(self.best)
        self.trust = np.where(fallen, self.trust / 2, self.trust)
        self._saved(returns)
        for i in np.flatnonzero(below | fallen if s.rollback else below):
            level, whose = (self.level, "the offline policy") if below[i] else (self.best, "its best")
            text = f"seed {self.run.seeds[i]} earns {returns[i]:.1f}, {whose} {level[i]:.1f}"
            progress.note(min(self.step, s.steps), text + ("; taken back to its best" if s.rollback else ""))
        if s.rollback and fallen.any():
            back = jax.jit(jax.vmap(partial(self.module.taken_back, self.tuning)))(self.learner, self.kept)
            self.learner = chosen(jnp.asarray(fallen), back, self.learner)
            self.asks, self.tries = (np.where(fallen, self.best_asks, asked) for asked in (self.asks, self.tries))
            policy_file.keep(self.run, self._acting(), np.zeros(len(fallen), bool), self.step, environment_card(s))
        return returns

    def _checkpoint(self) -> None:
        self.averages.read(self.checkpoints.steps())
        self.checkpoints.save(self.step, self._state())

    def _state(self) -> dict[str, Any]:
        """All that the loop carries, as nested dicts of arrays that nobody else holds."""
        count, sums = self.averages.state()
        recent = [(i, *episode) for i, of_seed in enumerate(self.recent) for episode in of_seed]
        rows = [row for of_member in self.open for row in of_member]
        fields = zip(*rows, strict=True) if rows else ([] for _ in range(4))
        names = ("observation", "action", "reward", "next_observation")
        return {
            "learner": named_leaves(self.learner),
            "kept": named_leaves(self.kept),
            "memory": self.replay.state(self.memory),
            "rollout": self.rollout.state(),
            "open": {
                "lengths": np.array([len(of_member) for of_member in self.open]),
                **{name: np.array(field, np.float32) for name, field in zip(names, fields, strict=True)},
            },
            "loop": {
                "step": np.array(self.step),
                "reported": np.array(self.reported),
                "updates": np.array(self.updates),
                "best": self.best.copy(),
                "level": self.level.copy(),
                "best_asks": self.best_asks.copy(),
                "trust": self.trust.copy(),
                "asks": self.asks.copy(),
                "tries": self.tries.copy(),
                "prompt": self.prompt.copy(),
                "stored": self.stored.copy(),
                "count": count,
                "recent": np.array(recent, np.float64).reshape(-1, 3),
            },
            "met": {name: values.copy() for name, values in self.met.items()},
            "sums": sums,
            "history": self.metrics.state(),
        }

    def _restore(self, state: dict[str, Any], fresh_episodes: bool) -> None:
        source = str(self.checkpoints.folder)
        self.learner = fill(self.learner, state["learner"], source)
        self.kept = fill(self.kept, state["kept"], source)
        self.memory = self.replay.restore(self.memory, state["memory"])
        loop, kept = state["loop"], state["open"]
        self.step, self.updates = int(loop["step"]), int(loop["updates"])
        self.reported = int(loop.get("reported", self.step))
        for name in ("best", "best_asks", "trust", "level", "asks", "tries", "prompt", "stored"):
            setattr(self, name, loop[name].copy())
        self.averages.restore(loop["count"], state.get("sums", {}))
        self.met = {name: values.copy() for name, values in state.get("met", {}).items()}
        for i, ret, length in loop["recent"]:
            self.recent[int(i)].append((float(ret), float(length)))
        ends = np.cumsum(kept["lengths"])
        if fresh_episodes:
            kept = {**kept, "lengths": np.zeros_like(kept["lengths"])}
        names = ("observation", "action", "reward", "next_observation")
        for member, (end, length) in enumerate(zip(ends, kept["lengths"], strict=True)):
            self.open[member] = [tuple(kept[name][t] for name in names) for t in range(end - length, end)]
        noise = jnp.asarray(0.0, jnp.float32)
        explorers = self.explorers(self.learner, jnp.asarray(self.tries), noise)
        self.rollout.restore(state["rollout"], explorers, fresh=fresh_episodes)


def _padded(
    rows: list[tuple[np.ndarray, ...]], spec: Spec, asked: float, length: int | None = None, terminated: bool = False
) -> Episode:
    """An episode from its steps, in host memory; no steps are no episode."""
    steps = len(rows)
    length = length or max(SHORTEST, 1 << steps.bit_length())  # a power of two above T: few shapes are compiled
    observations = np.zeros((length, spec.observation_size), np.float32)
    actions = np.zeros((length, spec.action_size), np.float32)
    rewards = np.zeros(length, np.float32)
    for t, (observation, action, reward, _) in enumerate(rows):
        observations[t], actions[t], rewards[t] = observation, action, reward
    if steps:
        observations[steps] = rows[-1][3]
    fields: tuple[Any, ...] = (np.int32(steps), np.bool_(terminated), np.float32(asked))
    return Episode(observations, actions, rewards, *fields)  # type: ignore[arg-type]


def _resized(episode: Episode, rows: int) -> Episode:
    """With more padding."""
    more = rows - len(episode.rewards)
    if not more:
        return episode
    arrays = (np.asarray(array) for array in (episode.observations, episode.actions, episode.rewards))
    wider = (np.concatenate([array, np.zeros((more, *array.shape[1:]), array.dtype)]) for array in arrays)
    return Episode(*wider, episode.steps, episode.terminated, episode.asked)  # type: ignore[arg-type]


@jax.jit
def chosen(where: Array, yes: Any, no: Any) -> Any:
    """Seed by seed, one tree or the other."""
    return jax.tree.map(lambda y, n: jnp.where(where.reshape(-1, *(1,) * (y.ndim - 1)), y, n), yes, no)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=(3,))
def put(
    module: ModuleType, tuning: Any, learner: Any, memory: Any, episode: Episode
) -> tuple[Any, dict[str, Float[Array, " seeds"]]]:
    """An episode of every seed into its replay."""
    return jax.vmap(partial(module.add, tuning))(learner, memory, episode)


@partial(jax.jit, static_argnums=(0,), donate_argnums=(2,))
def renew(module: ModuleType, learner: Any, memory: Any) -> Any:
    """The replays with their states computed anew."""
    return jax.vmap(module.refresh)(learner, memory)


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=(3,))
def advance(
    module: ModuleType,
    tuning: Any,
    joint: bool,
    learner: Any,
    memory: Any,
    keys: PRNGKeyArray,
    first: int,
    count: Int[Array, ""] | int,
) -> tuple[Any, dict[str, Float[Array, " seeds"]]]:
    """`count` updates of every seed in one dispatch. Returns the sums of their metrics too.

    The i-th update of a run draws from `fold_in(key, i)`, whichever call makes it.
    """

    def one_seed(learner: Any, memory: Any, key: PRNGKeyArray) -> tuple[Any, dict[str, Array]]:
        def update(learner: Any, i: Array | int) -> tuple[Any, dict[str, Array]]:
            return module.update(tuning, learner, memory, jax.random.fold_in(key, i), joint)

        def turn(i: Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            learner, metrics = update(carry[0], i)
            return learner, jax.tree.map(jnp.add, carry[1], metrics)

        shapes = jax.eval_shape(update, learner, first)[1]
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return jax.lax.fori_loop(first, first + count, turn, (learner, nothing))

    return jax.vmap(one_seed)(learner, memory, keys)

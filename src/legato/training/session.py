"""One training run in progress: what learning by acting, learning from logs and fine-tuning have in common.

A `Loop` makes turns and measures. The session shows progress, evaluates, logs and saves when their time has come,
refreshes what an algorithm asks to have refreshed, answers signals and resumes. Randomness derives from (seed, number
of the step or update), so a checkpoint holds no generator and a resumed run repeats what an unbroken one does.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from legato.algorithms import entry
from legato.algorithms.protocol import Counts
from legato.data.device_memory import refuse_beyond
from legato.training.averages import Averages
from legato.training.checkpoint import Checkpoints
from legato.training.claim import Claim, claim
from legato.training.initialise import init_learners
from legato.training.interruption import supervise
from legato.training.metrics import Metrics, kept_history
from legato.training.policy_file import fill, match, named_leaves
from legato.training.progress import Progress
from legato.training.run import Run

Refreshed = tuple[Any, Any]


class Loop(Protocol):
    """What one kind of training does. It keeps to itself what only it carries (`state`, `restore`)."""

    @property
    def title(self) -> str:
        """of the progress bar"""
        ...

    @property
    def columns(self) -> list[str]:
        """of metrics, after step and seed"""
        ...

    @property
    def end(self) -> int:
        """steps or updates of the whole run"""
        ...

    @property
    def command(self) -> str:
        """what resumes the run"""
        ...

    @property
    def members(self) -> int | None:
        """environments that are stepped while training"""
        ...

    def begin(self, progress: Progress) -> None:
        """Before the first turn of a run that has just begun."""
        ...

    def turn(self) -> None:
        """Advance the session's `step` and `updates`."""
        ...

    def evaluate(self, progress: Progress) -> Any:
        """Measure the present policies, save `last` and `best`; None where there is nothing to log."""
        ...

    def rows(self, means: list[dict[str, float]], evaluated: Any) -> list[dict[str, float]]:
        """Each seed's row of metrics: the means of its updates' metrics, with what else there is to say."""
        ...

    @property
    def ready(self) -> bool:
        """Is there what an update needs?"""
        ...

    def apply(self, change: Callable[[Any, Any], Refreshed]) -> None:
        """Replace learner and source of batches by what `change` makes of them."""
        ...

    def state(self) -> dict[str, Any]:
        """What it carries, as nested dicts of arrays that nobody else holds; its own numbers below "loop"."""
        ...

    def restore(self, state: dict[str, Any], fresh_episodes: bool) -> None:
        """The inverse of `state`, after the session has restored its part."""
        ...

    def close(self) -> None:
        """End what it has opened."""
        ...


class Session:
    """A run, how far it is, and what its checkpoints hold. `train(loop)` runs it to its end."""

    def __init__(
        self,
        run: Run,
        *,
        unit: Literal["step", "update"] = "step",
        resume: bool = False,
        from_step: int | None = None,
        quiet: bool = False,
        fresh_episodes: bool = False,
    ):
        self.run, self.unit, self.quiet, self.fresh_episodes = run, unit, quiet, fresh_episodes
        self.entry = entry(run.algorithm) if run.method is None else entry(run.method, "finetuning")
        self.config = run.config if run.method is None else run.tuning
        self.claim: Claim | None = claim(run.path, run.place)  # before anything there is looked at
        self.checkpoints = Checkpoints(run.path / "checkpoints", create=not resume)
        self.loaded = self.checkpoints.load(from_step) if resume else None
        self.step = self.updates = 0
        self.reported = 0  # steps (or updates) that were measured and logged
        self.refreshed: Counts | None = None  # at the last refresh
        self.finished = -1  # the step at which it was finished last
        self.best = np.full(len(run.seeds), -np.inf)
        self.averages = Averages(run.seeds, unit)
        self.learner: Any = None
        self.pause: Callable[[int], None] = lambda step: None  # stops the run where a signal asked for it

    def init_learner(
        self,
        module: ModuleType,
        how: tuple[Any, ...],
        each: tuple[Any, ...],
        shared: tuple[Any, ...] = (),
        members: int | None = None,
    ) -> None:
        """The learners of all seeds before the first update (see `init_learners`).

        A checkpoint that holds others, and learners larger than the memory, are refused before anything large is
        allocated. Raises `LegatoError`.
        """
        asked = init_learners.eval_shape(module, how, each, shared)  # which the call below finds traced
        seeds = len(self.run.seeds)
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(asked))
        refuse_beyond(size, f"what {seeds} seeds learn and keep", "lower `seeds`, or what is kept of each")
        if self.loaded is not None:
            state = self.loaded[1]
            with self.checkpoints.restoring(state, seeds, members):
                match(asked, state["learner"], str(self.checkpoints.folder))
        self.learner = init_learners(module, how, each, shared)

    def train(self, loop: Loop) -> None:
        """Run to the last step; save on the way; leave checkpoint and policies behind whatever ends it."""
        self._open(loop)
        self.run.keep_end()
        with supervise(
            loop.title,
            loop.end,
            start=self.step,
            command=loop.command,
            save=self.save,
            close=self._close,
            unit=self.unit,
            quiet=self.quiet,
        ) as (progress, self.pause):
            loop.begin(progress)
            if self.reported < self.step:  # it was stopped in an evaluation, or before it
                self._finish(progress)
                self._report(self.reported, progress)
            while self.step < loop.end:
                self._refresh(progress)
                loop.turn()
                self._finish(progress)
                self._report(self.reported, progress)
                self.pause(self.step)

    def _open(self, loop: Loop) -> None:
        """Go on from the checkpoint, if there is one, and with the history of metrics up to it."""
        self.loop = loop
        if self.loaded is None:
            self.metrics = Metrics(self.run, loop.columns)
            return
        step, state = self.loaded
        with self.checkpoints.restoring(state, len(self.run.seeds), loop.members):
            self._restore(state)
        kept = kept_history(self.run, self.reported, state.get("history"))
        self.checkpoints.discard_after(step)
        if self.fresh_episodes:
            self.run.mark_fresh_episodes(step)
        self.metrics = Metrics(self.run, loop.columns, self.reported, kept)
        self.loaded = None  # a replay is large

    def _close(self) -> None:
        self.metrics.close()
        self.loop.close()
        try:
            self.checkpoints.close()  # last: a full disk shows here, and nothing else may be lost by it
        finally:
            self.claim = None

    # --- between turns ---

    def _refresh(self, progress: Progress) -> None:
        """Let the algorithm do its work between turns, where it is due: a model is fitted, states are renewed.

        A signal stops it: the checkpoint is one of before, and who resumes begins it again.
        """
        if "refresh" not in self.entry.offers or not self.loop.ready:
            return
        last, now = self.refreshed, self.counts
        if not self.entry.function("refresh_due")(self.config, self.learner, last, now):
            return

        def refreshed(learner: Any, source: Any) -> Refreshed:
            show = self._show(progress)
            return self.entry.function("refresh")(self.config, learner, source, self._host_keys(), show, last, now)

        self.loop.apply(refreshed)
        progress.show_status("")
        self.refreshed = now

    def _finish(self, progress: Progress) -> None:
        """Let the algorithm do what it does when the run ends, once, before the last evaluation."""
        if "finish" not in self.entry.offers or self.step < self.loop.end or self.finished == self.step:
            return

        def finished(learner: Any, source: Any) -> Refreshed:
            show = self._show(progress)
            return self.entry.function("finish")(self.config, learner, source, self._host_keys(), show), source

        self.loop.apply(finished)
        self.finished = self.step
        self.checkpoints.discard_after(self.step - 1)  # one of here, where a signal came, is not finished

    def _show(self, progress: Progress) -> Callable[[int, int, str], None]:
        """How work between turns is shown; a signal stops it there."""

        def show(done: int, total: int, what: str) -> None:
            progress.show_status(f"{what}: {100 * done // max(total, 1)} %")
            self.pause(self.step)

        return show

    def _host_keys(self) -> Array:
        """Each seed's key for work between turns."""
        keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), 2**31 - 1))(np.array(self.run.seeds))
        return jax.vmap(lambda key: jax.random.fold_in(key, self.step))(keys)

    @property
    def counts(self) -> Counts:
        """How far it is."""
        return Counts(self.step, self.updates, self.loop.end)

    def _report(self, before: int, progress: Progress) -> None:
        """Evaluate, log and checkpoint when their time has come; the end of the run counts for all three."""
        s, end = self.run.settings, self.loop.end
        evaluates, logs, saves = (
            self.step // every > before // every or self.step >= end
            for every in (s.eval_every, s.log_every, s.checkpoint_every)
        )
        progress.step(min(self.step, end))
        if evaluates or logs or saves:
            self.averages.read(self.checkpoints.steps())
        evaluated = self.loop.evaluate(progress) if evaluates else None
        if evaluated is not None or logs:
            self.log(evaluated)
            self.metrics.speed(self.step, progress.rate(self.step), f"{self.unit}s")
        self.reported = self.step
        if saves:
            self.save()

    def log(self, evaluated: Any) -> None:
        """A row of metrics for each seed."""
        rows = self.loop.rows(self.averages.take(), evaluated)
        for seed, row in zip(self.run.seeds, rows, strict=True):
            self.metrics.write(self.step, seed, row)

    def keep_best(self, scores: np.ndarray) -> np.ndarray:
        """Which seeds' policies are better than all before, by these scores `[seeds]`, which count from now on."""
        better = scores > self.best
        self.best = np.maximum(self.best, scores)
        return better

    # --- checkpoints ---

    def save(self) -> None:
        """Write a checkpoint."""
        self.averages.read(self.checkpoints.steps())
        self.checkpoints.save(self.step, self._state())

    def _state(self) -> dict[str, Any]:
        own = self.loop.state()
        count, sums = self.averages.state()
        numbers = {
            "step": np.array(self.step),
            "reported": np.array(self.reported),
            "updates": np.array(self.updates),
            "refreshed": np.array(-1 if self.refreshed is None else self.refreshed.updates),
            "refreshed_step": np.array(-1 if self.refreshed is None else self.refreshed.steps),
            "finished": np.array(self.finished),
            "best": self.best.copy(),
            "count": count,
        }
        return {
            **own,
            "learner": named_leaves(self.learner),
            "loop": {**numbers, **own.get("loop", {})},
            "sums": sums,
            "history": self.metrics.state(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        loop = state["loop"]
        self.learner = fill(self.learner, state["learner"], str(self.checkpoints.folder))
        self.step = int(loop["step"])
        self.reported = int(loop.get("reported", self.step))  # older checkpoints lack this and the next two
        self.updates = int(loop.get("updates", self.step))
        refreshed = int(loop.get("refreshed", self.updates))
        at_step = int(loop.get("refreshed_step", self.step))  # a little older ones lack this
        self.refreshed = None if refreshed < 0 else Counts(at_step, refreshed)
        self.finished = int(loop.get("finished", self.step))
        self.best = loop["best"].copy()
        self.averages.restore(loop["count"], state.get("sums", {}))
        self.loop.restore(state, self.fresh_episodes)


@jax.jit
def where_seed(where: Array, yes: Any, no: Any) -> Any:
    """Seed by seed, one tree or the other."""
    return jax.tree.map(lambda y, n: jnp.where(where.reshape(-1, *(1,) * (y.ndim - 1)), y, n), yes, no)

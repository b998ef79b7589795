"""One tiny run of every algorithm, and of every way to fine-tune, which all tests of this folder read.

A new algorithm gives its tiny options to `SMALL`, and nothing else.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.tiny import LOGGED, logs

from legato import api
from legato.algorithms import entries
from legato.algorithms.entry import Entry
from legato.options import hints
from legato.policy import Policy
from legato.training import finetune, offline, online
from legato.training.run import Run
from legato.training.session import Session

ALL = entries("online", "offline", "finetuning")
ENV, LIMIT = "Pendulum-v1", 12  # steps of an episode

# Random logs are foreign to the environment, and a model of trajectories says so.
FOREIGN = pytest.mark.filterwarnings("ignore:observations lay outside")

ACTING: dict[str, Any] = {"hidden": 8, "batch_size": 8}
IMAGINING: dict[str, Any] = {
    **ACTING,
    **{"members": 2, "elites": 1, "model_hidden": (8,), "model_batch_size": 8, "first_fit": 20, "refit_every": 20},
    **{"rollouts": 16, "rollout_length": (1, 2), "rollout_growth": (20, 40), "fit_most": 20, "fit_epoch": 5},
}
CRITICS: dict[str, Any] = {**ACTING, "layers": 1, "warmup": 1, "critic_updates": 1, "updates": 1}
MODEL: dict[str, Any] = {"members": 2, "elites": 2, "model_hidden": (8,), "rollouts": 8}
MODELS: dict[str, Any] = {"members": 2, "model_hidden": (8, 8), "fit_updates": 10, "fit_steps": 2}
SMALL: dict[str, dict[str, Any]] = {
    "sac": {**ACTING, "action_repeat": 2},
    "td3": ACTING,
    "temporl": {**ACTING, "max_skip": 4},
    "srl": {**ACTING, "horizon": 4, "model_hidden": (8, 8)},
    "mbpo": {**IMAGINING, "imagine_every": 10},
    "cmlo": {**IMAGINING, "check_every": 4, "shortest": 8, "longest": 16, "termination": "learned"},
    "usac": {
        **ACTING,
        "horizon": 4,
        "members": 2,
        "model_hidden": (8, 8),
        "n_step": 2,
        "fit_updates": 10,
        "fit_steps": 2,
    },
    **{name: {**sizes, "batch_size": 6} for name, sizes in LOGGED.items()},  # as no other test has
    "mopo": {**ACTING, **MODEL, "real_share": 0.5, "fit_most": 10, "imagine_every": 50, "termination": "never"},
    "tt": {**LOGGED["tt"], "batch_size": 6, "beams": 4, "horizon": 2},
    "ds4-ac": {**CRITICS, "every": 6, "start_steps": 12, "critic_steps": 24, "offline_steps": 20, "refresh_every": 2},
    "ds4-rw": {"every": 6, "updates": 1, "episodes": 5, "batch_size": 2, "warmup": 1},
    "odt-online": {**CRITICS, "every": 6, "episodes": 6, "td3": 0.3, "critic_steps": 24},
}
# Checkpoints are due between two rows of metrics. Where a run is stopped, none of them is due.
TIMES: dict[str, dict[str, Any]] = {
    "online": {"steps": 60, "start_steps": 20, "eval_every": 30, "log_every": 15, "checkpoint_every": 20},
    "offline": {"updates": 200, "eval_every": 100, "log_every": 100, "checkpoint_every": 150},
    "finetuning": {"steps": 72, "eval_every": 36, "log_every": 18, "checkpoint_every": 48},
}
TIMES["online"] |= {"capacity": 64}
TIMES["finetuning"] |= {"capacity": 60}  # a ring that goes round
STOPS = {"online": 44, "offline": 50, "finetuning": 30}
"""steps, or updates, after which a signal comes: of td3 an odd number of updates, as its actor moves every second"""


@dataclass(frozen=True)
class Case:
    """What a run left behind, on disk and in memory."""

    entry: Entry
    run: Run
    loop: Any
    traced: tuple[int, ...]
    """after how many turns had begun an update was traced; of a fine-tuning, one of all its parts together"""

    @property
    def learner(self) -> Any:
        """Of both seeds, at the end."""
        return self.loop.session.learner

    def advance(self, learner: Any, *, swapped: bool = False, first: int = 7) -> tuple[Any, dict[str, jax.Array]]:
        """An update (online: a turn's) from the run's data by the program that trained, the two seeds `swapped` or not.

        The learner that is given stays whole.
        """
        source = {"online": "replay", "offline": "data", "finetuning": "replay"}[self.entry.learns]
        keys, own = self.loop.update_keys, getattr(self.loop, source)
        if swapped:  # logs are of all seeds
            learner, keys = (other_way_round(tree) for tree in (learner, keys))
            own = own if self.entry.learns == "offline" else other_way_round(own)
        learner, module, config = copied(learner), self.entry.load(), self.loop.session.config
        if self.entry.learns == "offline":
            return offline.advance(module, config, self.loop.batch_specs, learner, own, keys, first, 1)
        if self.entry.learns == "finetuning":
            return finetune.advance(module, config, True, learner, own, keys, first, 1)
        rows = np.zeros((2, self.loop.turn_steps, own.rows.shape[-1]), np.float32)  # none of them is added
        given = self.loop.turn_updates, learner, copied(own), rows, np.zeros(2, np.int32)
        learner, _, metrics = online.advance(module, config, *given, keys, first)
        return learner, metrics

    def policies(self, learner: Any) -> Policy[Any]:
        """What both seeds deploy."""
        if self.entry.learns == "finetuning":
            return self.loop.policies(learner, jnp.asarray(self.loop.eval_target))
        return deployed(self.entry.load(), self.run.config, learner)

    @property
    def policy(self) -> Policy[Any]:
        """What the first seed deploys at the end."""
        return seed_of(self.policies(self.learner), 0)


@partial(jax.jit, static_argnums=(0, 1))
def deployed(module: ModuleType, config: Any, learner: Any) -> Policy[Any]:
    """Both seeds' policies."""
    return jax.vmap(partial(module.policy, config))(learner)


@jax.jit
def copied(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


@jax.jit
def other_way_round(tree: Any) -> Any:
    """The second seed first."""
    return jax.tree.map(lambda leaf: leaf[::-1], tree)


def seed_of(tree: Any, place: int) -> Any:
    """The numbers of one seed."""
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[place]), tree)


@cache
def folder() -> Path:
    """Of all runs of this process."""
    _kept.append(TemporaryDirectory(prefix="legato-conformance-"))
    return Path(_kept[0].name)


_kept: list[TemporaryDirectory[str]] = []


@cache
def dataset() -> str:
    """Random numbers in the shapes of the environment."""
    return logs(folder() / "swings.npz")


@cache
def case(name: str) -> Case:
    """The run of an algorithm, seeds 3 and 4, in one go. Read only."""
    assert name in SMALL, f"give tiny options of {name} to SMALL in {__file__}"
    module, loops, turns, traced = ALL[name].load(), [], [], []
    run, update = Session.train, module.update

    def watched(session: Session, loop: Any) -> None:
        turn = loop.turn
        loop.turn = lambda: (turns.append(session.step), turn())
        loops.append(loop)
        run(session, loop)

    def tracing(*args: Any) -> Any:
        if ALL[name].learns != "finetuning" or args[-1]:
            traced.append(len(turns))
        return update(*args)

    if ALL[name].learns == "finetuning":
        case(ALL[name].continues[0])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Session, "train", watched)
        patched.setattr(module, "update", tracing)
        found = train(name, folder() / name)
    assert len(turns) > 1
    return Case(ALL[name], found, loops[0], tuple(traced))


def train(name: str, out: Path, **options: Any) -> Run:
    """The same run once more."""
    found = ALL[name]
    given = {
        **SMALL[name],
        **TIMES[found.learns],
        "max_episode_steps": LIMIT,
        "eval_episodes": 2,
        "quiet": True,
        **options,
    }
    if found.learns == "finetuning":
        return api.finetune(case(found.continues[0]).run, ENV, method=name, out=out, **given)
    given |= {"seed": 3, "seeds": 2}
    if "anneal_over" in hints(found.config):
        given["anneal_over"] = -1  # step sizes fall over the whole run
    data = {"dataset": dataset(), "env": ENV} if found.learns == "offline" else {"env": ENV}
    return api.train(name, out=out, **data, **given)


def resume(name: str, out: Path) -> Run:
    """Go on with a run that was stopped."""
    again: Callable[..., Run] = api.finetune if ALL[name].learns == "finetuning" else api.train
    return again(resume=out, quiet=True)


@contextmanager
def ctrl_c_after(step: int) -> Iterator[None]:
    """Let Ctrl-C come after the turn with which so many steps are reached."""
    report, sent = Session._report, []

    def reported(session: Session, *args: Any) -> None:
        report(session, *args)
        if session.step >= step and not sent:
            sent.append(step)
            signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Session, "_report", reported)
        yield

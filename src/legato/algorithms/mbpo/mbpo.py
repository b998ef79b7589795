"""MBPO (Janner et al. 2019, arXiv 1906.08253), and CMLO (Ji et al. 2022, arXiv 2210.08349), which refits when due.

    p_k(s' - s, r | s, a) = N(mu_k, diag sigma_k^2)       an ensemble, fitted to all real transitions
    D_m <- D_m + { k steps of pi in p from states of D }   whenever it was fitted, each step by a random elite
    SAC on minibatches of which `real_share` is from D and the rest from D_m

The model is fitted every `refit_every` steps (MBPO), or where the trigger of `models.refit_trigger` says that the old
model and a new one have come apart (CMLO). With real transitions alone (`real_share=1`) this is SAC.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from legato.algorithms.mbpo import imagination, known
from legato.algorithms.mbpo.config import MBPO as Config
from legato.algorithms.mbpo.imagination import Learner, Rows
from legato.algorithms.protocol import Counts
from legato.algorithms.soft_actor_critic import HeldAction
from legato.data.replay import Replay, ReplayBatchSpec, Transition, scale_actions, unpack
from legato.data.spec import Spec
from legato.models import refit_trigger
from legato.models.refit_trigger import TriggerOptions, TriggerState
from legato.nn.conv_lstm import check_grid

REPORTED = ("model_error", "model_updates", "refits", "imagined_steps", "imagined_reward", "imagined_lost")
OF_TRIGGER = ("shift", "prediction_error")


def check(config: Config, spec: Spec, environment: str) -> None:
    """Raises `LegatoError` for an environment that no model is made for, for a grid that the strides of a model do not
    divide, and for a pool larger than the memory."""
    imagination.check(config, spec)
    if config.model == "convlstm":
        check_grid(spec.observation_size)


def for_environment(config: Config, spec: Spec, environment: Any) -> Config:
    """The hyper-parameters with the termination and the reward that the environment knows, or not."""
    return dataclasses.replace(config, **known.resolve(config, environment))


def init(config: Config, spec: Spec, key: PRNGKeyArray) -> Learner:
    """A learner before its first update."""
    event = config.update == "event"
    learner = imagination.init(config, spec, key, REPORTED + (OF_TRIGGER if event else ()))
    if not event:
        return learner
    empty = refit_trigger.start(_trigger(config), np.zeros((1, spec.observation_size), np.float32))
    return eqx.tree_at(lambda whole: whole.trigger, learner, _arrays(empty), is_leaf=lambda leaf: leaf is None)


def update(
    config: Config, learner: Learner, batch: tuple[Transition], key: PRNGKeyArray
) -> tuple[Learner, dict[str, Float[Array, ""]]]:
    """One update of SAC."""
    return imagination.update(config, learner, scale_actions(batch[0], learner.sac.spec), key)


def policy(config: Config, learner: Learner) -> HeldAction:
    """The deployable part: the actor alone."""
    return imagination.policy(learner)


def new_policy(config: Config, spec: Spec, key: PRNGKeyArray) -> HeldAction:
    """`policy` of what `init` gives, without what only learns."""
    return imagination.new_policy(config, spec, key)


def batches(config: Config) -> ReplayBatchSpec:
    """The real transitions of a minibatch."""
    return ReplayBatchSpec(max(1, imagination.real_rows(config)))


def plan_length(config: Config) -> int:
    """Primitive steps between decisions while training."""
    return 1


# --- between turns ---


def refresh_due(config: Config, learner: Learner, last: Counts | None, now: Counts) -> bool:
    """Is the model to be fitted, looked at or unrolled after so many steps?"""
    if last is None:
        return now.steps >= config.first_fit
    if config.real_share == 1:
        return False
    if config.update == "event":
        since_fit = int(np.max(learner.trigger.steps)) + now.steps - last.steps
        return _crosses(config.check_every, last, now) or since_fit >= config.longest
    return any(_crosses(every, last, now) for every in (config.refit_every, config.imagine_every))


def _crosses(every: int, last: Counts, now: Counts) -> bool:
    return every > 0 and now.steps // every > last.steps // every


def refresh(
    config: Config,
    learner: Learner,
    replay: Replay,
    keys: PRNGKeyArray | Array,
    show: Callable[[int, int, str], None],
    last: Counts | None,
    now: Counts,
) -> tuple[Learner, Replay]:
    """All seeds' learners with their models fitted where that is due, and new imagined transitions."""
    if config.real_share == 1:
        return learner, replay
    found = []
    for i, key in enumerate(keys):
        of_seed, added = imagination.select_seed(learner, i), int(replay.added[i])
        s, a, r, s_next, continues = _rows(imagination.select_seed(replay, i))
        filled, newest = min(added, replay.capacity), (added - 1) % replay.capacity
        rows = Rows(s, a, r, s_next, continues, filled, newest, replay.members)
        found.append(_refreshed(config, of_seed, rows, key, show, last, now))
    return imagination.stack_seeds(found), replay


def _refreshed(
    config: Config,
    learner: Learner,
    rows: Rows,
    key: PRNGKeyArray,
    show: Callable[[int, int, str], None],
    last: Counts | None,
    now: Counts,
) -> Learner:
    """One seed's."""
    k_fit, k_imagine = jax.random.split(key)
    due = last is None
    if config.update == "event":
        learner, due = _look(config, learner, rows, last, now)
    elif last is not None:
        due = _crosses(config.refit_every, last, now)
    if due:
        learner = imagination.fit(config, learner, rows, k_fit, show)
        if config.update == "event":
            learner = _watched(config, learner, rows, last)
    return imagination.imagine(config, learner, rows, now.steps, k_imagine)


# --- CMLO's trigger ---


def _trigger(config: Config) -> TriggerOptions:
    return TriggerOptions(
        variant=config.trigger,
        scale=config.trigger_scale,
        check_every=config.check_every,
        threshold=config.threshold,
        shortest=config.shortest,
        longest=config.longest,
    )


def _look(config: Config, learner: Learner, rows: Rows, last: Counts | None, now: Counts) -> tuple[Learner, bool]:
    """The learner after its model has been held against the newest steps, and whether it is to be fitted again."""
    if last is None:
        return learner, True
    options, steps = _trigger(config), now.steps - last.steps
    state = refit_trigger.count_steps(_state(learner.trigger), steps)
    s, error = _errors(options, learner, rows, steps)
    state = refit_trigger.observe_error(state, error)
    read = {"new": s, "replay": _filled(rows)[0], "nothing": None}[options.reads]
    state, due = refit_trigger.check(options, state, read)
    shown = {"shift": float(state.shift), "prediction_error": float(np.mean(error))}
    report = {**learner.report, **{name: jnp.asarray(value, jnp.float32) for name, value in shown.items()}}
    return eqx.tree_at(lambda whole: (whole.trigger, whole.report), learner, (_arrays(state), report)), due


def _errors(options: TriggerOptions, learner: Learner, rows: Rows, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The newest observations, and the elites' errors on what came of them, `[elites, rows]`."""
    place = (rows.newest - np.arange(min(steps, rows.filled))) % len(rows.observation)
    s, a, s_next = (np.asarray(part)[place] for part in (rows.observation, rows.action, rows.next_observation))
    unit = refit_trigger.change_unit(*_filled(rows))
    means = s + np.asarray(_means(learner, s, a))[..., : s.shape[-1]]
    return s, refit_trigger.prediction_error(options, means, s_next, unit)


def _watched(config: Config, learner: Learner, rows: Rows, last: Counts | None) -> Learner:
    """The learner, whose trigger begins anew."""
    options, seen = _trigger(config), _filled(rows)[0]
    if last is None:
        state = refit_trigger.start(options, seen)
    else:
        state = refit_trigger.restart(options, _state(learner.trigger), seen)
    if options.variant == "cusum":
        state = refit_trigger.expect_error(state, _errors(options, learner, rows, config.longest)[1])
    return eqx.tree_at(lambda whole: whole.trigger, learner, _arrays(state))


def _filled(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(rows.observation)[: rows.filled], np.asarray(rows.next_observation)[: rows.filled]


def _arrays(state: TriggerState) -> Any:
    """On the device."""
    return jax.tree.map(jnp.asarray, state)


def _state(arrays: Any) -> TriggerState:
    return jax.tree.map(np.asarray, arrays)


@jax.jit
def _means(learner: Learner, s: Float[Array, "rows obs"], a: Float[Array, "rows act"]) -> Float[Array, "elites rows y"]:
    return learner.model.elite_means(s, a)


@jax.jit
def _rows(replay: Replay) -> tuple[Array, ...]:
    spec = replay.spec
    rows = scale_actions(unpack(replay.rows, spec), spec)
    return rows.observation, rows.action, rows.reward, rows.next_observation, rows.continues

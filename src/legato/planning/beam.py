"""Beam search in a trajectory model (Janner et al. 2021, arXiv 2106.02039, section 3 and the official code).

`best_return` looks for much reward: every beam is continued `expand` times by sampled actions; reward and value follow,
and the beams with the largest

    sum_{k <= t} gamma^k E[r_k] + gamma^(t+1) E[V_t]          or, where a critic judges,
    sum_{k < t} gamma^k E[r_k] + gamma^t min_i Q_i(s_t, a_t)

go on to a predicted next state. `likeliest` looks for what the data would have done: the sequence of largest
log-probability, token by token. Both are one compiled program per plan. In each the model reads a window of C steps:
the last C - 1, and the one being written.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from legato.data.tokens import Discretiser
from legato.models.q_functions import QFunction
from legato.models.trajectory import Now, Past, TrajectoryModel

REMOVED = -1000.0  # the logit of a token that a filter takes out; where it takes out all, all are alike


@dataclass(frozen=True)
class Filter:
    """Which tokens may be sampled."""

    k: int | None = None
    """the k likeliest"""
    cdf: float | None = None
    """all but the least likely that together hold less than this"""
    temperature: float = 1.0

    @property
    def greedy(self) -> bool:
        return self.k == 1

    def __call__(self, logits: Float[Array, "*batch outputs"]) -> Float[Array, "*batch outputs"]:
        logits = logits / self.temperature
        if self.cdf is not None:
            # Sorted from the least likely on, a token goes if the mass up to and including it stays below `cdf`; of
            # several equally likely ones all go with the first. Sums over pairs: a CPU sorts slowly.
            p = jax.nn.softmax(logits, axis=-1)
            below = jnp.sum(jnp.where(p[..., None, :] < p[..., None], p[..., None, :], 0), axis=-1)
            logits = jnp.where(below + p < self.cdf, REMOVED, logits)
        if self.k is not None:
            above = jnp.sum(logits[..., None, :] > logits[..., None], axis=-1)
            logits = jnp.where(above < self.k, logits, REMOVED)
        return logits

    def pick(self, logits: Float[Array, "*batch outputs"], key: PRNGKeyArray) -> Int[Array, "*batch"]:
        """A token of those that are left."""
        if self.greedy:
            return jnp.argmax(logits, axis=-1).astype(jnp.int32)
        return jax.random.categorical(key, self(logits)).astype(jnp.int32)


GREEDY = Filter(k=1)


@dataclass(frozen=True)
class Search:
    """How widely and how far to look."""

    horizon: int = 15
    """steps of a plan, H"""
    beams: int = 128
    """sequences kept after each step, B"""
    expand: int = 2
    """continuations tried of each, E"""
    gamma: float = 0.99
    """discount per step"""
    actions: Filter = Filter(cdf=0.6)
    observations: Filter = GREEDY
    percentile: float | None = None
    """judge rewards and values by this share of their distribution instead of by their mean"""
    elite_count: int = 1
    """plans whose actions are averaged, of a search for return"""
    plan_temperature: float = 0.0
    """what they are weighed by: see `shares`"""


class Plans(eqx.Module):
    """What a search found, best first."""

    tokens: Int[Array, "plans horizon columns"]
    """the steps of each plan; the first begins with the present observation"""
    score: Float[Array, " plans"]
    """the return from now on that is expected of it, or its log-probability"""


class Beam(eqx.Module):
    """Sequences on their way, best first."""

    window: Int[Array, "beams steps columns"]
    """the last C - 1 steps of each"""
    count: Int[Array, ""]
    """how many of these there are"""
    tokens: Int[Array, "beams horizon columns"]
    paid: Float[Array, " beams"]
    """sum_{k <= t} gamma^k E[r_k]"""
    score: Float[Array, " beams"]
    steps: Int[Array, ""]
    """t + 1"""

    @property
    def plans(self) -> Plans:
        return Plans(self.tokens, self.score)


def best_return(
    model: TrajectoryModel,
    discretiser: Discretiser,
    search: Search,
    past: Int[Array, "steps columns"],
    count: Int[Array, ""],
    newest: Int[Array, " obs"],
    key: PRNGKeyArray,
    q_function: QFunction | None = None,
) -> Plans:
    """Plans of large expected return, after the last `count` of the `past` steps, from the newest observation."""
    k_first, k_rest = jax.random.split(key)
    beam = begin(model, discretiser, search, past, count, newest, k_first, q_function)

    def turn(beam: Beam, key: PRNGKeyArray) -> tuple[Beam, None]:
        return extend(model, discretiser, search, beam, key, q_function), None

    return jax.lax.scan(turn, beam, jax.random.split(k_rest, search.horizon - 1))[0].plans


def begin(
    model: TrajectoryModel,
    discretiser: Discretiser,
    search: Search,
    past: Int[Array, "steps columns"],
    count: Int[Array, ""],
    newest: Int[Array, " obs"],
    key: PRNGKeyArray,
    q_function: QFunction | None = None,
) -> Beam:
    """All beams after their first step: `beams` x `expand` continuations of one and the same state."""
    read, now, h = model.prime(past[None], count, newest[None])
    tokens = jnp.zeros((1, 1, model.layout.width), jnp.int32).at[..., : len(newest)].set(newest)
    beam = Beam(
        past[None],
        count,
        jnp.zeros((1, search.horizon, model.layout.width), jnp.int32),
        jnp.zeros(1),
        jnp.zeros(1),
        jnp.zeros((), jnp.int32),
    )
    return _act(model, discretiser, search, beam, read, now, h, tokens, search.beams * search.expand, key, q_function)


def extend(
    model: TrajectoryModel,
    discretiser: Discretiser,
    search: Search,
    beam: Beam,
    key: PRNGKeyArray,
    q_function: QFunction | None = None,
) -> Beam:
    """All beams one step further."""
    k_observation, k_act = jax.random.split(key)
    observations = model.layout.observations
    read, now, h = model.prime(beam.window, beam.count)
    tokens = jnp.zeros((search.beams, 1, model.layout.width), jnp.int32)
    now, _, h, tokens = _write(
        model, read, now, h[:, None], tokens, (0, observations), search.observations, k_observation
    )
    return _act(model, discretiser, search, beam, read, now, h[:, 0], tokens, search.expand, k_act, q_function)


def _write(
    model: TrajectoryModel,
    read: Past,
    now: Now,
    h: Float[Array, "rows beams size"],
    tokens: Int[Array, "rows beams columns"],
    columns: tuple[int, int],
    allowed: Filter,
    key: PRNGKeyArray,
    greedy: int = -1,
    goes_on: Bool[Array, ""] | bool = False,
) -> tuple[Now, Float[Array, "rows beams size"], Float[Array, "rows beams size"], Int[Array, "rows beams columns"]]:
    """Pick the tokens of these columns one after another; of column `greedy` the likeliest; of the others no stop
    where the episode certainly `goes_on`.

    Returns what was kept, the network's output before the last of them and after it, and the tokens.
    """

    def turn(column: Array, carry: tuple[Now, Array, Array, Array]) -> tuple[Now, Array, Array, Array]:
        now, _, h, tokens = carry
        logits = model.logits(h, column)
        logits = logits.at[..., -1].add(jnp.where(goes_on & (column != greedy), REMOVED, 0.0))
        token = allowed.pick(logits, jax.random.fold_in(key, column))
        if not allowed.greedy:
            token = jnp.where(column == greedy, GREEDY.pick(logits, key), token)
        now, after = model.step(read, now, token, column)
        return now, h, after, jax.lax.dynamic_update_slice(tokens, token[..., None], (0, 0, column))

    return jax.lax.fori_loop(*columns, turn, (now, h, h, tokens))


def _act(
    model: TrajectoryModel,
    discretiser: Discretiser,
    search: Search,
    beam: Beam,
    read: Past,
    now: Now,
    h: Float[Array, "rows size"],
    tokens: Int[Array, "rows 1 columns"],
    expand: int,
    key: PRNGKeyArray,
    q_function: QFunction | None,
) -> Beam:
    """`expand` actions for each row, what they are worth, and the best of all."""
    layout, rows = model.layout, len(h)
    reward, value = layout.width - 2, layout.width - 1

    def repeated(x: Array, axis: int) -> Array:
        shape = list(x.shape)
        shape[axis] = expand
        return jnp.broadcast_to(x, shape)

    now = jax.tree.map(partial(repeated, axis=2), now)
    h, tokens = repeated(h[:, None], 1), repeated(tokens, 1)
    columns = layout.observations, value
    _, before, h, tokens = _write(
        model, read, now, h, tokens, columns, search.actions, key, greedy=reward, goes_on=beam.steps == 0
    )
    of_reward, of_value = model.logits(before, reward), model.logits(h, value)
    tokens = tokens.at[..., value].set(GREEDY.pick(of_value, key))

    r, v = (worth(x, discretiser.centres[i], search.percentile) for x, i in ((of_reward, reward), (of_value, value)))
    gamma = search.gamma if q_function is None else q_function.gamma
    discount = gamma ** beam.steps.astype(jnp.float32)
    paid = beam.paid[:, None] + discount * (r if q_function is None else q_function.scale_reward(r))
    if q_function is None:
        expected = paid + discount * gamma * v
    else:
        numbers = discretiser.columns(slice(0, reward)).decode(tokens[..., :reward])
        expected = beam.paid[:, None] + discount * q_function(*jnp.split(numbers, [layout.observations], axis=-1))
    score, index = jax.lax.top_k(expected.reshape(-1), search.beams)
    row = index // expand
    chosen = tokens.reshape(rows * expand, -1)[index]
    return Beam(
        jnp.concatenate([beam.window[row, 1:], chosen[:, None]], axis=1),
        jnp.minimum(beam.count + 1, beam.window.shape[1]),
        jax.lax.dynamic_update_slice(beam.tokens[row], chosen[:, None], (0, beam.steps, 0)),
        paid.reshape(-1)[index],
        score,
        beam.steps + 1,
    )


def worth(
    logits: Float[Array, "*batch outputs"], centres: Float[Array, " bins"], percentile: float | None = None
) -> Float[Array, "*batch"]:
    """What a predicted reward or value counts for: its mean, the stop's share worth nothing; or a percentile.

    The percentile, 0 to 1, is that of the bins alone: the first at which their cumulated share exceeds it.
    """
    p = jax.nn.softmax(logits, axis=-1)[..., :-1]
    if percentile is None:
        return p @ centres
    share = jnp.cumsum(p, axis=-1)
    at = jnp.sum(share <= percentile * share[..., -1:], axis=-1)
    return centres[jnp.minimum(at, len(centres) - 1)]


def shares(score: Float[Array, " plans"], temperature: Float[Array, ""] | float) -> Float[Array, " plans"]:
    """What each plan counts for in their mean: exp(score / temperature), summing to 1; all alike at a temperature of 0.

    The weights of model-predictive path integral control (Williams et al. 2017, arXiv 1707.02342), over plans that a
    model of the data proposes instead of noise around the last plan.
    """
    soft = jax.nn.softmax(score / jnp.where(temperature > 0, temperature, 1.0))
    return jnp.where(temperature > 0, soft, 1 / len(score))


# --- by likelihood ---


class Hypotheses(eqx.Module):
    """The likeliest sequences so far, best first."""

    tokens: Int[Array, "beams horizon columns"]
    score: Float[Array, " beams"]
    """log-probability of all tokens that were chosen"""


def likeliest(
    model: TrajectoryModel,
    search: Search,
    past: Int[Array, "steps columns"],
    count: Int[Array, ""],
    newest: Int[Array, " obs"],
    goal: Int[Array, " obs"] | None = None,
) -> Plans:
    """The likeliest plans found, after the last `count` of the `past` steps, from the `newest` observation.

    Each token is the best of all continuations by one token of the `beams` best sequences before. The plan's last step
    is written to its end; with a horizon of 1 and without reward and value it is the action alone, as a policy that
    imitates token by token would choose it if it looked ahead.
    """
    layout, beams = model.layout, search.beams
    tokens = jnp.zeros((beams, search.horizon, layout.width), jnp.int32).at[:, 0, : len(newest)].set(newest)
    found = Hypotheses(tokens, jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf))
    read, now, h = model.prime(past[None], count, newest[None], None if goal is None else goal[None])

    # One row, which is read by all beams.
    now = jax.tree.map(lambda x: jnp.broadcast_to(x, (1, x.shape[1], beams, *x.shape[3:])), now)
    h = jnp.broadcast_to(h[:, None], (1, beams, h.shape[-1]))
    allowed = search.actions, search.observations
    found, window = _spell(model, read, now, h, found, past[None], jnp.zeros((), jnp.int32), len(newest), allowed)

    def turn(t: Array, carry: tuple[Hypotheses, Array]) -> tuple[Hypotheses, Array]:
        found, window = carry
        held = jnp.minimum(count + t, past.shape[0])
        goals = None if goal is None else jnp.broadcast_to(goal, (beams, len(goal)))
        read, now, h = model.prime(window, held, None, goals)
        return _spell(model, read, now, h[:, None], found, window, t, 0, allowed)

    found, _ = jax.lax.fori_loop(1, search.horizon, turn, (found, window))
    return Plans(found.tokens, found.score)


def _spell(
    model: TrajectoryModel,
    read: Past,
    now: Now,
    h: Float[Array, "rows beams size"],
    found: Hypotheses,
    window: Int[Array, "rows steps columns"],
    t: Int[Array, ""],
    first: int,
    allowed: tuple[Filter, Filter],
) -> tuple[Hypotheses, Int[Array, "beams steps columns"]]:
    """All tokens of step t from column `first` on; and the windows of the sequences that are left."""
    layout, beams = model.layout, len(found.score)
    shared = len(h) == 1  # one row of many beams, or many rows of one
    actions, observations = allowed

    def reordered(tree: Any, parent: Array) -> Any:
        return jax.tree.map(lambda x: x[:, :, parent] if shared else x[parent], tree)

    def turn(column: Array, carry: tuple[Past, Now, Array, Hypotheses, Array]) -> tuple[Past, Now, Array, Any, Array]:
        read, now, h, found, window = carry
        logits = model.logits(h, column).reshape(beams, -1)
        acts = (column >= layout.observations) & (column < layout.observations + layout.actions)
        logits = logits.at[:, -1].add(jnp.where(acts & (t == 0), REMOVED, 0.0))
        logits = jnp.where(acts, actions(logits), jnp.where(column < layout.observations, observations(logits), logits))
        total = found.score[:, None] + jax.nn.log_softmax(logits, axis=-1)
        score, index = jax.lax.top_k(total.reshape(-1), beams)
        parent, token = index // logits.shape[-1], index % logits.shape[-1]
        now = reordered(now, parent)
        if not shared:  # each row has a past of its own, which goes with it
            window = window[parent]
            read = Past(reordered(read.keys, parent), reordered(read.values, parent), read.sees, read.steps)
        tokens = jax.lax.dynamic_update_slice(found.tokens[parent], token[:, None, None], (0, t, column))
        now, h = model.step(read, now, token.reshape(h.shape[:2]), column)
        return read, now, h, Hypotheses(tokens, score), window

    *_, found, window = jax.lax.fori_loop(first, layout.width, turn, (read, now, h, found, window))
    window = jnp.broadcast_to(window, (beams, *window.shape[1:]))
    newest = jax.lax.dynamic_slice_in_dim(found.tokens, t, 1, axis=1)
    return found, jnp.concatenate([window[:, 1:], newest], axis=1)

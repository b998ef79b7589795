"""Fitting a recurrent ensemble to sequences of a replay that grows, and windows of it in which roll-outs begin.

Rows lie in the order of time, those of several environments in turn. Sequences are of `LENGTH` steps, of which the
first `FRAMES` are shown to the networks and the others are predicted freely (Werner & Peitz 2023, arXiv 2302.07160);
with D_t what is predicted at the t-th step, and valid_t = 0 from an episode's end on,

    L_k = sum_t valid_t mean (D_t - (u_{t+1} - u_t - m) / d)^2 / sum_t valid_t.

What is held out are whole stretches of `LENGTH` steps of one environment, by their places; a sequence that is learnt
from ends where such a stretch begins. Each member learns from a resample of the other stretches, in which sequences
begin anywhere. Otherwise a fit goes as in `ensemble_fit`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from legato.data import normaliser
from legato.errors import LegatoError
from legato.models import ensemble
from legato.models.ensemble_fit import (
    IMPROVEMENT,
    Fit,
    FitOptions,
    begin,
    choose_elites,
    divide,
    held_out_place,
    is_held_out,
    keep_better,
    optimiser_of,
    repeat_epochs,
    training_place,
)
from legato.models.recurrent_ensemble import RecurrentEnsemble
from legato.nn.optimisation import descend, mean_gradient, optax

FRAMES, LENGTH = 5, 20
"""steps that are shown, and all steps of a sequence"""
TOKENS = 4
"""how wide a step is beside what `mean_gradient` counts in"""


class TimeSeries(NamedTuple):
    """Rows of a ring in the order of time. Actions are in units of their bounds."""

    s: Float[Array, "capacity points"]
    a: Float[Array, "capacity act"]
    change: Float[Array, "capacity points"]
    follows: Bool[Array, " capacity"]
    """is the row the next step of the episode of the same environment's row before?"""


class Sequences(NamedTuple):
    """Rows that followed one another."""

    s: Float[Array, "*batch frames points"]
    a: Float[Array, "*batch steps act"]
    change: Float[Array, "*batch steps points"]
    valid: Float[Array, "*batch steps"]


@partial(jax.jit, static_argnums=6)
def link_rows(
    s: Float[Array, "capacity points"],
    a: Float[Array, "capacity act"],
    s_next: Float[Array, "capacity points"],
    continues: Float[Array, " capacity"],
    filled: Int[Array, ""] | int,
    newest: Int[Array, ""] | int,
    environments: int,
) -> TimeSeries:
    """The rows, with what says which of them belong together: a row's observation is the next one of the row before.

    `newest` is the place of the newest row of the ring; so many `environments` add theirs in turn.
    """
    place = jnp.arange(len(s))
    before, age = (place - environments) % len(s), (newest - place) % len(s)
    same = jnp.all(s_next[before] == s, axis=-1) & (continues[before] > 0)
    return TimeSeries(s, a, s_next - s, same & (age + environments < filled))


def windows(
    series: TimeSeries, place: Int[Array, " rows"], environments: int
) -> tuple[Float[Array, "frames rows points"], Float[Array, "frames rows act"], Float[Array, "frames rows"]]:
    """The `FRAMES` - 1 steps before these rows, the oldest first, and which of them are of the rows' episodes (1)."""
    places, shown = [], []
    belongs = jnp.ones(len(place), bool)
    for _ in range(FRAMES - 1):
        belongs &= series.follows[place]
        place = (place - environments) % len(series.s)
        places.insert(0, place)
        shown.insert(0, belongs.astype(jnp.float32))
    at = jnp.stack(places)
    return series.s[at], series.a[at], jnp.stack(shown)


def sequences(
    series: TimeSeries, first: Int[Array, "*batch"], environments: int, period: int, *, held_out: bool
) -> Sequences:
    """Those that begin at these places, and end where an episode does, or what is (not) `held_out`."""
    place = (first[..., None] + environments * jnp.arange(LENGTH)) % len(series.s)
    usable = series.follows[place[..., 1:]] & (
        is_held_out(stretch_of(place[..., 1:], environments), period) == held_out
    )
    valid = jnp.concatenate([jnp.ones(first.shape)[..., None], jnp.cumprod(usable.astype(jnp.float32), axis=-1)], -1)
    return Sequences(series.s[place[..., :FRAMES]], series.a[place], series.change[place], valid)


def stretch_of(place: Int[Array, "*n"], environments: int) -> Int[Array, "*n"]:
    """In which stretch of `LENGTH` steps of one environment a row lies."""
    return place // (environments * LENGTH) * environments + place % environments


def first_place(stretch: Int[Array, "*n"], environments: int) -> Int[Array, "*n"]:
    """The place of a stretch's first row."""
    return stretch // environments * (environments * LENGTH) + stretch % environments


def squares(model: RecurrentEnsemble, found: Sequences) -> tuple[Float[Array, " members"], Float[Array, " members"]]:
    """Of sequences `[members, rows, ...]`: the sum over valid steps of the points' mean squared error in normalised
    units, and how many steps these are."""
    seen, a = (jnp.moveaxis(part, 2, 1) for part in (model.normalise(found.s), found.a))
    change = jax.vmap(lambda member, seen, a: member.unroll(seen, a))(model.members, seen, a)
    wrong = jnp.mean((change - model.outputs(jnp.moveaxis(found.change, 2, 1))) ** 2, axis=-1)
    valid = jnp.moveaxis(found.valid, 2, 1)
    return jnp.where(valid > 0, wrong, 0).sum(axis=(1, 2)), valid.sum(axis=(1, 2))


def refit(
    model: RecurrentEnsemble,
    series: TimeSeries,
    filled: int,
    environments: int,
    options: FitOptions,
    elites: int,
    key: PRNGKeyArray,
    *,
    on_updates: Callable[[int], None] = lambda updates: None,
) -> tuple[RecurrentEnsemble, Fit]:
    """The ensemble, fitted on from its weights to the first `filled` rows; `batch_size` counts sequences.

    `on_updates` hears after every epoch how many updates are done, and may stop the fit by raising. Raises
    `LegatoError` for too few rows, and where no member's error is finite.
    """
    period = options.period(len(series.s))
    stretches = filled // (environments * LENGTH) * environments
    if stretches < period:
        few = f"a recurrent model is fitted to {period} stretches of {LENGTH} steps or more, of which one is held out"
        raise LegatoError(f"{few}; there are {stretches}: fit it later, or hold out a larger share")
    train, _ = divide(stretches, period)
    k_resample, k_run = jax.random.split(key)
    fixed = environments, period
    counts = jnp.asarray(filled), jnp.asarray(stretches)
    model = _with_units(model, series, counts[0], *fixed)
    optimiser = optimiser_of(options)
    state = begin(optimiser, model)
    resample = jax.random.randint(k_resample, (model.count, max(1, len(series.s) // LENGTH)), 0, train)
    best, least = model, _error(model, series, counts[1], *fixed)

    def advance(done: int, updates: int) -> bool:
        nonlocal model, state, best, least
        model, state, best, least, improved = _epoch(
            *(optimiser, options.batch_size, *fixed, model, state, best, least),
            *(series, counts[1], resample, train, k_run, done, updates),
        )
        return bool(improved)

    done = repeat_epochs(advance, options.epoch or math.ceil(train / options.batch_size), options, on_updates)
    return best, choose_elites(least, elites, done)


@partial(jax.jit, static_argnums=(3, 4))
def _with_units(
    model: RecurrentEnsemble, series: TimeSeries, filled: Int[Array, ""], environments: int, period: int
) -> RecurrentEnsemble:
    """Those of the rows that are learnt from."""
    place = jnp.arange(len(series.s))
    learnt = ((place < filled) & ~is_held_out(stretch_of(place, environments), period))[:, None]
    x = jnp.concatenate([series.s, series.a], axis=-1)
    units = ensemble.common_units(*(normaliser.of_some(rows, learnt) for rows in (x, series.change)))
    return eqx.tree_at(lambda m: (m.inputs, m.outputs), model, units)


def held_out_error(
    model: RecurrentEnsemble, series: TimeSeries, stretches: Int[Array, ""], environments: int, period: int
) -> Float[Array, " members"]:
    """Each member's mean squared error in stretches that are held out, in units of the changes' variance."""
    stretch = held_out_place(jnp.arange(-(-len(series.s) // (LENGTH * period))), period)
    found = sequences(series, first_place(stretch, environments), environments, period, held_out=True)
    found = found._replace(valid=found.valid * (stretch < stretches)[:, None])
    square, count = squares(model, jax.tree.map(lambda part: jnp.stack([part] * model.count), found))
    return square / jnp.maximum(count, 1)


_error = jax.jit(held_out_error, static_argnums=(3, 4))


@partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=(5,))
def _epoch(
    optimiser: optax.GradientTransformation,
    batch_size: int,
    environments: int,
    period: int,
    model: RecurrentEnsemble,
    state: optax.OptState,
    best: RecurrentEnsemble,
    least: Float[Array, " members"],
    series: TimeSeries,
    stretches: Int[Array, ""],
    resample: Int[Array, "members stretches"],
    train: Int[Array, ""] | int,
    key: PRNGKeyArray,
    first: Int[Array, ""] | int,
    updates: Int[Array, ""] | int,
) -> tuple[RecurrentEnsemble, optax.OptState, RecurrentEnsemble, Float[Array, " members"], Bool[Array, ""]]:
    """So many updates in one dispatch, the best weights of each member so far, and whether any has improved."""

    def loss(model: RecurrentEnsemble, batch: Sequences, key: PRNGKeyArray) -> tuple[Array, None]:
        square, count = squares(model, jax.tree.map(lambda part: jnp.swapaxes(part, 0, 1), batch))
        return square.sum() / count.sum(), None

    def turn(i: Array, carry: tuple[RecurrentEnsemble, optax.OptState]) -> tuple[RecurrentEnsemble, optax.OptState]:
        model, state = carry
        k_stretch, k_step = jax.random.split(jax.random.fold_in(key, i))
        shape = len(resample), batch_size
        at = jnp.take_along_axis(resample, jax.random.randint(k_stretch, shape, 0, train), axis=1)
        begins = first_place(training_place(at, period), environments)
        begins += environments * jax.random.randint(k_step, shape, 0, LENGTH)
        batch = sequences(series, begins.T, environments, period, held_out=False)
        counts = batch.valid.sum(axis=(1, 2)).astype(jnp.int32)
        _, gradient = mean_gradient(loss, model, batch, counts, key, TOKENS * LENGTH)
        return descend(optimiser, model, gradient, state)

    model, state = jax.lax.fori_loop(first, first + updates, turn, (model, state))
    error = held_out_error(model, series, stretches, environments, period)
    better = error < (1 - IMPROVEMENT) * least  # NaN is never better
    members = keep_better(better, best.members, model.members)
    best = eqx.tree_at(lambda m: m.members, best, members)
    return model, state, best, jnp.where(better, error, least), better.any()

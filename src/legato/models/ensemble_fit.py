"""Fitting an ensemble again and again to rows that grow: warm weights, rows held out, early stopping, elites.

As in the code of MBPO (Janner et al. 2019, arXiv 1906.08253): a share of the rows is held out; each member learns from
a resample of the others, from the weights that it has; after every epoch its mean squared error on the held-out rows
is measured, and its best weights are kept. Fitting ends when no member has improved by more than a hundredth for
`patience` epochs. The elites are the members with the smallest errors.

Rows lie in arrays of fixed length, of which the first `count` are filled, so that nothing is compiled again while they
fill. Which rows are held out follows from their places, so a row that was held out once stays so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from legato.data import normaliser
from legato.data.normaliser import Normaliser
from legato.errors import LegatoError
from legato.models import ensemble
from legato.models.ensemble import Ensemble
from legato.nn.optimisation import descend, optax

IMPROVEMENT = 0.01
"""a member has improved where its error fell by more than this share of itself"""
HASH = 2_654_435_761
"""Knuth's, 2^32 over the golden ratio"""


@dataclass(frozen=True)
class FitOptions:
    """How an ensemble is fitted to the rows that there are."""

    batch_size: int = 256
    """rows per update of each member"""
    learning_rate: float = 1e-3
    """of AdamW, whose moments begin anew with every fit"""
    weight_decay: float = 1e-5
    held_out: float = 0.2
    """share of the rows that is not learnt from"""
    held_out_most: int = 5_000
    patience: int = 5
    """epochs without improvement after which a fit ends"""
    epoch: int = 0
    """updates between two measurements on held-out rows; 0: as many as go once through the rows"""
    most: int = 5_000
    """updates after which a fit ends in any case"""
    variance_power: float = 0.0
    """see `ensemble.loss`"""

    def period(self, capacity: int) -> int:
        """Of every so many rows one is held out."""
        return max(2, round(1 / self.held_out), math.ceil(capacity / self.held_out_most))


class Fit(NamedTuple):
    """How a fit went."""

    error: Float[np.ndarray, " members"]
    """mean squared error of each member's kept weights on held-out rows, in units of the outputs' variance"""
    elites: Int[np.ndarray, " elites"]
    updates: int


def divide(count: int, period: int) -> tuple[int, int]:
    """How many of the first `count` rows are learnt from, and how many are held out.

    Raises `LegatoError` where that leaves none of either.
    """
    blocks, rest = divmod(count, period)
    held = blocks + (rest > _offset(blocks, period))
    if blocks < 1:
        few = f"a model is fitted to {period} rows or more, of which one is held out; there are {count}"
        raise LegatoError(f"{few}: fit it later, or hold out a larger share")
    return count - held, held


def training_place(i: Int[Array, "*n"], period: int) -> Int[Array, "*n"]:
    """The place of the i-th row that is learnt from."""
    block, within = i // (period - 1), i % (period - 1)
    return block * period + within + (within >= _offset(block, period))


def held_out_place(i: Int[Array, "*n"], period: int) -> Int[Array, "*n"]:
    """The place of the i-th row that is held out."""
    return i * period + _offset(i, period)


def is_held_out(place: Int[Array, "*n"], period: int) -> Bool[Array, "*n"]:
    """Is it held out?"""
    return place % period == _offset(place // period, period)


def _offset(block: Any, period: int) -> Any:
    """Which row of a block is held out: scattered (by a multiplicative hash), as episodes have lengths too.

    Where it was always the same one, and 200 steps an episode, these might be the last steps of all episodes.
    """
    if isinstance(block, int):
        return (block * HASH % 2**32 >> 16) % period
    return ((block.astype(jnp.uint32) * jnp.uint32(HASH) >> 16) % period).astype(jnp.int32)


def refit(
    model: Ensemble,
    x: Float[Array, "capacity inputs"],
    y: Float[Array, "capacity outputs"],
    count: int,
    options: FitOptions,
    elites: int,
    key: PRNGKeyArray,
    *,
    on_updates: Callable[[int], None] = lambda updates: None,
) -> tuple[Ensemble, Fit]:
    """The ensemble, fitted on from its weights to the first `count` rows. Units are those of these rows.

    `on_updates` hears after every epoch how many updates are done, and may stop the fit by raising. Raises
    `LegatoError` for too few rows, and where no member's error is finite.
    """
    period = options.period(len(x))
    train, _ = divide(count, period)
    filled = jnp.asarray(count)
    k_resample, k_run = jax.random.split(key)
    model = eqx.tree_at(lambda m: (m.inputs, m.outputs), model, _units(model, x, y, filled, period))
    optimiser = optimiser_of(options)
    state = begin(optimiser, model)
    resample = jax.random.randint(k_resample, (model.count, len(x)), 0, train)
    epoch = options.epoch or math.ceil(train / options.batch_size)
    best, least = model, _error(model, x, y, filled, period)

    def advance(done: int, updates: int) -> bool:
        nonlocal model, state, best, least
        model, state, best, least, improved = _epoch(
            *(optimiser, options.batch_size, period, options.variance_power, model, state, best, least),
            *(x, y, filled, resample, train, k_run, done, updates),
        )
        return bool(improved)

    done = repeat_epochs(advance, epoch, options, on_updates)
    return best, choose_elites(least, elites, done)


def repeat_epochs(
    advance: Callable[[int, int], bool], epoch: int, options: FitOptions, on_updates: Callable[[int], None]
) -> int:
    """Epochs, `advance(done, updates)`, until that has said `patience` times that no member improved: all updates."""
    done = waited = 0
    while done < options.most and waited < options.patience:
        updates = min(epoch, options.most - done)
        improved = advance(done, updates)
        done += updates
        waited = 0 if improved else waited + 1
        on_updates(done)
    return done


def choose_elites(least: Float[Array, " members"], elites: int, updates: int) -> Fit:
    """How a fit went, by the errors of the weights that are kept. Raises `LegatoError` where none is finite."""
    error = np.asarray(least)
    if not np.isfinite(error).any():
        raise LegatoError("no member of the ensemble has a finite error: lower its `model_learning_rate`")
    order = np.argsort(np.where(np.isfinite(error), error, np.inf), kind="stable")[:elites]
    return Fit(error, order.astype(np.int32), updates)


@partial(jax.jit, static_argnums=4)
def _units(model: Ensemble, x: Array, y: Array, filled: Array, period: int) -> tuple[Normaliser, Normaliser]:
    """Mean and deviation of the rows that are learnt from, without NaNs; the deviation of a constant is 1."""
    place = jnp.arange(len(x))
    learnt = ((place < filled) & ~is_held_out(place, period))[:, None]
    inputs, outputs = (normaliser.of_some(rows, learnt & ~jnp.isnan(rows)) for rows in (x, y))
    return ensemble.share_units(model, inputs, outputs)


@partial(jax.jit, static_argnums=0)
def begin(optimiser: optax.GradientTransformation, model: Any) -> optax.OptState:
    """An optimiser's state before its first update."""
    return optimiser.init(cast(Any, model))


def optimiser_of(options: FitOptions) -> optax.GradientTransformation:
    """AdamW."""
    return _optimiser(options.learning_rate, options.weight_decay)


@cache
def _optimiser(learning_rate: float, weight_decay: float) -> optax.GradientTransformation:
    """The same object for the same numbers, so that nothing is compiled twice."""
    return optax.adamw(learning_rate, weight_decay=weight_decay, mask=ensemble.matrices)


def held_out_error(model: Ensemble, x: Array, y: Array, filled: Array, period: int) -> Float[Array, " members"]:
    """Each member's mean squared error on held-out rows, in units of the outputs' variance; NaNs of y do not count."""
    place = held_out_place(jnp.arange(len(x) // period), period)
    rows = jnp.broadcast_to(model.inputs(x[place]), (model.count, len(place), x.shape[1]))
    mean, _ = model.normalised(rows)
    target = model.outputs(y[place])
    known = (place < filled)[:, None] & ~jnp.isnan(target)
    square = jnp.where(known, (mean - jnp.where(known, target, 0)) ** 2, 0)
    return square.sum(axis=(1, 2)) / jnp.maximum(known.sum(), 1)


_error = jax.jit(held_out_error, static_argnums=4)


@partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=(5,))
def _epoch(
    optimiser: optax.GradientTransformation,
    batch_size: int,
    period: int,
    variance_power: float,
    model: Ensemble,
    state: optax.OptState,
    best: Ensemble,
    least: Float[Array, " members"],
    x: Array,
    y: Array,
    filled: Int[Array, ""],
    resample: Int[Array, "members capacity"],
    train: Int[Array, ""] | int,
    key: PRNGKeyArray,
    first: Int[Array, ""] | int,
    updates: Int[Array, ""] | int,
) -> tuple[Ensemble, optax.OptState, Ensemble, Float[Array, " members"], Bool[Array, ""]]:
    """So many updates in one dispatch, the best weights of each member so far, and whether any has improved."""

    def turn(i: Array, carry: tuple[Ensemble, optax.OptState]) -> tuple[Ensemble, optax.OptState]:
        model, state = carry
        at = jax.random.randint(jax.random.fold_in(key, i), (len(resample), batch_size), 0, train)
        rows = training_place(jnp.take_along_axis(resample, at, axis=1), period)
        gradient = jax.grad(ensemble.loss)(model, x[rows], y[rows], variance_power)
        return descend(optimiser, model, gradient, state)

    model, state = jax.lax.fori_loop(first, first + updates, turn, (model, state))
    error = held_out_error(model, x, y, filled, period)
    better = error < (1 - IMPROVEMENT) * least  # NaN is never better
    members = keep_better(better, best.members, model.members)
    bounds = best.high, best.low, model.high, model.low  # all members', so of the newest weights that are kept
    newer = better.any() & jnp.isfinite(model.high).all() & jnp.isfinite(model.low).all()
    high, low = (jnp.where(newer, now, kept) for kept, now in zip(bounds[:2], bounds[2:], strict=True))
    best = eqx.tree_at(lambda m: (m.members, m.high, m.low), best, (members, high, low))
    return model, state, best, jnp.where(better, error, least), better.any()


def keep_better(better: Bool[Array, " members"], best: Any, now: Any) -> Any:
    """Of each member the new weights where they are better, the best so far elsewhere."""
    return jax.tree.map(lambda kept, new: jnp.where(better.reshape(-1, *(1,) * (kept.ndim - 1)), new, kept), best, now)

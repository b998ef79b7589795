"""What may follow according to a trajectory model, states and actions alike (Janner et al. 2021, section 4.1).

`imagine` samples: nothing is searched for and nothing is filtered, unless it is asked for; every token is drawn from
its distribution given the last C steps, the one being written included. With C = 2 each step follows from the one
before alone: the Markovian model of the paper's comparison. `expected` draws nothing and takes means.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from legato.data.tokens import Discretiser
from legato.models.trajectory import Now, Past, TrajectoryModel
from legato.planning.beam import Filter

FREE = Filter()


def imagine(
    model: TrajectoryModel,
    past: Int[Array, "rows steps columns"],
    count: Int[Array, ""],
    newest: Int[Array, "rows obs"],
    keys: PRNGKeyArray,
    horizon: int,
    allowed: Filter = FREE,
) -> Int[Array, "rows horizon columns"]:
    """Sampled steps, the first of which begins with the `newest` observation, after the last `count` of the `past`.

    The model reads a window of C steps, where `past` has room for C - 1. A row follows from its own key, whichever rows
    are sampled beside it. An episode ends between steps: only a step's first token may be the stop, and after it every
    token is. The first step is there, so its action is not the stop.
    """
    rows, steps, width = past.shape
    stop = model.bins

    def write(
        read: Past, now: Now, h: Array, tokens: Array, ended: Array, first: int, t: Array | int
    ) -> tuple[Array, Array]:
        """The tokens of step t from column `first` on, and which rows have ended."""
        at_step = jax.vmap(lambda key: jax.random.fold_in(key, t))(keys)

        def turn(column: Array, carry: tuple[Now, Array, Array, Array]) -> tuple[Now, Array, Array, Array]:
            now, h, tokens, ended = carry
            logits = model.logits(h, column)
            logits = logits.at[:, stop].add(jnp.where(column == 0, 0.0, -jnp.inf))
            drawn = jax.vmap(lambda x, key: allowed.pick(x, jax.random.fold_in(key, column)))(logits, at_step)
            token = jnp.where(ended, stop, drawn)
            now, after = model.step(read, now, token[:, None], column)
            tokens = jax.lax.dynamic_update_slice_in_dim(tokens, token[:, None], column, axis=1)
            return now, after[:, 0], tokens, ended | (token == stop)

        *_, tokens, ended = jax.lax.fori_loop(first, width, turn, (now, h, tokens, ended))
        return tokens, ended

    observed = newest.shape[-1]
    begun = jnp.zeros((rows, width), jnp.int32).at[:, :observed].set(newest)
    start, ended = write(*model.prime(past, count, newest), begun, jnp.zeros(rows, bool), observed, 0)

    def turn(carry: tuple[Array, Array, Array], t: Array) -> tuple[tuple[Array, Array, Array], Array]:
        window, held, ended = carry
        tokens, ended = write(*model.prime(window, held), jnp.zeros((rows, width), jnp.int32), ended, 0, t)
        window = jnp.concatenate([window[:, 1:], tokens[:, None]], axis=1)
        return (window, jnp.minimum(held + 1, steps), ended), tokens

    window = jnp.concatenate([past[:, 1:], start[:, None]], axis=1)
    carry = window, jnp.minimum(count + 1, steps), ended
    _, later = jax.lax.scan(turn, carry, jnp.arange(1, horizon))
    return jnp.concatenate([start[:, None], later.swapaxes(0, 1)], axis=1)


def expected(
    model: TrajectoryModel,
    discretiser: Discretiser,
    horizon: int,
    past: Int[Array, "steps columns"],
    count: Int[Array, ""],
    newest: Int[Array, " obs"],
    goal: Int[Array, " obs"] | None = None,
    choice: int | None = None,
) -> Float[Array, "horizon columns"]:
    """The steps that follow if every number is the mean of its distribution, given those before it.

    The first begins with the `newest` observation, after the last `count` of the `past`; the model reads each number as
    the token of its bin. Where the likeliest of many bins is little more likely than others, as it is for an action
    that was drawn from a normal distribution, the mean is what a behaviour meant. Of column `choice`, whose numbers
    have no mean, it is the likeliest. Ends are not foreseen: the stop's share is left out.
    """
    goals = None if goal is None else goal[None]

    def write(read: Past, now: Now, h: Array, numbers: Array, tokens: Array, first: int) -> tuple[Array, Array]:
        """Numbers and tokens of a step from column `first` on."""

        def turn(column: Array, carry: tuple[Now, Array, Array, Array]) -> tuple[Now, Array, Array, Array]:
            now, h, numbers, tokens = carry
            p = jax.nn.softmax(model.logits(h, column)[0, :-1])
            centres = discretiser.centres[column]
            mean = p @ centres
            mean = mean if choice is None else jnp.where(column == choice, centres[jnp.argmax(p)], mean)
            numbers = numbers.at[column].set(mean)
            tokens = tokens.at[column].set(discretiser.encode(numbers)[column])
            now, after = model.step(read, now, tokens[column][None, None], column)
            return now, after[:, 0], numbers, tokens

        *_, numbers, tokens = jax.lax.fori_loop(first, model.layout.width, turn, (now, h, numbers, tokens))
        return numbers, tokens

    tokens = jnp.zeros(model.layout.width, jnp.int32).at[: len(newest)].set(newest)
    begun = discretiser.decode(tokens)
    numbers, tokens = write(*model.prime(past[None], count, newest[None], goals), begun, tokens, len(newest))

    def turn(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        window, held = carry
        numbers, tokens = write(*model.prime(window[None], held, None, goals), begun, jnp.zeros_like(window[0]), 0)
        return (jnp.concatenate([window[1:], tokens[None]]), jnp.minimum(held + 1, len(past))), numbers

    carry = jnp.concatenate([past[1:], tokens[None]]), jnp.minimum(count + 1, len(past))
    _, later = jax.lax.scan(turn, carry, None, length=horizon - 1)
    return jnp.concatenate([numbers[None], later])

"""A probabilistic ensemble (PETS: Chua et al. 2018, arXiv 1805.12114): several networks, each with a mean and a spread.

    p_k(y | x)  = N(mu_k(x), diag sigma_k^2(x))                      k = 1 ... K, each fitted to a resample of its own
    L_k         = mean of (y - mu_k)^2 / sigma_k^2 + log sigma_k^2,  + 0.01 sum of (high - low)
    log sigma^2 = low + softplus(high - softplus(high - raw) - low)  between bounds that are learnt as well

Spreads are the environment's own randomness, disagreement of the members is what the data leaves open. As a model of an
environment x is a state with an action and y what the step adds to the state; a roll-out draws a member for every step
(TS1) or one for good (TS-infinity), and a next state from that member.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from legato.data import normaliser
from legato.data import trajectories as logs
from legato.data.masking import Mask
from legato.data.normaliser import Normaliser
from legato.data.trajectories import Trajectories
from legato.errors import LegatoError
from legato.nn.circulant import CirculantNetwork, Forcing
from legato.nn.mlp import MLP
from legato.nn.optimisation import descend, linear_decay, optax

HIGH, LOW = 0.5, -10.0
"""the bounds of a log-variance at first, in units of the data's own variance"""
TIGHTEN = 0.01
"""how much a unit between the bounds costs"""
DISPATCH = 250
"""updates per compiled call"""


class Ensemble(eqx.Module):
    """K networks, such as perceptrons with SiLU, stacked along a leading axis, between two changes of units."""

    members: Any
    """networks of one architecture"""
    high: Float[Array, " outputs"]
    """of log-variances, in normalised units"""
    low: Float[Array, " outputs"]
    inputs: Normaliser
    outputs: Normaliser
    field: bool = eqx.field(static=True, default=False)
    """is x a periodic field with an action, and y the field's change? Then all points have the same units and the same
    bounds of log-variances, and actions are left as they are"""

    def __call__(
        self, x: Float[Array, "*batch inputs"]
    ) -> tuple[Float[Array, "members *batch outputs"], Float[Array, "members *batch outputs"]]:
        """Mean and standard deviation of y, in its units, as each member has them."""
        mean, log_variance = self.normalised(jnp.broadcast_to(self.inputs(x), (self.count, *x.shape)))
        return self.outputs.mean + self.outputs.deviation * mean, self.outputs.deviation * jnp.exp(0.5 * log_variance)

    def recall(self, s: Float[Array, "*batch obs"]) -> tuple[()]:
        """What the members remember in s: nothing."""
        return ()

    def advance(
        self, memory: tuple[()], s: Float[Array, "*batch obs"], a: Float[Array, "*batch act"]
    ) -> tuple[Float[Array, "members *batch outputs"], tuple[()]]:
        """Each member's mean of y, and the memory after it."""
        return self(jnp.concatenate([s, a], axis=-1))[0], memory

    @property
    def count(self) -> int:
        """K."""
        return jax.tree.leaves(self.members)[0].shape[0]

    def normalised(
        self, x: Float[Array, "members *batch inputs"]
    ) -> tuple[Float[Array, "members *batch outputs"], Float[Array, "members *batch outputs"]]:
        """Mean and log-variance, each member's of its own inputs, all in normalised units."""
        mean, raw = jnp.split(jax.vmap(lambda member, x: member(x))(self.members, x), 2, axis=-1)
        below = self.high - jax.nn.softplus(self.high - raw)
        return mean, self.low + jax.nn.softplus(below - self.low)


def init(
    inputs: Normaliser, outputs: Normaliser, hidden: Sequence[int] = (200, 200, 200, 200), members: int = 5,
    *, key: PRNGKeyArray,
) -> Ensemble:  # fmt: skip
    """An ensemble before its first update, for numbers of these spreads."""
    sizes = (inputs.mean.size, *hidden, 2 * outputs.mean.size)
    networks = jax.vmap(lambda k: MLP(sizes, activation=jax.nn.silu, key=k))(jax.random.split(key, members))
    size = outputs.mean.size
    high, low = (jnp.full(size, bound, jnp.float32) for bound in (HIGH, LOW))
    return Ensemble(networks, high, low, inputs, outputs)


def init_field(
    points: int, actions: int, forcing: Forcing, channels: Sequence[int] = (16, 16), members: int = 5,
    *, key: PRNGKeyArray,
) -> Ensemble:  # fmt: skip
    """An ensemble of `CirculantNetwork`s before its first update, for a field whose actions force it so.

    Raises `LegatoError` where the forcing is not one number for each point.
    """
    unit = float(np.sqrt(np.mean(np.square(single_forcings(points, actions, forcing))))) or 1.0
    networks = jax.vmap(lambda k: CirculantNetwork(points, forcing, unit, channels, key=k))(
        jax.random.split(key, members)
    )
    shared = jnp.full(1, HIGH), jnp.full(1, LOW)
    return Ensemble(networks, *shared, normaliser.none(points + actions), normaliser.none(points), field=True)


def single_forcings(points: int, actions: int, forcing: Forcing) -> Float[np.ndarray, "edges points"]:
    """What each number of an action does alone at its bounds.

    Raises `LegatoError` where that is not one number for each point.
    """
    found = np.asarray(forcing(np.concatenate([np.eye(actions), -np.eye(actions)])))
    if found.shape != (2 * actions, points):
        size = f"a forcing of shape {found.shape[1:]}"
        raise LegatoError(f"{size} for a field that is observed at {points} points: one number for each is needed")
    return found


def share_units(model: Ensemble, inputs: Normaliser, outputs: Normaliser) -> tuple[Normaliser, Normaliser]:
    """The units that the model counts in, by the units of every column: of a field, the same at all points."""
    return common_units(inputs, outputs) if model.field else (inputs, outputs)


def common_units(inputs: Normaliser, outputs: Normaliser) -> tuple[Normaliser, Normaliser]:
    """Of a field with an action and of the field's change: all points' together; actions stay as they are."""
    points = outputs.mean.size

    def common(units: Normaliser) -> Normaliser:
        mean, deviation = units.mean[:points], units.deviation[:points]
        square = jnp.mean(deviation**2 + (mean - mean.mean()) ** 2)
        ones = jnp.ones(points)
        return Normaliser(mean.mean() * ones, jnp.sqrt(square) * ones)

    field, rest = common(inputs), normaliser.none(inputs.mean.size - points)
    joined = [jnp.concatenate(parts) for parts in zip(jax.tree.leaves(field), jax.tree.leaves(rest), strict=True)]
    return Normaliser(*joined), common(outputs)


def loss(
    model: Ensemble,
    x: Float[Array, "members batch inputs"],
    y: Float[Array, "members batch outputs"],
    variance_power: float = 0.0,
) -> Float[Array, ""]:
    """The mean of L_k over the members, each on its own rows. A number of y that is NaN is not known and not learnt.

    Each number's part is weighted by its predicted variance to this power, through which no gradient goes (beta of
    Seitzer et al. 2022, arXiv 2203.09168): with 0 a number that is predicted to a thousandth of its deviation counts a
    million times as much for the shared layers as one that is not predicted yet, with 1 all count alike.
    """
    inputs, outputs = jax.lax.stop_gradient((model.inputs, model.outputs))
    mean, log_variance = model.normalised(inputs(x))
    known = ~jnp.isnan(y)
    error = jnp.where(known, outputs(jnp.where(known, y, 0)) - mean, 0)
    each = jnp.where(known, error**2 * jnp.exp(-log_variance) + log_variance, 0)
    if variance_power:
        each = each * jnp.exp(variance_power * jax.lax.stop_gradient(log_variance))
    return each.sum() / jnp.maximum(known.sum(), 1) + TIGHTEN * jnp.sum(model.high - model.low)


def fit(
    x: Float[np.ndarray, "rows inputs"],
    y: Float[np.ndarray, "rows outputs"],
    *,
    hidden: Sequence[int] = (200, 200, 200, 200),
    members: int = 5,
    updates: int = 12_000,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-5,
    key: PRNGKeyArray,
    on_updates: Callable[[int], None] = lambda updates: None,
) -> tuple[Ensemble, Float[np.ndarray, " calls"]]:
    """Fit an ensemble to rows, each member to as many drawn with replacement. Numbers of y may be NaN: not known.

    AdamW, whose step falls on a line to a twentieth. Returns the model and the mean loss of each compiled call, after
    each of which `on_updates` hears how many updates are done. Raises `LegatoError` for no rows, for numbers that are
    not finite, and for counts below one.
    """
    for name, value in (("members", members), ("updates", updates), ("batch_size", batch_size)):
        if value < 1:
            raise LegatoError(f"{name} must be at least 1; {value} was given")
    if len(x) == 0 or len(x) != len(y):
        raise LegatoError(f"an ensemble learns from rows of both sides; {len(x)} and {len(y)} were given")
    if not np.isfinite(x).all() or np.isinf(y).any():
        raise LegatoError("an ensemble learns from finite numbers")
    k_init, k_resample, k_run = jax.random.split(key, 3)
    model = init(_spread(x), _spread(y), hidden, members, key=k_init)
    optimiser = _optimiser(learning_rate, updates, weight_decay)
    state = optimiser.init(eqx.filter(model, eqx.is_array))
    resample = jax.random.randint(k_resample, (members, len(x)), 0, len(x))
    rows = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
    losses = []
    for first in range(0, updates, DISPATCH):
        count = min(DISPATCH, updates - first)
        model, state, value = _advance(
            optimiser, count, batch_size, model, state, *rows, resample, k_run, jnp.asarray(first)
        )
        losses.append(float(value))
        on_updates(first + count)
    return model, np.array(losses)


def _spread(rows: np.ndarray) -> Normaliser:
    """Mean and deviation of the numbers that are known; the deviation of a constant is 1."""
    known = ~np.isnan(rows)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, rows, 0).sum(axis=0, dtype=np.float64) / count
    deviation = np.sqrt((np.where(known, rows - mean, 0) ** 2).sum(axis=0) / count)
    return Normaliser(
        jnp.asarray(mean, jnp.float32), jnp.asarray(np.where(deviation > 1e-6, deviation, 1), jnp.float32)
    )


@cache
def _optimiser(learning_rate: float, over: int, weight_decay: float) -> optax.GradientTransformation:
    """The same object for the same numbers, so that nothing is compiled twice."""
    return optax.adamw(
        lambda i: linear_decay(learning_rate, over, jnp.asarray(i)), weight_decay=weight_decay, mask=matrices
    )


def matrices(model: Any) -> Any:
    """Which numbers decay: weights."""
    return jax.tree.map(lambda leaf: leaf.ndim >= 3, model)  # [members, ..., inputs, outputs]


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=(3, 4))
def _advance(
    optimiser: optax.GradientTransformation,
    count: int,
    batch_size: int,
    model: Ensemble,
    state: optax.OptState,
    x: Array,
    y: Array,
    resample: Int[Array, "members rows"],
    key: PRNGKeyArray,
    first: Int[Array, ""],
) -> tuple[Ensemble, optax.OptState, Float[Array, ""]]:
    """`count` updates in one dispatch, and their mean loss."""

    def turn(carry: tuple[Ensemble, optax.OptState], i: Array) -> tuple[tuple[Ensemble, optax.OptState], Array]:
        model, state = carry
        at = jax.random.randint(jax.random.fold_in(key, i), (len(resample), batch_size), 0, len(x))
        rows = jnp.take_along_axis(resample, at, axis=1)
        value, gradient = jax.value_and_grad(loss)(model, x[rows], y[rows])
        return descend(optimiser, model, gradient, state), value

    (model, state), losses = jax.lax.scan(turn, (model, state), first + jnp.arange(count))
    return model, state, losses.mean()


def sample(
    model: Ensemble, x: Float[Array, "rows inputs"], member: Int[Array, " rows"], key: PRNGKeyArray
) -> Float[Array, "rows outputs"]:
    """One y for each row, drawn from the distribution of the member that the row names."""
    mean, deviation = (jnp.take_along_axis(part, member[None, :, None], axis=0)[0] for part in model(x))
    return mean + deviation * jax.random.normal(key, mean.shape)


def surprise(
    model: Ensemble, x: Float[Array, "rows inputs"], y: Float[Array, "rows outputs"]
) -> Float[Array, " members"]:
    """Each member's mean negative log-density of a row, in nats and in the units of y: how well it predicts."""
    mean, deviation = model(x)
    nats = 0.5 * ((y - mean) / deviation) ** 2 + jnp.log(deviation) + 0.5 * jnp.log(2 * jnp.pi)
    return nats.sum(axis=-1).mean(axis=-1)


# --- as a model of an environment ---


def transitions(
    data: Trajectories, *, rewards: bool = False, mask: Mask | None = None
) -> tuple[Float[np.ndarray, "rows inputs"], Float[np.ndarray, "rows outputs"]]:
    """Rows (s, a) and what follows: s' - s and, if wanted, the reward. The last step of an episode is one of them where
    the data has the observation after it. Of data that was hidden by a `mask`, s is what the mask reads of it, and
    what is missing of s' is NaN.

    Raises `LegatoError` for discrete actions, and where rewards are wanted and missing.
    """
    if data.discrete:
        raise LegatoError("a Gaussian ensemble knows continuous actions only")
    s, a = np.asarray(data.observations, np.float32), np.asarray(data.actions, np.float32)
    next_observation = np.concatenate([s[1:], s[:1]])
    kept: Bool[np.ndarray, " steps"] = np.ones(len(s), bool)
    last = data.offsets[1:] - 1
    if data.final_observations is None:
        kept[last] = False
    else:
        next_observation[last] = data.final_observations
    if mask is None:
        y = next_observation - s
    else:
        y = np.where(
            mask.missing(jnp.asarray(next_observation)),
            np.nan,
            next_observation - np.asarray(mask.filled(jnp.asarray(s))),
        )
        s = np.asarray(mask.read(jnp.asarray(s)))
    if rewards:
        y = np.concatenate([y, logs.rewards(data)[:, None]], axis=1)
    return np.concatenate([s, a], axis=1)[kept], y[kept]


def draw_members(model: Ensemble, rows: int, key: PRNGKeyArray) -> Int[Array, " rows"]:
    """A member for every row, all as likely."""
    return jax.random.randint(key, (rows,), 0, model.count)


def unroll(
    model: Ensemble,
    act: Callable[[Float[Array, "rows obs"], Int[Array, ""], PRNGKeyArray], Float[Array, "rows act"]],
    s: Float[Array, "rows obs"],
    steps: int,
    key: PRNGKeyArray,
    *,
    mixed: bool = False,
    mask: Mask | None = None,
) -> Float[Array, "rows steps obs"]:
    """The states s_1 ... s_steps of sampled roll-outs from s, in which `act(s, t, key)` chooses what is done in s_t.

    Each row keeps its member, or draws one anew at every step where they are `mixed`. With a `mask` the model and `act`
    only ever see what is left of a state by fresh coins; what is returned is the states before anything was hidden.
    """
    k_start, k_member, k_run = jax.random.split(key, 3)
    drawn = draw_members(model, len(s), k_member)
    first = s if mask is None else mask.hide(s, k_start)
    size = s.shape[-1]
    # A roll-out that runs away stays finite.
    middle, room = model.inputs.mean[:size], 1e3 * model.inputs.deviation[:size]

    def turn(seen: Array, t: Array) -> tuple[Array, Array]:
        k_act, k_member, k_next, k_hide = jax.random.split(jax.random.fold_in(k_run, t), 4)
        a = act(seen, t, k_act)
        member = draw_members(model, len(s), k_member) if mixed else drawn
        x = jnp.concatenate([seen if mask is None else mask.read(seen), a], axis=-1)
        before = seen if mask is None else mask.filled(seen)
        after = before + sample(model, x, member, k_next)[:, :size]
        after = jnp.clip(after, middle - room, middle + room)
        return after if mask is None else mask.hide(jnp.maximum(after, mask.low), k_hide), after

    _, states = jax.lax.scan(turn, first, jnp.arange(steps))
    return states.swapaxes(0, 1)

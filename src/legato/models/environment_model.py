"""A learnt model of an environment, and what is imagined in it.

    (s' - s, r) ~ p_k(. | s, a),   k one of the elites of an ensemble, drawn anew for every row and step

The reward is one more number that the networks predict, or a function that is known. Whether an episode terminates in
s' says a rule that is known, or a classifier of (s, a, s') that learns from terminations. There are no time limits in
what is imagined. Members of a recurrent ensemble advance a memory of every row each, whoever steps it; where networks
have none, it is `()`. A row that has terminated, or whose next state is no longer finite or further than `RUNAWAY`
deviations from the data, is no longer stepped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from legato.models.dynamics import TerminationModel, termination_loss
from legato.models.ensemble import Ensemble
from legato.models.recurrent_ensemble import RecurrentEnsemble
from legato.nn.optimisation import descend, optax

RUNAWAY = 20.0
"""deviations from the mean of the data beyond which an imagined state counts as lost"""

CACHED = 250
"""rows that each network is asked for at a time on a CPU, so that what lies between its layers stays near a core"""

Act = Callable[[Float[Array, "rows obs"], PRNGKeyArray], Float[Array, "rows act"]]
"""a policy of many rows"""
Reward = Callable[[Any, Any, Any], Any]
"""of (s, a, s'), known"""
Rule = Callable[[Any, Any, Any], Any]
"""of (s, a, s'), known: does the episode terminate?"""


class Imagined(eqx.Module):
    """Transitions of a model: `[steps, rows, ...]`."""

    observation: Float[Array, "*steps obs"]
    action: Float[Array, "*steps act"]
    reward: Float[Array, "*steps"]
    next_observation: Float[Array, "*steps obs"]
    continues: Float[Array, "*steps"]
    """0 where the episode terminates"""
    alive: Bool[Array, "*steps"]
    """had the row not ended before, and is its next state one that can be believed?"""
    lost: Bool[Array, "*steps"]
    """was the row alive, and its next state not finite or far from all data?"""


class EnvironmentModel(eqx.Module):
    """p(s', r, terminated | s, a). Actions are in the units in which it was fitted."""

    ensemble: Ensemble | RecurrentEnsemble
    elites: Int[Array, " elites"]
    termination: TerminationModel | None = None
    """where no rule is known"""
    reward: Reward | None = eqx.field(static=True, default=None)
    """where it is known; otherwise the ensemble's last output"""
    rule: Rule | None = eqx.field(static=True, default=None)

    def recall(self, s: Float[Array, "*batch obs"]) -> Any:
        """What the elites remember where they saw nothing before s."""
        return self._elite().recall(s)

    def warm_up(self, fields: Array, actions: Array, shown: Array, s: Float[Array, "rows obs"]) -> Any:
        """What recurrent elites remember in s after these frames (see `RecurrentEnsemble.warm_up`)."""
        elite = self._elite()
        assert isinstance(elite, RecurrentEnsemble)
        return elite.warm_up(fields, actions, shown, s)

    def step(
        self, s: Float[Array, "rows obs"], a: Float[Array, "rows act"], key: PRNGKeyArray, memory: Any = ()
    ) -> tuple[Float[Array, "rows obs"], Float[Array, " rows"], Float[Array, " rows"], Any]:
        """s', r, the probability that the episode goes on (0 or 1 by a rule), of an elite for each row; and the memory.

        Rows are dealt to the elites in equal parts, at random, so that each network computes its own rows only.
        Recurrent ones compute all rows, as each of them remembers all, and an elite is drawn for each row.
        """
        elite = self._elite()
        if not isinstance(elite, RecurrentEnsemble):
            return *self._outcome(s, a, self._draw(elite, s, a, key)), memory
        changes, memory = elite.advance(memory, s, a)
        chosen = jax.random.randint(key, (len(s),), 0, elite.count)
        return *self._outcome(s, a, jnp.take_along_axis(changes, chosen[None, :, None], axis=0)[0]), memory

    def _draw(self, elite: Ensemble, s: Array, a: Array, key: PRNGKeyArray) -> Array:
        """y, drawn from an elite's distribution for each row."""
        k_deal, k_noise = jax.random.split(key)
        rows, count = len(s), len(self.elites)
        pieces = -(-rows // (count * CACHED)) if jax.default_backend() == "cpu" else 1
        each = pieces * -(-rows // (count * pieces))
        order = jax.random.permutation(k_deal, each * count)  # place -> row; rows beyond the last repeat one
        x = jnp.concatenate([s, a], axis=-1)[jnp.minimum(order, rows - 1)].reshape(count, each, -1)
        mean, log_variance = _in_pieces(elite.normalised, elite.inputs(x), pieces)
        drawn = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(k_noise, mean.shape)
        y = elite.outputs.mean + elite.outputs.deviation * drawn
        return jnp.zeros((each * count, y.shape[-1])).at[order].set(y.reshape(each * count, -1))[:rows]

    def mean_step(
        self, s: Float[Array, "*batch obs"], a: Float[Array, "*batch act"], memory: Any = ()
    ) -> tuple[Float[Array, "*batch obs"], Float[Array, "*batch"], Float[Array, "*batch"], Any]:
        """s', r, the probability that the episode goes on, by the mean of the elites' means; and the memory."""
        changes, memory = self._elite().advance(memory, s, a)
        return *self._outcome(s, a, changes.mean(axis=0)), memory

    def elite_means(
        self, s: Float[Array, "*batch obs"], a: Float[Array, "*batch act"]
    ) -> Float[Array, "elites *batch outputs"]:
        """Each elite's mean of (s' - s, r); of recurrent ones where nothing was seen before s."""
        return self._elite().advance(self.recall(s), s, a)[0]

    @property
    def gaussian(self) -> Ensemble:
        """The ensemble, where it predicts spreads."""
        assert isinstance(self.ensemble, Ensemble)
        return self.ensemble

    def _elite(self) -> Ensemble | RecurrentEnsemble:
        members = jax.tree.map(lambda leaf: leaf[self.elites], self.ensemble.members)
        return eqx.tree_at(lambda m: m.members, self.ensemble, members)

    def _outcome(self, s: Array, a: Array, y: Array) -> tuple[Array, Array, Array]:
        s_next = s + y[..., : s.shape[-1]]
        r = y[..., -1] if self.reward is None else self.reward(s, a, s_next)
        if self.rule is not None:
            goes_on = 1.0 - jnp.asarray(self.rule(s, a, s_next), jnp.float32)
        elif self.termination is not None:
            goes_on = jax.nn.sigmoid(self.termination(s, a, s_next))
        else:
            goes_on = jnp.ones(r.shape)
        return s_next, r, goes_on


def _in_pieces(
    predict: Callable[[Array], tuple[Array, Array]], x: Float[Array, "elites rows inputs"], pieces: int
) -> tuple[Float[Array, "elites rows outputs"], Float[Array, "elites rows outputs"]]:
    """`predict(x)`, of so many equal parts of the rows one after another."""
    if pieces == 1:
        return predict(x)
    count, rows, _ = x.shape
    parts = jax.lax.map(predict, x.reshape(count, pieces, -1, x.shape[-1]).swapaxes(0, 1))
    mean, log_variance = (part.swapaxes(0, 1).reshape(count, rows, -1) for part in parts)
    return mean, log_variance


def targets(
    s: Float[Array, "*rows obs"], r: Float[Array, "*rows"], s_next: Float[Array, "*rows obs"], *, rewards: bool
) -> Float[Array, "*rows outputs"]:
    """What the ensemble learns: s' - s, and the reward where it is not known."""
    return jnp.concatenate([s_next - s, r[..., None]], axis=-1) if rewards else s_next - s


def roll_out(
    model: EnvironmentModel,
    act: Act,
    s: Float[Array, "rows obs"],
    steps: Int[Array, ""] | int,
    longest: int,
    key: PRNGKeyArray,
    memory: Any = (),
) -> Imagined:
    """`steps` steps from s, of at most `longest`, which is the length of what is returned: later ones are not alive.

    `memory` is the model's in s. Where an episode is likelier to end than not, it does.
    """
    middle, room = model.ensemble.inputs.mean, RUNAWAY * model.ensemble.inputs.deviation
    middle, room = middle[: s.shape[-1]], room[: s.shape[-1]]
    act_size = model.ensemble.inputs.mean.size - s.shape[-1]
    rows = len(s)

    def turn(t: Array, carry: tuple[Imagined, Array, Array, Any]) -> tuple[Imagined, Array, Array, Any]:
        found, s, alive, memory = carry
        k_act, k_step = jax.random.split(jax.random.fold_in(key, t))
        a = act(s, k_act)
        s_next, r, goes_on, memory = model.step(s, a, k_step, memory)
        near = jnp.all(jnp.abs(s_next - middle) <= room, axis=-1) & jnp.isfinite(r)  # NaN is not near
        continues = jnp.where(goes_on > 0.5, 1.0, 0.0)
        kept = alive & near
        now = Imagined(s, a, r, s_next, continues, kept, alive & ~near)
        found = jax.tree.map(lambda whole, part: whole.at[t].set(part), found, now)
        goes = kept & (continues > 0)
        return found, jnp.where(goes[:, None], s_next, s), goes, memory

    empty = Imagined(
        observation=jnp.zeros((longest, *s.shape)),
        action=jnp.zeros((longest, rows, act_size)),
        reward=jnp.zeros((longest, rows)),
        next_observation=jnp.zeros((longest, *s.shape)),
        continues=jnp.zeros((longest, rows)),
        alive=jnp.zeros((longest, rows), bool),
        lost=jnp.zeros((longest, rows), bool),
    )
    found, *_ = jax.lax.fori_loop(0, jnp.minimum(steps, longest), turn, (empty, s, jnp.ones(rows, bool), memory))
    return found


@partial(jax.jit, static_argnums=(1, 2))
def fit_termination(
    model: TerminationModel,
    updates: int,
    batch_size: int,
    s: Float[Array, "capacity obs"],
    a: Float[Array, "capacity act"],
    s_next: Float[Array, "capacity obs"],
    continues: Float[Array, " capacity"],
    count: Int[Array, ""],
    learning_rate: Float[Array, ""] | float,
    key: PRNGKeyArray,
) -> TerminationModel:
    """The classifier, fitted on from its weights to the first `count` rows by Adam on its cross-entropy."""
    adam = optax.adam(learning_rate)

    def turn(i: Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        model, state = carry
        at = jax.random.randint(jax.random.fold_in(key, i), (batch_size,), 0, count)
        gradient = jax.grad(termination_loss)(model, s[at], a[at], s_next[at], continues[at])
        return descend(adam, model, gradient, state)

    return jax.lax.fori_loop(0, updates, turn, (model, adam.init(cast(Any, model))))[0]

"""Planning with what an actor was taught by: a model of the world and critics of primitive steps.

    z_0 = s,  z_{k+1} = m(z_k, a_k),   J(a_0 ... a_{H-1}) = sum_k min_i Q_i(z_k, a_k)

which is what temporal recall teaches SRL's actor to write (`algorithms.srl`, with alpha = 0), looked for anew at every
decision instead. `Shooting` says how; without it nothing is looked for: the actor decides step by step in imagined
states, the online planning that Patel & Siegelmann (arXiv 2410.08979) compare with, in its most natural reading.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from legato.data.spec import Spec
from legato.models.dynamics import Dynamics
from legato.nn.ensembles import TwinCritic
from legato.planning import shooting
from legato.planning.shooting import Shooting
from legato.policy import LastStep, Policy, Step

PLANNERS = ("unrolled", "mppi", "cem")


class Imagining(Policy[LastStep]):
    """Plans in a model. Beyond the horizon of a search the actor goes on from where the plan is imagined to end."""

    actor: Any
    """`greedy(s, a_prev, length)`, of which the first action is used"""
    critic: TwinCritic
    model: Dynamics
    spec: Spec = eqx.field(static=True)
    how: Shooting | None = eqx.field(static=True)

    def init_state(self, command: tuple[()]) -> LastStep:
        return LastStep.empty(self.spec)

    def observe(self, state: LastStep, step: Step) -> LastStep:
        return LastStep.of(step)

    def decide(self, state: LastStep, key: PRNGKeyArray | None, length: int) -> tuple[Array, LastStep]:
        s, a_prev = state.observation, state.executed
        if self.how is None:
            return self.unrolled(s, a_prev, length), state
        begin = self.unit(self.unrolled(s, a_prev, self.how.horizon))
        key = jax.random.key(0) if key is None else key  # the draws of a greedy decision are always the same
        plan = shooting.plan(lambda actions: self.judged(s, actions), begin, key, self.how, begin[None])
        actions = self.box(plan)
        if length > self.how.horizon:
            end = jax.lax.scan(lambda z, a: (self.model(z, a), None), s, actions)[0]
            rest = self.unrolled(end, actions[-1], length - self.how.horizon)
            actions = jnp.concatenate([actions, rest])
        return actions[:length], state

    def unrolled(
        self, s: Float[Array, " obs"], a_prev: Float[Array, " act"], length: int
    ) -> Float[Array, "length act"]:
        """What the actor does step by step where the model's predictions are all that it sees."""

        def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
            z, before = carry
            a = self.actor.greedy(z, before, 1)[0]
            return (self.model(z, a), a), a

        # Two turns at least, as in `Actor.greedy`: a single one would be rounded otherwise.
        return jax.lax.scan(step, (s, a_prev), None, max(length, 2))[1][:length]

    def judged(self, s: Float[Array, " obs"], unit: Float[Array, "horizon act"]) -> Float[Array, ""]:
        """J of actions in units of their bounds."""

        def step(z: Array, a: Array) -> tuple[Array, Array]:
            return self.model(z, a), jnp.minimum(*self.critic(z, a))

        return jax.lax.scan(step, s, self.box(unit))[1].sum()

    def unit(self, a: Float[Array, "*batch act"]) -> Float[Array, "*batch act"]:
        low, high = jnp.asarray(self.spec.low), jnp.asarray(self.spec.high)
        return (2 * a - low - high) / (high - low)

    def box(self, unit: Float[Array, "*batch act"]) -> Float[Array, "*batch act"]:
        """The inverse of `unit`."""
        low, high = jnp.asarray(self.spec.low), jnp.asarray(self.spec.high)
        return low + (high - low) * (unit + 1) / 2

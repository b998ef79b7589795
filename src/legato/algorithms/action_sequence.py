"""An actor that writes sequences: a recurrent network whose plan has any length, from the state alone.

(Patel & Siegelmann, ICLR 2025, arXiv 2410.08979.)
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from legato.data.spec import Spec, convert_actions
from legato.nn.distributions import TanhNormal
from legato.nn.gru import GRUCell, RNNCell
from legato.nn.mlp import MLP, Linear
from legato.nn.recurrence import unrolled_scan
from legato.policy import LastStep, Policy, Step, refuse_command

CELLS = {"gru": GRUCell, "rnn": RNNCell}


class Actor(eqx.Module):
    """pi(a_0 ... a_{J-1} | s, a_prev): the state enters only as the cell's first hidden vector.

    h_0 = W_2 relu(W_1 s + b_1) + b_2;  h_{k+1} = cell(h_k, a_{k-1}), a_{-1} the action executed before the decision;
    mean and log-std are linear in h_{k+1}, the same for every k.
    """

    l1: Linear
    l2: Linear
    cell: GRUCell | RNNCell
    mean: Linear
    log_std: Linear
    spec: Spec = eqx.field(static=True)

    def __init__(self, spec: Spec, state_size: int, hidden: int, cell: str = "gru", *, key: PRNGKeyArray):
        k1, k2, k3, k4, k5 = jax.random.split(key, 5)
        self.l1 = Linear(state_size, hidden, key=k1)
        self.l2 = Linear(hidden, hidden, key=k2)
        self.cell = CELLS[cell](spec.action_size, hidden, key=k3)
        self.mean = Linear(hidden, spec.action_size, key=k4)
        self.log_std = Linear(hidden, spec.action_size, key=k5)
        self.spec = spec

    def start(self, s: Float[Array, "*batch obs"]) -> Float[Array, "*batch hidden"]:
        """h_0 of a state."""
        return self.l2(jax.nn.relu(self.l1(s)))

    def head(self, h: Float[Array, "*batch hidden"]) -> TanhNormal:
        return TanhNormal(self.mean(h), self.log_std(h), *self.spec.box())

    def sample(
        self,
        s: Float[Array, "*batch obs"],
        a_prev: Float[Array, "*batch act"],
        noise: Float[Array, "J *batch act"],
    ) -> tuple[Float[Array, "J *batch act"], Float[Array, "J *batch"]]:
        """A plan of J actions that standard-normal `noise` selects, differentiable, and each action's log-density."""
        _, (a, log_pi) = unrolled_scan(Actor.step, self, (self.start(s), a_prev), noise)
        return a, log_pi

    def step(self, carry: tuple[Array, Array], noise_k: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """(h_k, a_{k-1}) -> (h_{k+1}, a_k), and the k-th action with its log-density."""
        h, a = carry
        h = self.cell(h, a)
        a, log_pi = self.head(h).sample(noise_k)
        return (h, a), (a, log_pi)

    def greedy(
        self, s: Float[Array, "*batch obs"], a_prev: Float[Array, "*batch act"], length: int
    ) -> Float[Array, "J *batch act"]:
        """The plan of the most likely actions, each fed to the next."""

        def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
            h, a = carry
            h = self.cell(h, a)
            a = self.head(h).mode()
            return (h, a), a

        # One turn would be compiled without a loop and round otherwise; with two, all lengths agree to the bit.
        _, a = jax.lax.scan(step, (self.start(s), a_prev), None, max(length, 2))
        return a[:length]


class ActionSequence(Policy[LastStep]):
    """Unrolls the actor to any length: shorter than it was trained for, or longer."""

    actor: Actor
    spec: Spec = eqx.field(static=True)
    encoder: MLP | None = None

    def init_state(self, command: Any) -> LastStep:
        refuse_command(command)
        return LastStep.empty(self.spec)

    def observe(self, state: LastStep, step: Step) -> LastStep:
        return LastStep.of(step)

    def decide(self, state: LastStep, key: PRNGKeyArray | None, length: int) -> tuple[Array, LastStep]:
        s = state.observation if self.encoder is None else self.encoder(state.observation)
        a_prev = convert_actions(state.executed, self.spec, self.actor.spec)
        if key is None:
            a = self.actor.greedy(s, a_prev, length)
        else:
            a, _ = self.actor.sample(s, a_prev, jax.random.normal(key, (length, self.spec.action_size)))
        return convert_actions(a, self.actor.spec, self.spec), state

"""The actor of SRL: a recurrent network that writes a plan of any length, from the state alone."""

from __future__ import annotations

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from legato.algorithms.srl.config import SRL as Config
from legato.data.spec import Spec
from legato.nn.distributions import TanhNormal
from legato.nn.gru import GRUCell, RNNCell
from legato.nn.mlp import Linear
from legato.nn.recurrence import unrolled_scan


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

    def __init__(self, spec: Spec, config: Config, *, key: PRNGKeyArray):
        k1, k2, k3, k4, k5 = jax.random.split(key, 5)
        cell = {"gru": GRUCell, "rnn": RNNCell}[config.cell]
        self.l1 = Linear(config.latent or spec.observation_size, config.hidden, key=k1)
        self.l2 = Linear(config.hidden, config.hidden, key=k2)
        self.cell = cell(spec.action_size, config.hidden, key=k3)
        self.mean = Linear(config.hidden, spec.action_size, key=k4)
        self.log_std = Linear(config.hidden, spec.action_size, key=k5)
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

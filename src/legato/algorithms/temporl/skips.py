"""Values of skips, Q(s, j | a): what it is worth to play a in s for j steps, and then to act as the behaviour does.

y_j    = sum_(i<j) gamma^i r_i + m gamma^j V(s_j)     V: the behaviour's own value, so that the skip is the only one
L_skip = sum_j M_j (Q(s_0, j | a_0) - y_j)^2 / sum_j M_j

(Biedenkapp et al. 2021, arXiv 2106.05262, skip value and t-DDPG; networks of state and action side by side.) Rows of
one skip lie one after another in the replay, so a stretch of J rows holds the skips of all lengths from its first row:
M_j is 1 where the first j rows are one episode's and play one action. Stretches begin at every row, so that a skip that
was played teaches all those within it too. Where the environment ended the episode after i of these steps, m is 0, and
longer skips, which would have ended there as well, are worth y_i: M_j is 1 for all j >= i. Where it was only cut, V is
asked, and of longer skips nothing is known.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from legato.data.replay import Sequences
from legato.data.spec import Spec
from legato.losses.means import masked_mean
from legato.losses.temporal_difference import td_target
from legato.nn.mlp import MLP


class SkipNetwork(eqx.Module):
    """Q(s, j | a) of all lengths j = 1..J: two hidden ReLU layers on state and action, of a choice which it is."""

    network: MLP
    spec: Spec = eqx.field(static=True)
    """in whose units it reads actions"""

    def __init__(self, spec: Spec, longest: int, hidden: int, *, key: PRNGKeyArray):
        size = spec.choices or spec.action_size
        self.network = MLP((spec.observation_size + size, hidden, hidden, longest), key=key)
        self.spec = spec

    @property
    def longest(self) -> int:
        """J."""
        return self.network.layers[-1].bias.shape[-1]

    def __call__(self, s: Float[Array, "*batch obs"], a: Float[Array, "*batch act"]) -> Float[Array, "*batch J"]:
        if self.spec.choices is not None:
            a = jax.nn.one_hot(a[..., 0].astype(int), self.spec.choices)
        return self.network(jnp.concatenate([s, a], axis=-1))


def greedy_length(q: Float[Array, "*batch J"]) -> Int[Array, "*batch"]:
    """argmax_j Q(s, j | a) in primitive steps; of equal ones the longest."""
    return (q.shape[-1] - jnp.argmax(q[..., ::-1], axis=-1)).astype(jnp.int32)


def skip_targets(
    stretch: Sequences, gamma: float, v_next: Float[Array, "J *batch"]
) -> tuple[Float[Array, "J *batch"], Bool[Array, "J *batch"]]:
    """y_j and M_j, of the values V(s_j) of where each of the steps led to; what M_j leaves out may be anything."""
    steps, number = stretch.steps, jnp.arange(len(v_next)).reshape(-1, *(1,) * (v_next.ndim - 1))
    same = jnp.all(steps.action == steps.action[:1], axis=-1)
    played = jnp.cumprod(same * stretch.valid, axis=0)  # the first j steps, of one action within one episode
    ended = jnp.cumsum(played * (1 - steps.continues), axis=0)
    discount = jnp.broadcast_to(gamma**number, v_next.shape)
    rewards = jnp.cumsum(discount * steps.reward * played, axis=0)
    return td_target(rewards, 1 - ended, gamma * discount, v_next), (played + ended) > 0


def skip_loss(
    network: SkipNetwork, stretch: Sequences, y: Float[Array, "J batch"], mask: Bool[Array, "J batch"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """L_skip, and the mean length that the network would choose."""
    q = network(stretch.steps.observation[0], stretch.steps.action[0])
    return masked_mean((q.T - y) ** 2, mask), greedy_length(q).mean()

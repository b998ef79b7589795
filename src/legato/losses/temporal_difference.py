"""Temporal-difference targets and errors of critics (Sutton 1988).

y = r + m gamma v(s')                          m: 0 where the environment ended the episode, 1 where it was cut
L = MSE(Q_1(s, a), y) + MSE(Q_2(s, a), y)      two critics, of which targets read the smaller
                                               (Fujimoto, van Hoof & Meger 2018, arXiv 1802.09477)
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from legato.data.replay import Sequences, Transition
from legato.losses.returns import n_step_reward

TwinValues = tuple[Float[Array, "*batch"], Float[Array, "*batch"]]
"""Q_1 and Q_2"""


def n_step_transition(
    batch: Sequences, gamma: float
) -> tuple[Float[Array, " batch"], Float[Array, " batch"], Transition]:
    """r and `discount` of `td_target` for as many steps of each sequence as are valid, and the last of these steps."""
    r, n = n_step_reward(batch.steps.reward, batch.valid, gamma)
    return r, gamma**n, jax.tree.map(lambda leaf: leaf[n - 1, jnp.arange(len(n))], batch.steps)


def td_target(
    r: Float[Array, "*batch"],
    m: Float[Array, "*batch"],
    discount: Float[Array, "*batch"] | float,
    v_next: Float[Array, "*batch"],
) -> Float[Array, "*batch"]:
    """y, which no gradient goes through.

    Of n steps, r is the discounted sum of their rewards, `discount` gamma^n, and v the value where they ended.
    """
    return jax.lax.stop_gradient(r + m * discount * v_next)


def twin_error(q: TwinValues, y: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """(Q_1 - y)^2 + (Q_2 - y)^2."""
    return (q[0] - y) ** 2 + (q[1] - y) ** 2


def twin_loss(q: TwinValues, y: Float[Array, "*batch"]) -> Float[Array, ""]:
    """L, where every value counts."""
    return jnp.mean((q[0] - y) ** 2) + jnp.mean((q[1] - y) ** 2)

"""Returns of several steps: what was earned, and from where that ends a value of all that follows.

    G_t^n      = sum_{k < n} gamma^k r_{t+k} + gamma^n v_{t+n}                              n-step return
    G_t^lambda = r_t + gamma m_t ((1 - lambda) v_{t+1} + lambda G_{t+1}^lambda)             lambda-return

(Sutton & Barto 2018, sections 7.1 and 12.1.) m_t is 0 where the environment ended the episode with step t.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def n_step_reward(
    r: Float[Array, "n *batch"], valid: Float[Array, "n *batch"], gamma: float
) -> tuple[Float[Array, "*batch"], Int[Array, "*batch"]]:
    """sum_k gamma^k r_k over the first steps of which all are `valid` (1, then 0), and how many these are."""
    powers = gamma ** jnp.arange(len(valid)).reshape(-1, *(1,) * (r.ndim - 1))
    return jnp.sum(valid * powers * r, axis=0), valid.sum(axis=0).astype(int)


def n_step_return(
    r: Float[Array, "batch K"],
    v: Float[Array, "batch K"],
    has_next: Bool[Array, "batch K"],
    terminated: Bool[Array, "batch K"],
    gamma: float,
    n: int,
) -> Float[Array, "batch K"]:
    """G_t^n of every step of windows; v_t is the value of the state of step t itself.

    Where a window holds less than n steps more, the return is of those to the window's last state. `has_next`: the
    next step is in the window; `terminated`: the environment ended the episode with this step, which is worth its
    reward. A step that does neither is worth v_t.
    """
    g = v
    for _ in range(n):
        after = jnp.concatenate([g[:, 1:], jnp.zeros_like(g[:, :1])], axis=1)
        g = jnp.where(has_next, r + gamma * after, jnp.where(terminated, r, v))
    return g


def lambda_returns(
    r: Float[Array, "T *batch"],
    discount: Float[Array, "T *batch"],
    v_next: Float[Array, "T *batch"],
    lam: float,
) -> Float[Array, "T *batch"]:
    """G_t^lambda of every step of a roll-out, of which v_T is all that is known of what follows: G_T = v_T.

    `discount` is gamma m_t; `v_next` holds v_1 ... v_T, of the states that steps lead to. With lambda = 0 these are
    targets of one step, with 1 the rewards of all steps and v_T. Gradients go through all that is given.
    """

    def backwards(after: Array, step: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        r_t, discount_t, v = step
        g = r_t + discount_t * ((1 - lam) * v + lam * after)
        return g, g

    return jax.lax.scan(backwards, v_next[-1], (r, discount, v_next), reverse=True)[1]

"""Layers step after step, or in log2(L) turns."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from legato.errors import LegatoError
from legato.nn.ssm.complex import Complex, reset_states
from legato.nn.ssm.diagonal import S4D, S5
from legato.nn.ssm.discrete import is_parallel
from legato.nn.ssm.low_rank import S4


def scan(
    layer: S4D | S5 | S4,
    u: Float[Array, "L *batch H"],
    x: Complex | None = None,
    reset: Bool[Array, "L *batch"] | None = None,
    parallel: bool | None = None,
) -> tuple[Complex, Float[Array, "L *batch H"]]:
    """The last state and all outputs, step after step. Time comes first; `reset` marks steps that forget the state.

    `parallel` computes the same in log2(L) turns, with more work and all states in memory: None means only where the
    backend is not a CPU, and never for S4. Raises `LegatoError` for S4 in parallel: products of its Abar are dense.
    """
    if parallel and isinstance(layer, S4):
        raise LegatoError("parallel = True asks for a layer with a diagonal A, and S4 has none: scan it with False")
    batch = u.shape[1:-1]
    begin = jax.tree.map(lambda leaf: jnp.zeros((*batch, *leaf.shape), u.dtype), layer.start()) if x is None else x
    if not isinstance(layer, S4) and is_parallel(parallel):
        return _associative(layer, u, begin, reset)
    reset = jnp.zeros((len(u), *batch), bool) if reset is None else reset
    system: Any = layer.discrete()
    return jax.lax.scan(lambda x, at: layer.step(system, x, *at), begin, (u, reset))


def _associative(layer: S4D | S5, u: Array, x: Complex, reset: Array | None) -> tuple[Complex, Array]:
    """x_k = a_k x_{k-1} + b_k as pairs (a_k, b_k) and their composition; a_k = 0 where the state is forgotten."""
    system, batch = layer.discrete(), u.shape[1:-1]
    b = layer.drive(system, u)
    a = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(u), *(1,) * len(batch), *leaf.shape)), system.a)
    a = reset_states(a, reset, system.a.re.ndim)
    first = Complex(a.re[0], a.im[0]) * x
    b = Complex(b.re.at[0].add(first.re), b.im.at[0].add(first.im))
    _, states = jax.lax.associative_scan(lambda i, j: (j[0] * i[0], j[0] * i[1] + j[1]), (a, b))
    return jax.tree.map(lambda leaf: leaf[-1], states), layer.read(system, states, u)

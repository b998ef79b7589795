"""`unrolled_scan` against `jax.lax.scan`, whose results and gradients it must have."""

from __future__ import annotations

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from legato.nn.gru import GRUCell
from legato.nn.mlp import Linear
from legato.nn.recurrence import unrolled_scan

INPUTS, HIDDEN, OUTPUTS = 1, 5, 3


class Network(eqx.Module):
    """A recurrence whose output is fed back, and a layer that it does not use."""

    cell: GRUCell
    out: Linear
    unused: Linear

    def __init__(self, key: jax.Array):
        k_cell, k_out, k_unused = jax.random.split(key, 3)
        self.cell = GRUCell(INPUTS + OUTPUTS, HIDDEN, key=k_cell)
        self.out = Linear.uniform(HIDDEN, OUTPUTS, 1.0, key=k_out)
        self.unused = Linear(4, 4, key=k_unused)

    def step(self, carry: tuple[jax.Array, jax.Array], x: dict[str, jax.Array]) -> tuple[Any, dict[str, jax.Array]]:
        h, y = carry
        h = self.cell(h, jnp.concatenate([x["x"], y], axis=-1))
        y = jnp.sin(self.out(h)) * x["scale"]
        return (h, y), {"y": y, "square": y**2}


def scan(step: Any, network: Network, carry: Any, xs: Any) -> Any:
    return jax.lax.scan(partial(step, network), carry, xs)


def problem(turns: int, batch: tuple[int, ...]) -> tuple[Network, Any, Any]:
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), float)  # noqa: E731
    carry = (normal(*batch, HIDDEN), normal(*batch, OUTPUTS))
    xs = {"x": normal(turns, *batch, INPUTS), "scale": normal(turns, *batch, 1)}
    return Network(jax.random.key(0)), carry, xs


def loss(loop: Any, network: Network, carry: Any, xs: Any) -> jax.Array:
    (h, y), ys = loop(Network.step, network, carry, xs)
    weights = jnp.arange(1.0, 1 + ys["y"].size).reshape(ys["y"].shape)  # every action counts, each differently
    return jnp.sum(weights * jnp.cos(ys["y"])) + jnp.sum(ys["square"] ** 2) + jnp.sum(h**3) + jnp.sum(y)


def close(found: Any, expected: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("turns", [1, 2, 7])
@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_values_and_every_gradient_are_those_of_a_scan(turns: int, batch: tuple[int, ...]) -> None:
    of = problem(turns, batch)

    @jax.jit
    def both(*of: Any) -> Any:
        losses = [jax.value_and_grad(partial(loss, loop), argnums=(0, 1, 2))(*of) for loop in (unrolled_scan, scan)]
        return [loop(Network.step, *of) for loop in (unrolled_scan, scan)], losses

    (values, of_scan), (found, expected) = both(*of)
    close(values, of_scan)
    close(found, expected)
    network = found[1][0]
    assert all(np.any(leaf) for leaf in jax.tree.leaves((network.cell, network.out)))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(network.unused))


@pytest.mark.usefixtures("x64")
def test_several_networks_side_by_side() -> None:
    _, carry, xs = problem(3, (4,))
    networks = jax.jit(jax.vmap(Network))(jax.random.split(jax.random.key(1), 2))
    networks = jax.tree.map(np.asarray, networks)
    gradients = jax.jit(jax.vmap(jax.grad(partial(loss, unrolled_scan)), in_axes=(0, None, None)))(networks, carry, xs)
    gradients, alone = jax.tree.map(np.asarray, gradients), jax.jit(jax.grad(partial(loss, scan)))
    for i in range(2):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], networks)
        close(jax.tree.map(lambda leaf, i=i: leaf[i], gradients), alone(one, carry, xs))


def products(jaxpr: Any, shape: tuple[int, ...]) -> int:
    """How many matrix products give an array of this shape."""
    inner = [value for e in jaxpr.eqns for value in e.params.values() if hasattr(value, "jaxpr")]
    here = sum(e.primitive.name == "dot_general" and e.outvars[0].aval.shape == shape for e in jaxpr.eqns)
    return here + sum(products(value.jaxpr, shape) for value in inner)


def test_a_weight_s_gradient_is_one_product_over_all_turns() -> None:
    """What it is for: a loop forms one per turn."""
    of = problem(6, (7,))
    jaxpr = jax.make_jaxpr(jax.grad(partial(loss, unrolled_scan)))(*of).jaxpr
    for weight in (of[0].cell.x.weight, of[0].cell.h.weight, of[0].out.weight):
        assert products(jaxpr, weight.shape) == 1

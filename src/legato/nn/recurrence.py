"""Loops over time, written out, that leave one product to do for the gradient of each layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from legato.nn.mlp import Linear

Carry = TypeVar("Carry")


def unrolled_scan(
    step: Callable[[Any, Carry, Any], tuple[Carry, Any]], network: Any, carry: Carry, xs: Any
) -> tuple[Carry, Any]:
    """`jax.lax.scan(partial(step, network), carry, xs)`, unrolled, and cheaper to differentiate (in reverse, once).

    The backward pass of a loop forms the gradient of every weight once per turn and adds these up: at the sizes of
    control more reading and writing of matrices than arithmetic. Here each turn k leaves a layer's input x_k and the
    gradient d_k of its output behind, and dW = sum_k x_k^T d_k is one product over all turns.

    `network` is a pytree whose arrays are those of `Linear` layers. `step` calls each of them at most once, with inputs
    `[*batch, inputs]` where `[*batch, ...]` is the shape of the carry's leaves.
    """
    return _scan(step, network, carry, xs)  # type: ignore[return-value]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(step: Any, network: Any, carry: Any, xs: Any) -> tuple[Any, Any]:
    return jax.lax.scan(partial(step, network), carry, xs, unroll=True)


def _forward(step: Any, network: Any, carry: Any, xs: Any) -> tuple[Any, Any]:
    layers, structure = jax.tree.flatten(network, is_leaf=lambda node: isinstance(node, Linear))
    turns = [jax.tree.map(lambda leaf, k=k: leaf[k], xs) for k in range(len(jax.tree.leaves(xs)[0]))]
    batch = jax.tree.leaves(carry)[0].shape[:-1]

    def run(shifts: list[list[Array]], carry: Any, turns: list[Any]) -> tuple[Any, list[list[Array]]]:
        inputs: list[list[Array]] = [[] for _ in layers]
        ys = []
        for x, shifts_k in zip(turns, shifts, strict=True):
            shifted = [_shifted(*of_layer) for of_layer in zip(layers, shifts_k, inputs, strict=True)]
            carry, y = step(structure.unflatten(shifted), carry, x)
            ys.append(y)
        return (carry, _stack(ys)), inputs

    # Zeros, added to the layers' outputs to ask for the gradients of these.
    shifts = [[jnp.zeros((*batch, *layer.bias.shape), layer.bias.dtype) for layer in layers] for _ in turns]
    result, pullback, inputs = jax.vjp(run, shifts, carry, turns, has_aux=True)
    return result, (pullback, inputs, network)


def _backward(step: Any, saved: Any, cotangent: Any) -> tuple[Any, Any, Any]:
    pullback, inputs, network = saved
    shifts, carry, turns = pullback(cotangent)
    gradients = []
    for x, d, weight in zip(inputs, zip(*shifts, strict=True), jax.tree.leaves(network)[::2], strict=True):
        d = _rows(d)
        gradients += [jnp.einsum("ni,no->io", _rows(x), d) if x else jnp.zeros_like(weight), d.sum(axis=0)]
    return jax.tree.structure(network).unflatten(gradients), carry, _stack(turns)


_scan.defvjp(_forward, _backward)


def _shifted(layer: Linear, shift: Array, inputs: list[Array]) -> Callable[[Array], Array]:
    """The layer, its output shifted, that notes what it is called with."""

    def call(x: Array) -> Array:
        inputs.append(x)
        return layer(x) + shift

    return call


def _rows(turns: Sequence[Array]) -> Array:
    """The examples of all turns, one below the other."""
    return jnp.concatenate([x.reshape(-1, x.shape[-1]) for x in turns])


def _stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

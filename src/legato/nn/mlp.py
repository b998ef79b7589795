"""Linear layers and multi-layer perceptrons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from legato.nn.layers import LayerNorm

Network = TypeVar("Network")


class Linear(eqx.Module):
    """y = x W + b, for x of any leading shape. Xavier-uniform weights, zero bias.

    Weights are stored `[inputs, outputs]`: a single decision is then a product of one row with a matrix read in order;
    with the matrix transposed, XLA's CPU backend is slow at it.
    """

    weight: Float[Array, "inputs outputs"]
    bias: Float[Array, " outputs"]

    def __init__(self, inputs: int, outputs: int, *, key: PRNGKeyArray):
        bound = (6 / (inputs + outputs)) ** 0.5
        self.weight = jax.random.uniform(key, (inputs, outputs), minval=-bound, maxval=bound)
        self.bias = jnp.zeros(outputs)

    @classmethod
    def uniform(cls, inputs: int, outputs: int, bound: float, *, key: PRNGKeyArray) -> Linear:
        """A layer with weights and biases drawn from U(-bound, bound)."""
        k_weight, k_bias = jax.random.split(key)
        weight = jax.random.uniform(k_weight, (inputs, outputs), minval=-bound, maxval=bound)
        bias = jax.random.uniform(k_bias, (outputs,), minval=-bound, maxval=bound)
        return eqx.tree_at(lambda layer: (layer.weight, layer.bias), cls(inputs, outputs, key=key), (weight, bias))

    @classmethod
    def normal(cls, inputs: int, outputs: int, deviation: float, *, key: PRNGKeyArray) -> Linear:
        """A layer with weights drawn from N(0, deviation^2) and zero biases."""
        weight = deviation * jax.random.normal(key, (inputs, outputs))
        return eqx.tree_at(lambda layer: layer.weight, cls(inputs, outputs, key=key), weight)

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        return x @ self.weight + self.bias


def apply_rows(layer: Linear, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
    """`layer(x)` for thousands of rows, cheaper to differentiate on a CPU (in reverse, once).

    The weight's gradient x^T d is a product over rows, of which XLA's CPU backend computes the transposed factor anew
    in passing, in its slow order. Here the narrower factor is laid out first, and alone.
    """
    return _product(x, layer.weight) + layer.bias


@jax.custom_vjp
def _product(
    x: Float[Array, "*batch inputs"], weight: Float[Array, "inputs outputs"]
) -> Float[Array, "*batch outputs"]:
    return x @ weight


def _forward(x: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ weight, (x, weight)


def _backward(saved: tuple[Array, Array], d: Array) -> tuple[Array, Array]:
    x, weight = saved
    rows, d_rows, apart = x.reshape(-1, x.shape[-1]), d.reshape(-1, d.shape[-1]), jax.lax.optimization_barrier
    if rows.shape[1] <= d_rows.shape[1]:
        return d @ weight.T, apart(rows.T) @ d_rows
    return d @ weight.T, apart(apart(d_rows.T) @ rows).T


_product.defvjp(_forward, _backward)


class MLP(eqx.Module):
    """Linear layers with ReLU, or another `activation`, between them; the last layer is linear.

    `sizes` are the widths from the input to the output: `(14, 256, 256, 1)` has two hidden layers.
    """

    layers: tuple[Linear, ...]
    norms: tuple[LayerNorm, ...]
    """of each hidden layer before its activation, or none"""
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        activation: Callable[[Array], Array] = jax.nn.relu,
        norm: bool = False,
        key: PRNGKeyArray,
    ):
        keys = jax.random.split(key, len(sizes) - 1)
        self.layers = tuple(
            Linear(inputs, outputs, key=k) for inputs, outputs, k in zip(sizes[:-1], sizes[1:], keys, strict=True)
        )
        self.norms = tuple(LayerNorm(size) for size in sizes[1:-1]) if norm else ()
        self.activation = activation

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        for i, layer in enumerate(self.layers[:-1]):
            x = layer(x)
            x = self.activation(self.norms[i](x) if self.norms else x)
        return self.layers[-1](x)


def orthogonal(network: Network, gain: float, key: PRNGKeyArray) -> Network:
    """The network with new weights in all of its linear layers: orthogonal, times `gain`; biases stay.

    Layers may be stacked along a leading axis. Of a network that has no linear layer nothing changes.
    """
    layers, rest = jax.tree.flatten(network, is_leaf=lambda node: isinstance(node, Linear))
    draw = jax.nn.initializers.orthogonal(gain)

    def of(node: Any, key: PRNGKeyArray) -> Any:
        if not isinstance(node, Linear):
            return node
        *stacked, inputs, outputs = node.weight.shape
        keys = jax.random.split(key, stacked[0]) if stacked else key
        one = lambda k: draw(k, (inputs, outputs), node.weight.dtype)  # noqa: E731
        return eqx.tree_at(lambda layer: layer.weight, node, jax.vmap(one)(keys) if stacked else one(keys))

    keys = jax.random.split(key, len(layers))
    return jax.tree.unflatten(rest, [of(layer, k) for layer, k in zip(layers, keys, strict=True)])

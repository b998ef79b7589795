"""Linear layers and multi-layer perceptrons."""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


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


class MLP(eqx.Module):
    """Linear layers with ReLU between them; the last layer is linear.

    `sizes` are the widths from the input to the output: `(14, 256, 256, 1)` has two hidden layers.
    """

    layers: tuple[Linear, ...]

    def __init__(self, sizes: Sequence[int], *, key: PRNGKeyArray):
        keys = jax.random.split(key, len(sizes) - 1)
        self.layers = tuple(
            Linear(inputs, outputs, key=k) for inputs, outputs, k in zip(sizes[:-1], sizes[1:], keys, strict=True)
        )

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        for layer in self.layers[:-1]:
            x = jax.nn.relu(layer(x))
        return self.layers[-1](x)

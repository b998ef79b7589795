"""Linear layers and perceptrons, seen as functions: how the weights are stored is their own business."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads
from scipy import stats

from legato.nn.mlp import MLP, Linear, apply_rows, orthogonal


def matrix(layer: Linear, inputs: int) -> tuple[np.ndarray, np.ndarray]:
    """(W, b) of y = x W + b, read off what the layer does to zero and to the unit vectors."""
    b = np.asarray(layer(jnp.zeros(inputs)))
    return np.asarray(layer(jnp.eye(inputs))) - b, b


@pytest.mark.parametrize("leading", [(), (7,), (2, 3)])
def test_a_layer_is_affine(leading: tuple[int, ...]) -> None:
    layer = Linear(3, 2, key=jax.random.key(0))
    layer = jax.tree.map(lambda leaf: leaf + 0.3, layer)  # with a bias
    x = jax.random.normal(jax.random.key(1), (*leading, 3))
    W, b = matrix(layer, 3)
    assert (np.abs(b) > 0).all()
    np.testing.assert_allclose(layer(x), np.asarray(x) @ W + b, atol=3e-6)


@given(leading=st.lists(st.integers(1, 5), max_size=4), inputs=st.integers(1, 4), outputs=st.integers(1, 4))
def test_any_leading_shape_is_a_batch(leading: list[int], inputs: int, outputs: int) -> None:
    x = jax.ShapeDtypeStruct((*leading, inputs), jnp.float32)
    y = jax.eval_shape(lambda key, x: MLP((inputs, 3, outputs), key=key)(x), jax.random.key(0), x)
    assert y.shape == (*leading, outputs)


@pytest.mark.parametrize(("inputs", "outputs"), [(300, 40), (40, 300), (90, 90)])
def test_weights_are_xavier_uniform_and_biases_zero(inputs: int, outputs: int) -> None:
    W, b = matrix(Linear(inputs, outputs, key=jax.random.key(2)), inputs)
    bound = (6 / (inputs + outputs)) ** 0.5
    np.testing.assert_array_equal(b, 0)
    assert np.abs(W).max() <= bound
    assert stats.kstest(W.ravel(), "uniform", (-bound, 2 * bound)).pvalue > 1e-3


def test_an_mlp_has_relu_between_its_layers_and_none_after_the_last() -> None:
    mlp = MLP((3, 8, 6, 2), key=jax.random.key(3))
    mlp = jax.tree.map(lambda leaf: leaf + 0.1, mlp)
    x = np.asarray(jax.random.normal(jax.random.key(4), (50, 3)))
    expected = x
    for layer, inputs, last in zip(mlp.layers, (3, 8, 6), (False, False, True), strict=True):
        W, b = matrix(layer, inputs)
        expected = expected @ W + b
        expected = expected if last else np.maximum(expected, 0)
    y = mlp(jnp.asarray(x))
    np.testing.assert_allclose(y, expected, atol=1e-5)
    assert y.min() < 0 < y.max()


def test_an_mlp_holds_one_matrix_and_one_bias_per_layer() -> None:
    mlp = MLP((14, 32, 16, 3), key=jax.random.key(5))
    assert sum(leaf.size for leaf in jax.tree.leaves(mlp)) == (14 + 1) * 32 + (32 + 1) * 16 + (16 + 1) * 3


def test_layers_are_drawn_from_different_keys() -> None:
    mlp = MLP((5, 5, 5), key=jax.random.key(6))
    first, second = (matrix(layer, 5)[0] for layer in mlp.layers)
    assert not np.isclose(first, second).any()


@pytest.mark.usefixtures("x64")
def test_gradients() -> None:
    mlp = MLP((3, 7, 7, 2), key=jax.random.key(7))
    x = jax.random.normal(jax.random.key(8), (4, 3))
    check_grads(jax.jit(MLP.__call__), (mlp, x), order=1, modes=["rev"], atol=1e-6, rtol=1e-5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("inputs", "outputs"), [(3, 5), (5, 3), (4, 4)])
def test_many_rows_have_the_gradients_of_the_layer(inputs: int, outputs: int) -> None:
    """Whichever factor is the narrower."""
    layer = jax.tree.map(lambda leaf: leaf.astype(float), Linear(inputs, outputs, key=jax.random.key(0)))
    x, weight = (jax.random.normal(jax.random.key(k), (2, 7, n), float) for k, n in ((1, inputs), (2, outputs)))
    np.testing.assert_allclose(apply_rows(layer, x), layer(x), atol=1e-12)
    theirs = jax.grad(lambda layer, x: jnp.sum(weight * jnp.sin(layer(x))), argnums=(0, 1))(layer, x)
    ours = jax.grad(lambda layer, x: jnp.sum(weight * jnp.sin(apply_rows(layer, x))), argnums=(0, 1))(layer, x)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_orthogonal_weights_in_every_layer_stacked_or_not() -> None:
    network = MLP((5, 8, 8, 1), key=jax.random.key(0))
    stacked = jax.vmap(lambda key: MLP((5, 8, 8, 1), key=key))(jax.random.split(jax.random.key(0)))
    one, two = (orthogonal(net, 2**0.5, jax.random.key(1)) for net in (network, stacked))
    for layer in (
        *one.layers,
        *(jax.tree.map(lambda leaf, i=i: leaf[i], two).layers[k] for i in (0, 1) for k in range(3)),
    ):
        w = np.asarray(layer.weight, np.float64)
        gram = w @ w.T if w.shape[0] < w.shape[1] else w.T @ w
        np.testing.assert_allclose(gram, 2 * np.eye(len(gram)), atol=1e-5)
        np.testing.assert_array_equal(layer.bias, 0)
    assert not np.array_equal(two.layers[1].weight[0], two.layers[1].weight[1])

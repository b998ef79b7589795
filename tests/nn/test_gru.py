"""Recurrent cells against the equations of their docstrings, written out in NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

from legato.nn.gru import GRUCell, RNNCell

INPUTS, HIDDEN = 2, 5
CELLS = pytest.mark.parametrize("kind", [GRUCell, RNNCell])
Cell = GRUCell | RNNCell
GRU, STEP = GRUCell(INPUTS, HIDDEN, key=jax.random.key(5)), jax.jit(GRUCell.__call__)


def weights(cell: Cell) -> tuple[list[np.ndarray], ...]:
    """(W, U, b, c), each a list over the gates: the only place here that knows how a cell stores them."""
    w_x, w_h = np.asarray(cell.x.weight).T, np.asarray(cell.h.weight).T
    gates = len(w_x) // HIDDEN
    return tuple(np.split(np.asarray(part, np.float64), gates) for part in (w_x, w_h, cell.x.bias, cell.h.bias))


def transcription(cell: Cell, h: np.ndarray, x: np.ndarray) -> np.ndarray:
    """One step for one vector."""
    W, U, b, c = weights(cell)
    if isinstance(cell, RNNCell):
        return np.tanh(W[0] @ x + b[0] + U[0] @ h + c[0])
    r = 1 / (1 + np.exp(-(W[0] @ x + b[0] + U[0] @ h + c[0])))
    z = 1 / (1 + np.exp(-(W[1] @ x + b[1] + U[1] @ h + c[1])))
    n = np.tanh(W[2] @ x + b[2] + r * (U[2] @ h + c[2]))
    return (1 - z) * n + z * h


@CELLS
@pytest.mark.parametrize("leading", [(), (7,), (2, 3)])
def test_a_step_is_its_equation_for_every_vector_of_a_batch(kind: type[Cell], leading: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    cell = kind(INPUTS, HIDDEN, key=jax.random.key(0))
    h, x = 2 * rng.normal(size=(*leading, HIDDEN)), 3 * rng.normal(size=(*leading, INPUTS))
    new = jax.jit(kind.__call__)(cell, h, x)
    for index in np.ndindex(*leading):
        np.testing.assert_allclose(new[index], transcription(cell, h[index], x[index]), atol=2e-6)


@CELLS
@given(leading=st.lists(st.integers(1, 5), max_size=4))
def test_any_leading_shape_is_a_batch(kind: type[Cell], leading: list[int]) -> None:
    h, x = (jax.ShapeDtypeStruct((*leading, size), jnp.float32) for size in (HIDDEN, INPUTS))
    cell = jax.eval_shape(lambda key: kind(INPUTS, HIDDEN, key=key), jax.random.key(0))
    assert jax.eval_shape(kind.__call__, cell, h, x).shape == (*leading, HIDDEN)


@pytest.mark.usefixtures("x64")
@CELLS
def test_gradients(kind: type[Cell]) -> None:
    cell = kind(INPUTS, HIDDEN, key=jax.random.key(0))
    h = jax.random.normal(jax.random.key(1), (3, HIDDEN))
    x = jax.random.normal(jax.random.key(2), (3, INPUTS))
    check_grads(jax.jit(kind.__call__), (cell, h, x), order=1, modes=["rev"], atol=1e-6, rtol=1e-5)


@CELLS
def test_weights_fill_the_interval_of_one_over_root_hidden(kind: type[Cell]) -> None:
    hidden = 64
    cell = kind(7, hidden, key=jax.random.key(3))
    parts = [np.asarray(leaf).ravel() * hidden**0.5 for leaf in jax.tree.leaves(cell)]
    assert len(parts) == 4  # input and hidden weights, and cuDNN's two biases
    for part in parts:
        assert np.abs(part).max() <= 1
        assert part.min() < -0.9
        assert part.max() > 0.9
        assert abs(part.mean()) < 4 * 3**-0.5 / part.size**0.5
    assert len({round(float(part[0]), 6) for part in parts}) == 4  # no two drawn from one key


@given(seed=st.integers(0, 99), scale=st.floats(0, 30))
def test_a_gru_never_leaves_the_hull_of_its_memory_and_the_unit_box(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    h, x = scale * rng.normal(size=HIDDEN), 10 * rng.normal(size=INPUTS)
    new = np.asarray(STEP(GRU, h, x))
    assert (np.abs(new) <= np.maximum(np.abs(h), 1) * (1 + 1e-6)).all()

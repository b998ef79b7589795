"""A convolutional LSTM of a periodic field: its convolutions against sums, its step by hand, what moves with the field,
and that showing it frames is the same whether they are unrolled or remembered.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from legato.errors import LegatoError
from legato.nn.conv_lstm import HIDDEN, ConvLSTM, Convolution, Memory, TransposedConvolution, check_grid

POINTS, ROWS, STEPS, FRAMES = 16, 2, 16, 5


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("rows", [3, 40])  # as shifted copies, and as one product
@pytest.mark.parametrize(("kernel", "stride"), [(1, 2), (3, 1), (3, 2), (7, 1)])
def test_a_convolution_is_the_sum_over_neighbours_of_every_few_points(kernel: int, stride: int, rows: int) -> None:
    layer = Convolution(kernel, 2, 3, stride=stride, bias=True, key=jax.random.key(0))
    layer = eqx.tree_at(lambda layer: layer.bias, layer, jnp.arange(3.0))
    x, w, expected = numbers(rows, 8, 2), np.asarray(layer.weight), np.zeros((rows, 8 // stride, 3))
    for i in range(8 // stride):
        for j in range(kernel):
            expected[:, i] += x[:, (stride * i + j - kernel // 2) % 8] @ w[j]
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected + np.arange(3), atol=1e-5)


@pytest.mark.parametrize("rows", [3, 40])
def test_a_transposed_convolution_is_one_of_points_with_zeros_between(rows: int) -> None:
    layer = TransposedConvolution(2, 3, key=jax.random.key(0))
    layer = eqx.tree_at(lambda layer: layer.bias, layer, jnp.arange(3.0))
    x, w, expected = numbers(rows, 8, 2), np.asarray(layer.weight), np.zeros((rows, 16, 3))
    apart = np.zeros((rows, 16, 2))
    apart[:, ::2] = x
    for i in range(16):
        for j in range(3):
            expected[:, i] += apart[:, (i + j - 1) % 16] @ w[j]
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected + np.arange(3), atol=1e-5)


@pytest.fixture(scope="module")
def network() -> ConvLSTM:
    """Of actions that are the forcing itself, in units of 2."""
    return jax.jit(lambda key: ConvLSTM(POINTS, lambda a: a, 2.0, key=key))(jax.random.key(0))


unroll = jax.jit(ConvLSTM.unroll)
remembered = jax.jit(ConvLSTM.warm_up)
FIELDS, ACTIONS = numbers(FRAMES, ROWS, POINTS), numbers(STEPS, ROWS, POINTS, seed=1)


def test_a_step_is_that_of_an_lstm_whose_output_gate_is_open_at_first(network: ConvLSTM) -> None:
    h, c, driven = (numbers(ROWS, 4, n, seed=n) for n in (HIDDEN, HIDDEN, 4 * HIDDEN))
    found = jax.jit(ConvLSTM.advance)(network, Memory(jnp.asarray(h), jnp.asarray(c)), jnp.asarray(driven))
    sigma = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    i, f, g, o = np.split(driven + np.asarray(network.of_hidden(jnp.asarray(h))), 4, axis=-1)
    expected = sigma(f) * c + sigma(i) * np.tanh(g)
    np.testing.assert_allclose(found.c, expected, atol=1e-5)
    np.testing.assert_allclose(found.h, sigma(o) * np.tanh(expected), atol=1e-5)
    assert np.asarray(network.of_forcing.bias).reshape(4, HIDDEN).mean(axis=1).tolist() == [0, 0, 0, 1]


def test_a_shift_by_a_multiple_of_four_points_shifts_what_is_predicted(network: ConvLSTM) -> None:
    here = np.asarray(unroll(network, FIELDS, ACTIONS))
    assert here.std(axis=-1).min() > 1e-3
    for by, follows in ((4, True), (8, True), (1, False), (2, False)):
        there = unroll(network, *(np.roll(part, by, axis=-1) for part in (FIELDS, ACTIONS)))
        assert np.allclose(np.roll(here, by, axis=-1), there, atol=1e-4) == follows


def test_frames_that_are_remembered_are_those_that_are_unrolled(network: ConvLSTM) -> None:
    """The first is teacher forcing, step by step; from the last frame on both run freely."""
    whole = np.asarray(unroll(network, FIELDS, ACTIONS))
    advance = jax.jit(lambda n, memory, a: n.advance(memory, n.drive(a)))
    encode, decode = jax.jit(ConvLSTM.encode), jax.jit(ConvLSTM.decode)
    c = remembered(network, FIELDS[:-1], ACTIONS[: FRAMES - 1], jnp.ones((FRAMES - 1, ROWS)))
    memory = Memory(encode(network, FIELDS[-1]), c)
    for step in range(FRAMES - 1, STEPS):
        memory = advance(network, memory, ACTIONS[step])
        np.testing.assert_allclose(decode(network, memory.h), whole[step], atol=1e-4)


def test_frames_that_are_not_shown_leave_no_trace(network: ConvLSTM) -> None:
    """Of the first row one is missing, of the second all are."""
    shown = np.array([[0, 0], [1, 0], [1, 0], [1, 0]], np.float32)
    found = remembered(network, FIELDS[:-1], ACTIONS[: FRAMES - 1], shown)
    later = remembered(network, FIELDS[1:-1], ACTIONS[1 : FRAMES - 1], shown[1:])
    np.testing.assert_allclose(found[0], later[0], atol=1e-6)
    assert np.abs(found[0]).max() > 0.01 and np.abs(found[1]).max() == 0


def test_no_gradient_goes_back_further_than_the_stretch_of_ten_steps(network: ConvLSTM) -> None:
    @jax.jit
    def pulls(actions: Any) -> Any:
        """Of the predictions of steps 9, 10 and 15 at a point, on every action."""
        summed = lambda a: unroll(network, FIELDS, a)[jnp.array([9, 10, 15]), :, 0].sum(axis=1)  # noqa: E731
        return jnp.abs(jax.jacrev(summed)(actions)).max(axis=(2, 3))

    reached = np.asarray(pulls(jnp.asarray(ACTIONS))) > 0
    expected = [range(4, 10), range(10, 11), range(10, 16)]  # the fifth frame overwrites h, but c came from before
    for found, last in zip(reached, expected, strict=True):
        assert set(last) <= set(np.flatnonzero(found)) <= set(range(last[0] // 10 * 10, last[-1] + 1))


@pytest.mark.parametrize("points", [8, 18, 150])
def test_a_grid_that_cannot_be_halved_twice_is_refused(points: int) -> None:
    with pytest.raises(LegatoError, match=f"a multiple of 4 points, 12 or more, are needed; there are {points}"):
        check_grid(points)

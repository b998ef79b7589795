"""How far actions are from those of the data, by hand."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from legato.losses.imitation import action_error, cross_entropy, squared_error


def test_of_numbers_it_is_the_mean_square() -> None:
    predicted, actions = jnp.array([[1.0, 2.0], [0.5, 0.0]]), jnp.array([[0.0, 0.0], [0.5, -2.0]])
    np.testing.assert_allclose(squared_error(predicted, actions), [2.5, 2.0])
    np.testing.assert_allclose(action_error(predicted, actions), [2.5, 2.0])
    np.testing.assert_allclose(action_error(predicted, actions, lambda x: 2 * x), [10.0, 2.125])


def test_of_choices_it_is_the_cross_entropy() -> None:
    logits, choice = jnp.array([[0.0, 1.0, -2.0], [3.0, 3.0, 3.0]]), jnp.array([2, 0])
    p = np.exp(np.asarray(logits))
    expected = -np.log((p / p.sum(axis=-1, keepdims=True))[[0, 1], choice])
    np.testing.assert_allclose(cross_entropy(logits, choice), expected, rtol=1e-6)
    np.testing.assert_allclose(action_error(logits, choice, jnp.tanh), expected, rtol=1e-6)  # logits are not squashed

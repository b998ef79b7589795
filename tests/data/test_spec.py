"""The box of actions: units there and back, whoever asks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from legato.data.spec import Spec, convert_actions
from legato.nn.distributions import TanhNormal

SPEC = Spec(3, (-0.2, -3.0), (0.8, 1.0))
CORNERS, UNITS = jnp.array([[-0.2, -3.0], [0.8, 1.0], [0.3, -1.0]]), jnp.array([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]])


def test_units_are_the_bounds_there_and_back() -> None:
    np.testing.assert_allclose(SPEC.normalise(CORNERS), UNITS, atol=1e-6)
    np.testing.assert_allclose(SPEC.denormalise(UNITS), CORNERS, atol=1e-6)
    centre, half = SPEC.box()
    np.testing.assert_allclose(centre, [0.3, -1.0], atol=1e-6)
    np.testing.assert_allclose(half, [0.5, 2.0], atol=1e-6)


def test_between_equal_bounds_there_is_one_action() -> None:
    stuck = Spec(1, (0.3,), (0.3,))
    assert stuck.normalise(jnp.array([0.3])) == 0
    assert stuck.denormalise(jnp.array([9.0])) == np.float32(0.3)


def test_a_squashed_gaussian_and_a_squashed_number_fill_the_same_box_to_the_bit() -> None:
    mean = 2 * jax.random.normal(jax.random.key(0), (100, 2))
    gaussian = TanhNormal(mean, jnp.zeros_like(mean), *SPEC.box())
    np.testing.assert_array_equal(gaussian.mode(), SPEC.denormalise(jnp.tanh(mean)))
    np.testing.assert_array_equal(gaussian.sample(jnp.zeros_like(mean))[0], SPEC.denormalise(jnp.tanh(mean)))


def test_what_lies_outside_is_moved_to_the_bounds() -> None:
    np.testing.assert_allclose(SPEC.clip(jnp.array([[5.0, -9.0], [0.1, 0.2]])), [[0.8, -3.0], [0.1, 0.2]])


def test_choices_have_no_units() -> None:
    choices, numbers = Spec.discrete(2, 4), jnp.array([[3.0], [0.0]])
    np.testing.assert_array_equal(choices.normalise(numbers), numbers)
    np.testing.assert_array_equal(choices.denormalise(numbers), numbers)


def test_actions_go_from_one_box_to_another() -> None:
    unit = SPEC.with_unit_bounds()
    np.testing.assert_allclose(convert_actions(UNITS, unit, SPEC), CORNERS, atol=1e-6)
    np.testing.assert_allclose(convert_actions(CORNERS, SPEC, unit), UNITS, atol=1e-6)
    assert convert_actions(CORNERS, SPEC, SPEC) is CORNERS

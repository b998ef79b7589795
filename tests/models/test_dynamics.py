"""The one-step model: its loss by hand, and its unrolling against a Python loop."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads
from tests.learners import model_loss

from legato.models import dynamics
from legato.models.dynamics import Dynamics

OBS, ACT = 3, 2


@pytest.fixture(scope="module")
def model() -> Dynamics:
    return Dynamics(OBS, ACT, (8, 6), key=jax.random.key(0))


def numbers(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


class Counter(Dynamics):
    """Predicts s + 1 and reports that it was asked."""

    asked: Callable[[], None] = eqx.field(static=True)

    def __init__(self, asked: Callable[[], None]):
        self.mlp, self.asked = None, asked  # type: ignore[assignment]

    def __call__(self, s: jax.Array, a: jax.Array) -> jax.Array:
        jax.debug.callback(self.asked)
        return s + 1


# --- the model ---


def test_the_model_is_one_perceptron_of_state_and_action(model: Dynamics) -> None:
    size = (OBS + ACT + 1) * 8 + (8 + 1) * 6 + (6 + 1) * OBS
    assert sum(leaf.size for leaf in jax.tree.leaves(model)) == size
    s, a = numbers(5, OBS), numbers(5, ACT)
    assert model(s, a).shape == (5, OBS)
    assert not np.allclose(model(s, a), model(s, 0 * a), atol=1e-2)
    assert not np.allclose(model(s, a), model(0 * s, a), atol=1e-2)


# --- a model of differences ---


def test_differences_are_predicted_in_units_of_how_much_they_usually_are() -> None:
    model = Dynamics(OBS, ACT, (8, 6), differences=True, key=jax.random.key(0))
    plain = Dynamics(OBS, ACT, (8, 6), key=jax.random.key(0))
    s, a, change = numbers(7, OBS), numbers(7, ACT, seed=1), numbers(7, OBS, seed=2) * jnp.asarray([1.0, 0.1, 10.0])
    model = model.update_delta_scale(s, s + change, jnp.asarray(0))
    size = np.sqrt((np.asarray(change) ** 2).mean(0))
    np.testing.assert_allclose(model.scale, size, rtol=1e-4)
    np.testing.assert_allclose(model(s, a), s + size * np.asarray(plain(s, a)), rtol=1e-4)
    error = ((np.asarray(plain(s, a)) - np.asarray(change) / size) ** 2).mean()
    assert model_loss(model, s, a, s + change) == pytest.approx(error, rel=1e-3)
    assert plain.update_delta_scale(s, s + change, jnp.asarray(0)) is plain


def test_the_size_of_changes_is_a_mean_at_first_and_then_a_moving_one() -> None:
    model = Dynamics(OBS, ACT, (4,), differences=True, key=jax.random.key(0))
    zeros = jnp.zeros((1, OBS))
    for i, size in enumerate((1.0, 3.0, 2.0)):
        model = model.update_delta_scale(zeros, zeros + size, jnp.asarray(i))
    np.testing.assert_allclose(model.mean_square_delta, (1 + 9 + 4) / 3, rtol=1e-6)
    later = model.update_delta_scale(zeros, zeros, jnp.asarray(10_000))
    np.testing.assert_allclose(later.mean_square_delta, 0.99 * model.mean_square_delta, rtol=1e-6)


def test_the_size_of_changes_has_no_gradient() -> None:
    model = Dynamics(OBS, ACT, (4,), differences=True, key=jax.random.key(0))
    slope = jax.grad(model_loss)(model, numbers(5, OBS), numbers(5, ACT), numbers(5, OBS, seed=2))
    np.testing.assert_array_equal(slope.mean_square_delta, 0)


# --- its loss ---


def test_loss_is_the_mean_squared_error_over_batch_and_dimensions(model: Dynamics) -> None:
    s, a, s_next = numbers(7, OBS), numbers(7, ACT, seed=1), numbers(7, OBS, seed=2)
    errors = [
        (float(model(s[i], a[i])[d]) - float(s_next[i, d])) ** 2 for i in range(7) for d in range(OBS)
    ]  # the absolute next state, not a difference
    assert model_loss(model, s, a, s_next) == pytest.approx(sum(errors) / len(errors), rel=1e-5)


def test_loss_of_the_truth_is_zero() -> None:
    s, a = numbers(7, OBS), numbers(7, ACT)
    assert model_loss(Counter(lambda: None), s, a, s + 1) == 0
    assert model_loss(Counter(lambda: None), s, a, s + 3) == pytest.approx(4)


@pytest.mark.usefixtures("x64")
def test_gradient_of_the_loss() -> None:
    model = Dynamics(OBS, ACT, (4, 4), key=jax.random.key(1))
    s, a, s_next = numbers(5, OBS), numbers(5, ACT, seed=1), numbers(5, OBS, seed=2)
    check_grads(jax.jit(model_loss), (model, s, a, s_next), order=1, modes=["rev"], atol=1e-6, rtol=1e-5)


# --- its unrolling ---


@pytest.mark.parametrize("leading", [(), (6,), (2, 3)])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_unroll_is_a_loop_of_predictions(model: Dynamics, leading: tuple[int, ...], steps: int) -> None:
    s, actions = numbers(*leading, OBS), numbers(steps, *leading, ACT, seed=1)
    states = [s]
    for k in range(steps - 1):
        states.append(model(states[k], actions[k]))
    np.testing.assert_allclose(jax.jit(dynamics.unroll)(model, s, actions), jnp.stack(states), atol=1e-5)


def test_the_first_state_is_the_given_one(model: Dynamics) -> None:
    s = numbers(6, OBS)
    np.testing.assert_array_equal(dynamics.unroll(model, s, numbers(3, 6, ACT))[0], s)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_model_is_asked_once_less_than_there_are_actions(steps: int) -> None:
    calls: list[None] = []
    states = jax.jit(dynamics.unroll)(Counter(lambda: calls.append(None)), numbers(6, OBS), numbers(steps, 6, ACT))
    jax.block_until_ready(states)
    jax.effects_barrier()
    assert len(calls) == steps - 1


def test_no_gradient_flows_through_the_predictions(model: Dynamics) -> None:
    """Neither to the model, nor to the actions, nor to the first state."""
    gradients = jax.grad(lambda *args: jnp.sum(dynamics.unroll(*args) ** 2), argnums=(0, 1, 2))(
        model, numbers(6, OBS), numbers(3, 6, ACT)
    )
    for leaf in jax.tree.leaves(gradients):
        np.testing.assert_array_equal(leaf, 0)


@given(leading=st.lists(st.integers(1, 4), max_size=3), steps=st.integers(1, 5))
def test_any_leading_shape_is_a_batch(leading: list[int], steps: int) -> None:
    s, actions = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((*leading, OBS), (steps, *leading, ACT)))
    model = jax.eval_shape(lambda key: Dynamics(OBS, ACT, (4,), key=key), jax.random.key(0))
    assert jax.eval_shape(dynamics.unroll, model, s, actions).shape == (steps, *leading, OBS)


# --- several steps ahead, and ends ---


def test_the_loss_of_several_steps_feeds_predictions_on(model: Dynamics) -> None:
    s, a, ahead = numbers(5, OBS), numbers(3, 5, ACT, seed=1), numbers(3, 5, OBS, seed=2)
    valid = np.ones((3, 5))
    valid[1:, 0] = valid[2, 1] = 0
    z, total = s, 0.0
    for k in range(3):
        z = model(z, a[k])
        wrong = np.mean((np.asarray(z) - np.asarray(ahead[k])) ** 2, axis=-1)
        total += 0.7**k * wrong[valid[k] > 0].mean()
    found = dynamics.multi_step_loss(model, s, a, ahead, jnp.asarray(valid), 0.7)
    assert found == pytest.approx(total / (1 + 0.7 + 0.49), rel=1e-5)
    one = dynamics.multi_step_loss(model, s, a[:1], ahead[:1], jnp.ones((1, 5)), 0.7)
    assert one == pytest.approx(float(np.mean((np.asarray(model(s, a[0])) - np.asarray(ahead[0])) ** 2)), rel=1e-5)
    nothing = dynamics.multi_step_loss(model, s, a, ahead, jnp.asarray(valid).at[1:].set(0), 0.5)
    assert nothing == pytest.approx(float(one) / 1.75, rel=1e-5)  # and no division by zero


def test_a_predicted_state_is_reached_as_often_as_all_before_it_go_on() -> None:
    ends = dynamics.TerminationModel(OBS, ACT, (8, 8), key=jax.random.key(0))
    s, a, last = numbers(4, 5, OBS), numbers(4, 5, ACT, seed=1), numbers(5, OBS, seed=2)
    reached, expected = np.asarray(ends.reach_probability(s, a)), np.ones(5)
    for k in range(4):
        np.testing.assert_allclose(reached[k], expected, rtol=1e-5)
        odds = np.exp(np.asarray(ends(s[k], a[k], s[k + 1] if k < 3 else last)))
        expected = expected * odds / (1 + odds)
    went_on = jnp.asarray([1.0, 0, 1, 1, 0])
    p = jax.nn.sigmoid(ends(s[0], a[0], s[1]))
    nats = -np.mean(np.log(np.where(went_on, p, 1 - p)))
    assert dynamics.termination_loss(ends, s[0], a[0], s[1], went_on) == pytest.approx(float(nats), rel=1e-5)

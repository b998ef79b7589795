"""The squashed Gaussian against quadrature, the change of variables and finite differences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jax.test_util import check_grads
from scipy import stats

from legato.nn.distributions import TanhNormal

BOXES = [(-1.0, 1.0), (-2.0, 5.0), (-7.0, -3.0), (0.0, 0.25)]


def within(mean: jax.Array, log_std: jax.Array, low: jax.Array, high: jax.Array) -> TanhNormal:
    """A squashed Gaussian between these bounds."""
    return TanhNormal(mean, log_std, (high + low) / 2, (high - low) / 2)


def one_dimensional(mean: float, log_std: float, low: float, high: float) -> TanhNormal:
    return within(jnp.array([mean]), jnp.array([log_std]), jnp.array([low]), jnp.array([high]))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("low", "high"), BOXES)
@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.7, -1.2), (-1.5, -0.3)])
def test_density_integrates_to_one_over_the_box(mean: float, log_std: float, low: float, high: float) -> None:
    a, log_density = one_dimensional(mean, log_std, low, high).sample(jnp.linspace(-9, 9, 20_001)[:, None])
    a, density = np.asarray(a)[:, 0], np.exp(log_density)
    assert low <= a[0] < a[-1] <= high
    assert np.trapezoid(density, a) == pytest.approx(1, abs=1e-3)


@given(
    mean=st.floats(-2, 2),
    log_std=st.floats(-3, 1),
    low=st.floats(-10, 10),
    width=st.floats(0.1, 20),
    noise=st.floats(-2, 2),
)
def test_density_is_the_change_of_variables(
    mean: float, log_std: float, low: float, width: float, noise: float
) -> None:
    """p(a) = N(noise) / (da / dnoise), the derivative by central differences."""
    with jax.enable_x64(True):
        pi, h = one_dimensional(mean, log_std, low, low + width), 1e-6
        a, log_density = pi.sample(jnp.array([[noise - h], [noise], [noise + h]]))
    slope = float(a[2, 0] - a[0, 0]) / (2 * h)
    assume(slope > 1e-2 * np.exp(log_std))  # elsewhere the density's guard against log 0 is felt
    assert log_density[1] == pytest.approx(stats.norm.logpdf(noise) - np.log(slope), abs=2e-4)


@pytest.mark.usefixtures("x64")
def test_density_of_several_dimensions_is_their_product() -> None:
    mean, log_std, noise = jax.random.normal(jax.random.key(0), (3, 5, 3))
    low, high = jnp.array([-2.0, 0.0, -1.0]), jnp.array([5.0, 0.25, 1.0])
    together = within(mean, log_std, low, high).sample(noise)[1]
    one = [slice(i, i + 1) for i in range(3)]
    alone = [within(mean[:, i], log_std[:, i], low[i], high[i]).sample(noise[:, i])[1] for i in one]
    np.testing.assert_allclose(together, sum(alone), rtol=1e-12)


@given(mean=st.floats(-1e4, 1e4), low=st.floats(-10, 10), width=st.floats(0.01, 20))
def test_mode_lies_in_the_box_and_is_what_no_noise_selects(mean: float, low: float, width: float) -> None:
    pi = one_dimensional(mean, -0.5, low, low + width)
    mode, rounding = float(pi.mode()[0]), 1e-6 * (abs(low) + width)
    assert low - rounding <= mode <= low + width + rounding
    assert mode == pytest.approx(low + width * (1 + np.tanh(mean)) / 2, abs=4 * rounding)
    assert mode == pi.sample(jnp.zeros(1))[0][0]


@pytest.mark.parametrize(("asked", "used"), [(9.0, 2.0), (-99.0, -20.0)])
def test_log_std_is_clamped(asked: float, used: float) -> None:
    noise = jnp.array([0.3])
    for got, expected in zip(
        one_dimensional(0.1, asked, -2, 5).sample(noise), one_dimensional(0.1, used, -2, 5).sample(noise), strict=True
    ):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("mean", [-80.0, 80.0])
def test_saturation_stays_finite(mean: float) -> None:
    """In single precision tanh(80) is 1 and 1 - tanh^2 is 0; neither the density nor its gradient may be infinite."""

    def log_density(mean: jax.Array) -> jax.Array:
        pi = within(mean, jnp.zeros(1), jnp.full(1, -2.0), jnp.full(1, 5.0))
        return pi.sample(jnp.array([0.4]))[1]

    value, gradient = jax.value_and_grad(log_density)(jnp.array([mean]))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("low", "high"), BOXES)
def test_gradients_of_sample_mode_and_density(low: float, high: float) -> None:
    mean, log_std, noise = jax.random.normal(jax.random.key(1), (3, 4, 2))

    @jax.jit
    def everything(mean: jax.Array, log_std: jax.Array, noise: jax.Array) -> tuple[jax.Array, ...]:
        pi = within(mean, log_std, jnp.full(2, low), jnp.full(2, high))
        return *pi.sample(noise), pi.mode()

    check_grads(everything, (0.5 * mean, 0.5 * log_std, noise), order=1, modes=["rev"], atol=1e-6, rtol=1e-5)


@given(leading=st.lists(st.integers(1, 5), max_size=4), act=st.integers(1, 4))
def test_any_leading_shape_is_a_batch(leading: list[int], act: int) -> None:
    numbers = jax.ShapeDtypeStruct((*leading, act), jnp.float32)

    def call(mean: jax.Array, log_std: jax.Array, noise: jax.Array) -> tuple[jax.Array, ...]:
        pi = within(mean, log_std, jnp.zeros(act), jnp.ones(act))
        return *pi.sample(noise), pi.mode()

    a, log_density, mode = jax.eval_shape(call, numbers, numbers, numbers)
    assert a.shape == mode.shape == (*leading, act)
    assert log_density.shape == tuple(leading)


def test_a_batch_is_its_members() -> None:
    mean, log_std, noise = jax.random.normal(jax.random.key(2), (3, 6, 2))
    low, high = jnp.array([-2.0, 0.0]), jnp.array([5.0, 1.0])
    together = within(mean, log_std, low, high).sample(noise)
    one_by_one = [within(mean[i], log_std[i], low, high).sample(noise[i]) for i in range(6)]
    for batch, members in zip(together, zip(*one_by_one, strict=True), strict=True):
        np.testing.assert_allclose(batch, np.stack(members), rtol=1e-5, atol=1e-5)

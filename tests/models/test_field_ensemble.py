"""An ensemble of a periodic field: common units, symmetry after a fit, and a linear plant that it must find."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from legato.data.normaliser import Normaliser
from legato.envs.tasks.pde import Burgers, KuramotoSivashinsky
from legato.errors import LegatoError
from legato.models import ensemble, ensemble_fit
from legato.models.ensemble_fit import FitOptions

POINTS, ROWS = 16, 512
JETS = np.exp(-0.5 * (np.arange(POINTS) - np.array([[4], [9]])) ** 2)
DRIFT = np.array([0.3, 2.0])  # advection and forcing


def forcing(action: Any) -> Any:
    return action @ JETS


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.fixture(scope="module")
def fitted() -> tuple[ensemble.Ensemble, ensemble_fit.Fit]:
    """To u' = u + 0.3 (u_left - u_right) + 2 sum of a_i g_i, whose mean is 5."""
    u, a = 5 + numbers(ROWS, POINTS), np.random.default_rng(1).uniform(-1, 1, (ROWS, 2))
    change = DRIFT[0] * (np.roll(u, 1, axis=1) - np.roll(u, -1, axis=1)) + DRIFT[1] * forcing(a)
    x, y = (jnp.asarray(part, jnp.float32) for part in (np.concatenate([u, a], axis=1), change))
    model = ensemble.init_field(POINTS, 2, forcing, (4,), 2, key=jax.random.key(0))
    options = FitOptions(batch_size=64, learning_rate=1e-2, epoch=100, most=600, weight_decay=0.0)
    return ensemble_fit.refit(model, x, y, ROWS, options, 2, jax.random.key(1))


def test_a_linear_plant_is_found(fitted: tuple[ensemble.Ensemble, ensemble_fit.Fit]) -> None:
    assert fitted[1].error.max() < 1e-4  # of the variance of the change; without the linear part 5e-4


def test_a_fitted_model_commutes_with_shifts(fitted: tuple[ensemble.Ensemble, ensemble_fit.Fit]) -> None:
    model = fitted[0]
    assert np.ptp(np.asarray(model.inputs.mean[:POINTS])) == np.ptp(np.asarray(model.outputs.deviation)) == 0
    u = 5 + numbers(3, POINTS, seed=2)
    # A jet at 4 moved by 5 points is the jet at 9, up to what of it goes round the circle otherwise.
    one, two = np.array([0.7, 0.0]), np.array([0.0, 0.7])
    pairs = (u, np.tile(one, (3, 1))), (np.roll(u, 5, axis=1), np.tile(two, (3, 1)))
    x = np.concatenate([np.concatenate(pair, axis=1) for pair in pairs])
    for part in jax.jit(lambda model, x: model(x))(model, jnp.asarray(x, jnp.float32)):
        here, there = np.asarray(part).reshape(2, 2, 3, POINTS).swapaxes(0, 1)
        np.testing.assert_allclose(np.roll(here, 5, axis=-1), there, rtol=1e-3, atol=1e-5)


def test_common_units_are_those_of_all_points_together_and_actions_have_none() -> None:
    model = ensemble.init_field(POINTS, 2, forcing, (4,), 1, key=jax.random.key(0))
    rows = 3 + np.arange(POINTS + 2) * numbers(50, POINTS + 2)
    columns = Normaliser(jnp.asarray(rows.mean(axis=0)), jnp.asarray(rows.std(axis=0)))
    of_y = Normaliser(columns.mean[:POINTS], columns.deviation[:POINTS])
    inputs, outputs = ensemble.share_units(model, columns, of_y)
    field = rows[:, :POINTS]
    for found in (inputs, outputs):
        np.testing.assert_allclose(found.mean[:POINTS], np.full(POINTS, field.mean()), rtol=1e-4)
        np.testing.assert_allclose(found.deviation[:POINTS], np.full(POINTS, field.std()), rtol=1e-4)
    assert inputs.mean[POINTS:].tolist() == [0, 0] and inputs.deviation[POINTS:].tolist() == [1, 1]


def test_a_forcing_is_one_number_for_each_point() -> None:
    with pytest.raises(LegatoError, match=r"forcing of shape \(16,\) for a field that is observed at 8 points"):
        ensemble.init_field(8, 2, forcing, key=jax.random.key(0))


def test_the_forcing_of_a_plant_is_what_its_actions_add() -> None:
    """By the first order of a short step from u = 0."""
    for environment in (KuramotoSivashinsky(jets=8, dt=1e-6, substeps=1), Burgers(dt=1e-6, substeps=1)):
        action, at = np.random.default_rng(0).uniform(-1, 1, (3, len(environment.plant.jets))), environment.grid_forcing
        assert at is not None
        modes, _ = environment.transition(np, np.zeros((3, environment.plant.modes), complex), action, 0)
        pushed = np.fft.irfft(modes, environment.plant.points) / 1e-6
        kept = np.fft.irfft(np.fft.rfft(at(action))[:, : environment.plant.modes], environment.plant.points)
        np.testing.assert_allclose(pushed, kept, atol=1e-3 * np.abs(kept).max())
    assert KuramotoSivashinsky(sensors=32).grid_forcing is None

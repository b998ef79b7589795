"""Refits of an ensemble to y = sin 2x with two noises: who is held out, what is kept, who is chosen, when it ends."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from legato.data.normaliser import none
from legato.errors import LegatoError
from legato.models import ensemble
from legato.models.ensemble import Ensemble
from legato.models.ensemble_fit import Fit, FitOptions, divide, held_out_place, refit, training_place

CAPACITY, COUNT, PERIOD, MEMBERS = 2_000, 1_500, 5, 4
NOISE = (0.05, 0.25)
"""deviation of y where x < 0, and elsewhere"""
HELD = np.isin(np.arange(CAPACITY), held_out_place(jnp.arange(CAPACITY // PERIOD), PERIOD))
OPTIONS: dict[str, Any] = {"batch_size": 64, "learning_rate": 5e-3, "epoch": 100, "most": 1_500, "patience": 5}


def samples(nothing: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """x in [-1.5, 1.5], and y with another column of which a half is not known; beyond `COUNT` there is `nothing`."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1.5, 1.5, (CAPACITY, 1)).astype(np.float32)
    y = np.sin(2 * x) + np.where(x < 0, *NOISE) * rng.normal(size=x.shape)
    other = np.where(rng.random(x.shape) < 0.5, np.nan, 7 + 3 * x)
    both = np.concatenate([y, other], axis=1).astype(np.float32)
    x[COUNT:], both[COUNT:] = nothing, nothing
    return x, both


@pytest.fixture(scope="module")
def start() -> Ensemble:
    return jax.jit(lambda key: ensemble.init(none(1), none(2), (32, 32), MEMBERS, key=key))(jax.random.key(0))


def fit(start: Ensemble, x: np.ndarray, y: np.ndarray, count: int = COUNT, **options: Any) -> tuple[Ensemble, Fit]:
    hears = options.pop("on_updates", lambda updates: None)
    how = FitOptions(**{**OPTIONS, **options})
    return refit(start, jnp.asarray(x), jnp.asarray(y), count, how, 2, jax.random.key(1), on_updates=hears)


@pytest.fixture(scope="module")
def fitted(start: Ensemble) -> tuple[Ensemble, Fit]:
    return fit(start, *samples())


predict = jax.jit(Ensemble.__call__)


def error_of(model: Ensemble, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Each member's mean squared error on rows that were held out, by hand."""
    x, y = x[:COUNT][HELD[:COUNT]], y[:COUNT][HELD[:COUNT]]
    wrong = (np.asarray(predict(model, jnp.asarray(x))[0]) - y) / np.asarray(model.outputs.deviation)
    return np.nanmean(wrong**2, axis=(1, 2))


# --- who is held out ---


def test_rows_are_divided_by_their_places_for_good() -> None:
    i = jnp.arange(100)
    for period in (2, 3, 7):
        training, held_out = (np.asarray(place(i, period)) for place in (training_place, held_out_place))
        for count in range(period, 100):
            train, held = divide(count, period)
            one, other = training[:train], held_out[:held]
            assert sorted([*one, *other]) == list(range(count))
            assert (other // period == np.arange(held)).all()
        assert set(held_out % period) == set(range(period))  # not the same step of every episode


@pytest.mark.parametrize(("options", "capacity", "period"), [({}, 10, 5), ({}, 25_000, 5), ({}, 100_001, 21),
                                                            ({"held_out": 0.5}, 10, 2)])  # fmt: skip
def test_no_more_rows_are_held_out_than_are_allowed(options: dict[str, float], capacity: int, period: int) -> None:
    assert FitOptions(**options).period(capacity) == period
    assert capacity // period <= 5_000


def test_too_few_rows_are_refused(start: Ensemble) -> None:
    with pytest.raises(LegatoError, match="fitted to 5 rows or more, of which one is held out; there are 4"):
        fit(start, *samples(), count=4)


# --- what is learnt and kept ---


def test_mean_and_noise_are_found_and_members_differ_where_there_is_no_data(fitted: tuple[Ensemble, Fit]) -> None:
    places = jnp.concatenate([jnp.linspace(-1.3, -0.5, 12), jnp.linspace(0.5, 1.3, 12), jnp.array([4.0])])[:, None]
    longer = fit(fitted[0], *samples(), most=4_000, patience=30)[0]  # the noise is learnt after the mean
    mean, deviation = (np.asarray(part)[:, :, 0] for part in predict(longer, places))
    np.testing.assert_allclose(mean[:, :24].mean(axis=0), np.sin(2 * places[:24, 0]), atol=0.1)
    np.testing.assert_allclose(deviation[:, :24].mean(axis=0).reshape(2, 12).mean(axis=1), NOISE, rtol=0.25)
    spread = mean.std(axis=0)
    assert spread[24] > 5 * spread[:24].max()


def test_units_are_those_of_what_is_known_of_the_rows_that_are_learnt_from(fitted: tuple[Ensemble, Fit]) -> None:
    model, (x, y) = fitted[0], samples()
    learnt = ~HELD[:COUNT]
    for found, rows in ((model.inputs, x[:COUNT][learnt]), (model.outputs, y[:COUNT][learnt])):
        np.testing.assert_allclose(found.mean, np.nanmean(rows, axis=0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.deviation, np.nanstd(rows, axis=0), rtol=1e-4)


def test_the_error_is_that_of_the_weights_that_are_kept_and_the_least_are_elites(fitted: tuple[Ensemble, Fit]) -> None:
    model, found = fitted
    np.testing.assert_allclose(found.error, error_of(model, *samples()), rtol=1e-4)
    np.testing.assert_array_equal(found.elites, np.argsort(found.error)[:2])
    assert (found.error < 0.2).all() and len(set(found.error.tolist())) == MEMBERS


def test_what_lies_beyond_the_rows_changes_nothing(start: Ensemble, fitted: tuple[Ensemble, Fit]) -> None:
    for nothing in (np.nan, 1e6):
        model, found = fit(start, *samples(nothing))
        assert found.updates == fitted[1].updates
        for one, other in zip(jax.tree.leaves(model), jax.tree.leaves(fitted[0]), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_refit_goes_on_from_the_weights_that_it_is_given(fitted: tuple[Ensemble, Fit]) -> None:
    found = fit(fitted[0], *samples(), most=0)[1]
    np.testing.assert_allclose(found.error, fitted[1].error, rtol=1e-5)
    again = fit(fitted[0], *samples(), most=200)[1]
    assert (again.error <= found.error).all()


# --- when it ends ---


def test_an_exploding_fit_keeps_what_it_began_with_and_ends_by_patience(fitted: tuple[Ensemble, Fit]) -> None:
    """Also the bounds of spreads, which all members share."""
    heard: list[int] = []
    model, found = fit(fitted[0], *samples(), learning_rate=1e4, patience=3, epoch=7, on_updates=heard.append)
    assert heard == [7, 14, 21] and found.updates == 21
    np.testing.assert_allclose(found.error, fitted[1].error, rtol=1e-5)
    for one, other in zip(jax.tree.leaves(model), jax.tree.leaves(fitted[0]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_fit_ends_after_the_most_updates_and_where_its_listener_raises(start: Ensemble) -> None:
    heard: list[int] = []
    assert fit(start, *samples(), epoch=5, most=12, on_updates=heard.append)[1].updates == 12
    assert heard == [5, 10, 12]

    def stop(updates: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(start, *samples(), on_updates=stop)


def test_a_model_of_no_finite_error_is_refused(start: Ensemble) -> None:
    x, y = samples()
    with pytest.raises(LegatoError, match="no member of the ensemble has a finite error: lower its"):
        fit(start, np.full_like(x, np.nan), y, most=0)


def test_each_member_is_kept_at_its_own_best(fitted: tuple[Ensemble, Fit]) -> None:
    """One that has diverged begins anew from where it was, while another goes on."""
    broken = jax.tree.map(lambda leaf: leaf.at[0].multiply(3.0), fitted[0].members)
    worse = Ensemble(broken, fitted[0].high, fitted[0].low, fitted[0].inputs, fitted[0].outputs)
    before = fit(worse, *samples(), most=0)[1].error
    model, found = fit(worse, *samples(), most=100)
    assert found.error[0] < before[0]
    np.testing.assert_allclose(found.error, error_of(model, *samples()), rtol=1e-4)
    for kept in (i for i in range(1, MEMBERS) if found.error[i] == before[i]):
        for one, other in zip(jax.tree.leaves(model.members), jax.tree.leaves(worse.members), strict=True):
            np.testing.assert_array_equal(one[kept], other[kept])

"""Uncertainty and penalties against NumPy, a bound that they promise, and models whose ignorance is known."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from legato.data.normaliser import Normaliser, none
from legato.models import ensemble, ensemble_fit, uncertainty
from legato.models.ensemble import Ensemble
from legato.models.ensemble_fit import FitOptions
from legato.models.environment_model import EnvironmentModel
from legato.models.uncertainty import Penalty, advised_weight


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("members", [1, 2, 5, 6])
def test_uncertainties_are_those_of_numpy(members: int) -> None:
    mean, deviation = numbers(members, 7, 3), np.abs(numbers(members, 7, 3, seed=1))
    aleatoric = [max(np.sqrt((deviation[k, i] ** 2).sum()) for k in range(members)) for i in range(7)]
    pairwise = [
        max(np.sqrt(((mean[j, i] - mean[k, i]) ** 2).sum()) for j in range(members) for k in range(members))
        for i in range(7)
    ]
    apart = [np.sqrt(mean[:, i].var(axis=0).sum()) for i in range(7)]
    np.testing.assert_allclose(uncertainty.max_aleatoric(jnp.asarray(deviation)), aleatoric, rtol=1e-5)
    np.testing.assert_allclose(uncertainty.max_pairwise(jnp.asarray(mean)), pairwise, rtol=1e-5)
    np.testing.assert_allclose(uncertainty.ensemble_std(jnp.asarray(mean)), apart, rtol=1e-5, atol=1e-7)


@pytest.fixture(scope="module")
def model() -> Ensemble:
    outputs = Normaliser(jnp.array([1.0, -2.0]), jnp.array([0.1, 30.0]))
    return ensemble.init(none(3), outputs, (8,), 4, key=jax.random.key(0))


def test_a_unit_is_what_95_percent_of_the_data_lie_below(model: Ensemble) -> None:
    """And a penalty is lambda deviations of the reward there, `most` times as much at most."""
    x = jnp.asarray(numbers(1000, 3))
    u = uncertainty.uncertainty(model, x, "ensemble_std")
    options: dict[str, Any] = {"weight": 2.0, "most": 1.2, "kind": "ensemble_std", "units": "data"}
    penalty = Penalty(uncertainty.unit_of(u), jnp.asarray(3.0), **options)
    found = penalty(EnvironmentModel(model, jnp.arange(2)), x[:, :2], x[:, 2:])
    assert np.quantile(found["uncertainty"], 0.95) == pytest.approx(1, rel=1e-5)
    assert found["beyond_data"].mean() == pytest.approx(0.05, abs=1e-3)
    expected = 2 * 3 * np.minimum(np.asarray(found["uncertainty"]), 1.2)
    np.testing.assert_allclose(found["penalty"], expected, rtol=1e-6)
    assert found["penalty"].max() == pytest.approx(float(penalty.largest))  # it is reached


def test_uncertainty_has_the_units_of_the_data_or_its_own(model: Ensemble) -> None:
    x = jnp.asarray(numbers(50, 3))
    mean, deviation = (np.asarray(part) for part in model(x))
    raw = np.linalg.norm(deviation, axis=-1).max(axis=0)
    np.testing.assert_allclose(uncertainty.uncertainty(model, x, "max_aleatoric", "raw"), raw, rtol=1e-5)
    unit = np.linalg.norm(mean.std(axis=0) / np.array([0.1, 30.0]), axis=-1)
    np.testing.assert_allclose(uncertainty.uncertainty(model, x, "ensemble_std"), unit, rtol=1e-3)
    assert not uncertainty.uncertainty(model, x, "none").any()
    options: dict[str, Any] = {"weight": 2.0, "most": 1.0, "kind": "max_aleatoric", "units": "raw"}
    penalty = Penalty(jnp.asarray(7.0), jnp.asarray(3.0), **options)
    found = penalty(EnvironmentModel(model, jnp.arange(2)), x[:, :2], x[:, 2:])
    np.testing.assert_allclose(found["penalty"], 2 * raw, rtol=1e-5)  # as published: no unit, no clip


def test_the_unit_of_what_is_known_exactly_is_1() -> None:
    assert uncertainty.unit_of(jnp.zeros(10)) == 1


def test_the_advised_weight_is_the_smallest_that_stays_within_the_data() -> None:
    assert advised_weight({5.0: 0.01, 1.0: 0.09, 2.5: 0.02, 0.5: 0.11, 0.0: 0.3}) == 1
    assert advised_weight({0.0: 0.3, 1.0: 0.1}) is None


# --- what the penalty is for ---


def returns(p: np.ndarray, r: np.ndarray, pi: np.ndarray, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """V of a policy `[s, a]` in p `[s, a, s']` with rewards r `[s, a]`, and how often each (s, a) is, from each s."""
    step = np.einsum("sa,sat->st", pi, p)
    inverse = np.linalg.inv(np.eye(len(p)) - gamma * step)
    return inverse @ (pi * r).sum(axis=1), inverse[:, :, None] * pi


def test_returns_of_the_penalised_model_bound_the_true_ones() -> None:
    """Yu et al. 2020, section 4: u = TV(p^, p), lambda = gamma times the range of V; for every policy and start."""
    rng, gamma = np.random.default_rng(0), 0.9
    tightest = np.inf
    for _ in range(20):
        p, r = rng.dirichlet(0.3 * np.ones(5), (5, 3)), rng.uniform(-1, 1, (5, 3))
        model = 0.8 * p + 0.2 * rng.dirichlet(0.3 * np.ones(5), (5, 3))
        u = 0.5 * np.abs(model - p).sum(axis=-1)
        weight = gamma * np.ptp(r) / (1 - gamma)
        policies = [rng.dirichlet(0.3 * np.ones(3), 5) for _ in range(10)]
        true = np.array([returns(p, r, pi, gamma)[0] for pi in policies])
        penalised = np.array([returns(model, r - weight * u, pi, gamma)[0] for pi in policies])
        assert (penalised <= true + 1e-9).all()
        # The best policy of the penalised model loses at most 2 lambda eps_u(pi) on any pi, of these and from state 0.
        error = np.array([(returns(model, r, pi, gamma)[1][0] * u).sum() for pi in policies])
        chosen = penalised[:, 0].argmax()
        assert true[chosen, 0] >= (true[:, 0] - 2 * weight * error).max() - 1e-9
        unpenalised = np.array([returns(model, r, pi, gamma)[0] for pi in policies])
        tightest = min(tightest, (true - unpenalised).min())
    assert tightest < -0.1  # without the penalty it is no bound


# --- models that are fitted ---


def fitted(x: np.ndarray, y: np.ndarray, seed: int = 0, **options: Any) -> tuple[Ensemble, ensemble_fit.Fit]:
    new = ensemble.init(none(x.shape[1]), none(y.shape[1]), (24, 24), 4, key=jax.random.key(seed))
    rows = jnp.asarray(x), jnp.asarray(y)
    told = FitOptions(**{"batch_size": 64, "learning_rate": 5e-3, "epoch": 150, "most": 1_500, **options})
    return ensemble_fit.refit(new, *rows, len(x), told, 2, jax.random.key(seed + 1))


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """How often something outside has more than something inside."""
    return float((outside[:, None] > inside[None]).mean())


def pendulum(s: np.ndarray, a: np.ndarray) -> np.ndarray:
    """What a step adds to (cos, sin, speed)."""
    angle = np.arctan2(s[:, 1], s[:, 0])
    speed = s[:, 2] + 0.75 * np.sin(angle) + 0.15 * a[:, 0]
    turned = angle + 0.05 * speed
    return np.stack([np.cos(turned), np.sin(turned), speed], axis=1).astype(np.float32) - s


def swing(rng: np.random.Generator, rows: int, angles: tuple[float, float], torque: tuple[float, float]) -> np.ndarray:
    angle, speed = np.pi + rng.uniform(*angles, rows) * rng.choice([-1, 1], rows), rng.uniform(-4, 4, rows)
    a = rng.uniform(*torque, rows) * rng.choice([-1, 1], rows)
    return np.stack([np.cos(angle), np.sin(angle), speed, a], axis=1).astype(np.float32)


def test_members_disagree_beyond_the_data_and_the_best_of_them_imagine() -> None:
    rng = np.random.default_rng(0)
    x = swing(rng, 3_000, (0, np.pi / 2), (0, 1))  # hanging, gently pushed
    model, found = fitted(x, pendulum(x[:, :3], x[:, 3:]))
    held = x[4::5]
    rows = jnp.asarray(x), jnp.asarray(pendulum(x[:, :3], x[:, 3:]))
    error = jax.jit(ensemble_fit.held_out_error, static_argnums=4)(model, *rows, jnp.asarray(3_000), 5)
    np.testing.assert_allclose(error, found.error, rtol=1e-4)  # each member has the weights that were its best
    assert found.elites.tolist() == np.argsort(found.error)[:2].tolist()
    u = jax.jit(lambda x: uncertainty.uncertainty(model, x, "ensemble_std"))
    inside = np.asarray(u(jnp.asarray(held)))
    beyond = {"upright": swing(rng, 600, (2.2, np.pi), (0, 1)), "pushed": swing(rng, 600, (0, np.pi / 2), (2.5, 4))}
    for name, rows in beyond.items():
        assert auroc(inside, np.asarray(u(jnp.asarray(rows)))) > 0.95, name


def test_a_fit_that_only_worsens_leaves_every_member_as_it_was() -> None:
    x = numbers(500, 2)
    y = x[:, :1] * x[:, 1:]
    model, found = fitted(x, y, most=150)
    same, after = ensemble_fit.refit(
        *(model, jnp.asarray(x), jnp.asarray(y), 500),
        FitOptions(batch_size=64, learning_rate=5.0, epoch=150, most=300),
        *(2, jax.random.key(5)),
    )
    np.testing.assert_allclose(after.error, found.error, rtol=1e-5)
    for now, before in zip(jax.tree.leaves(same.members), jax.tree.leaves(model.members), strict=True):
        np.testing.assert_array_equal(now, before)


def test_noise_is_told_where_the_data_is() -> None:
    """y = sin 2x + (0.1 + 0.2 |x|) noise."""
    x = np.random.default_rng(1).uniform(-1, 1, (4_000, 1)).astype(np.float32)
    spread = 0.1 + 0.2 * np.abs(x)
    model, _ = fitted(x, np.sin(2 * x) + spread * numbers(4_000, 1, seed=2), seed=3)
    at = np.linspace(-0.9, 0.9, 60, dtype=np.float32)[:, None]
    _, deviation = model(jnp.asarray(at))
    told = np.asarray(deviation).mean(axis=0) / (0.1 + 0.2 * np.abs(at))
    assert abs(told.mean() - 1) < 0.1 and np.abs(told - 1).mean() < 0.1


def test_the_power_of_the_variance_makes_outputs_count_alike(model: Ensemble) -> None:
    """With 1 errors are plain squares, however well an output is predicted already."""
    x, y = jnp.asarray(numbers(4, 6, 3)), jnp.asarray(numbers(4, 6, 2, seed=1))
    mean, log_variance = (np.asarray(part) for part in model.normalised(model.inputs(x)))
    error = np.asarray(model.outputs(y)) - mean
    price = ensemble.TIGHTEN * float((model.high - model.low).sum())
    parts = error**2 + log_variance * np.exp(log_variance)
    assert float(ensemble.loss(model, x, y, 1.0)) == pytest.approx(parts.mean() + price, rel=1e-4)

"""The probabilistic ensemble: its loss by hand, its bounds, and worlds whose mean and noise are known."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from legato.data import masking
from legato.data.normaliser import Normaliser, none
from legato.data.trajectories import trajectories
from legato.errors import LegatoError
from legato.models import ensemble
from legato.models.ensemble import Ensemble, fit, loss, sample, surprise, transitions, unroll

SMALL: dict[str, Any] = {"hidden": (24, 24), "members": 3, "updates": 1_000, "batch_size": 64, "learning_rate": 5e-3}
A = np.array([[0.8, -0.5], [0.3, 0.9], [0.5, 0.0]], np.float32)
NOISE = np.array([0.5, 0.1], np.float32)


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def linear() -> tuple[np.ndarray, np.ndarray]:
    """y = 10 + A^T x + noise."""
    x = numbers(4000, 3)
    return x, 10 + x @ A + NOISE * numbers(4000, 2, seed=1)


@pytest.fixture(scope="module")
def fitted(linear: tuple[np.ndarray, np.ndarray]) -> Ensemble:
    return fit(*linear, key=jax.random.key(0), **SMALL)[0]


def made(inputs: Normaliser | None = None, outputs: Normaliser | None = None, members: int = 2) -> Ensemble:
    return ensemble.init(inputs or none(3), outputs or none(2), (8, 8), members, key=jax.random.key(0))


def test_the_loss_is_that_of_a_gaussian_and_the_price_of_the_bounds() -> None:
    units = Normaliser(jnp.array([1.0, 2.0]), jnp.array([3.0, 0.5]))
    model = made(outputs=units)
    x, y = numbers(2, 5, 3), numbers(2, 5, 2, seed=1)
    total = 0.0
    for k in range(2):
        mean, deviation = (np.asarray(part)[k] for part in model(jnp.asarray(x[k])))
        unit = np.asarray(units.deviation)
        total += np.sum(((y[k] - mean) / deviation) ** 2 + 2 * np.log(deviation / unit))
    price = ensemble.TIGHTEN * 2 * (ensemble.HIGH - ensemble.LOW)
    assert float(loss(model, jnp.asarray(x), jnp.asarray(y))) == pytest.approx(total / 20 + price, rel=1e-4)


def test_variances_stay_between_the_bounds_wherever_one_asks() -> None:
    model = made()
    high, low = np.exp(0.5 * ensemble.HIGH), np.exp(0.5 * ensemble.LOW)
    louder = jax.tree.map(lambda leaf: 30 * leaf, model.members)
    _, deviation = eqx.tree_at(lambda m: m.members, model, louder)(jnp.asarray(1e3 * numbers(200, 3)))
    assert (deviation >= 0.999 * low).all() and (deviation <= 1.01 * high).all()
    assert deviation.min() < 1.1 * low and deviation.max() > 0.9 * high  # they are reached


def test_a_linear_gaussian_world_is_recovered_with_its_noise(fitted: Ensemble) -> None:
    x = numbers(500, 3, seed=5)
    mean, deviation = fitted(jnp.asarray(x))
    assert mean.shape == deviation.shape == (3, 500, 2)
    wrong = np.abs(np.asarray(mean) - (10 + x @ A)).mean(axis=(0, 1))
    assert (wrong < 0.25 * NOISE).all()
    np.testing.assert_allclose(np.asarray(deviation).mean(axis=(0, 1)), NOISE, rtol=0.1)


def test_surprise_is_that_of_the_world_itself(fitted: Ensemble) -> None:
    """No model beats the entropy of the noise; this one comes near."""
    x = numbers(2000, 3, seed=6)
    y = 10 + x @ A + NOISE * numbers(2000, 2, seed=7)
    entropy = float(np.sum(0.5 * np.log(2 * np.pi * np.e * NOISE**2)))
    found = np.asarray(surprise(fitted, jnp.asarray(x), jnp.asarray(y)))
    assert found.shape == (3,)
    assert (found > entropy - 0.05).all() and (found < entropy + 0.1).all()


def test_members_differ_and_disagree_where_there_is_no_data(fitted: Ensemble) -> None:
    mean, _ = fitted(jnp.asarray(numbers(50, 3)))
    assert (np.asarray(mean).std(axis=0) > 0).all()
    far, _ = fitted(jnp.asarray(20 * numbers(50, 3)))
    assert np.asarray(far).std(axis=0).mean() > 10 * np.asarray(mean).std(axis=0).mean()


def test_members_learn_from_resamples_of_their_own() -> None:
    """Of inputs that say nothing, each comes to the mean of the rows that were drawn for it."""
    x, y, key = np.zeros((8, 1), np.float32), np.arange(8, dtype=np.float32)[:, None], jax.random.key(0)
    model, _ = fit(x, y, key=key, hidden=(8,), members=4, updates=400, batch_size=64, learning_rate=1e-2)
    resample = jax.random.randint(jax.random.split(key, 3)[1], (4, 8), 0, 8)
    wanted = y[resample].mean(axis=1)[:, 0]
    assert np.ptp(wanted) > 1
    np.testing.assert_allclose(model(jnp.zeros((1, 1)))[0][:, 0, 0], wanted, atol=0.3)


def test_a_fit_follows_from_its_key(linear: tuple[np.ndarray, np.ndarray]) -> None:
    few = {**SMALL, "updates": 3}
    one, again, other = (fit(*linear, key=jax.random.key(k), **few)[0] for k in (0, 0, 1))
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(again), strict=True))
    assert (one.members.layers[0].weight != other.members.layers[0].weight).any()


def test_unknown_numbers_are_not_learnt(linear: tuple[np.ndarray, np.ndarray]) -> None:
    """Half of what is to be foretold is missing, and where it is, it would have misled."""
    x, y = linear
    gone = np.random.default_rng(0).random(y.shape) < 0.5
    model, losses = fit(x, np.where(gone, np.nan, y), key=jax.random.key(0), **SMALL)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    mean, deviation = model(jnp.asarray(x[:500]))
    assert np.abs(np.asarray(mean) - (10 + x[:500] @ A)).mean() < 0.1
    np.testing.assert_allclose(np.asarray(deviation).mean(axis=(0, 1)), NOISE, rtol=0.12)


def test_samples_come_from_the_member_that_is_named(fitted: Ensemble) -> None:
    x = jnp.tile(jnp.asarray(numbers(1, 3)), (6000, 1))
    mean, deviation = fitted(x[:1])
    for k in (0, 2):
        drawn = np.asarray(sample(fitted, x, jnp.full(6000, k), jax.random.key(k)))
        np.testing.assert_allclose(drawn.mean(axis=0), mean[k, 0], atol=float(4 * deviation.max() / 6000**0.5))
        np.testing.assert_allclose(drawn.std(axis=0), deviation[k, 0], rtol=0.05)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"x": np.zeros((0, 3)), "y": np.zeros((0, 2))},
            "an ensemble learns from rows of both sides; 0 and 0 were given",
        ),
        ({"x": np.full((4, 3), np.nan)}, "an ensemble learns from finite numbers"),
        ({"y": np.full((4, 2), np.inf)}, "an ensemble learns from finite numbers"),
        ({"members": 0}, "members must be at least 1; 0 was given"),
        ({"updates": 0}, "updates must be at least 1; 0 was given"),
    ],
)
def test_what_cannot_be_learnt_is_refused(changes: dict[str, Any], problem: str) -> None:
    given: dict[str, Any] = {"x": np.zeros((4, 3)), "y": np.zeros((4, 2)), "key": jax.random.key(0), **changes}
    with pytest.raises(LegatoError, match=f"^{problem}$"):
        fit(**given)


# --- as a model of an environment ---


def logged(**changes: Any) -> Any:
    """Two episodes, the second of which is cut."""
    found = {
        "observations": np.arange(10, dtype=np.float32).reshape(5, 2) ** 2,
        "actions": np.linspace(-1, 1, 5)[:, None],
        "rewards": np.arange(5.0),
        "terminations": np.array([0, 1, 0, 0, 0], bool),
        "truncations": np.zeros(5, bool),
        "final_observations": np.array([[100.0, 200.0], [300.0, 400.0]]),
    }
    return trajectories(**{**found, **changes})


def test_transitions_never_cross_an_episode() -> None:
    x, y = transitions(logged(), rewards=True)
    s = np.arange(10, dtype=np.float32).reshape(5, 2) ** 2
    np.testing.assert_array_equal(x[:, :2], s)
    np.testing.assert_array_equal(x[:, :2] + y[:, :2], [s[1], [100, 200], s[3], s[4], [300, 400]])
    np.testing.assert_array_equal(y[:, 2], np.arange(5))
    x, y = transitions(logged(final_observations=None))
    np.testing.assert_array_equal(x[:, :2], s[[0, 2, 3]])
    np.testing.assert_array_equal(x[:, :2] + y, s[[1, 3, 4]])


def test_of_a_hidden_set_the_model_is_told_what_is_missing() -> None:
    data, mask = masking.hide(logged(), 0.5, seed=1)
    gone = np.asarray(mask.missing(jnp.asarray(data.observations)))
    assert 0 < gone.sum() < gone.size
    x, y = transitions(data, mask=mask)
    np.testing.assert_array_equal(x[:, 2:4], gone)
    np.testing.assert_allclose(x[:, :2][gone], np.broadcast_to(mask.mean, gone.shape)[gone])
    np.testing.assert_array_equal(np.isnan(y[0]), gone[1])
    seen = ~gone[1]
    np.testing.assert_allclose((x[0, :2] + y[0])[seen], data.observations[1][seen], rtol=1e-6)


def world(spread: float = 1e-3) -> Ensemble:
    """Member k adds the action and k to the state, almost surely."""
    model = made(none(3), none(2), 3)
    zero = jax.tree.map(jnp.zeros_like, model.members)
    last = zero.layers[-1]
    first = jax.tree.map(lambda leaf: leaf, zero.layers)
    biases = jnp.concatenate([jnp.tile(jnp.arange(3.0)[:, None], (1, 2)), jnp.full((3, 2), -1e3)], axis=1)
    members = eqx.tree_at(lambda m: m.layers, zero, (*first[:-1], eqx.tree_at(lambda n: n.bias, last, biases)))
    low = jnp.full(2, 2 * np.log(spread))
    return eqx.tree_at(lambda m: (m.members, m.low), model, (members, low))


def test_a_rollout_keeps_its_member_or_mixes_them() -> None:
    start, key = jnp.asarray(numbers(200, 2)), jax.random.key(0)
    act = lambda s, t, key: jnp.zeros((len(s), 1))  # noqa: E731
    kept = np.asarray(unroll(world(), act, start, 6, key)) - np.asarray(start)[:, None]
    steps = np.diff(kept, axis=1, prepend=0)[..., 0]
    np.testing.assert_allclose(steps, np.round(steps[:, :1]) * np.ones((1, 6)), atol=0.02)
    share = np.bincount(np.round(steps[:, 0]).astype(int), minlength=3) / 200
    np.testing.assert_allclose(share, 1 / 3, atol=0.1)
    mixed = np.diff(np.asarray(unroll(world(), act, start, 6, key, mixed=True))[..., 0], axis=1)
    assert (np.ptp(np.round(mixed), axis=1) > 0).mean() > 0.9


def test_a_rollout_acts_on_what_it_sees() -> None:
    """Of a hidden state nothing but its mark is seen; what is returned was not hidden."""
    seen: list[np.ndarray] = []

    def act(s: jax.Array, t: jax.Array, key: jax.Array) -> jax.Array:
        jax.debug.callback(lambda s: seen.append(np.asarray(s)), s)
        return jnp.zeros((len(s), 1))

    low = jnp.array([-10.0, -10.0])
    mask = masking.Mask(low, low - 1, jnp.array([0.5, 0.5]), 0.5)
    model = made(none(5), none(2), 1)
    found = np.asarray(jax.block_until_ready(unroll(model, act, jnp.zeros((100, 2)), 4, jax.random.key(0), mask=mask)))
    jax.effects_barrier()
    assert len(seen) == 4
    for s in seen:
        assert 0.35 < (s == -11).mean() < 0.65
    assert (found > -11).all()
    shown = seen[1] != -11  # what was not hidden is what came of the first step
    np.testing.assert_array_equal(seen[1][shown], found[:, 0][shown])

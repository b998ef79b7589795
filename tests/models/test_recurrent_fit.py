"""Fits of a recurrent ensemble: which rows belong together, which are held out, and a plant that it must find."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from legato.errors import LegatoError
from legato.models import recurrent_ensemble, recurrent_fit
from legato.models.ensemble_fit import Fit, FitOptions, is_held_out
from legato.models.recurrent_ensemble import RecurrentEnsemble
from legato.models.recurrent_fit import FRAMES, LENGTH, TimeSeries, first_place, link_rows, sequences, stretch_of

# --- which rows belong together ---

ENVIRONMENTS, CAPACITY, PERIOD = 3, 500, 3
ENDS = (37, 50, 61)
"""lengths of the environments' episodes"""


def ring(added: int) -> tuple[TimeSeries, np.ndarray]:
    """A ring to which so many rows went, and the (environment, episode, step) of each; of nobody, -1."""
    names = np.full((CAPACITY, 3), -1)
    s, s_next, continues = np.zeros((CAPACITY, 3)), np.zeros((CAPACITY, 3)), np.ones(CAPACITY)
    for number in range(added):
        environment, t = number % ENVIRONMENTS, number // ENVIRONMENTS
        episode, step = divmod(t, ENDS[environment])
        place = number % CAPACITY
        names[place] = environment, episode, step
        s[place], s_next[place] = names[place] + 0.1, names[place] + [0.1, 0.1, 1.1]
        continues[place] = 1
        if environment == 2 and step == ENDS[2] - 1:  # terminates where the next episode begins
            continues[place], s_next[place] = 0, (environment + 0.1, episode + 1.1, 0.1)
    parts = (jnp.asarray(part, jnp.float32) for part in (s, s[:, :1], s_next, continues))
    return link_rows(*parts, min(added, CAPACITY), (added - 1) % CAPACITY, ENVIRONMENTS), names


def row_before(names: np.ndarray, place: int, by: int) -> int | None:
    """The place of the same episode's row so many steps before, or after, by its name."""
    found = np.flatnonzero((names == names[place] - [0, 0, by]).all(axis=1))
    return int(found[0]) if len(found) and names[place, 2] >= by else None


@pytest.mark.parametrize("added", [400, 1_234])  # in part, and a ring that has gone round
def test_windows_never_cross_episodes(added: int) -> None:
    series, names = ring(added)
    places = np.random.default_rng(0).permutation(min(added, CAPACITY))
    fields, _, shown = (np.asarray(part) for part in recurrent_fit.windows(series, jnp.asarray(places), ENVIRONMENTS))
    lengths = set()
    for i, place in enumerate(places):
        expected = [row_before(names, place, FRAMES - 1 - k) for k in range(FRAMES - 1)]
        assert shown[:, i].tolist() == [float(other is not None) for other in expected]
        for field, other in zip(fields[:, i], expected, strict=True):
            assert other is None or np.array_equal(field, series.s[other])
        lengths.add(int(shown[:, i].sum()))
    assert lengths == set(range(FRAMES))


@pytest.mark.parametrize("added", [400, 1_234])
@pytest.mark.parametrize("held_out", [False, True])
def test_sequences_end_with_their_episodes_and_where_what_is_held_out_begins(added: int, held_out: bool) -> None:
    series, names = ring(added)
    places = np.arange(min(added, CAPACITY))
    held = np.asarray(is_held_out(stretch_of(jnp.arange(CAPACITY), ENVIRONMENTS), PERIOD))
    first = places[held[places] == held_out]
    found = sequences(series, jnp.asarray(first), ENVIRONMENTS, PERIOD, held_out=held_out)
    for place, valid, change in zip(first, np.asarray(found.valid), np.asarray(found.change), strict=True):
        steps = 0
        for k in range(LENGTH):
            other = row_before(names, place, -k)
            if other is None or held[other] != held_out:
                break
            steps += 1
            np.testing.assert_allclose(change[k], series.change[other])
        assert valid.tolist() == [1.0] * steps + [0.0] * (LENGTH - steps)


def test_stretches_are_of_one_environment_and_scattered() -> None:
    stretch = np.asarray(stretch_of(jnp.arange(600), ENVIRONMENTS))
    for i in range(30):
        rows = np.flatnonzero(stretch == i)
        assert len(rows) == LENGTH and set(np.diff(rows)) == {ENVIRONMENTS}
        assert rows[0] == int(first_place(jnp.asarray(i), ENVIRONMENTS))


# --- a plant that it must find ---

POINTS, EPISODES, STEPS = 16, 100, 40
JETS = np.exp(-0.5 * (np.arange(POINTS) - np.array([[4], [12]])) ** 2)


def forcing(action: Any) -> Any:
    return action @ JETS


def plant(u: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Waves that travel by a quarter of a point, and are pushed: linear, with shifts among its symmetries."""
    modes = np.fft.rfft(u) * np.exp(-0.5j * np.pi / POINTS * np.arange(POINTS // 2 + 1))
    return np.fft.irfft(modes, POINTS) + 0.1 * forcing(a)


def episodes(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Fields `[count, STEPS + 1, points]` of two waves, and actions."""
    rng = np.random.default_rng(seed)
    waves = np.zeros((count, POINTS // 2 + 1), complex)
    waves[:, 1:3] = rng.normal(size=(count, 2, 2)) @ np.array([1, 1j]) * POINTS / 4
    a = rng.uniform(-1, 1, (count, STEPS, 2))
    u = [np.fft.irfft(waves, POINTS)]
    for t in range(STEPS):
        u.append(plant(u[-1], a[:, t]))
    return np.stack(u, axis=1).astype(np.float32), a.astype(np.float32)


@pytest.fixture(scope="module")
def fitted() -> tuple[RecurrentEnsemble, Fit]:
    u, a = episodes(0, EPISODES)
    s, act, s_next = (jnp.asarray(part.reshape(-1, part.shape[-1])) for part in (u[:, :-1], a, u[:, 1:]))
    series = link_rows(s, act, s_next, jnp.ones(len(s)), len(s), len(s) - 1, 1)
    start = jax.jit(lambda key: recurrent_ensemble.init(POINTS, 2, forcing, 2, key=key))(jax.random.key(0))
    options = FitOptions(batch_size=16, learning_rate=5e-3, epoch=100, most=400, patience=9, weight_decay=0.0)
    return recurrent_fit.refit(start, series, len(s), 1, options, 2, jax.random.key(1))


def test_a_linear_plant_is_found_and_followed_freely(fitted: tuple[RecurrentEnsemble, Fit]) -> None:
    """Ten steps from the fifth frame on, in other episodes, by the mean of the members."""
    model, found = fitted
    u, a = (part.swapaxes(0, 1) for part in episodes(1, 30))
    shown = np.ones((FRAMES - 1, 30), np.float32)
    memory = jax.jit(RecurrentEnsemble.warm_up)(model, u[: FRAMES - 1], a[: FRAMES - 1], shown, u[4])
    advance, field = jax.jit(RecurrentEnsemble.advance), u[4]
    for t in range(4, 14):
        change, memory = advance(model, memory, field, a[t])
        field = field + np.asarray(change).mean(axis=0)
    wrong, still = ((part - u[14]).std() / u[14].std() for part in (field, u[4]))
    assert wrong < 0.2 and still > 1
    assert found.updates == 400 and found.error.max() < 0.06  # of the variance of the change


def test_too_few_rows_are_refused(fitted: tuple[RecurrentEnsemble, Fit]) -> None:
    series = TimeSeries(jnp.zeros((99, POINTS)), jnp.zeros((99, 2)), jnp.zeros((99, POINTS)), jnp.ones(99, bool))
    with pytest.raises(LegatoError, match=r"fitted to 5 stretches of 20 steps or more.*there are 4: fit it later"):
        recurrent_fit.refit(fitted[0], series, 99, 1, FitOptions(), 2, jax.random.key(0))

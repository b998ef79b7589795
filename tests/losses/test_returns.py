"""Returns of several steps against recursions and sums that are written out."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from legato.losses.returns import lambda_returns, n_step_return, n_step_reward

GAMMA, T, B = 0.9, 5, 3


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


# --- n steps ---


def test_rewards_of_the_first_valid_steps() -> None:
    r = drawn(0, 4, 3)
    lengths = [4, 1, 2]
    valid = (np.arange(4)[:, None] < lengths).astype(float)
    found, n = n_step_reward(jnp.asarray(r), jnp.asarray(valid), GAMMA)
    assert n.tolist() == lengths
    for i, length in enumerate(lengths):
        assert float(found[i]) == pytest.approx(sum(GAMMA**k * r[k, i] for k in range(length)), rel=1e-5)


def test_rewards_of_rows_of_any_shape() -> None:
    r = jnp.asarray(drawn(1, 3, 2, 4))
    found, n = n_step_reward(r, jnp.ones_like(r), GAMMA)
    np.testing.assert_allclose(found, r[0] + GAMMA * r[1] + GAMMA**2 * r[2], rtol=1e-5)
    assert (n == 3).all()


def walked(r: np.ndarray, v: np.ndarray, length: int, terminated: bool, t: int, n: int) -> float:
    """G_t^n of an episode's window that holds `length` steps, by walking along it."""
    total, k = 0.0, 0
    while k < n:
        last = t + k == length - 1
        if last and not terminated:  # nothing is known of what follows its state
            break
        total += GAMMA**k * r[t + k]
        k += 1
        if last:
            return total
    return total + GAMMA**k * v[t + k]


@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_n_step_returns_within_windows(n: int) -> None:
    """Of windows that end with a termination, with a cut, and after one step."""
    lengths, terminated = np.array([5, 3, 1, 4]), np.array([True, False, True, False])
    r, v = drawn(2, 4, 5), drawn(3, 4, 5)
    step, last = np.arange(5), lengths[:, None] - 1
    has_next, ends = step < last, (step == last) & terminated[:, None]
    found = n_step_return(*map(jnp.asarray, (r, v, has_next, ends)), GAMMA, n)
    for i, length in enumerate(lengths):
        expected = [walked(r[i], v[i], length, terminated[i], t, n) for t in range(length)]
        np.testing.assert_allclose(found[i, :length], expected, rtol=1e-5, atol=1e-6)


# --- lambda-returns ---


def written_out(r: np.ndarray, m: np.ndarray, v_next: np.ndarray, lam: float) -> np.ndarray:
    """G_t = r_t + gamma m_t ((1 - lambda) v_{t+1} + lambda G_{t+1}), from the end, where G is v."""
    found, after = np.zeros_like(r), v_next[-1]
    for t in reversed(range(len(r))):
        after = found[t] = r[t] + GAMMA * m[t] * ((1 - lam) * v_next[t] + lam * after)
    return found


def mixed(r: np.ndarray, v_next: np.ndarray, lam: float, t: int) -> np.ndarray:
    """The same without ends as a mixture: sum_n (1 - lambda) lambda^(n-1) G_t^n, all the rest on the longest."""
    longest, total = len(r) - t, 0.0
    for n in range(1, longest + 1):
        g = sum(GAMMA**k * r[t + k] for k in range(n)) + GAMMA**n * v_next[t + n - 1]
        total = total + (lam ** (n - 1) if n == longest else (1 - lam) * lam ** (n - 1)) * g
    return np.asarray(total)


def episode() -> tuple[Any, Any, Any]:
    """Rewards, where it goes on, and values, of three roll-outs; one ends on its way."""
    m = np.ones((T, B))
    m[2, 1] = 0
    return drawn(4, T, B), m, drawn(5, T, B)


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.95, 1.0])
@pytest.mark.usefixtures("x64")
def test_lambda_returns_are_their_recursion(lam: float) -> None:
    r, m, v = episode()
    found = jax.jit(lambda_returns, static_argnums=3)(*map(jnp.asarray, (r, GAMMA * m, v)), lam)
    np.testing.assert_allclose(found, written_out(r, m, v, lam), rtol=1e-12)


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
@pytest.mark.usefixtures("x64")
def test_lambda_returns_are_mixtures_of_n_step_returns(lam: float) -> None:
    r, _, v = episode()
    found = lambda_returns(jnp.asarray(r), jnp.full((T, B), GAMMA), jnp.asarray(v), lam)
    np.testing.assert_allclose(found, [mixed(r, v, lam, t) for t in range(T)], rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_lambda_returns_at_both_ends() -> None:
    """lambda = 0 is one step; lambda = 1 the n-step return of all steps that are left."""
    r, m, v = map(jnp.asarray, episode())
    np.testing.assert_allclose(lambda_returns(r, GAMMA * m, v, 0.0), r + GAMMA * m * v, rtol=1e-12)
    whole = lambda_returns(r, jnp.full((T, B), GAMMA), v, 1.0)
    reward, n = n_step_reward(r, jnp.ones_like(r), GAMMA)
    np.testing.assert_allclose(whole[0], reward + GAMMA**n * v[-1], rtol=1e-12)


def test_nothing_behind_an_end_counts() -> None:
    r, m, v = map(jnp.asarray, episode())
    found = lambda_returns(r, GAMMA * m, v, 0.8)
    other = lambda_returns(r.at[3:, 1].add(7.0), GAMMA * m, v.at[2:, 1].add(7.0), 0.8)
    np.testing.assert_array_equal(found[:3], other[:3])
    assert (found[3:, 1] != other[3:, 1]).all()


@pytest.mark.usefixtures("x64")
def test_gradients_go_through_lambda_returns() -> None:
    r, m, v = map(jnp.asarray, episode())
    check_grads(jax.jit(lambda r, v: lambda_returns(r, GAMMA * m, v, 0.7)), (r, v), order=1, modes=["rev"])

"""The double integrator: its rules by hand, and its known costs against tables, a quadratic program and simulation."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import solve_discrete_are

from legato.envs import make, tasks
from legato.envs.tasks import LinearQuadratic, lqr
from legato.errors import LegatoError

GAIN, COST = tasks.riccati()
Plan = Callable[[np.ndarray, int], np.ndarray]


def starts(count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (count, 2))


def clipped(x: np.ndarray, step: int = 0) -> np.ndarray:
    return np.clip(-x @ GAIN.T, -1, 1)


def gains() -> list[np.ndarray]:
    """Of the best policy without bounds that knows that the episode ends, one for each of the 100 steps."""
    found, p, a = [], np.zeros((2, 2)), lqr.transition()
    for _ in range(100):
        gain = np.linalg.inv(lqr.R + lqr.B.T @ p @ lqr.B) @ lqr.B.T @ p @ a
        closed = a - lqr.B @ gain
        p = lqr.Q + gain.T @ lqr.R @ gain + closed.T @ p @ closed
        found.append(gain)
    return found[::-1]


def simulated(x: np.ndarray, policy: Plan, every: int = 1, noise: float = 0.0, seed: int = 1) -> np.ndarray:
    """Returns `[starts]` of a policy that acts upon what it expects, and sees the state every so many steps."""
    rng, a, total = np.random.default_rng(seed), lqr.transition(), np.zeros(len(x))
    expected = x
    for step in range(100):
        expected = expected if step % every else x
        u = policy(expected, step)
        total += LinearQuadratic.known_reward(x, u, None)
        x = x @ a.T + u @ lqr.B.T + np.sqrt(noise * np.diag(lqr.W)) * rng.standard_normal(x.shape)
        expected = expected @ a.T + u @ lqr.B.T
    return total


# --- the environment ---


def test_steps_are_those_of_the_matrices() -> None:
    """By hand, with an action beyond its bounds; a step pays for where it began."""
    environment = gymnasium.make("legato/LQR-v0").unwrapped
    x, v = environment.reset(seed=3)[0].astype(float)
    for push, force in ((0.5, 0.5), (7.0, 1.0), (-1.0, -1.0)):
        reward = -(x**2 + 0.1 * v**2 + 0.1 * force**2)
        x, v = x + 0.1 * v, v + 0.1 * force
        observation, paid, terminated, truncated, _ = environment.step(np.array([push]))
        np.testing.assert_allclose(observation, [x, v], atol=1e-6)
        assert paid == pytest.approx(reward, abs=1e-6) and not (terminated or truncated)
    flags = [environment.step(np.zeros(1))[2:4] for _ in range(97)]
    assert flags == [(False, False)] * 96 + [(False, True)]


def test_starts_are_uniform_and_noise_has_the_covariance_that_it_says() -> None:
    environment = LinearQuadratic(noise=4.0)
    drawn, strayed = [], []
    for seed in range(2000):
        before = environment.reset(seed=seed)[0]
        drawn.append(before)
        strayed.append(environment.step(np.ones(1))[0] - lqr.transition() @ before - [0, 0.1])
    for values in np.array(drawn).T:
        assert abs(values.mean()) < 4 / np.sqrt(3 * 2000) and np.abs(values).max() > 0.99
        assert abs((values**2).mean() - 1 / 3) < 4 * np.sqrt(4 / 45 / 2000)
    assert abs(np.prod(drawn, axis=1).mean()) < 4 / 3 / np.sqrt(2000)
    found = np.array(strayed).T @ np.array(strayed) / 2000
    np.testing.assert_allclose(np.diag(found), 4 * np.diag(lqr.W), rtol=4 * np.sqrt(2 / 2000))
    assert abs(found[0, 1]) < 4 * 4 * np.sqrt(1e-7 / 2000)


@pytest.mark.parametrize("after", [0, 1, 150])
def test_friction_comes_once_and_stays(after: int) -> None:
    environment = make("legato/LQR-v0", friction_after=after)
    kept = []
    for _ in range(3):
        before, over = environment.reset()[0], False
        while not over:
            observation, _, _, over, _ = environment.step(np.zeros(1, np.float32))
            kept.append(observation[1] / before[1])
            before = observation
    np.testing.assert_allclose(kept, [1.0] * after + [0.9] * (300 - after), rtol=1e-5)


def test_what_steps_pay_is_known_in_batches_of_either_library() -> None:
    environment, rng = make("legato/LQR-v0").unwrapped, np.random.default_rng(0)
    x, u, after = (rng.normal(size=(3, 4, size)) * 2 for size in (2, 1, 2))
    after[0, 0] = np.nan
    rewards = environment.known_reward(x, u, after)
    environment.reset(seed=0)
    for place in np.ndindex(3, 4):
        environment.x = x[place]
        assert environment.step(u[place])[1] == pytest.approx(rewards[place], rel=1e-6)
    np.testing.assert_allclose(environment.known_reward(*map(jnp.asarray, (x, u, after))), rewards, rtol=1e-5)
    for given in ((x, u, after), map(jnp.asarray, (x, u, after))):
        ends = environment.known_termination(*given)
        assert ends.shape == (3, 4) and ends.dtype == bool and not ends.any()


@pytest.mark.parametrize("options", [{"noise": -1.0}, {"noise": np.nan}, {"friction_after": -1}])
def test_negative_options_are_refused(options: dict) -> None:
    with pytest.raises(LegatoError, match="must be 0"):
        LinearQuadratic(**options)
    for cost in (tasks.held_cost, tasks.sequence_cost, tasks.noise_cost):
        with pytest.raises(LegatoError, match="at least 1 step, not 0"):
            cost(0)


# --- what is known of it ---


@pytest.mark.parametrize("friction", [False, True])
def test_gain_and_cost_solve_the_riccati_equation(friction: bool) -> None:
    a = lqr.transition(friction)
    expected = solve_discrete_are(a, lqr.B, lqr.Q, lqr.R)
    gain, cost = tasks.riccati(friction)
    np.testing.assert_allclose(cost, expected, rtol=1e-9)
    np.testing.assert_allclose(gain, np.linalg.solve(lqr.R + lqr.B.T @ cost @ lqr.B, lqr.B.T @ cost @ a), rtol=1e-9)
    if not friction:
        np.testing.assert_allclose(gain, [[2.762, 2.649]], atol=5e-4)
        np.testing.assert_allclose(cost, [[9.592, 3.621], [3.621, 3.111]], atol=5e-4)


def test_costs_at_every_decision_frequency() -> None:
    held = [tasks.held_cost(steps) for steps in (1, 2, 4, 8, 16)]
    assert [f"{cost:.3f}" for cost in held] == ["4.234", "4.258", "4.353", "4.746", "6.529"]
    assert held[0] == pytest.approx(np.trace(COST) / 3, rel=1e-9)
    planned = [tasks.sequence_cost(steps) for steps in (1, 2, 4, 8, 16, 30)]
    assert [f"{cost:.3g}" for cost in planned] == ["0.00407", "0.00458", "0.00581", "0.00923", "0.0211", "0.0644"]
    assert tasks.sequence_cost(8, noise=0.0) == 0


def test_returns_of_simple_policies_over_many_starts() -> None:
    """Of 20 000 starts, and of all of them: doing nothing and acting at random by the second moments of the state."""
    x, rng = starts(20_000), np.random.default_rng(2)
    best, idle = simulated(x, clipped), simulated(x, lambda x, _: np.zeros((len(x), 1)))
    assert (round(best.mean(), 2), round(best.std(), 2)) == (-5.94, 7.17)
    assert round(idle.mean()) == -1118
    erratic = simulated(x, lambda x, _: rng.uniform(-1, 1, (len(x), 1)))
    for returns, variance, exact in ((idle, 0.0, -1131.17), (erratic, 1 / 3, -1402.96)):
        s, total = np.eye(2) / 3, 0.0
        for _ in range(100):
            total -= np.trace(lqr.Q @ s) + 0.1 * variance
            s = lqr.transition() @ s @ lqr.transition().T + variance * lqr.B @ lqr.B.T
        assert total == pytest.approx(exact, abs=0.01)
        assert abs(returns.mean() - exact) < 4 * returns.std() / np.sqrt(20_000)


def test_the_clipped_gain_is_the_best_of_bounded_sequences() -> None:
    """Costs are convex in the 100 actions: no sequence can cost less than this one by more than g(u) = u' d + |d|_1.

    That is the duality gap of Frank and Wolfe, with d the gradient of the cost.
    """
    x = starts(50)
    a, states, actions = lqr.transition(), [x], []
    for _ in range(100):
        actions.append(clipped(states[-1]))
        states.append(states[-1] @ a.T + actions[-1] @ lqr.B.T)
    saturated = np.mean(np.abs(actions) == 1)
    assert 0.02 < saturated < 0.1
    ahead, gaps = np.zeros_like(x), np.zeros(50)
    for state, u in zip(reversed(states[:-1]), reversed(actions), strict=True):  # adjoint of the state after
        gradient = 2 * 0.1 * u[:, 0] + (ahead @ lqr.B)[:, 0]
        gaps += gradient * u[:, 0] + np.abs(gradient)
        ahead = 2 * state @ lqr.Q + ahead @ a
    costs = -simulated(x, clipped)
    assert (gaps >= 0).all() and (gaps < 1e-3 * costs).all()
    wrong = -simulated(x, lambda x, _: clipped(0.9 * x))
    assert (wrong >= costs).all() and (wrong > 1.0001 * costs).any()


def test_what_bounds_and_an_end_cost() -> None:
    """The mean over all starts, against that over a sample; without noise it is lost at no decision frequency."""
    x = starts(20_000)
    best = simulated(x, clipped)
    assert abs(best.mean() + tasks.saturated_cost()) < 4 * best.std() / np.sqrt(20_000)
    assert tasks.saturated_cost() == pytest.approx(6.016, abs=1e-3)
    assert tasks.saturated_cost() > np.trace(COST) / 3
    np.testing.assert_allclose(simulated(x, clipped, every=30), best, rtol=1e-9)
    unbounded = simulated(x[:200] / 100, clipped)  # small enough to stay within bounds
    np.testing.assert_allclose(-unbounded, np.einsum("ni,ij,nj->n", x[:200], COST, x[:200]) / 1e4, rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 8, 30])
def test_what_noise_costs_is_what_a_simulation_loses(steps: int) -> None:
    """Exactly from 0 with little noise, where bounds are far; at noise 1 to within 1 %, and 3 % at 30 steps."""
    best = gains()

    def informed(x: np.ndarray, step: int) -> np.ndarray:
        return np.clip(-x @ best[step].T, -1, 1)

    little = -simulated(np.zeros((10_000, 2)), informed, steps, noise=0.01)
    assert abs(little.mean() - tasks.noise_cost(steps, 0.01)) < 4 * little.std() / 100
    x = starts(20_000)
    lost = simulated(x, informed) - simulated(x, informed, steps, noise=1.0)  # paired by their starts
    known, bare = LinearQuadratic(noise=1.0).known_return(steps), LinearQuadratic().known_return(steps)
    assert known is not None and bare is not None
    spread, share = 4 * lost.std() / np.sqrt(20_000), 0.03 if steps == 30 else 0.01
    assert bare - known - spread < lost.mean() < bare - known + spread - share * known
    assert tasks.noise_cost(steps) < 100 * tasks.sequence_cost(steps)  # it ends
    assert tasks.noise_cost(steps) > 0.85 * 100 * tasks.sequence_cost(steps)


def test_a_known_return_is_given_only_where_it_is_known() -> None:
    environment = make("legato/LQR-v0").unwrapped
    assert environment.known_return(1) == environment.known_return(30) == -tasks.saturated_cost()
    assert LinearQuadratic(friction_after=0).known_return(4) == -tasks.saturated_cost(friction=True)
    assert LinearQuadratic(friction_after=500).known_return(4) is None
    assert LinearQuadratic(noise=1.1).known_return(4) is None

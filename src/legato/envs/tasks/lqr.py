"""A double integrator with quadratic costs, whose best return is known at every decision frequency."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces

from legato.envs.tasks.recording import record
from legato.errors import LegatoError

if TYPE_CHECKING:
    from legato.data.trajectories import Trajectories

LQR = "legato/LQR-v0"

STEPS = 100  # of an episode
B = np.array([[0.0], [0.1]])
Q, R = np.diag([1.0, 0.1]), np.array([[0.1]])  # costs of a state and of an action
W = np.diag([1e-4, 1e-3])  # covariance of the noise of one step, at noise 1
ROUGH = 0.9  # share of its velocity that the mass keeps in a step with friction


class LinearQuadratic(gymnasium.Env[np.ndarray, Any]):
    """A double integrator: x' = A x + B u with A = [[1, 0.1], [0, 1]] and B = (0, 0.1), for 100 steps.

    Observes `x = (position, velocity)`, at first uniform in [-1, 1]^2. The action u in [-1, 1] is a force, and a step
    pays -(x1^2 + 0.1 x2^2 + 0.1 u^2) of the state that it began in. Episodes are truncated and never terminate. Acting
    at random earns -1403 on average, doing nothing -1131, and the best policy -6.02 (`known_return`).

    `noise` adds normal noise of covariance `noise * diag(1e-4, 1e-3)` to every step. With `friction_after` the mass
    keeps 0.9 of its velocity in a step instead of all, A[1, 1] = 0.9, once this environment has made so many steps,
    over all its episodes; 0 is friction from the first on. Every copy counts its own steps, also those that only
    evaluate, and a resumed run counts anew: past the change it can be resumed with `fresh_episodes` only. Raises
    `LegatoError` for negative ones.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, noise: float = 0.0, friction_after: int | None = None):
        if not 0 <= noise < np.inf:
            raise LegatoError(f"noise {noise} of '{LQR}' must be 0 or more")
        if friction_after is not None and friction_after < 0:
            raise LegatoError(f"friction_after {friction_after} of '{LQR}' must be 0 steps or more")
        self.noise, self.friction_after = noise, friction_after
        self.time, self.made, self.x = 0, 0, np.zeros(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.time, self.x = 0, self.np_random.uniform(-1, 1, 2)
        return self.x.astype(np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        u = np.clip(np.asarray(action, np.float64), -1, 1)
        reward = float(np.float32(self.known_reward(self.x, u, None)))  # as it is logged
        rough = self.friction_after is not None and self.made >= self.friction_after
        self.x = transition(rough) @ self.x + B @ u
        if self.noise:
            self.x = self.x + np.sqrt(self.noise * np.diag(W)) * self.np_random.standard_normal(2)
        self.time, self.made = self.time + 1, self.made + 1
        return self.x.astype(np.float32), reward, False, self.time >= STEPS, {}

    @staticmethod
    def known_reward(observation: Any, action: Any, next_observation: Any) -> Any:
        """Rewards `[...]` of observations `[..., 2]` and actions `[..., 1]`, in NumPy or JAX; the next is not read."""
        cost = observation[..., 0] ** 2 + 0.1 * observation[..., 1] ** 2
        return -(cost + 0.1 * action[..., 0].clip(-1, 1) ** 2)

    @staticmethod
    def known_termination(observation: Any, action: Any, next_observation: Any) -> Any:
        """Do steps to these observations `[..., 2]` terminate? `[...]`, in NumPy or JAX: none does."""
        return next_observation[..., 0] > np.inf

    def known_return(self, steps_per_decision: int) -> float | None:
        """The mean return of the best policy that plans its actions for so many steps at each decision.

        Without noise it is -6.02, however rarely it decides: see `saturated_cost`. With noise, what is unforeseen
        between decisions comes on top (`noise_cost`), as if actions had no bounds, so that it is somewhat too high:
        simulated at noise 1, the best plans clipped to the bounds come to within 1 % of it at 1 to 16 steps, and to
        within 3 % at 30. None for more noise than 1, where bounds matter; and none where friction comes later, for then
        it depends on when. A policy that holds one action from decision to decision cannot reach it: see `held_cost`.
        """
        if self.friction_after or self.noise > 1:
            return None
        rough = self.friction_after is not None
        return -saturated_cost(rough) - noise_cost(steps_per_decision, self.noise, rough)


def transition(friction: bool = False) -> np.ndarray:
    """A `[2, 2]`."""
    return np.array([[1.0, 0.1], [0.0, ROUGH if friction else 1.0]])


def riccati(friction: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The gain K `[1, 2]` of the best policy u = -K x without bounds, and P `[2, 2]`: from x it costs x' P x for good.

    K = (2.762, 2.649) and P = [[9.592, 3.621], [3.621, 3.111]] without friction.
    """
    return _stationary(transition(friction), B, Q, R, np.zeros((2, 1)))


def held_cost(steps: int, friction: bool = False) -> float:
    """Mean cost, over starts and without an end, of the best policy that holds every action for so many steps.

    Without noise, and without bounds of actions: E[x' P_n x] = tr(P_n) / 3 for x uniform in [-1, 1]^2, where P_n solves
    the Riccati equation of n steps as one, x' = A^n x + (A^(n-1) + ... + 1) B u, whose cost has a cross term 2 x' N u.
    At 1, 2, 4, 8 and 16 steps: 4.234, 4.258, 4.353, 4.746 and 6.529.
    """
    _check(steps)
    a, (f, g) = transition(friction), (np.eye(2), np.zeros((2, 1)))
    q, r, n = np.zeros((2, 2)), np.zeros((1, 1)), np.zeros((2, 1))
    for _ in range(steps):  # x_i = f x + g u
        q, r, n = q + f.T @ Q @ f, r + g.T @ Q @ g + R, n + f.T @ Q @ g
        f, g = a @ f, a @ g + B
    return float(np.trace(_stationary(f, g, q, r, n)[1])) / 3


def sequence_cost(steps: int, noise: float = 1.0, friction: bool = False) -> float:
    """Cost per step, in the long run, of the best policy that decides every so many steps upon as many actions.

    Without bounds of actions. Between decisions the state strays from its plan by S_0 = 0, S_(i+1) = A S_i A' + W, so
    that n steps cost sum_(i<n) tr(Q S_i) + tr(P S_n). At noise 1 and 1, 2, 4, 8, 16 and 30 steps: 0.00407, 0.00458,
    0.00581, 0.00923, 0.0211 and 0.0645. Nothing without noise.
    """
    _check(steps)
    p = riccati(friction)[1]
    return noise * _strayed(steps, p, friction) / steps


def noise_cost(steps: int, noise: float = 1.0, friction: bool = False) -> float:
    """What noise costs in an episode with a decision every so many steps: `sequence_cost` with an end after 100.

    The best policy knows the end, which observations do not tell; u = -K x pays up to 3 % more.
    """
    _check(steps)
    ahead = [np.zeros((2, 2))]  # cost-to-go by the steps that remain
    for _ in range(STEPS):
        ahead.append(_backup(ahead[-1], transition(friction), B, Q, R, np.zeros((2, 1)))[1])
    blocks = [(start, min(steps, STEPS - start)) for start in range(0, STEPS, steps)]
    return noise * sum(_strayed(count, ahead[STEPS - start - count], friction) for start, count in blocks)


@cache
def saturated_cost(friction: bool = False) -> float:
    """Mean cost of an episode over its starts without noise: 6.02, of which bounded actions are 1.78.

    By u = clip(-K x, -1, 1), which is the best sequence of 100 bounded actions to six digits (a convex quadratic
    program says so); on a grid of 100 x 100 starts, the middles of equal squares.
    """
    middles = (np.arange(100) + 0.5) / 50 - 1
    x = np.stack(np.meshgrid(middles, middles), axis=-1).reshape(-1, 2)
    a, (gain, _), total = transition(friction), riccati(friction), 0.0
    for _ in range(STEPS):
        u = np.clip(-x @ gain.T, -1, 1)
        total -= LinearQuadratic.known_reward(x, u, None).mean()
        x = x @ a.T + u @ B.T
    return float(total)


def _check(steps: int) -> None:
    if steps < 1:
        raise LegatoError(f"a decision of '{LQR}' is for at least 1 step, not {steps}")


def _strayed(steps: int, p: np.ndarray, friction: bool) -> float:
    """What straying from a plan costs in so many steps at noise 1, the last state being worth x' p x."""
    a, s, cost = transition(friction), np.zeros((2, 2)), 0.0
    for _ in range(steps):
        cost += float(np.trace(Q @ s))
        s = a @ s @ a.T + W
    return cost + float(np.trace(p @ s))


def _backup(p: np.ndarray, f: Any, g: Any, q: Any, r: Any, n: Any) -> tuple[np.ndarray, np.ndarray]:
    """A step of the Riccati recursion: the gain, and the cost matrix one decision earlier than p.

    A decision leads from x to f x + g u and costs x' q x + u' r u + 2 x' n u.
    """
    gain = np.linalg.solve(r + g.T @ p @ g, g.T @ p @ f + n.T)
    return gain, q + f.T @ p @ f - gain.T @ (g.T @ p @ f + n.T)


def _stationary(*of: Any) -> tuple[np.ndarray, np.ndarray]:
    """The gain and the cost matrix that another decision does not change."""
    p = np.zeros((2, 2))
    while True:
        gain, before = _backup(p, *of)
        if np.abs(before - p).max() <= 1e-12 * np.abs(before).max():
            return gain, before
        p = before


def record_lqr(episodes: int = 600, seed: int = 0) -> Trajectories:
    """Policies of the double integrator, hesitant and hasty: u = clip(-s K x + 0.2 noise), s ~ U(0, 1.5) of each."""
    environment, gain, share = LinearQuadratic(), riccati()[0][0], 1.0

    def act(rng: np.random.Generator) -> np.ndarray:
        nonlocal share
        if environment.time == 0:
            share = rng.uniform(0, 1.5)
        return np.clip([-share * gain @ environment.x + 0.2 * rng.standard_normal()], -1, 1).astype(np.float32)

    return record(environment, LQR, "linear policies", episodes, seed, act)

"""Tabular TempoRL (Biedenkapp et al. 2021, arXiv 2106.05262, section 3), in plain numbers, and what it is tried on.

Q(s, a)     <- Q + alpha (r + gamma max_a' Q(s', a') - Q)
Q(s, j | a) <- Q + alpha (sum_(i<j) gamma^i r_i + gamma^j max_a' Q(s_j, a') - Q),   of every skip within a played one
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

Step = Callable[[int, int], tuple[int, float, bool]]
"""of a state and an action: the next state, the reward, and whether the episode is over"""

UP, DOWN, LEFT, RIGHT = range(4)
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))


def zigzag(state: int, action: int) -> tuple[int, float, bool]:
    """ZigZag of the published environments: 6 rows of 10 places, from the upper left to the lower right corner.

    Pits, which end an episode with -1, hang from above in columns 2 and 3 and stand from below in columns 6 and 7, of
    four places each; the goal pays 1. The shortest way has 20 steps in five straight parts.
    """
    row, column = divmod(state, 10)
    row, column = min(max(row + MOVES[action][0], 0), 5), min(max(column + MOVES[action][1], 0), 9)
    pit = (column in (2, 3) and row <= 3) or (column in (6, 7) and row >= 2)
    goal = (row, column) == (5, 9)
    return 10 * row + column, float(goal) - float(pit), goal or pit


def chain(state: int, action: int) -> tuple[int, float, bool]:
    """Ten places; action 1 goes on, 0 goes back, and who goes on from the last is paid 1, and at the end."""
    if action == 0:
        return max(state - 1, 0), 0.0, False
    return state + 1, float(state == 9), state == 9


@dataclass
class Tables:
    """What is learnt, and how greedy episodes went on the way: `(return, decisions)` of each."""

    q: list[list[float]]
    skip: list[list[list[float]]]
    """by state, action and length - 1"""
    greedy: list[tuple[float, int]] = field(default_factory=list)


def longest_best(values: list[float]) -> int:
    """The place of the largest value, of equal ones the last."""
    best = max(values)
    return next(i for i in reversed(range(len(values))) if values[i] == best)


def learn(
    step: Step,
    states: int,
    actions: int,
    longest: int,
    episodes: int,
    seed: int,
    *,
    gamma: float = 0.99,
    alpha: float = 0.5,
    epsilon: float = 0.1,
    limit: int = 100,
    eval_every: int = 10,
) -> Tables:
    """Episodes from state 0, cut after `limit` steps, every `eval_every`-th followed by a greedy one."""
    rng = random.Random(seed)
    found = Tables([[0.0] * actions for _ in range(states)],
                   [[[0.0] * longest for _ in range(actions)] for _ in range(states)])  # fmt: skip

    def drawn(values: list[float]) -> int:
        if rng.random() < epsilon:
            return rng.randrange(len(values))
        best = max(values)
        ties = [i for i, value in enumerate(values) if value == best]
        return ties[0] if len(ties) == 1 else rng.choice(ties)

    for episode in range(episodes):
        s, steps, over = 0, 0, False
        while not over and steps < limit:
            a = drawn(found.q[s])
            j = 1 + drawn(found.skip[s][a])
            begun: list[tuple[int, float]] = []  # the states of this skip, and what was paid since, discounted
            while j and not over and steps < limit:
                after, r, over = step(s, a)
                ahead = 0.0 if over else max(found.q[after])
                found.q[s][a] += alpha * (r + gamma * ahead - found.q[s][a])
                ahead = 0.0 if over else max(found.q[after])
                begun.append((s, 0.0))
                length = len(begun)
                for i, (start, paid) in enumerate(begun):
                    n = length - i
                    paid += gamma ** (n - 1) * r
                    begun[i] = start, paid
                    values = found.skip[start][a]
                    for k in range(n - 1, longest if over else n):  # who would go on past an end gets no further
                        values[k] += alpha * (paid + gamma**n * ahead - values[k])
                s, steps, j = after, steps + 1, j - 1
        if episode % eval_every == 0:
            found.greedy.append(play(found, step, rng, limit))
    return found


def play(tables: Tables, step: Step, rng: random.Random, limit: int) -> tuple[float, int]:
    """The return and the decisions of a greedy episode: of equal actions any, of equal lengths the longest."""
    s, steps, total, decisions, over = 0, 0, 0.0, 0, False
    while not over and steps < limit:
        best = max(tables.q[s])
        a = rng.choice([i for i, value in enumerate(tables.q[s]) if value == best])
        decisions += 1
        for _ in range(1 + longest_best(tables.skip[s][a])):
            s, r, over = step(s, a)
            steps, total = steps + 1, total + r
            if over or steps == limit:
                break
    return total, decisions

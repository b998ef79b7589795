"""The shortest path of a random graph (Chen et al. 2021)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces

from legato.envs.tasks.recording import choice_of, record
from legato.errors import LegatoError

if TYPE_CHECKING:
    from legato.data.trajectories import Trajectories

SHORTEST_PATH = "legato/ShortestPath-v0"

NODES, GOAL, LIMIT = 20, 19, 10
GRAPH = 547  # 43 edges; in 10 steps 57% of random walks reach the goal, 22% of all on a shortest path
PENALTY = 10.0


@cache
def edges(graph: int = GRAPH) -> np.ndarray:
    """`[u, v]`: does an edge lead from u to v? Each does with probability 0.1, drawn from the seed `graph`.

    Graphs are drawn until one has the goal, node 19, within 10 steps of every other node.
    """
    if graph < 0:
        raise LegatoError(f"the graph of '{SHORTEST_PATH}' is a seed of 0 or more, not {graph}")
    rng = np.random.default_rng(graph)
    while True:
        drawn = rng.random((NODES, NODES)) < 0.1
        np.fill_diagonal(drawn, False)
        if _distances(drawn).max() <= LIMIT:
            drawn.flags.writeable = False  # kept for all who ask
            return drawn


@cache
def distances(graph: int = GRAPH) -> np.ndarray:
    """Steps from every node to the goal on a shortest path, `[20]`; the goal's own is 0."""
    found = _distances(edges(graph))
    found.flags.writeable = False
    return found


def _distances(edges: np.ndarray) -> np.ndarray:
    """Breadth first, backwards from the goal; a node that never gets there has `NODES`."""
    found = np.where(np.arange(NODES) == GOAL, 0, NODES)
    for steps in range(1, NODES):
        found[edges[:, found < steps].any(axis=1) & (found == NODES)] = steps
    return found


class ShortestPath(gymnasium.Env[np.ndarray, Any]):
    """Walk to node 19 along the directed edges of a random graph: a step costs 1, a missed goal `penalty` more.

    Observes the node (one-hot); the action is the next node, and where no edge leads there, the step is lost. An
    episode terminates at the goal, so its best return is minus the start's distance, and is truncated after 10 steps,
    when the last reward also takes the penalty: a miss costs 20 in all, which stands for a cost without end. As this
    is already the price of what would follow, nothing should be added to it by bootstrapping. The start is any of the
    other nodes, or `reset(options={"start": node})`. `info["distance"]` is the shortest way from the present node.
    """

    observation_space = spaces.Box(0.0, 1.0, (NODES,), np.float32)
    action_space = spaces.Discrete(NODES)

    def __init__(self, graph: int = GRAPH, penalty: float = PENALTY):
        self.edges, self.distances, self.penalty = edges(graph), distances(graph), penalty
        self.node = self.time = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        start = (options or {}).get("start")
        if start is None:
            start = self.np_random.integers(GOAL)
        elif not (isinstance(start, int | np.integer) and 0 <= start < GOAL):
            raise LegatoError(f"start {start!r} of '{SHORTEST_PATH}' is none of the nodes 0 to {GOAL - 1}")
        self.node, self.time = int(start), 0
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        action = choice_of(action, NODES, SHORTEST_PATH)
        if self.edges[self.node, action]:
            self.node = action
        self.time += 1
        there = self.node == GOAL
        missed = self.time >= LIMIT and not there
        return self._observation(), -1.0 - self.penalty * missed, there, missed, self._info()

    def _observation(self) -> np.ndarray:
        seen = np.zeros(NODES, np.float32)
        seen[self.node] = 1
        return seen

    def _info(self) -> dict[str, Any]:
        return {"distance": int(self.distances[self.node])}


def record_shortest_path(
    episodes: int = 1000, seed: int = 0, *, graph: int = GRAPH, penalty: float = PENALTY
) -> Trajectories:
    """Random walks to the goal, or of 10 steps: each takes one of the node's edges, all equally likely.

    A walk that reaches the goal in d steps has return -d, one that misses it -10 - `penalty`, as in the environment.
    """
    environment = ShortestPath(graph, penalty)
    onward = [np.flatnonzero(row) for row in environment.edges]

    def act(rng: np.random.Generator) -> int:
        ways = onward[environment.node]
        return int(ways[rng.integers(len(ways))])

    name = SHORTEST_PATH if (graph, penalty) == (GRAPH, PENALTY) else None
    return record(environment, name, "random walks", episodes, seed, act)

"""The small tasks on which papers show that a policy reads its return or its memory, and experience for each of them.

`legato/ShortestPath-v0` and `legato/KeyToDoor-v0` follow Chen et al. 2021 (Decision Transformer), whose own worlds
are unpublished; `legato/Recall-v0` and `legato/RecallLong-v0` are passive T-mazes (Bakker 2001; Ni et al. 2023);
`legato/FourRooms-v0` is the continuous four rooms of Janner et al. 2021 (Trajectory Transformer), unpublished too, and
`legato/FourRoomsSparse-v0` the same with one goal, where a way must be put together from parts, as in the AntMazes of
Fu et al. 2020 (D4RL). `legato/PointMass-v0` is a mass on a line: the smallest task in which a return can be asked for
and a policy from logs be improved by acting. All end by themselves, without a time limit around them. `walks`, `keys`,
`recalls`, `journeys`, `outings` and `pushes` record what is learnt from, in these very environments.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces

from legato.errors import LegatoError, unknown

if TYPE_CHECKING:
    from legato.data.trajectories import Trajectories

SHORTEST_PATH, KEY_TO_DOOR = "legato/ShortestPath-v0", "legato/KeyToDoor-v0"
RECALLS = {100: "legato/Recall-v0", 400: "legato/RecallLong-v0"}  # by their steps
FOUR_ROOMS, SPARSE_ROOMS = "legato/FourRooms-v0", "legato/FourRoomsSparse-v0"
POINT_MASS = "legato/PointMass-v0"


def register() -> None:
    """Make the tasks known to Gymnasium in this process."""
    known = {
        SHORTEST_PATH: ("ShortestPath", {"graph": GRAPH}),
        KEY_TO_DOOR: ("KeyToDoor", {}),
        **{name: ("Recall", {"length": length}) for length, name in RECALLS.items()},
        FOUR_ROOMS: ("FourRooms", {}),
        SPARSE_ROOMS: ("FourRooms", {"goal": SPOT}),
        POINT_MASS: ("PointMass", {}),
    }
    for name, (kind, kwargs) in known.items():
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point=f"{__name__}:{kind}", kwargs=kwargs)


# --- shortest path ---

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
        action = _chosen(action, NODES, SHORTEST_PATH)
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


def walks(episodes: int = 1000, seed: int = 0, *, graph: int = GRAPH, penalty: float = PENALTY) -> Trajectories:
    """Random walks to the goal, or of 10 steps: each takes one of the node's edges, all equally likely.

    A walk that reaches the goal in d steps has return -d, one that misses it -10 - `penalty`, as in the environment.
    """
    environment = ShortestPath(graph, penalty)
    onward = [np.flatnonzero(row) for row in environment.edges]

    def act(rng: np.random.Generator) -> int:
        ways = onward[environment.node]
        return int(ways[rng.integers(len(ways))])

    name = SHORTEST_PATH if (graph, penalty) == (GRAPH, PENALTY) else None
    return _record(environment, name, "random walks", episodes, seed, act)


# --- key to door ---

WIDTH, STAY, ROOMS = 3, 5, 3
CELLS, HORIZON = WIDTH * WIDTH, ROOMS * STAY
MOVES = ((0, 1), (0, -1), (1, 0), (-1, 0))  # right, left, down, up: rows down, columns to the right


class KeyToDoor(gymnasium.Env[np.ndarray, Any]):
    """Touch a key in the first room to be paid at a door in the third: three rooms of 3x3 cells, five steps in each.

    Observes the agent's cell, the object's (none in the second room) and the room, each one-hot: `[9 + 9 + 3]`. On
    entering a room the agent is put on any cell, and the key or door on any other. Moves right, left, down and up
    (0 to 3) end at the walls. Whether the key is held is not observed: it stays in view when it has been touched.
    The reward is 1 for touching the door with the key, and the episode ends there; without the key the door is a cell
    like others. After 15 steps it terminates, for nothing is left to be earned. Acting at random earns 0.088.
    """

    observation_space = spaces.Box(0.0, 1.0, (2 * CELLS + ROOMS,), np.float32)
    action_space = spaces.Discrete(len(MOVES))

    def __init__(self) -> None:
        self.time = self.room = self.agent = 0
        self.object: int | None = None
        self.holds = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.time, self.holds = 0, False
        self._enter(0)
        return self._observation(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        down, right = MOVES[_chosen(action, len(MOVES), KEY_TO_DOOR)]
        row, column = divmod(self.agent, WIDTH)
        row, column = min(max(row + down, 0), WIDTH - 1), min(max(column + right, 0), WIDTH - 1)
        self.agent = row * WIDTH + column
        self.time += 1
        touches = self.agent == self.object
        opened = touches and self.room == ROOMS - 1 and self.holds
        self.holds |= touches and self.room == 0
        over = opened or self.time >= HORIZON
        if not over and self.time % STAY == 0:
            self._enter(self.room + 1)
        return self._observation(), float(opened), over, False, {}

    def _enter(self, room: int) -> None:
        self.room, self.agent = room, int(self.np_random.integers(CELLS))
        empty = room not in (0, ROOMS - 1)
        self.object = None if empty else (self.agent + 1 + int(self.np_random.integers(CELLS - 1))) % CELLS

    def _observation(self) -> np.ndarray:
        seen = np.zeros(2 * CELLS + ROOMS, np.float32)
        seen[self.agent] = seen[2 * CELLS + self.room] = 1
        if self.object is not None:
            seen[CELLS + self.object] = 1
        return seen


def keys(episodes: int = 10_000, seed: int = 0) -> Trajectories:
    """Moves at random, all equally likely, through the rooms of Key-to-Door."""
    return _record(KeyToDoor(), KEY_TO_DOOR, "random moves", episodes, seed, lambda rng: int(rng.integers(len(MOVES))))


# --- recall ---


class Recall(gymnasium.Env[np.ndarray, Any]):
    """Remember a cue for a whole episode: only the last of `length` actions is paid, 1 if its sign is the cue's.

    Observes `(cue, noise)`: the cue, -1 or 1, is seen in the first observation only and is 0 from then on; the noise
    is standard normal and says nothing. One action in [-1, 1]. The last reward is the product of the signs of action
    and cue, all others are 0: 1 is solved, and whoever does not remember earns 0 on average. No observation tells the
    time, so the policy has to count as well, or to answer all along.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, length: int = 100):
        if length < 1:
            raise LegatoError(f"an episode of '{RECALLS[100]}' has at least 1 step, not {length}")
        self.length = length
        self.time, self.cue, self.noise = 0, 0.0, 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.time, self.cue = 0, 2.0 * float(self.np_random.integers(2)) - 1
        return self._observation(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.time += 1
        over = self.time >= self.length
        reward = self.cue * float(np.sign(action[0])) if over else 0.0
        return self._observation(), reward, over, False, {}

    def expert(self) -> np.ndarray:
        """The action that `recalls` records: 0.3 tanh(noise), and at last the cue."""
        last = self.time == self.length - 1
        return np.array([self.cue if last else 0.3 * np.tanh(self.noise)], np.float32)

    def _observation(self) -> np.ndarray:
        self.noise = float(self.np_random.standard_normal(dtype=np.float32))
        return np.array([0.0 if self.time else self.cue, self.noise], np.float32)


def recalls(episodes: int = 1000, length: int = 100, seed: int = 0) -> Trajectories:
    """The expert's actions in Recall: 0.3 tanh(noise), and the cue in the last of `length` steps. Every return is 1."""
    environment = Recall(length)
    return _record(environment, RECALLS.get(length), "expert recalls", episodes, seed, lambda rng: environment.expert())


# --- point mass ---


class PointMass(gymnasium.Env[np.ndarray, Any]):
    """A mass on a line, to be brought to 0 and held there for the 100 steps of an episode.

    Observes `(x, v)`; the action in [-1, 1] pushes: v <- 0.98 (v + 0.2 a), x <- x + 0.1 v. It begins at rest, at x
    uniform in [-2, 2], and a step pays 1 - min(1, |x|).
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self) -> None:
        self.time, self.x, self.v = 0, 0.0, 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.time, self.x, self.v = 0, float(self.np_random.uniform(-2, 2)), 0.0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.time += 1
        self.v = 0.98 * (self.v + 0.2 * float(np.clip(action[0], -1, 1)))
        self.x += 0.1 * self.v
        reward = float(np.float32(1 - min(1.0, abs(self.x))))  # as it is logged
        return self._observation(), reward, False, self.time >= PUSHES, {}

    def _observation(self) -> np.ndarray:
        return np.array([self.x, self.v], np.float32)


def pushes(episodes: int = 600, seed: int = 0, worst: float = 1.0) -> Trajectories:
    """Controllers of a point mass, good and bad: a = -p x - d v + 0.2 noise with p ~ U(-0.2, 3), d ~ U(0, 4) of each.

    Only this share of the episodes is kept, the `worst` by return.
    """
    environment, gains = PointMass(), np.zeros(2)

    def act(rng: np.random.Generator) -> np.ndarray:
        if environment.time == 0:
            gains[:] = rng.uniform((-0.2, 0.0), (3.0, 4.0))
        wanted = -gains[0] * environment.x - gains[1] * environment.v + 0.2 * rng.standard_normal()
        return np.array([np.clip(wanted, -1, 1)], np.float32)

    found = _record(environment, POINT_MASS, "pushes", episodes, seed, act)
    if worst >= 1:
        return found
    from legato.data import sets
    from legato.data import trajectories as logs

    order = np.argsort(logs.returns(found), kind="stable")
    return sets.select(found, np.sort(order[: max(1, round(worst * episodes))]))


# --- four rooms ---

SIDE, WALL, DOORS, HALF, REACH, STRIDE, JOURNEY = 11.0, 5.5, (2.75, 8.25), 0.75, 0.5, 0.5, 100
SPOT, ACROSS = (9.5, 7.0), (0, 0)  # the only goal, and the room across from it
OUTING, STRAIGHT = 8.0, 6  # length of an outing, and steps of one without a guide
PUSHES = 100  # steps of an episode of the point mass


class FourRooms(gymnasium.Env[np.ndarray, Any]):
    """A point that walks to a goal through four rooms of a square: 11 x 11, two walls crossing in the middle.

    Each half of a wall has a door 1.5 wide at its middle, so the rooms form a ring. Observes `(x, y)` only: where the
    goal is, `info["goal"]` says, and a policy is told. An action is a step of at most 0.5 along each axis; walls stop
    what would cross them, and the point slides along. The reward is 1 within 0.5 of the goal, where the episode
    terminates, and 0 before; after 100 steps it is truncated. Start and goal are uniform, at least 1 apart, or given:
    `reset(options={"start": (x, y), "goal": (x, y)})`. With a `goal` all episodes have this one, and with a `room`,
    `(0, 0)` to `(1, 1)`, all begin there.
    """

    observation_space = spaces.Box(0.0, SIDE, (2,), np.float32)
    action_space = spaces.Box(-STRIDE, STRIDE, (2,), np.float32)
    reach = REACH

    def __init__(self, goal: tuple[float, float] | None = None, room: tuple[int, int] | None = None):
        if room is not None and not (len(room) == 2 and all(number in (0, 1) for number in room)):
            raise LegatoError(f"room {room!r} of '{FOUR_ROOMS}' is none of (0, 0), (0, 1), (1, 0) and (1, 1)")
        self.only, self.room = _place("goal", goal), room
        self.place, self.goal, self.time = np.zeros(2), np.zeros(2), 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        given = [_place(name, (options or {}).get(name)) for name in ("start", "goal")]
        given[1] = self.only if given[1] is None else given[1]
        while True:
            drawn = self.np_random.uniform(0, SIDE, (2, 2))
            if self.room is not None:
                drawn[0] = WALL * (np.array(self.room) + drawn[0] / SIDE)
            start, goal = (drew if asked is None else asked for drew, asked in zip(drawn, given, strict=True))
            if np.linalg.norm(start - goal) >= 1 or all(asked is not None for asked in given):
                break
        self.place, self.goal, self.time = start.copy(), goal.copy(), 0
        return self.place.astype(np.float32), {"goal": self.goal.astype(np.float32)}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        action = np.clip(np.asarray(action, np.float64), -STRIDE, STRIDE)
        for axis in (0, 1):  # one axis after the other, so that a wall stops one and not both
            before = self.place[axis]
            after = float(np.clip(before + action[axis], 0, SIDE))
            through = min(abs(self.place[1 - axis] - door) for door in DOORS) <= HALF
            if (before < WALL) != (after < WALL) and not through:
                after = WALL - 0.01 if before < WALL else WALL
            self.place[axis] = after
        self.time += 1
        there = bool(np.linalg.norm(self.place - self.goal) <= REACH)
        info = {"goal": self.goal.astype(np.float32)}
        return self.place.astype(np.float32), float(there), there, self.time >= JOURNEY and not there, info

    @property
    def walls(self) -> np.ndarray:
        """The ends of each piece of wall, `[walls, 2, 2]`: the four outer ones, and of the cross what doors leave."""
        ends = [0.0, *(door + side for door in DOORS for side in (-HALF, HALF)), SIDE]
        upright = [[(at, 0.0), (at, SIDE)] for at in (0.0, SIDE)]
        upright += [[(WALL, low), (WALL, high)] for low, high in zip(ends[::2], ends[1::2], strict=True)]
        return np.concatenate([upright, np.flip(upright, axis=-1)])

    def way(self, to: np.ndarray | None = None) -> list[np.ndarray]:
        """The middles of the doors to be passed from here, and the goal, or the place `to` be reached instead.

        The shorter way round, where there are two.
        """
        last = self.goal if to is None else to
        (column, row), (to_column, to_row) = ((place >= WALL).astype(int) for place in (self.place, last))
        across = [np.array([WALL, DOORS[row]]), np.array([WALL, DOORS[to_row]])]  # in this row, or in the goal's
        up = [np.array([DOORS[column], WALL]), np.array([DOORS[to_column], WALL])]
        if row == to_row:
            doors = [[]] if column == to_column else [[across[0]]]
        elif column == to_column:
            doors = [[up[0]]]
        else:
            doors = [[across[0], up[1]], [up[0], across[1]]]
        return min(([*passed, last] for passed in doors), key=self.length)

    def length(self, way: list[np.ndarray]) -> float:
        """How long a way from here is."""
        return float(np.linalg.norm(np.diff([self.place, *way], axis=0), axis=1).sum())

    def next_door(self, rng: np.random.Generator) -> np.ndarray:
        """A place in a room next to this one, on a way that is no longer than an outing; all are equally likely."""
        while True:
            place = rng.uniform(0, SIDE, 2)
            way = self.way(place)
            if len(way) == 2 and self.length(way) <= OUTING:
                return place

    def guide(self, rng: np.random.Generator, to: np.ndarray | None = None) -> np.ndarray:
        """The action that `journeys` records: towards the next door's middle or the end of the way, with noise."""
        way = self.way(to)
        # A door counts as passed from its threshold on; before, its middle is aimed at.
        target = next(p for i, p in enumerate(way) if i == len(way) - 1 or np.linalg.norm(p - self.place) > 0.3)
        toward = target - self.place
        step = toward * min(1.0, STRIDE / max(np.abs(toward).max(), 1e-9)) + 0.05 * rng.standard_normal(2)
        return np.clip(step, -STRIDE, STRIDE).astype(np.float32)


def _place(name: str, given: Any) -> np.ndarray | None:
    if given is None:
        return None
    place = np.asarray(given, np.float64)
    if place.shape != (2,) or not ((place >= 0) & (place <= SIDE)).all():
        raise LegatoError(f"{name} {given!r} of '{FOUR_ROOMS}' is no place: two numbers from 0 to {SIDE:g}")
    return place


def journeys(episodes: int = 1000, seed: int = 0) -> Trajectories:
    """Walks from anywhere to anywhere in the four rooms, by a guide who knows the doors.

    One step in five is random, so that walls and the ways back from them are seen as well.
    """
    environment = FourRooms()

    def act(rng: np.random.Generator) -> np.ndarray:
        astray = rng.random() < 0.2
        return rng.uniform(-STRIDE, STRIDE, 2).astype(np.float32) if astray else environment.guide(rng)

    return _record(environment, FOUR_ROOMS, "guided journeys", episodes, seed, act)


def outings(episodes: int = 1000, seed: int = 0) -> Trajectories:
    """Short walks in the four rooms with one goal, of which none leads from the room across to the goal.

    Half of them are guided, from anywhere to some place in a room next door, on a way at most 8 long. The others go
    straight on for 6 steps, into walls and along them. Where the goal is, nobody knows: a few per cent of all walks
    come upon it, and end there. The others are cut where they arrive.
    """
    environment, to, ahead = FourRooms(SPOT), np.zeros(2), np.zeros(2)

    def act(rng: np.random.Generator) -> np.ndarray | None:
        nonlocal to, ahead
        if not environment.time:
            angle = rng.uniform(0, 2 * np.pi)
            ahead = STRIDE * np.array([np.cos(angle), np.sin(angle)]) * (rng.random() < 0.5)
            to = environment.next_door(rng)
        if ahead.any():
            return None if environment.time == STRAIGHT else ahead.astype(np.float32)
        arrived = environment.time > 0 and np.linalg.norm(environment.place - to) <= REACH
        return None if arrived else environment.guide(rng, to)

    return _record(environment, SPARSE_ROOMS, "short outings", episodes, seed, act)


# --- experience ---


def generate(environment_id: str, episodes: int, seed: int = 0) -> Trajectories:
    """Experience in one of the tasks: `walks`, `keys`, `recalls`, `journeys`, `outings` or `pushes`.

    Raises `LegatoError`, naming the nearest id, for any other.
    """
    if environment_id == SHORTEST_PATH:
        return walks(episodes, seed)
    if environment_id == KEY_TO_DOOR:
        return keys(episodes, seed)
    for length, name in RECALLS.items():
        if environment_id == name:
            return recalls(episodes, length, seed)
    if environment_id == FOUR_ROOMS:
        return journeys(episodes, seed)
    if environment_id == SPARSE_ROOMS:
        return outings(episodes, seed)
    if environment_id == POINT_MASS:
        return pushes(episodes, seed)
    known = (SHORTEST_PATH, KEY_TO_DOOR, *RECALLS.values(), FOUR_ROOMS, SPARSE_ROOMS, POINT_MASS)
    raise unknown("task", environment_id, known)


def _record(
    environment: gymnasium.Env,
    environment_id: str | None,
    name: str,
    episodes: int,
    seed: int,
    act: Callable[[np.random.Generator], Any],
) -> Trajectories:
    """Plays episodes one after another. The environment has a generator of `seed`, and the actions one of their own.

    Where there is no action, after the first, the episode is cut.
    """
    from legato.data.trajectories import About, trajectories  # brings SciPy, which whoever only plays need not wait for

    if episodes < 1:
        raise LegatoError(f"{episodes} episodes of {name}: one at least is needed")
    if seed < 0:
        raise LegatoError(f"a seed is 0 or more, not {seed}")
    rng = np.random.default_rng([seed, 1])
    observations, actions, rewards, terminations, truncations, ends = [], [], [], [], [], []
    for i in range(episodes):
        observation, _ = environment.reset(seed=seed if i == 0 else None)
        over = False
        while not over:
            action = act(rng)
            if action is None:
                truncations[-1] = True
                break
            observations.append(observation)
            actions.append(action)
            observation, reward, terminated, truncated, _ = environment.step(action)
            rewards.append(reward)
            terminations.append(terminated)
            truncations.append(truncated)
            over = terminated or truncated
        ends.append(observation)
    space: Any = environment.action_space
    if isinstance(space, spaces.Discrete):
        about = About(name, environment_id, choices=int(space.n))
    else:
        about = About(name, environment_id, low=tuple(space.low.tolist()), high=tuple(space.high.tolist()))
    columns = (np.array(column) for column in (observations, actions, rewards, terminations, truncations))
    return trajectories(*columns, ends=np.array(ends), about=about)


def _chosen(action: Any, choices: int, name: str) -> int:
    chosen = int(action)
    if not 0 <= chosen < choices:
        raise LegatoError(f"action {action} of '{name}' is none of 0 to {choices - 1}")
    return chosen

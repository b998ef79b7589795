"""A point that walks through four rooms to a goal (Janner et al. 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces

from legato.envs.tasks.recording import record
from legato.errors import LegatoError

if TYPE_CHECKING:
    from legato.data.trajectories import Trajectories

FOUR_ROOMS, SPARSE_ROOMS = "legato/FourRooms-v0", "legato/FourRoomsSparse-v0"

SIDE, WALL, DOORS, HALF, REACH, STRIDE, JOURNEY = 11.0, 5.5, (2.75, 8.25), 0.75, 0.5, 0.5, 100
SPOT, ACROSS = (9.5, 7.0), (0, 0)  # the only goal, and the room across from it
OUTING, STRAIGHT = 8.0, 6  # length of an outing, and steps of one without a guide


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

    def shortest_path(self, to: np.ndarray | None = None) -> list[np.ndarray]:
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
            way = self.shortest_path(place)
            if len(way) == 2 and self.length(way) <= OUTING:
                return place

    def guide(self, rng: np.random.Generator, to: np.ndarray | None = None) -> np.ndarray:
        """The action that `journeys` records: towards the next door's middle or the end of the way, with noise."""
        way = self.shortest_path(to)
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


def record_four_rooms(episodes: int = 1000, seed: int = 0) -> Trajectories:
    """Walks from anywhere to anywhere in the four rooms, by a guide who knows the doors.

    One step in five is random, so that walls and the ways back from them are seen as well.
    """
    environment = FourRooms()

    def act(rng: np.random.Generator) -> np.ndarray:
        astray = rng.random() < 0.2
        return rng.uniform(-STRIDE, STRIDE, 2).astype(np.float32) if astray else environment.guide(rng)

    return record(environment, FOUR_ROOMS, "guided journeys", episodes, seed, act)


def record_sparse_rooms(episodes: int = 1000, seed: int = 0) -> Trajectories:
    """Short walks in the four rooms with one goal, of which none leads from the room across to the goal.

    Half of them are guided, from anywhere to some place in a room next door, on a way at most 8 long. The others go
    straight on for 6 steps, into walls and along them. The recorded policy does not know where the goal is: a few per
    cent of all walks come upon it, and end there. The others are cut where they arrive.
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

    return record(environment, SPARSE_ROOMS, "short outings", episodes, seed, act)

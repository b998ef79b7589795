"""The small tasks on which papers show that a policy reads its return or its memory, and experience for each of them.

`legato/ShortestPath-v0` and `legato/KeyToDoor-v0` follow Chen et al. 2021 (Decision Transformer), whose own worlds
are unpublished; `legato/Recall-v0` and `legato/RecallLong-v0` are passive T-mazes (Bakker 2001; Ni et al. 2023);
`legato/FourRooms-v0` is the continuous four rooms of Janner et al. 2021 (Trajectory Transformer), unpublished too, and
`legato/FourRoomsSparse-v0` the same with one goal, where a way must be put together from parts, as in the AntMazes of
Fu et al. 2020 (D4RL). `legato/PointMass-v0` is a mass on a line: the smallest task in which a return can be asked for
and a policy from logs be improved by acting. `legato/LQR-v0` is a double integrator with quadratic costs, whose best
return is known however rarely a policy decides. All end by themselves, without a time limit around them.

`legato/KuramotoSivashinsky-v0`, `legato/KuramotoSivashinsky-8jets-v0` and `legato/Burgers-v0` are plants governed by
partial differential equations (Werner & Peitz 2023; Liu & Wang 2021), with a solver and controllers in `pde`.

`record_shortest_path`, `record_key_to_door`, `record_recall`, `record_four_rooms`, `record_sparse_rooms`,
`record_point_mass` and `record_lqr` record what is learnt from, in these very environments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import gymnasium

from legato.envs.tasks.four_rooms import (
    ACROSS,
    FOUR_ROOMS,
    SPARSE_ROOMS,
    SPOT,
    FourRooms,
    record_four_rooms,
    record_sparse_rooms,
)
from legato.envs.tasks.key_to_door import KEY_TO_DOOR, KeyToDoor, record_key_to_door
from legato.envs.tasks.lqr import (
    LQR,
    LinearQuadratic,
    held_cost,
    noise_cost,
    record_lqr,
    riccati,
    saturated_cost,
    sequence_cost,
)
from legato.envs.tasks.pde import BURGERS, EIGHT_JETS, KURAMOTO_SIVASHINSKY, Burgers, KuramotoSivashinsky
from legato.envs.tasks.point_mass import POINT_MASS, PUSHES, PointMass, record_point_mass
from legato.envs.tasks.recall import RECALLS, Recall, record_recall
from legato.envs.tasks.shortest_path import (
    GOAL,
    GRAPH,
    LIMIT,
    NODES,
    SHORTEST_PATH,
    ShortestPath,
    distances,
    edges,
    record_shortest_path,
)
from legato.errors import unknown

if TYPE_CHECKING:
    from legato.data.trajectories import Trajectories

__all__ = [
    "ACROSS",
    "BURGERS",
    "EIGHT_JETS",
    "FOUR_ROOMS",
    "GOAL",
    "GRAPH",
    "KEY_TO_DOOR",
    "KURAMOTO_SIVASHINSKY",
    "LIMIT",
    "LQR",
    "NODES",
    "POINT_MASS",
    "PUSHES",
    "RECALLS",
    "SHORTEST_PATH",
    "SPARSE_ROOMS",
    "Burgers",
    "FourRooms",
    "KeyToDoor",
    "KuramotoSivashinsky",
    "LinearQuadratic",
    "PointMass",
    "Recall",
    "ShortestPath",
    "distances",
    "edges",
    "generate",
    "held_cost",
    "noise_cost",
    "record_four_rooms",
    "record_key_to_door",
    "record_lqr",
    "record_point_mass",
    "record_recall",
    "record_shortest_path",
    "record_sparse_rooms",
    "register",
    "riccati",
    "saturated_cost",
    "sequence_cost",
]


def register() -> None:
    """Make the tasks known to Gymnasium in this process."""
    known = {
        SHORTEST_PATH: ("ShortestPath", {"graph": GRAPH}),
        KEY_TO_DOOR: ("KeyToDoor", {}),
        **{name: ("Recall", {"length": length}) for length, name in RECALLS.items()},
        FOUR_ROOMS: ("FourRooms", {}),
        SPARSE_ROOMS: ("FourRooms", {"goal": SPOT}),
        POINT_MASS: ("PointMass", {}),
        LQR: ("LinearQuadratic", {}),
        KURAMOTO_SIVASHINSKY: ("KuramotoSivashinsky", {}),
        EIGHT_JETS: ("KuramotoSivashinsky", {"jets": 8}),
        BURGERS: ("Burgers", {}),
    }
    for name, (kind, kwargs) in known.items():
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point=f"{__name__}:{kind}", kwargs=kwargs)


def generate(environment_id: str, episodes: int, seed: int = 0) -> Trajectories:
    """Experience in one of the tasks: `record_shortest_path`, `record_key_to_door`, `record_recall`,
    `record_four_rooms`, `record_sparse_rooms`, `record_point_mass` or `record_lqr`.

    Raises `LegatoError`, naming the nearest id, for any other.
    """
    if environment_id == SHORTEST_PATH:
        return record_shortest_path(episodes, seed)
    if environment_id == KEY_TO_DOOR:
        return record_key_to_door(episodes, seed)
    for length, name in RECALLS.items():
        if environment_id == name:
            return record_recall(episodes, length, seed)
    if environment_id == FOUR_ROOMS:
        return record_four_rooms(episodes, seed)
    if environment_id == SPARSE_ROOMS:
        return record_sparse_rooms(episodes, seed)
    if environment_id == POINT_MASS:
        return record_point_mass(episodes, seed)
    if environment_id == LQR:
        return record_lqr(episodes, seed)
    known = (SHORTEST_PATH, KEY_TO_DOOR, *RECALLS.values(), FOUR_ROOMS, SPARSE_ROOMS, POINT_MASS, LQR)
    raise unknown("task", environment_id, known)


# Runs name an environment's class by where it is imported from, which is here.
for _task in (
    *(Burgers, FourRooms, KeyToDoor, KuramotoSivashinsky),
    *(LinearQuadratic, PointMass, Recall, ShortestPath),
):
    _task.__module__ = __name__

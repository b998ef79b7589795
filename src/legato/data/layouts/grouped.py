"""Layouts with a group or a name for every episode: d3rlpy, robomimic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from legato.data import hdf5
from legato.data.layouts.names import Reading
from legato.data.storage import some
from legato.errors import LegatoError

_ABOUT = {"columns", "num_episodes", "version"}


def read_d3rlpy(path: Path, held: list[str]) -> Reading:
    """The files of d3rlpy 2: `observations_0`, `actions_0`, `rewards_0`, `terminated_0`, and so on."""
    counted = hdf5.read_arrays(path, ("num_episodes",))[0]["num_episodes"]
    episodes = int(counted) if counted.shape == () and counted.dtype.kind in "iu" else -1
    names = ("observations", "actions", "rewards", "terminated")
    if not 0 < episodes <= len(held) or any(f"{name}_{i}" not in held for name in names for i in range(episodes)):
        odd = "observations of several parts" if "observations_0_0" in held else "episodes that are not there"
        raise LegatoError(f"'{path}' is a file of d3rlpy with {odd}")
    arrays, _ = hdf5.read_arrays(path, [f"{name}_{i}" for name in names for i in range(episodes)])
    lengths = [len(np.atleast_1d(arrays[f"actions_{i}"])) for i in range(episodes)]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    terminal = np.array([bool(np.ravel(arrays[f"terminated_{i}"])[0]) for i in range(episodes)])
    found = {name: np.concatenate([arrays[f"{name}_{i}"] for i in range(episodes)]) for name in names[:3]}
    terminated, truncated = np.zeros(offsets[-1], bool), np.zeros(offsets[-1], bool)
    terminated[offsets[1:] - 1], truncated[offsets[1:] - 1] = terminal, ~terminal
    found |= {"terminations": terminated, "truncations": truncated, "offsets": offsets}
    said = [f"{episodes} episodes as d3rlpy 2 keeps them, truncated where 'terminated' is not set"]
    return Reading(found, said, sorted(set(held) - {f"{n}_{i}" for n in names for i in range(episodes)} - _ABOUT))


def read_robomimic(path: Path, observe: Sequence[str]) -> Reading:
    """robomimic's: groups `data/demo_0`, `data/demo_1`, ... of `actions`, `rewards`, `dones`, `obs/...`."""
    groups = [name for name in hdf5.names_in(path, "data") if name.startswith("demo_")]
    groups.sort(key=lambda name: (len(name), name))
    inside = hdf5.names_in(path, f"data/{groups[0]}")
    if "obs" not in inside:
        raise LegatoError(
            f"'{path}' has simulator states and no observations ('obs'): extract them with robomimic's own script first"
        )
    parts = hdf5.names_in(path, f"data/{groups[0]}/obs")
    if not observe:
        raise LegatoError(f"which observations of '{path}'? give `observations` some of: {some(parts)}")
    if missing := [name for name in observe if name not in parts]:
        raise LegatoError(f"'{path}' has no observation '{missing[0]}'; it has {some(parts)}")
    follows = "next_obs" in inside
    wanted = ["actions", *(name for name in ("rewards", "dones") if name in inside), *(f"obs/{n}" for n in observe)]
    wanted += [f"next_obs/{name}" for name in observe] if follows else []
    arrays, _ = hdf5.read_arrays(path, [f"data/{group}/{name}" for group in groups for name in wanted])
    for group in groups:
        if missing := [name for name in wanted if f"data/{group}/{name}" not in arrays]:
            raise LegatoError(f"'{path}': {group} has no {missing[0]}")

    def of(name: str) -> np.ndarray:
        return np.concatenate([arrays[f"data/{group}/{name}"] for group in groups])

    def seen(kind: str) -> np.ndarray:
        columns = [of(f"{kind}/{name}") for name in observe]
        for name, column in zip(observe, columns, strict=True):
            if column.ndim > 2 or column.dtype.kind != "f":
                raise LegatoError(
                    f"'{path}': {kind}/{name} is {column.dtype} of shape {column.shape}, no numbers a row"
                )
        return np.concatenate([column.reshape(len(column), -1) for column in columns], axis=1)

    lengths = [len(arrays[f"data/{group}/actions"]) for group in groups]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    truncated = np.zeros(offsets[-1], bool)
    truncated[offsets[1:] - 1] = True
    found = {"observations": seen("obs"), "actions": of("actions"), "offsets": offsets, "truncations": truncated}
    found |= {"rewards": of("rewards")} if "rewards" in inside else {}
    found |= {"ends": seen("next_obs")[offsets[1:] - 1]} if follows else {}
    said = [f"{len(groups)} demonstrations, each an episode that is truncated at its end"]
    said += ["'dones' are not read: they may mark success; `ends=terminated`"] if "dones" in inside else []
    unused = [f"obs/{name}" for name in parts if name not in observe]
    unused += [n for n in inside if n not in ("actions", "rewards", "obs", "next_obs")]
    return Reading(found, said, sorted(unused))

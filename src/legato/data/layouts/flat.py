"""Layouts of flat arrays, one row a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from legato.data.layouts.names import ALIASES, CUT, DONE, FIRST, KEPT, LAST, OWN, SINGLE, TERMINAL, Arrays, Reading
from legato.data.storage import some
from legato.errors import LegatoError


def read_flat(path: Path, arrays: Arrays, held: list[str], layout: str | None) -> Reading:
    """The arrays of a file that keeps all its rows together, by whichever names."""
    said: list[str] = []
    taken: dict[str, str] = {}
    for ours, names in ALIASES.items():
        there = [name for name in names if name in arrays]
        if len(there) > 1:
            raise LegatoError(f"'{path}' has both '{there[0]}' and '{there[1]}': leave one out")
        if there:
            taken[ours] = there[0]
    missing = [f"{ours} ({' or '.join(ALIASES[ours])})" for ours in ("observations", "actions") if ours not in taken]
    if missing:
        raise LegatoError(f"'{path}' has no {' and no '.join(missing)}; it holds {some(held)}")
    found = {ours: arrays[theirs] for ours, theirs in taken.items()}
    said += [f"{ours} are '{theirs}'" for ours, theirs in taken.items() if ours != theirs]
    found |= {name: arrays[name] for name in KEPT if name in arrays}
    used = [*taken.values(), *found]
    if "indices" in arrays and "terminal" in arrays:
        used += ["indices", "terminal"]
        found = _imitation(path, found, arrays, said)
    elif layout == "ogbench":
        used += ["terminals"]
        found = _states(path, found, arrays, said)
    else:
        members = _members(path, found, said)
        flags = {name: _flag(path, name, arrays[name], members) for name in SINGLE if name in arrays}
        used += flags
        found |= _ends(path, flags, len(found["observations"]), said)
        if "index" in arrays:
            used.append("index")
            found = _begun(path, found, arrays["index"], said)
        if members > 1:
            found = _one_after_another(found, members)
    return Reading(found, said, sorted(set(held) - set(used)))


def _members(path: Path, found: Arrays, said: list[str]) -> int:
    """How many environments were recorded side by side; brings `[steps, environments, ...]` to `[rows, ...]`."""
    observations, actions = found["observations"], found["actions"]
    if observations.ndim != 3 or observations.dtype == np.uint8:  # those are images
        return 1
    steps, members = observations.shape[:2]
    said.append(f"the second of {observations.ndim} dimensions counts {members} environments side by side")
    for name in ("observations", "actions", "rewards", "next_observations"):
        array = found.get(name)
        if array is None:
            continue
        if array.shape[:2] != (steps, members):
            raise LegatoError(
                f"'{path}' has observations of shape {observations.shape} and {name} of shape {array.shape}"
            )
        found[name] = array.reshape(steps * members, *array.shape[2:])
    if actions.ndim == 2 and found["actions"].ndim == 1:  # one number per environment
        found["actions"] = found["actions"][:, None] if found["actions"].dtype.kind == "f" else found["actions"]
    return members


def _flag(path: Path, name: str, array: np.ndarray, members: int) -> np.ndarray:
    flag = np.asarray(array)
    if flag.dtype.kind not in "biuf" or not np.isin(np.unique(flag), (0, 1)).all():
        raise LegatoError(f"'{path}': '{name}' marks steps by 0 and 1, but holds {flag.dtype} of other values")
    if flag.ndim > 2 or (flag.ndim == 2 and flag.shape[1] not in (1, members)):
        raise LegatoError(f"'{path}': '{name}' marks steps, but has shape {flag.shape}")
    return flag.reshape(-1).astype(bool)


def _ends(path: Path, flags: Mapping[str, np.ndarray], steps: int, said: list[str]) -> Arrays:
    """Terminations and truncations by whichever flags there are."""
    for name, flag in flags.items():
        if len(flag) != steps:
            raise LegatoError(f"'{path}' has {steps} observations and {len(flag)} of '{name}'")

    def one(names: Sequence[str]) -> str | None:
        there = [name for name in names if name in flags]
        if len(there) > 1:
            raise LegatoError(f"'{path}' has both '{there[0]}' and '{there[1]}': leave one out")
        return there[0] if there else None

    if flags.keys() <= OWN:
        said = []  # of our own names nothing needs to be said
    terminal, cut, done, last, first = (one(names) for names in (TERMINAL, CUT, DONE, LAST, FIRST))
    if not flags:
        return {}
    nowhere = np.zeros(steps, bool)
    truncated = flags[cut].copy() if cut else nowhere.copy()
    if terminal:
        terminated = flags[terminal]
        said.append(f"an episode terminates where '{terminal}' is set")
        truncated &= ~terminated
        if done:
            truncated |= flags[done] & ~terminated
            said.append(f"and is truncated where '{done}' is set and '{terminal}' is not")
    elif done:
        terminated = flags[done] & ~truncated
        said.append(
            f"an episode terminates where '{done}' is set and '{cut}' is not"
            if cut
            else f"an episode terminates where '{done}' is set; if these are time limits, say `ends=truncated`"
        )
    else:
        terminated = nowhere
    if cut:
        said.append(f"it is truncated where '{cut}' is set")
    if last:
        truncated |= flags[last] & ~terminated
        said.append(f"it is truncated where '{last}' is set and it does not terminate")
    if first:
        truncated |= np.append(flags[first][1:], True) & ~terminated
        said.append(f"it is truncated before '{first}' is set, where it does not terminate")
    return {"terminations": terminated, "truncations": truncated}


def _begun(path: Path, found: Arrays, index: np.ndarray, said: list[str]) -> Arrays:
    """NeoRL's `index`: the rows at which episodes begin."""
    steps, begins = len(found["observations"]), np.ravel(index)
    rises = begins.dtype.kind in "iu" and len(begins) > 0 and begins[0] == 0 and (np.diff(begins) > 0).all()
    if not rises or begins[-1] >= steps:
        raise LegatoError(f"'{path}': 'index' holds the rows at which episodes begin, from 0 and rising")
    said.append("an episode begins at every row in 'index'")
    truncated = found.get("truncations", np.zeros(steps, bool)).copy()
    truncated[begins[1:] - 1] |= ~found.get("terminations", np.zeros(steps, bool))[begins[1:] - 1]
    return found | {"truncations": truncated, "terminations": found.get("terminations", np.zeros(steps, bool))}


def _one_after_another(found: Arrays, members: int) -> Arrays:
    """Rows `[steps * members]` of environments side by side as those of one after the other, the last of each cut."""
    steps = len(found["observations"]) // members
    order = np.arange(steps * members).reshape(steps, members).T.ravel()
    along = {name: array[order] for name, array in found.items() if name not in KEPT}
    terminated = along.get("terminations", np.zeros(steps * members, bool))
    truncated = along.get("truncations", np.zeros(steps * members, bool)).copy()
    final = np.arange(1, members + 1) * steps - 1
    truncated[final] |= ~terminated[final]
    kept = {name: array for name, array in found.items() if name in KEPT}
    return {**along, **kept, "terminations": terminated, "truncations": truncated}


def _imitation(path: Path, found: Arrays, arrays: Arrays, said: list[str]) -> Arrays:
    """Trajectories of imitation: `indices` split the actions, and every trajectory has one observation more."""
    actions, terminal, indices = found["actions"], np.ravel(arrays["terminal"]), np.ravel(arrays["indices"])
    offsets = np.union1d([0, len(actions)], indices)
    if indices.dtype.kind not in "iu" or len(offsets) - 1 != len(terminal) or offsets[-1] != len(actions):
        raise LegatoError(f"'{path}': 'indices' split {len(actions)} actions in another number than {len(terminal)}")
    return _with_last(path, found, offsets.astype(np.int64), terminal.astype(bool), "'indices'", said)


def _states(path: Path, found: Arrays, arrays: Arrays, said: list[str]) -> Arrays:
    """OGBench's: `terminals` mark the last row of a trajectory, whose observation is the final one, its action void."""
    if "terminals" not in arrays:
        raise LegatoError(f"'{path}' is no file of OGBench: it has no 'terminals'")
    last = np.flatnonzero(np.ravel(arrays["terminals"]))
    rows = len(found["observations"])
    if not len(last) or last[-1] != rows - 1 or len(found["actions"]) != rows:
        raise LegatoError(f"'{path}': the last of its {rows} rows is not marked in 'terminals'")
    if (np.diff(last, prepend=-1) < 2).any():
        raise LegatoError(f"'{path}' has a trajectory of a single row, in which nothing is done")
    step = np.ones(rows, bool)
    step[last] = False
    offsets = np.append(0, last + 1) - np.arange(len(last) + 1)
    kept = {name: array[step] for name, array in found.items() if name in ("actions", "rewards")}
    never = np.zeros(len(last), bool)
    return _with_last(path, {**found, **kept}, offsets, never, "'terminals', which are no terminations", said)


def _with_last(
    path: Path, found: Arrays, offsets: np.ndarray, terminal: np.ndarray, by: str, said: list[str]
) -> Arrays:
    """Steps and `ends` of episodes whose observations have one row more than their actions."""
    steps, episodes = int(offsets[-1]), len(offsets) - 1
    observations = found["observations"]
    if len(observations) != steps + episodes:
        raise LegatoError(
            f"'{path}' has {len(observations)} observations for {steps} actions in {episodes} episodes; one more than "
            "actions in each would be right"
        )
    final = offsets[1:] + np.arange(episodes)
    terminated, truncated = np.zeros(steps, bool), np.zeros(steps, bool)
    terminated[offsets[1:] - 1], truncated[offsets[1:] - 1] = terminal, ~terminal
    said.append(f"{episodes} episodes by {by}; the last observation of each is the one after its last step")
    found = {name: array for name, array in found.items() if name != "next_observations"}
    return found | {
        "observations": np.delete(observations, final, axis=0),
        "ends": observations[final],
        "terminations": terminated,
        "truncations": truncated,
        "offsets": offsets,
    }

"""Arrays as others name them, brought to ours: d3rlpy, Stable-Baselines3, imitation, NeoRL, robomimic, OGBench.

What they call their arrays, how they mark the end of an episode, and what their last row means is decided here, and
each decision is said in a sentence for a person to check. Nothing that would mean something else is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from legato.data import storage
from legato.errors import LegatoError

Arrays = dict[str, np.ndarray]
Cause = Literal["marked", "terminated", "truncated"]

# Our name first, then those of others. Of each line a file may have one.
ALIASES = {
    "observations": ("observations", "observation", "obs", "states"),
    "actions": ("actions", "action", "acts", "acs"),
    "rewards": ("rewards", "reward", "rews"),
    "next_observations": ("next_observations", "next_observation", "next_obs", "new_obs"),
}
TERMINAL = ("terminations", "terminals", "terminated", "is_terminal")  # the episode ended by itself
CUT = ("truncations", "timeouts", "truncated", "timeout")  # it was cut
DONE = ("dones", "done")  # either
LAST = ("episode_terminals", "is_last")  # the episode's last row, for whatever reason
FIRST = ("episode_starts", "is_first")  # its first
KEPT = ("offsets", "ends", "environment", "reference", "low", "high", "choices", "start")  # as we name them
SINGLE = (*TERMINAL, *CUT, *DONE, *LAST, *FIRST)
INDICES = ("indices", "terminal", "index", "offsets")
FLAT = tuple({*(name for names in ALIASES.values() for name in names), *SINGLE, *KEPT, *INDICES})

# Names that say how episodes end, which our own reader does not know: passing over them would join episodes.
OWN = {"terminations", "terminals", "truncations", "timeouts"}
FOREIGN_ENDS = {*SINGLE, "indices", "index"} - OWN


@dataclass
class Reading:
    """Arrays under our names, what was decided on the way, and the names that were not used."""

    arrays: Arrays
    decisions: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)


def read(path: Path, *, observe: Sequence[str] = (), layout: str | None = None, length: int | None = None) -> Reading:
    """The arrays of a file in any of the known layouts.

    `observe` names the parts of an observation where a file keeps several (robomimic). `layout="ogbench"` says that
    rows are states, of which a trajectory has one more than actions. With a `length` every episode has so many rows,
    whatever marks ends. Raises `LegatoError` for what is in no layout.
    """
    try:
        found = _read(path, observe, layout, length)
        return found if length is None else _cut(path, found, length)
    except (ValueError, IndexError, KeyError, TypeError) as problem:  # of arrays that are not what their names say
        raise LegatoError(f"the arrays of '{path}' do not fit together: {storage.line(problem)}") from None


def _read(path: Path, observe: Sequence[str], layout: str | None, length: int | None) -> Reading:
    names = FLAT if length is None else [name for name in FLAT if name not in (*SINGLE, *INDICES)]
    if path.suffix == ".npz":
        arrays, held = storage.npz(path, names)
    else:
        held = storage.hdf5_names(path)
        grouped = "data" in held and any(name.startswith("demo_") for name in storage.hdf5_names(path, "data"))
        if grouped and layout is None:
            return _robomimic(path, observe)
        if {"columns", "num_episodes", "version"} <= set(held) and layout is None and not observe:
            return _d3rlpy(path, held)
        arrays, held = storage.hdf5(path, names)
    if observe:
        raise LegatoError(f"'{path}' keeps its observations in one array: leave out observations")
    if layout is None:
        refuse_states(path, held)
    return _flat(path, arrays, held, layout)


def refuse_states(path: Path, held: Sequence[str]) -> None:
    """Refuse OGBench's files where nobody says that they are: their `terminals` are no terminations."""
    if {"qpos", "terminals"} <= set(held) and "rewards" not in held:
        raise LegatoError(
            f"'{path}' looks like OGBench's, whose 'terminals' mark a final state: 'legato data import --layout "
            "ogbench' reads it"
        )


# --- flat arrays ---


def _flat(path: Path, arrays: Arrays, held: list[str], layout: str | None) -> Reading:
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
    if observations.ndim != 3:
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
            else f"an episode terminates where '{done}' is set; if these are time limits, say --ends truncated"
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


# --- one group or one name per episode ---


def _d3rlpy(path: Path, held: list[str]) -> Reading:
    """The files of d3rlpy 2: `observations_0`, `actions_0`, `rewards_0`, `terminated_0`, and so on."""
    counted = storage.hdf5(path, ("num_episodes",))[0]["num_episodes"]
    episodes = int(counted) if counted.shape == () and counted.dtype.kind in "iu" else -1
    names = ("observations", "actions", "rewards", "terminated")
    if not 0 < episodes <= len(held) or any(f"{name}_{i}" not in held for name in names for i in range(episodes)):
        odd = "observations of several parts" if "observations_0_0" in held else "episodes that are not there"
        raise LegatoError(f"'{path}' is a file of d3rlpy with {odd}")
    arrays, _ = storage.hdf5(path, [f"{name}_{i}" for name in names for i in range(episodes)])
    lengths = [len(np.atleast_1d(arrays[f"actions_{i}"])) for i in range(episodes)]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    terminal = np.array([bool(np.ravel(arrays[f"terminated_{i}"])[0]) for i in range(episodes)])
    found = {name: np.concatenate([arrays[f"{name}_{i}"] for i in range(episodes)]) for name in names[:3]}
    terminated, truncated = np.zeros(offsets[-1], bool), np.zeros(offsets[-1], bool)
    terminated[offsets[1:] - 1], truncated[offsets[1:] - 1] = terminal, ~terminal
    found |= {"terminations": terminated, "truncations": truncated, "offsets": offsets}
    said = [f"{episodes} episodes as d3rlpy 2 keeps them, truncated where 'terminated' is not set"]
    return Reading(found, said, sorted(set(held) - {f"{n}_{i}" for n in names for i in range(episodes)} - _ABOUT))


_ABOUT = {"columns", "num_episodes", "version"}


def _robomimic(path: Path, observe: Sequence[str]) -> Reading:
    """robomimic's: groups `data/demo_0`, `data/demo_1`, ... of `actions`, `rewards`, `dones`, `obs/...`."""
    groups = [name for name in storage.hdf5_names(path, "data") if name.startswith("demo_")]
    groups.sort(key=lambda name: (len(name), name))
    inside = storage.hdf5_names(path, f"data/{groups[0]}")
    if "obs" not in inside:
        raise LegatoError(
            f"'{path}' has simulator states and no observations ('obs'): extract them with robomimic's own script first"
        )
    parts = storage.hdf5_names(path, f"data/{groups[0]}/obs")
    if not observe:
        raise LegatoError(f"which observations of '{path}'? --observations with some of: {some(parts)}")
    if missing := [name for name in observe if name not in parts]:
        raise LegatoError(f"'{path}' has no observation '{missing[0]}'; it has {some(parts)}")
    follows = "next_obs" in inside
    wanted = ["actions", *(name for name in ("rewards", "dones") if name in inside), *(f"obs/{n}" for n in observe)]
    wanted += [f"next_obs/{name}" for name in observe] if follows else []
    arrays, _ = storage.hdf5(path, [f"data/{group}/{name}" for group in groups for name in wanted])
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
    said += ["'dones' are not read: they may mark success; --ends terminated"] if "dones" in inside else []
    unused = [f"obs/{name}" for name in parts if name not in observe]
    unused += [n for n in inside if n not in ("actions", "rewards", "obs", "next_obs")]
    return Reading(found, said, sorted(unused))


# --- what all share ---


def caused(reading: Reading, cause: Cause) -> Reading:
    """The same with every end of an episode a termination, or a truncation; "marked" changes nothing."""
    arrays = reading.arrays
    if cause == "marked":
        return reading
    steps = len(arrays["observations"])
    over = np.zeros(steps, bool)
    for name in ("terminations", "truncations"):
        over |= arrays.get(name, np.zeros(steps, bool))
    if "offsets" in arrays:
        offsets = np.asarray(arrays["offsets"])
        if offsets.ndim != 1 or offsets.dtype.kind not in "iuf" or not ((offsets >= 0) & (offsets <= steps)).all():
            raise LegatoError(f"offsets are rows from 0 to {steps}, at which episodes begin")
        over[offsets[1:].astype(np.int64) - 1] = True
    none = np.zeros(steps, bool)
    ends = {"terminations": over, "truncations": none} if cause == "terminated" else {"truncations": over}
    said = [*reading.decisions, f"every end of an episode counts as {cause}"]
    return Reading({**arrays, "terminations": none, **ends}, said, reading.unused)


def _cut(path: Path, reading: Reading, length: int) -> Reading:
    """The same with an episode of so many rows after another."""
    if "offsets" in reading.arrays:
        raise LegatoError(f"'{path}' keeps every episode by itself: leave out episode_length")
    steps = len(reading.arrays["observations"])
    offsets, rest = np.append(np.arange(0, steps, length), steps), steps % length
    said = [*reading.decisions, f"an episode has {length} rows" + (f", the last one {rest}" if rest else "")]
    marks = [name for name in reading.unused if name in (*SINGLE, *INDICES)]
    said += [f"what marks ends is not read: {', '.join(marks)}"] if marks else []
    unused = [name for name in reading.unused if name not in marks]
    return Reading({**reading.arrays, "offsets": offsets}, said, unused)


def earlier(reading: Reading) -> Reading:
    """The same with every mark of an end one row earlier, for files that set it in the next row."""
    arrays = dict(reading.arrays)
    for name in ("terminations", "truncations"):
        if name in arrays:
            arrays[name] = np.append(arrays[name][1:], False)
    return Reading(arrays, [*reading.decisions, "ends are marked one row late, and moved"], reading.unused)


def some(names: Sequence[str], most: int = 20) -> str:
    """Names that a file gives, at most so many and so long, in characters that can be printed."""
    words = ["".join(c if c.isprintable() else "?" for c in name)[:50] for name in sorted(names)]
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return (", ".join(words[:most]) or "nothing") + more

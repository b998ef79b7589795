"""Logged experience: whole episodes in flat arrays, checked on entry.

Episodes lie one after another without padding; a window or a whole trajectory is an index computation. Rewards may be
missing, and so may the observation after an episode's last step.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int64

from legato.data.spec import Spec
from legato.errors import LegatoError, LegatoWarning

CHUNK = 1 << 16  # rows checked at once, so that a memory-mapped set does not have to fit
APART = 30.0  # times: a deviation so much larger in one set than in another, as of degrees and radians


@dataclass(frozen=True)
class About:
    """Where trajectories come from: what is known of them beside the numbers."""

    name: str = "data"
    environment: str | None = None
    """Gymnasium id of the environment they were recorded in"""
    reference: tuple[float, float] | None = None
    """undiscounted returns of a random and of an expert policy, for normalised scores"""
    low: tuple[float, ...] | None = None
    """lower bounds of the actions, one per dimension"""
    high: tuple[float, ...] | None = None
    """upper bounds"""
    choices: int | None = None
    """number of discrete actions; then there are no bounds"""
    start: int = 0
    """the environment's number of the first discrete action; `Trajectories` count them from 0, files as it does"""

    @classmethod
    def of(cls, name: str, environment: str, spec: Spec) -> About:
        """What is known of episodes played in an environment of this spec."""
        if spec.choices is not None:
            return cls(name, environment, choices=spec.choices)
        return cls(name, environment, low=spec.low, high=spec.high)


@dataclass(frozen=True)
class Trajectories:
    """Episodes one after another: episode i is the steps `offsets[i]` to `offsets[i + 1] - 1`.

    `actions` are `[steps, act]` or, where `about.choices` says how many there are, the numbers `[steps]` of discrete
    actions. `ends` holds, per episode, the observation after its last step. The arrays may be memory-mapped files.
    """

    observations: Float32[np.ndarray, "steps obs"]
    actions: Float32[np.ndarray, "steps act"] | Int[np.ndarray, " steps"]
    rewards: Float32[np.ndarray, " steps"] | None
    terminations: Bool[np.ndarray, " steps"]
    truncations: Bool[np.ndarray, " steps"]
    offsets: Int64[np.ndarray, " episodes_and_one"]
    ends: Float32[np.ndarray, "episodes obs"] | None = None
    about: About = field(default_factory=About)

    def __len__(self) -> int:
        """The number of episodes."""
        return len(self.offsets) - 1

    @property
    def steps(self) -> int:
        return int(self.offsets[-1])

    @property
    def lengths(self) -> Int64[np.ndarray, " episodes"]:
        """Steps of each episode."""
        return np.diff(self.offsets)

    @property
    def discrete(self) -> bool:
        return self.about.choices is not None

    def episode(self, i: int) -> slice:
        """The steps of episode i."""
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))


def trajectories(
    observations: np.ndarray,
    actions: np.ndarray,
    rewards: np.ndarray | None,
    terminations: np.ndarray,
    truncations: np.ndarray,
    offsets: np.ndarray | None = None,
    ends: np.ndarray | None = None,
    about: About | None = None,
    *,
    following: np.ndarray | None = None,
    clip_actions: bool = False,
    start: int = 0,
) -> Trajectories:
    """Check logged arrays and bring them into one form; what is stored elsewhere is never written to.

    Without `offsets`, an episode ends wherever it terminates or is truncated, and the last one with the data. An
    episode that ends with neither was cut by whoever recorded it: its last step counts as truncated. `clip_actions`
    moves actions into the bounds of `about`; where it has none, they are -1 and 1 if all actions lie there, as in D4RL,
    and otherwise unknown. `following`, the observations after every step, serves where `ends` is not given. Where it
    is not what the next step observes, but for the rounding of how they are stored, an episode ends that no flag marks:
    its last step counts as truncated. A `LegatoWarning` says how many there are, and another that nothing marks an end.
    Discrete `actions` are counted from `start` here, and from 0 in what is returned.

    Raises `LegatoError`, naming episode and step, for anything that could not be learnt from.
    """
    about, given = about or About(), np.asarray(observations)
    observations = _table("observations", observations)
    steps = len(observations)
    if steps == 0:
        raise LegatoError(f"{about.name} holds no steps")
    rewards = None if rewards is None else _column("rewards", rewards, steps, about, np.float32)
    terminations = _column("terminations", terminations, steps, about, bool)
    truncations = _column("truncations", truncations, steps, about, bool)
    if np.shape(actions)[:1] != (steps,):
        raise LegatoError(f"{about.name} has {steps} observations but actions of shape {np.shape(actions)}")
    over = np.union1d(_true(terminations), _true(truncations))
    if ends is None and following is not None:
        stored, following = np.asarray(following), _table("next observations", following)
        if following.shape != observations.shape:
            raise LegatoError(f"{about.name} has observations {observations.shape} but next ones {following.shape}")
        torn = np.setdiff1d(_contradictions(observations, following, _rounding(given, stored)), over)
        if offsets is not None:
            offsets = _offsets(about, steps, over, offsets)
            torn = np.setdiff1d(torn, offsets[1:] - 1)
            offsets = np.union1d(offsets, torn + 1)
        if 2 * np.isin(torn + 1, over).sum() > len(over) > 0:
            raise LegatoError(
                f"{about.name} marks ends one row late: by its next_observations {len(torn)} episodes end at a row "
                "without a mark; 'legato data import --late-ends' moves the marks"
            )
        if len(torn):
            over = np.union1d(over, torn)
            truncations = np.array(truncations)  # what was given is not written to
            truncations[torn] = True
            warnings.warn(
                f"{about.name}: {len(torn)} of {steps} steps lead to another observation by its next_observations than "
                "the next step has: an episode ends at each, truncated",
                LegatoWarning,
                stacklevel=2,
            )
    elif offsets is None and not len(over) and steps > 1:
        warnings.warn(
            f"{about.name} marks no end of an episode: its {steps} steps are read as one episode; mark ends in "
            "terminals, timeouts or offsets",
            LegatoWarning,
            stacklevel=2,
        )
    offsets = _offsets(about, steps, over, offsets)
    last = offsets[1:] - 1
    early = np.setdiff1d(over, last)
    if len(early):
        what = "terminates" if terminations[early[0]] else "is truncated"
        raise LegatoError(f"{about.name}: {_place(offsets, early[0])} {what}, but its episode goes on")
    cut = np.setdiff1d(last, over)
    if len(cut):
        truncations = np.array(truncations)  # what was given is not written to
        truncations[cut] = True
    actions = _actions(about, actions, offsets, clip_actions, start)
    if (
        about.choices is None
        and about.low is None
        and about.high is None
        and all(np.abs(part).max() <= 1 for _, part in _chunks(actions))
    ):
        about = replace(about, low=(-1.0,) * actions.shape[1], high=(1.0,) * actions.shape[1])
    if ends is None and following is not None:
        ends = following[offsets[1:] - 1]
    if ends is not None:
        ends = _table("the observations after the last steps", ends)
        if ends.shape != (len(offsets) - 1, observations.shape[1]):
            raise LegatoError(
                f"{about.name} has {len(offsets) - 1} episodes of {observations.shape[1]} numbers a step, "
                f"but final observations of shape {ends.shape}"
            )
    for name, array in (("observations", observations), ("actions", actions), ("rewards", rewards)):
        if array is not None:
            _finite(about, name, array, offsets)
    if ends is not None and not np.isfinite(ends).all():
        bad = int((~np.isfinite(ends)).any(axis=1).argmax())
        raise LegatoError(f"{about.name}: the observation after the last step of episode {bad} is not finite")
    return Trajectories(observations, actions, rewards, terminations, truncations, offsets, ends, about)


def from_members(
    members: np.ndarray,
    observations: np.ndarray,
    actions: np.ndarray,
    rewards: np.ndarray,
    following: np.ndarray,
    terminations: np.ndarray,
    truncations: np.ndarray,
    about: About,
) -> Trajectories:
    """Trajectories of rows `[rows, ...]` that several members recorded side by side; `members[i]` recorded row i.

    A member's rows are in time order, and its episodes follow one another in the result, member after member. The
    last one of each is cut where its rows end. `following` are the observations after every row.
    """
    order = np.argsort(members, kind="stable")
    last = np.append(np.diff(members[order]) != 0, True)
    terminations = terminations[order]
    return trajectories(
        observations[order],
        actions[order],
        rewards[order],
        terminations,
        truncations[order] | (last & ~terminations),
        following=following[order],
        about=about,
    )


def from_episodes(
    episodes: Iterable[dict[str, np.ndarray]],
    about: About | None = None,
    *,
    clip_actions: bool = False,
    start: int = 0,
) -> Trajectories:
    """Trajectories of single episodes: dicts of `observations`, `actions`, `rewards`, `terminations`, `truncations`.

    Observations may have one row more than actions, as in Minari: that after the last step. Either all have it or none.
    Discrete actions are counted from `start`.
    """
    about, episodes = about or About(), list(episodes)
    if not episodes:
        raise LegatoError(f"{about.name} holds no episodes")
    lengths = [len(episode["actions"]) for episode in episodes]
    extras = [len(episode["observations"]) - length for episode, length in zip(episodes, lengths, strict=True)]
    extra = set(extras)
    if extra not in ({0}, {1}):
        odd = next(i for i, more in enumerate(extras) if more not in (0, 1) or more != extras[0])
        raise LegatoError(
            f"{about.name}: an episode of n steps has n observations or, all of them, n + 1; episode {odd} of "
            f"{lengths[odd]} steps has {lengths[odd] + extras[odd]}"
            + ("" if extras[0] == extras[odd] else f", episode 0 of {lengths[0]} has {lengths[0] + extras[0]}")
        )
    sizes = {np.shape(episode["observations"])[1:] for episode in episodes}
    if len(sizes) > 1:
        raise LegatoError(f"{about.name} mixes observations of shapes {' and '.join(map(str, sorted(sizes)))}")

    def joined(name: str) -> np.ndarray:
        return np.concatenate([np.asarray(episode[name])[:n] for episode, n in zip(episodes, lengths, strict=True)])

    return trajectories(
        joined("observations"),
        joined("actions"),
        joined("rewards") if all(episode.get("rewards") is not None for episode in episodes) else None,
        joined("terminations"),
        joined("truncations"),
        np.concatenate([[0], np.cumsum(lengths)]),
        np.stack([episode["observations"][-1] for episode in episodes]) if extra == {1} else None,
        about,
        clip_actions=clip_actions,
        start=start,
    )


def bounded(
    data: Trajectories, low: tuple[float, ...], high: tuple[float, ...], clip_actions: bool = False
) -> Trajectories:
    """The same episodes with these bounds of actions; actions outside are refused, or moved to them.

    Where the data has others, a `LegatoWarning` says so: their unit may be another one.
    """
    about = replace(data.about, low=low, high=high)
    actions = _actions(about, data.actions, data.offsets, clip_actions)
    if (words := _other_bounds(data, low, high)) is not None:
        warnings.warn(words, LegatoWarning, stacklevel=2)
    return replace(data, actions=actions, about=about)


def _other_bounds(data: Trajectories, low: tuple[float, ...], high: tuple[float, ...]) -> str | None:
    """What to say of actions whose bounds are not these; of -1 and 1, which may be assumed, only if they are used."""
    about = data.about
    if about.low is None or about.high is None or len(about.low) != len(low):
        return None
    width = np.subtract(high, low)
    if all(np.allclose(a, b, rtol=0, atol=1e-5 * width) for a, b in ((about.low, low), (about.high, high))):
        return None
    largest = max((float(np.abs(part).max()) for _, part in _chunks(data.actions)), default=0.0)
    if {*about.low, *(-bound for bound in about.high)} == {-1.0} and largest < 0.99:
        return None
    here, there = (_words(*bounds) for bounds in ((about.low, about.high), (low, high)))
    return (
        f"{about.name} bounds its actions by {here}, the environment by {there}, which count: if its actions are in "
        "another unit, convert them first"
    )


def _words(low: Sequence[float], high: Sequence[float]) -> str:
    """Bounds for people, in one pair where all are the same."""
    pairs = list(dict.fromkeys(f"{a:g} and {b:g}" for a, b in zip(low, high, strict=True)))
    return ", ".join(pairs[:3]) + (", ..." if len(pairs) > 3 else "")


def as_choices(data: Trajectories, choices: int, start: int = 0) -> Trajectories:
    """The same episodes with discrete actions `start` to `start + choices - 1`, which were read as continuous ones.

    Raises `LegatoError` for actions of several numbers, and for others than these.
    """
    about = replace(data.about, low=None, high=None, choices=choices, start=start)
    if data.actions.shape[1:] not in ((), (1,)):
        raise LegatoError(f"{about.name} has actions of {data.actions.shape[1]} numbers, not one of {choices} choices")
    return replace(data, actions=_actions(about, data.actions, data.offsets, False, start), about=about)


# --- returns ---


def rewards(data: Trajectories) -> Float32[np.ndarray, " steps"]:
    """The rewards; raises `LegatoError` where there are none."""
    if data.rewards is None:
        raise LegatoError(f"{data.about.name} has no rewards: it can be imitated (bc), but no return can be asked for")
    return data.rewards


def require_rewards(data: Trajectories, returns: bool) -> Trajectories:
    """The same episodes, whose missing rewards are 0 where nothing reads `returns`.

    Raises `LegatoError` where something does and there are none.
    """
    if data.rewards is None and not returns:
        return replace(data, rewards=np.zeros(data.steps, np.float32))
    if data.rewards is None:
        raise LegatoError(
            f"{data.about.name} has no rewards: it can be imitated (bc; dt and ds4 with --no-returns; tt with "
            "--no-returns --search mean), but no return can be asked for"
        )
    return data


def timesteps(data: Trajectories) -> Int64[np.ndarray, " steps"]:
    """Of each step, how many came before it in its episode."""
    return np.arange(data.steps) - np.repeat(data.offsets[:-1], data.lengths)


def returns(data: Trajectories, gamma: float = 1.0) -> Float[np.ndarray, " episodes"]:
    """Return of each episode, undiscounted if nothing else is said."""
    r = rewards(data).astype(np.float64)
    if gamma != 1:
        r *= gamma ** timesteps(data)
    return np.add.reduceat(r, data.offsets[:-1])


def returns_to_go(data: Trajectories, gamma: float = 1.0) -> Float32[np.ndarray, " steps"]:
    """R_t = r_t + gamma R_{t+1}: what was still to be earned at each step, the step's own reward included."""
    total = np.empty(data.steps, np.float32)
    r = rewards(data)
    for i in range(len(data)):
        at = data.episode(i)
        backwards = r[at][::-1].astype(np.float64).tolist()
        total[at] = list(accumulate(backwards, lambda after, now: now + gamma * after))[::-1]
    return total


def delayed(data: Trajectories) -> Trajectories:
    """The same episodes with every reward paid at the end (the delayed-reward setting of Chen et al. 2021)."""
    late = np.zeros(data.steps, np.float32)
    late[data.offsets[1:] - 1] = returns(data)
    return replace(data, rewards=late)


def penalised(data: Trajectories, penalty: float | None) -> Trajectories:
    """The same episodes with `penalty` for the last reward of those that truly terminate; None changes nothing."""
    if penalty is None:
        return data
    return replace(data, rewards=np.where(data.terminations, np.float32(penalty), rewards(data)))


# --- whole sets ---


def select(data: Trajectories, episodes: Sequence[int] | np.ndarray) -> Trajectories:
    """The episodes with these numbers, in this order."""
    episodes = np.asarray(episodes, np.int64)
    if len(episodes) == 0:
        raise LegatoError(f"no episode of {data.about.name} is left")
    steps = np.concatenate([np.arange(*data.offsets[[i, i + 1]]) for i in episodes])
    return Trajectories(
        data.observations[steps],
        data.actions[steps],
        None if data.rewards is None else data.rewards[steps],
        data.terminations[steps],
        data.truncations[steps],
        np.concatenate([[0], np.cumsum(data.lengths[episodes])]),
        None if data.ends is None else data.ends[episodes],
        data.about,
    )


def top(data: Trajectories, fraction: float) -> Trajectories:
    """The episodes of highest return that together hold at most `fraction` of all steps, and one at least (%BC)."""
    if not 0 < fraction <= 1:
        raise LegatoError(f"the best {fraction:g} of the data: a fraction lies above 0 and not above 1")
    order = np.argsort(-returns(data), kind="stable")
    kept = np.cumsum(data.lengths[order]) <= fraction * data.steps
    kept[0] = True
    return select(data, np.sort(order[kept]))


def split(data: Trajectories, fraction: float, seed: int = 0) -> tuple[Trajectories, Trajectories]:
    """Two disjoint sets: `fraction` of the episodes, drawn at random, and the others."""
    first = round(fraction * len(data))
    if not 0 < first < len(data):
        raise LegatoError(f"{fraction:g} of {len(data)} episodes leaves one side without any")
    order = np.random.default_rng(seed).permutation(len(data))
    return select(data, np.sort(order[:first])), select(data, np.sort(order[first:]))


def merge(sets: Sequence[Trajectories], name: str) -> Trajectories:
    """All episodes of several sets, one set after another.

    A `LegatoWarning` says where they differ in bounds, of which the widest are kept, or seem to differ in a unit.
    """
    first = sets[0]
    for other in sets[1:]:
        for what, a, b in (
            ("numbers per observation", first.observations.shape[1], other.observations.shape[1]),
            ("numbers per action", first.actions.shape[1:], other.actions.shape[1:]),
            ("discrete actions", first.about.choices, other.about.choices),
            ("the number of the first discrete action", first.about.start, other.about.start),
            ("rewards", first.rewards is not None, other.rewards is not None),
        ):
            if a != b:
                raise LegatoError(f"{first.about.name} and {other.about.name} differ in {what}: {a} and {b}")

    for other in sets[1:]:
        _warn_of_units(first, other)

    def joined(name: str) -> np.ndarray | None:
        parts = [getattr(data, name) for data in sets]
        return None if any(part is None for part in parts) else np.concatenate(parts)

    same = {data.about.environment for data in sets}
    low, high = (
        None
        if any(d.about.low is None or d.about.high is None for d in sets)
        else tuple(pick(pair) for pair in zip(*bounds, strict=True))
        for pick, bounds in ((min, [d.about.low or () for d in sets]), (max, [d.about.high or () for d in sets]))
    )
    about = replace(first.about, name=name, low=low, high=high)
    if len(same) > 1:
        about = replace(about, environment=None, reference=None)
        known = ", ".join(str(environment or "none named") for environment in sorted(same, key=str))
        text = f"{name} names no environment, as its parts name several: {known}"
        warnings.warn(text, LegatoWarning, stacklevel=2)
    if low is None and any(data.about.low is not None for data in sets):
        warnings.warn(f"{name} has no bounds of actions, as one of its parts has none", LegatoWarning, stacklevel=2)
    starts = np.cumsum([0, *(data.steps for data in sets)])
    offsets = [data.offsets[:-1] + start for data, start in zip(sets, starts, strict=False)]
    flat = {
        name: joined(name) for name in ("observations", "actions", "rewards", "terminations", "truncations", "ends")
    }
    return Trajectories(offsets=np.concatenate([*offsets, starts[-1:]]), about=about, **cast(dict[str, Any], flat))


def _warn_of_units(one: Trajectories, other: Trajectories) -> None:
    """Warn of bounds that differ, and of numbers whose deviations are so far apart that their units may be two."""
    a, b = one.about, other.about
    if None not in (a.low, b.low) and (a.low, a.high) != (b.low, b.high):
        here, there = (_words(d.about.low or (), d.about.high or ()) for d in (one, other))
        what = f"{a.name} bounds its actions by {here}, {b.name} by {there}: the widest are kept"
        warnings.warn(what, LegatoWarning, stacklevel=3)
    for name in ("observations", "actions"):
        if min(one.steps, other.steps) < 100 or (name == "actions" and one.discrete):
            continue
        spreads = [getattr(data, name).std(axis=0, dtype=np.float64) for data in (one, other)]
        large, small = np.maximum(*spreads), np.minimum(*spreads)
        far = np.flatnonzero((small > 0) & (large > APART * small))
        if len(far):
            place = int(far[0])
            what = f"{name} number {place} deviates by {spreads[0][place]:.3g} in {a.name}, {spreads[1][place]:.3g}"
            more = f" ({len(far) - 1} more are such)" if len(far) > 1 else ""
            warnings.warn(f"{what} in {b.name}: are they in one unit?{more}", LegatoWarning, stacklevel=3)


# --- checks ---


def warn_of_digits(name: str, column: str, values: np.ndarray) -> None:
    """Warn of values that float32, in which they are kept, can hardly tell apart: times of day, counters."""
    if values.dtype.kind == "f" and values.dtype.itemsize <= 4:
        return
    known = values[np.isfinite(values)]
    if not len(known):
        return
    size, width = float(np.abs(known).max()), float(known.max()) - float(known.min())
    if not 1e-12 * size < width < 1000 * size * 2.0**-23:
        return
    distinct, kept = len(np.unique(known)), len(np.unique(known.astype(np.float32)))
    if 2 * kept < distinct:
        warnings.warn(
            f"{name}: the {distinct} values of '{column}', up to {size:.6g}, are {kept} as float32: subtract its first "
            "value, or leave it out",
            LegatoWarning,
            stacklevel=2,
        )


def _table(name: str, array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.kind not in "iuf":
        raise LegatoError(f"{name} are numbers, not {array.dtype}")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise LegatoError(f"{name} are flat, [steps, numbers], not of shape {array.shape}")
    if len(array) and not array.shape[1]:
        raise LegatoError(f"{name} are of no numbers at all: their shape is {array.shape}")
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused where its place is known
        return np.asarray(array, np.float32)


def _chunks(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """`CHUNK` rows at a time, each with the number of its first one."""
    return ((i, array[i : i + CHUNK]) for i in range(0, len(array), CHUNK))


def _true(flags: np.ndarray) -> np.ndarray:
    """The steps at which a flag is up."""
    return np.concatenate([i + np.flatnonzero(part) for i, part in _chunks(flags)])


def _column(name: str, array: np.ndarray, steps: int, about: About, dtype: type) -> np.ndarray:
    array = np.asarray(array)
    if array.shape not in ((steps,), (steps, 1)) or array.dtype.kind not in "biuf":
        raise LegatoError(f"{about.name} has {steps} observations but {name} of shape {array.shape} ({array.dtype})")
    if dtype is bool and array.dtype.kind == "f":
        for i, part in _chunks(array):
            if not np.isfinite(part).all():
                at = i + int((~np.isfinite(part)).ravel().argmax())
                raise LegatoError(f"{about.name}: {name} are 0 or 1, and that of step {at} of {steps} is not finite")
    with np.errstate(over="ignore"):
        return np.asarray(array, dtype).reshape(steps)


def _rounding(*stored: np.ndarray) -> float:
    """How far two numbers may lie apart that were one before they were stored so, in units of their size."""
    kinds = [array.dtype for array in stored]
    return max(8 * float(np.finfo(kind).eps) if kind.kind == "f" else 0.0 for kind in [*kinds, np.dtype(np.float32)])


def _contradictions(observations: np.ndarray, following: np.ndarray, rounding: float) -> np.ndarray:
    """The steps whose next observation is not the next step's, by more than `rounding` of a column's largest number."""
    found = [np.zeros(0, np.int64)]
    with np.errstate(all="ignore"):  # what is not finite is refused later
        size = np.max([np.abs(part).max(axis=0) for _, part in _chunks(observations)], axis=0)
        for i, part in _chunks(observations[1:]):
            after = following[i : i + len(part)]
            apart = (np.abs(after - part) > rounding * size) & np.isfinite(after)
            found.append(i + np.flatnonzero(apart.any(axis=1)))
    return np.concatenate(found)


def _offsets(about: About, steps: int, over: np.ndarray, offsets: np.ndarray | None) -> np.ndarray:
    if offsets is None:
        return np.unique(np.concatenate([[0], over + 1, [steps]])).astype(np.int64)
    offsets = np.asarray(offsets)
    whole = offsets.dtype.kind in "iu" or (offsets.dtype.kind == "f" and (offsets == np.floor(offsets)).all())
    if not whole or not ((offsets >= 0) & (offsets <= steps)).all():
        offsets = np.zeros(0)
    offsets = offsets.astype(np.int64)
    if offsets.ndim != 1 or len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != steps:
        raise LegatoError(f"{about.name}: the episodes' offsets run from 0 to the number of steps, {steps}")
    if (np.diff(offsets) <= 0).any():
        raise LegatoError(f"{about.name}: episode {int((np.diff(offsets) <= 0).argmax())} has no steps")
    return offsets


def _actions(about: About, actions: np.ndarray, offsets: np.ndarray, clip: bool, start: int = 0) -> np.ndarray:
    """The actions as they are kept, from given ones whose discrete kind is counted from `start`."""
    if about.choices is not None:
        chosen = np.asarray(actions)
        if chosen.shape not in ((len(chosen),), (len(chosen), 1)) or chosen.dtype.kind not in "biuf":
            raise LegatoError(
                f"{about.name} has one of {about.choices} choices for an action, but actions of shape {chosen.shape} "
                f"({chosen.dtype})"
            )
        chosen = chosen.reshape(len(chosen))
        for i, part in _chunks(chosen):
            wrong = (part < start) | (part >= start + about.choices) | (part != np.floor(part))
            if wrong.any():
                at = i + int(wrong.argmax())
                raise LegatoError(
                    f"{about.name}: {_place(offsets, at)} has action {chosen[at]:g} of {about.choices} discrete ones"
                    + (f", {start} to {start + about.choices - 1}" if start else "")
                )
        return (chosen.astype(np.int64) - start if start else chosen).astype(np.int32, copy=False)
    actions = _table("actions", actions)
    if about.low is None or about.high is None:
        return actions
    if len(about.low) != actions.shape[1]:
        raise LegatoError(f"{about.name} has actions of {actions.shape[1]} numbers, but bounds for {len(about.low)}")
    low, high = np.array(about.low, np.float32), np.array(about.high, np.float32)
    outside = np.concatenate(
        [i + np.flatnonzero(((part < low) | (part > high)).any(axis=1)) for i, part in _chunks(actions)]
    )
    if not len(outside):
        return actions
    if clip:
        return np.clip(actions, low, high)
    step = int(outside[0])
    dimension = int(((actions[step] < low) | (actions[step] > high)).argmax())
    raise LegatoError(
        f"{about.name}: {len(outside)} of {len(actions)} actions lie outside their bounds, first in "
        f"{_place(offsets, step)}: number {dimension} is {actions[step, dimension]:g}, not in "
        f"[{low[dimension]:g}, {high[dimension]:g}]; --clip-actions moves them to the bounds"
    )


def _finite(about: About, name: str, array: np.ndarray, offsets: np.ndarray) -> None:
    for i, part in _chunks(array):
        bad = ~np.isfinite(part).reshape(len(part), -1).all(axis=1)
        if bad.any():
            raise LegatoError(f"{about.name}: the {name} of {_place(offsets, i + bad.argmax())} are not finite")


def _place(offsets: np.ndarray, step: int | np.integer) -> str:
    episode = int(np.searchsorted(offsets, step, side="right")) - 1
    return f"step {int(step - offsets[episode])} of episode {episode}"

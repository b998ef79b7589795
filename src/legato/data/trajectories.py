"""Logged experience: whole episodes in flat arrays, checked on entry.

Episodes lie one after another without padding; a window or a whole trajectory is an index computation. Rewards may be
missing, and so may the observation after an episode's last step.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import accumulate

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int64, UInt8

from legato.data.checks import (
    check_actions,
    check_column,
    check_finite,
    check_offsets,
    check_table,
    chunks,
    contradictions,
    flagged_steps,
    place_of,
    rounding_of,
)
from legato.data.spec import Spec
from legato.errors import LegatoError, LegatoWarning


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
    shape: tuple[int, ...] | None = None
    """of images, of which an observation holds the bytes; None where it holds float32 numbers"""

    @classmethod
    def of(cls, name: str, environment: str, spec: Spec) -> About:
        """What is known of episodes played in an environment of this spec."""
        if spec.choices is not None:
            return cls(name, environment, choices=spec.choices, shape=spec.shape)
        return cls(name, environment, low=spec.low, high=spec.high, shape=spec.shape)


@dataclass(frozen=True)
class Trajectories:
    """Episodes one after another: episode i is the steps `offsets[i]` to `offsets[i + 1] - 1`.

    `actions` are `[steps, act]` or, where `about.choices` says how many there are, the numbers `[steps]` of discrete
    actions. `final_observations` holds, per episode, the observation after its last step. The arrays may be
    memory-mapped files.
    """

    observations: Float32[np.ndarray, "steps obs"] | UInt8[np.ndarray, "steps obs"]
    actions: Float32[np.ndarray, "steps act"] | Int[np.ndarray, " steps"]
    rewards: Float32[np.ndarray, " steps"] | None
    terminations: Bool[np.ndarray, " steps"]
    truncations: Bool[np.ndarray, " steps"]
    offsets: Int64[np.ndarray, " episodes_and_one"]
    final_observations: Float32[np.ndarray, "episodes obs"] | UInt8[np.ndarray, "episodes obs"] | None = None
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
    final_observations: np.ndarray | None = None,
    about: About | None = None,
    *,
    next_observations: np.ndarray | None = None,
    clip_actions: bool = False,
    start: int = 0,
) -> Trajectories:
    """Check logged arrays and bring them into one form; what is stored elsewhere is never written to.

    Without `offsets`, an episode ends wherever it terminates or is truncated, and the last one with the data. An
    episode that ends with neither was cut by whoever recorded it: its last step counts as truncated. `clip_actions`
    moves actions into the bounds of `about`; where it has none, they are -1 and 1 if all actions lie there, as in D4RL,
    and otherwise unknown. `next_observations`, the observations after every step, serves where `final_observations` is
    not given. Where it is not what the next step observes, but for the rounding of how they are stored, an episode ends
    that no flag marks: its last step counts as truncated. A `LegatoWarning` says how many there are, and another that
    nothing marks an end. Discrete `actions` are counted from `start` here, and from 0 in what is returned.

    Raises `LegatoError`, naming episode and step, for anything that could not be learnt from.
    """
    about, given = about or About(), np.asarray(observations)
    if given.dtype == np.uint8 and given.ndim > 2:  # images
        about = replace(about, shape=given.shape[1:])
    observations = check_table("observations", observations, about.shape)
    steps = len(observations)
    if steps == 0:
        raise LegatoError(f"{about.name} holds no steps")
    rewards = None if rewards is None else check_column("rewards", rewards, steps, about, np.float32)
    terminations = check_column("terminations", terminations, steps, about, bool)
    truncations = check_column("truncations", truncations, steps, about, bool)
    if np.shape(actions)[:1] != (steps,):
        raise LegatoError(f"{about.name} has {steps} observations but actions of shape {np.shape(actions)}")
    over = np.union1d(flagged_steps(terminations), flagged_steps(truncations))
    if final_observations is None and next_observations is not None:
        stored, next_observations = (
            np.asarray(next_observations),
            check_table("next observations", next_observations, about.shape),
        )
        if next_observations.shape != observations.shape:
            raise LegatoError(
                f"{about.name} has observations {observations.shape} but next ones {next_observations.shape}"
            )
        torn = np.setdiff1d(contradictions(observations, next_observations, rounding_of(given, stored)), over)
        if offsets is not None:
            offsets = check_offsets(about, steps, over, offsets)
            torn = np.setdiff1d(torn, offsets[1:] - 1)
            offsets = np.union1d(offsets, torn + 1)
        if 2 * np.isin(torn + 1, over).sum() > len(over) > 0:
            raise LegatoError(
                f"{about.name} marks ends one row late: by its next_observations {len(torn)} episodes end at a row "
                "without a mark: import it with `late_ends`, which moves the marks"
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
    offsets = check_offsets(about, steps, over, offsets)
    last = offsets[1:] - 1
    early = np.setdiff1d(over, last)
    if len(early):
        what = "terminates" if terminations[early[0]] else "is truncated"
        raise LegatoError(f"{about.name}: {place_of(offsets, early[0])} {what}, but its episode goes on")
    cut = np.setdiff1d(last, over)
    if len(cut):
        truncations = np.array(truncations)  # what was given is not written to
        truncations[cut] = True
    actions = check_actions(about, actions, offsets, clip_actions, start)
    if (
        about.choices is None
        and about.low is None
        and about.high is None
        and all(np.abs(part).max() <= 1 for _, part in chunks(actions))
    ):
        about = replace(about, low=(-1.0,) * actions.shape[1], high=(1.0,) * actions.shape[1])
    if final_observations is None and next_observations is not None:
        final_observations = next_observations[offsets[1:] - 1]
    if final_observations is not None:
        final_observations = check_table("the observations after the last steps", final_observations, about.shape)
        if final_observations.shape != (len(offsets) - 1, observations.shape[1]):
            raise LegatoError(
                f"{about.name} has {len(offsets) - 1} episodes of {observations.shape[1]} numbers a step, "
                f"but final observations of shape {final_observations.shape}"
            )
    for name, array in (("observations", observations), ("actions", actions), ("rewards", rewards)):
        if array is not None:
            check_finite(about, name, array, offsets)
    if final_observations is not None and not np.isfinite(final_observations).all():
        bad = int((~np.isfinite(final_observations)).any(axis=1).argmax())
        raise LegatoError(f"{about.name}: the observation after the last step of episode {bad} is not finite")
    return Trajectories(observations, actions, rewards, terminations, truncations, offsets, final_observations, about)


def from_members(
    members: np.ndarray,
    observations: np.ndarray,
    actions: np.ndarray,
    rewards: np.ndarray,
    next_observations: np.ndarray,
    terminations: np.ndarray,
    truncations: np.ndarray,
    about: About,
) -> Trajectories:
    """Trajectories of rows `[rows, ...]` that several members recorded side by side; `members[i]` recorded row i.

    A member's rows are in time order, and its episodes follow one another in the result, member after member. The
    last one of each is cut where its rows end. `next_observations` are the observations after every row.
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
        next_observations=next_observations[order],
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
            f"{data.about.name} has no rewards: it can be imitated (bc; dt and ds4 with `returns=False`; tt with "
            "`returns=False` and `search=mean`), but no return can be asked for"
        )
    return data


def timesteps(data: Trajectories) -> Int64[np.ndarray, " steps"]:
    """Of each step, how many came before it in its episode."""
    return np.arange(data.steps) - np.repeat(data.offsets[:-1], data.lengths)


def returns(data: Trajectories, gamma: float = 1.0) -> Float[np.ndarray, " episodes"]:
    """Return of each episode, undiscounted by default."""
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


def delay_rewards(data: Trajectories) -> Trajectories:
    """The same episodes with every reward paid at the end (the delayed-reward setting of Chen et al. 2021)."""
    late = np.zeros(data.steps, np.float32)
    late[data.offsets[1:] - 1] = returns(data)
    return replace(data, rewards=late)


def penalise_terminations(data: Trajectories, penalty: float | None) -> Trajectories:
    """The same episodes with `penalty` for the last reward of those that truly terminate; None changes nothing."""
    if penalty is None:
        return data
    return replace(data, rewards=np.where(data.terminations, np.float32(penalty), rewards(data)))


def fingerprint(data: Trajectories) -> str:
    """A short name for the very numbers of a dataset: of sizes, episodes, and up to some ten thousand of its steps."""
    rows = slice(None, None, max(1, data.steps // 10_000))
    digest = hashlib.blake2b(np.ascontiguousarray(data.offsets).tobytes(), digest_size=8)
    for array in (data.observations, data.actions, data.rewards):
        if array is not None:
            digest.update(str(array.shape).encode())
            digest.update(np.ascontiguousarray(array[rows]).tobytes())
    return digest.hexdigest()

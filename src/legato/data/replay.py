"""The replay buffer: a ring of transitions on the device, written and sampled inside jit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from legato.data import frames as image_frames
from legato.data import ring
from legato.data.frames import SPARE, Frames
from legato.data.spec import Spec
from legato.data.trajectories import About, Trajectories, from_members


class Transition(eqx.Module):
    """(s, a, a_prev, r, s', continues): what happened over one primitive step, or over one held decision.

    `previous_action` is the action executed just before, `spec.middle` when an episode begins. `continues` is 0 only
    where the episode truly terminated: a truncated episode goes on in the eyes of a critic.
    """

    observation: Float[Array, "*batch obs"] | UInt8[Array, "*batch obs"]
    action: Float[Array, "*batch act"]
    previous_action: Float[Array, "*batch act"]
    reward: Float[Array, "*batch"]
    next_observation: Float[Array, "*batch obs"] | UInt8[Array, "*batch obs"]
    continues: Float[Array, "*batch"]


class Sequences(eqx.Module):
    """Transitions that followed one another: `[length, batch, ...]`.

    `valid` is 1 from the first step on for as long as the next row is the same episode's next step, and 0 after: the
    episode had ended, or the buffer.
    """

    steps: Transition
    valid: Float[Array, "length *batch"]


Batch = TypeVar("Batch", bound=Transition | Sequences)


def scale_actions(batch: Batch, spec: Spec) -> Batch:
    """The same transitions with actions in units of their bounds."""
    if isinstance(batch, Sequences):
        return replace(batch, steps=scale_actions(batch.steps, spec))
    assert isinstance(batch, Transition)
    return replace(batch, action=spec.normalise(batch.action), previous_action=spec.normalise(batch.previous_action))


def as_sequences(batch: Transition | Sequences) -> Sequences:
    """Single transitions as sequences of one step."""
    if isinstance(batch, Sequences):
        return batch
    return Sequences(jax.tree.map(lambda leaf: leaf[None], batch), jnp.ones((1, *batch.reward.shape)))


def first_steps(batch: Transition | Sequences) -> Transition:
    """The transitions that sequences begin with."""
    return jax.tree.map(lambda leaf: leaf[0], batch.steps) if isinstance(batch, Sequences) else batch


@dataclass(frozen=True)
class ReplayBatchSpec:
    """What an update of an off-policy algorithm is given: independent minibatches of `size`, one for each of `lengths`.

    Those of length 1 are `Transition`, longer ones `Sequences`. `per_decision` asks for one transition per decision
    (rewards summed while the action was held) instead of one per primitive step.
    """

    size: int
    lengths: tuple[int, ...] = (1,)
    per_decision: bool = False


class Replay(eqx.Module):
    """The newest `capacity` transitions; older ones are overwritten.

    Rows are packed `[s | a | a_prev | r | s' | continues]`, so that a minibatch is one gather; images lie apart, in
    bytes.
    """

    rows: Float[Array, "capacity width"]
    added: Int[Array, ""]  # how many were ever added; the next goes to added % capacity
    spec: Spec = eqx.field(static=True)
    members: int = eqx.field(static=True, default=1)  # environments that add their rows in turn
    frames: Frames | None = None
    """of images; then a row is `[a | a_prev | r | continues]`"""

    @property
    def capacity(self) -> int:
        return self.rows.shape[-2]

    @property
    def size(self) -> Int[Array, ""]:
        """Transitions that can be drawn."""
        if self.frames is not None:
            return self.added - self.frames.oldest
        return jnp.minimum(self.added, self.capacity)

    def transitions(self, index: Int[Array, "*batch"]) -> Transition:
        """The transitions in these rows."""
        if self.frames is None:
            return unpack(self.rows[index], self.spec)
        s, s_next = self.frames.pair(index)
        return replace(unpack(self.rows[index], self.spec.with_vector(0)), observation=s, next_observation=s_next)


def row_bytes(spec: Spec) -> float:
    """Bytes that a transition takes, its images included."""
    images = spec.observation_size * (1 + 1 / SPARE) if spec.images else 0
    return 4 * _width(spec.with_vector(0) if spec.images else spec) + images


def _width(spec: Spec) -> int:
    """Numbers of a packed row."""
    return 2 * spec.observation_size + 2 * spec.action_size + 2


def create(spec: Spec, capacity: int, members: int = 1) -> Replay:
    """An empty buffer, to which so many environments add their rows in turn."""
    none = jnp.zeros((), jnp.int32)
    if not spec.images:
        return Replay(jnp.zeros((capacity, _width(spec))), none, spec, members)
    frames = image_frames.create(capacity, members, spec.observation_size)
    return Replay(jnp.zeros((capacity, _width(spec.with_vector(0)))), none, spec, members, frames)


def filled_part(replay: Replay, filled: int) -> dict[str, Any]:
    """The arrays of replays stacked over seeds as a checkpoint keeps them: of `filled` rows each."""
    found: dict[str, Any] = {"rows": np.array(replay.rows[:, :filled]), "added": np.array(replay.added)}
    if (frames := replay.frames) is not None:
        part = int(min(frames.added.max(), frames.bytes.shape[1]))
        found["frames"] = {
            "bytes": np.array(frames.bytes[:, :part]),
            "shown": np.array(frames.shown[:, :filled]),
            "added": np.array(frames.added),
            "oldest": np.array(frames.oldest),
        }
    return found


def refill(replay: Replay, state: Mapping[str, Any]) -> Replay:
    """The inverse of `filled_part`, into empty replays."""

    def put(empty: Array, kept: np.ndarray) -> Array:
        return empty.at[:, : kept.shape[1]].set(kept) if kept.ndim > 1 else jnp.asarray(kept)

    frames = replay.frames
    if frames is not None:
        kept = state["frames"]
        images = np.zeros(frames.bytes.shape, np.uint8)
        for of_seed, found, added in zip(images, kept["bytes"], kept["added"], strict=True):
            at, there = image_frames.place_images(
                found, int(added), len(of_seed)
            )  # a later end has made the ring longer
            of_seed[at] = there
        shown = put(frames.shown, kept["shown"])
        frames = Frames(jnp.asarray(images), shown, jnp.asarray(kept["added"]), jnp.asarray(kept["oldest"]))
    rows, added = put(replay.rows, state["rows"]), jnp.asarray(state["added"])
    return Replay(rows, added, replay.spec, replay.members, frames)


Rows = np.ndarray | tuple[np.ndarray, np.ndarray]
"""packed rows as they are added, or rows without images, and the images s and s' of each, in bytes"""


def split_images(rows: np.ndarray, spec: Spec) -> Rows:
    """Packed rows `[*batch, width]` as `add` takes them: images apart."""
    if not spec.images:
        return rows
    s, a, previous, r, s_next, continues = np.split(rows, _borders(spec), axis=-1)
    images = np.stack([s, s_next], axis=-2).astype(np.uint8)
    return np.concatenate([a, previous, r, continues], axis=-1), images


def add(
    replay: Replay,
    rows: Float[Array, "rows width"] | tuple[Float[Array, "rows width"], UInt8[Array, "rows 2 obs"]],
    count: Int[Array, ""],
) -> Replay:
    """Append the first `count` of the packed `rows` (see `split_images`); the others are padding."""
    frames = replay.frames
    if isinstance(rows, tuple):
        rows, images = rows
        assert frames is not None
        frames = image_frames.add(frames, images, replay.added, count, replay.members)
    kept = ring.append(replay.rows, rows, replay.added, count)
    return Replay(kept, replay.added + count, replay.spec, replay.members, frames)


def sample(replay: Replay, key: PRNGKeyArray, size: int) -> Transition:
    """`size` transitions drawn uniformly, with replacement. At least one must have been added."""
    index = jax.random.randint(key, (size,), 0, replay.size)
    if replay.frames is not None:  # of which the oldest may no longer be whole
        index = (replay.frames.oldest + index) % replay.capacity
    return replay.transitions(index)


def sequences(replay: Replay, key: PRNGKeyArray, size: int, length: int) -> Sequences:
    """`size` stretches of `length` primitive steps, whose first rows are drawn like those of `sample`.

    Rows must be those of single primitive steps. Whether a row goes on from the one before is seen as in
    `to_trajectories`.
    """
    first = replay.added - replay.size + jax.random.randint(key, (size,), 0, replay.size)
    number = first + replay.members * jnp.arange(length)[:, None]  # counted since the first row ever added
    steps = replay.transitions(number % replay.capacity)
    before, after = (jax.tree.map(lambda leaf, cut=cut: leaf[cut], steps) for cut in (slice(-1), slice(1, None)))
    same = jnp.all(before.next_observation == after.observation, axis=-1)
    same &= jnp.all(before.action == after.previous_action, axis=-1)
    goes_on = same & (before.continues > 0) & (number[1:] < replay.added)
    valid = jnp.concatenate([jnp.ones((1, size)), jnp.cumprod(goes_on, axis=0)])
    return Sequences(steps, valid)


def pack(
    observation: np.ndarray,
    action: np.ndarray,
    previous_action: np.ndarray,
    reward: np.ndarray,
    next_observation: np.ndarray,
    continues: np.ndarray,
) -> np.ndarray:
    """A transition's fields side by side, `[*batch, width]`, in host memory."""
    columns = (observation, action, previous_action, reward[..., None], next_observation, continues[..., None])
    return np.concatenate(columns, axis=-1, dtype=np.float32)


def _borders(spec: Spec) -> tuple[int, ...]:
    """The columns at which a packed row's fields part."""
    o, a = spec.observation_size, spec.action_size
    return (o, o + a, o + 2 * a, o + 2 * a + 1, 2 * o + 2 * a + 1)


def unpack(rows: Float[Array, "*batch width"], spec: Spec) -> Transition:
    """The inverse of `pack`."""
    s, act, prev, r, s_next, continues = jnp.split(rows, _borders(spec), axis=-1)
    return Transition(s, act, prev, r[..., 0], s_next, continues[..., 0])


def to_trajectories(
    rows: np.ndarray, added: int, members: int, spec: Spec, about: About, frames: Mapping[str, np.ndarray] | None = None
) -> Trajectories:
    """The episodes in the filled `rows` `[filled, width]` of a ring to which `added` rows ever went.

    Rows are those of single primitive steps; `members` environments added theirs in turn. An episode ends where
    `continues` is 0, and where the same environment's next row does not go on from this one: it begins at another
    observation, or after another action. (A truncation goes unseen only where the next episode begins just where this
    one ended and the last action was `spec.middle`.) The newest episode of each environment is cut, and the oldest
    begins where the ring does: what came before was overwritten. Images are in `frames`, by the names of `Frames`.
    """
    filled = len(rows)
    oldest = max(added - filled, 0) if frames is None else int(frames["oldest"])
    number = np.arange(oldest, added)
    rows = rows[number % filled]
    kept = spec if frames is None else spec.with_vector(0)
    observation, action, previous, reward, next_observation, continues = np.split(rows, _borders(kept), axis=-1)
    if frames is not None:
        shown = frames["shown"][number % filled] % len(frames["bytes"])
        observation, next_observation = frames["bytes"][shown[:, 0]], frames["bytes"][shown[:, 1]]
    goes_on = (observation[members:] == next_observation[:-members]).all(axis=-1)
    goes_on &= (previous[members:] == action[:-members]).all(axis=-1)
    terminated = continues[:, 0] == 0
    truncated = np.zeros(len(rows), bool)
    truncated[:-members] = ~goes_on
    return from_members(
        number % members, observation, action, reward, next_observation, terminated, truncated & ~terminated, about
    )


class HeldDecisions:
    """Folds packed primitive steps into one row per decision: SAC-J's transitions.

    A row takes s, a and a_prev from the decision's first step, s' and `continues` from its last, and the undiscounted
    sum of its rewards (the accounting of Patel & Siegelmann's SAC-J). Decisions may span calls; `open` holds the rest.
    """

    def __init__(self, members: int, spec: Spec):
        self.open = np.zeros((members, _width(spec)), np.float32)
        self.reward = spec.observation_size + 2 * spec.action_size  # column

    def fold(self, rows: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> list[list[np.ndarray]]:
        """The rows of the decisions that ended, per member, from `rows` `[steps, members, width]`.

        `begins` and `ends` `[steps, members]` mark a decision's first and last primitive step.
        """
        done: list[list[np.ndarray]] = [[] for _ in self.open]
        for row, begin, end in zip(rows, begins, ends, strict=True):
            self.open[begin, : self.reward] = row[begin, : self.reward]
            self.open[begin, self.reward] = 0
            self.open[:, self.reward] += row[:, self.reward]
            self.open[:, self.reward + 1 :] = row[:, self.reward + 1 :]
            for member in np.flatnonzero(end):
                done[member].append(self.open[member].copy())
        return done

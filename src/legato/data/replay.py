"""The replay buffer: a ring of transitions on the device, written and sampled inside jit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from legato.data.spec import Spec
from legato.data.trajectories import About, Trajectories, from_members


class Transition(eqx.Module):
    """(s, a, a_prev, r, s', continues): what happened over one primitive step, or over one held decision.

    `previous_action` is the action executed just before, `spec.middle` when an episode begins. `continues` is 0 only
    where the episode truly terminated: a truncated episode goes on in the eyes of a critic.
    """

    observation: Float[Array, "*batch obs"]
    action: Float[Array, "*batch act"]
    previous_action: Float[Array, "*batch act"]
    reward: Float[Array, "*batch"]
    next_observation: Float[Array, "*batch obs"]
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


@dataclass(frozen=True)
class Minibatches:
    """What an off-policy algorithm eats per update: independent minibatches of `size`, one for each of `lengths`.

    Those of length 1 are `Transition`, longer ones `Sequences`. `per_decision` asks for one transition per decision
    (rewards summed while the action was held) instead of one per primitive step.
    """

    size: int
    lengths: tuple[int, ...] = (1,)
    per_decision: bool = False


class Replay(eqx.Module):
    """The newest `capacity` transitions; older ones are overwritten.

    Rows are packed `[s | a | a_prev | r | s' | continues]`, so that a minibatch is one gather.
    """

    rows: Float[Array, "capacity width"]
    added: Int[Array, ""]  # how many were ever added; the next goes to added % capacity
    spec: Spec = eqx.field(static=True)
    members: int = eqx.field(static=True, default=1)  # environments that add their rows in turn

    @property
    def capacity(self) -> int:
        return self.rows.shape[-2]

    @property
    def size(self) -> Int[Array, ""]:
        return jnp.minimum(self.added, self.capacity)


def width(spec: Spec) -> int:
    """Numbers of a row."""
    return 2 * spec.observation_size + 2 * spec.action_size + 2


def create(spec: Spec, capacity: int, members: int = 1) -> Replay:
    """An empty buffer, to which so many environments add their rows in turn."""
    return Replay(jnp.zeros((capacity, width(spec))), jnp.zeros((), jnp.int32), spec, members)


def add(replay: Replay, rows: Float[Array, "rows width"], count: Int[Array, ""]) -> Replay:
    """Append the first `count` of the packed `rows`; the others are padding."""
    offset = jnp.arange(rows.shape[0])
    # Padding is sent out of bounds, where a scatter drops it.
    index = jnp.where(offset < count, (replay.added + offset) % replay.capacity, replay.capacity)
    rows = replay.rows.at[index].set(rows, mode="drop")
    return Replay(rows, replay.added + count, replay.spec, replay.members)


def sample(replay: Replay, key: PRNGKeyArray, size: int) -> Transition:
    """`size` transitions drawn uniformly, with replacement. At least one must have been added."""
    index = jax.random.randint(key, (size,), 0, replay.size)
    return unpack(replay.rows[index], replay.spec)


def sequences(replay: Replay, key: PRNGKeyArray, size: int, length: int) -> Sequences:
    """`size` stretches of `length` primitive steps, whose first rows are drawn like those of `sample`.

    Rows must be those of single primitive steps. Whether a row goes on from the one before is seen as in `logged`.
    """
    first = replay.added - replay.size + jax.random.randint(key, (size,), 0, replay.size)
    number = first + replay.members * jnp.arange(length)[:, None]  # counted since the first row ever added
    steps = unpack(replay.rows[number % replay.capacity], replay.spec)
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


def logged(rows: np.ndarray, added: int, members: int, spec: Spec, about: About) -> Trajectories:
    """The episodes in the filled `rows` `[filled, width]` of a ring to which `added` rows ever went.

    Rows are those of single primitive steps; `members` environments added theirs in turn. An episode ends where
    `continues` is 0, and where the same environment's next row does not go on from this one: it begins at another
    observation, or after another action. (A truncation goes unseen only where the next episode begins just where this
    one ended and the last action was `spec.middle`.) The newest episode of each environment is cut, and the oldest
    begins where the ring does: what came before was overwritten.
    """
    filled = len(rows)
    number = np.arange(max(added - filled, 0), added)  # oldest first
    rows = rows[number % filled]
    observation, action, previous, reward, following, continues = np.split(rows, _borders(spec), axis=-1)
    goes_on = (observation[members:] == following[:-members]).all(axis=-1)
    goes_on &= (previous[members:] == action[:-members]).all(axis=-1)
    terminated = continues[:, 0] == 0
    truncated = np.zeros(filled, bool)
    truncated[:-members] = ~goes_on
    return from_members(
        number % members, observation, action, reward, following, terminated, truncated & ~terminated, about
    )


class HeldDecisions:
    """Folds packed primitive steps into one row per decision: SAC-J's transitions.

    A row takes s, a and a_prev from the decision's first step, s' and `continues` from its last, and the undiscounted
    sum of its rewards (the accounting of Patel & Siegelmann's SAC-J). Decisions may span calls; `open` holds the rest.
    """

    def __init__(self, members: int, spec: Spec):
        self.open = np.zeros((members, 2 * spec.observation_size + 2 * spec.action_size + 2), np.float32)
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

"""Trajectories as tokens (Janner et al. 2021, arXiv 2106.02039): every number of a step falls into one of its bins.

    columns  s^1 ... s^N, a^1 ... a^M, r, V        V_t = sum_{k > t} gamma^(k-t-1) r_k: what is still to come
    token    the bin that the number lies in; one token more, the stop, stands for all that comes after an end

Bins are equally wide, or hold equally many of the data's numbers. A set is encoded once and kept as one or two bytes
per number. Reading it back gives the middle of a bin, or the mean of the data in it.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, PRNGKeyArray

from legato.data import npy
from legato.data import trajectories as logs
from legato.data.spec import Spec
from legato.data.trajectories import Trajectories
from legato.data.windows import BatchSpec
from legato.errors import LegatoError

Bins = Literal["quantile", "uniform"]
Centres = Literal["middle", "mean"]

CHUNK = 1 << 16  # rows encoded at once, so that a mapped set does not have to fit into memory


@dataclass(frozen=True)
class Layout:
    """Which columns a step has: N observed numbers, M of an action and, if wanted, reward and value."""

    observations: int
    actions: int
    rewards: bool = True
    values: bool = True

    @property
    def width(self) -> int:
        """Tokens per step, D."""
        return self.observations + self.actions + self.rewards + self.values

    @property
    def value(self) -> int | None:
        """The value's column, if there is one: the last."""
        return self.width - 1 if self.values else None


class Discretiser(eqx.Module):
    """The bins of every column: bin i holds `edges[i] <= x < edges[i + 1]`, the outermost ones all beyond them too.

    Of edges that are equal, the last one counts: a number that the data has very often has a bin that begins with it.
    """

    edges: Float[Array, "columns edges"]
    """ascending, one more than bins"""
    centres: Float[Array, "columns bins"]
    """what a token stands for"""

    @property
    def bins(self) -> int:
        return self.centres.shape[-1]

    def columns(self, part: slice) -> Discretiser:
        """The bins of some of the columns."""
        return Discretiser(self.edges[part], self.centres[part])

    def encode(self, x: Float[Array, "*batch columns"]) -> Int[Array, "*batch columns"]:
        """Tokens of rows."""
        edges = jax.lax.stop_gradient(self.edges)
        return jnp.clip(jnp.sum(x[..., None] >= edges, axis=-1, dtype=jnp.int32) - 1, 0, self.bins - 1)

    def decode(self, tokens: Int[Array, "*batch columns"]) -> Float[Array, "*batch columns"]:
        """What tokens stand for; a stop reads as the last bin."""
        found = jnp.clip(tokens, 0, self.bins - 1)
        return jnp.take_along_axis(jnp.broadcast_to(self.centres, (*found.shape, self.bins)), found[..., None], -1)[
            ..., 0
        ]

    def outside(self, x: Float[Array, "*batch columns"], by: float = 0.0) -> Bool[Array, "*batch columns"]:
        """Which numbers lie beyond the edges by more than `by` times the column's range."""
        low, high = self.edges[..., 0], self.edges[..., -1]
        room = by * (high - low)
        return (x < low - room) | (x > high + room)


def fit(
    rows: Float32[np.ndarray, "steps columns"],
    bins: int = 100,
    kind: Bins = "quantile",
    centres: Centres = "middle",
    choices: dict[int, int] | None = None,
) -> Discretiser:
    """The bins of a table. `choices` are columns of whole numbers 0 to n - 1, each of which gets its own bin.

    Raises `LegatoError` for a number that is not finite, for fewer than two bins, for more choices than bins, and where
    there are fewer rows than bins that are to hold equally many. A constant column falls into its last bin.
    """
    choices = choices or {}
    enough(len(rows), bins, kind, max(choices.values(), default=None))
    if not all(np.isfinite(part).all() for _, part in _chunks(rows)):
        raise LegatoError("only finite numbers fall into bins")
    edges = np.empty((rows.shape[1], bins + 1), np.float32)
    found = np.empty((rows.shape[1], bins), np.float32)
    for column in range(rows.shape[1]):
        x = np.asarray(rows[:, column], np.float32)
        if column in choices:
            edges[column], found[column] = np.arange(bins + 1), np.arange(bins)
            continue
        edges[column] = _edges(x, bins, kind)
        found[column] = _centres(x, edges[column], centres)
    return Discretiser(jnp.asarray(edges), jnp.asarray(found))


def enough(rows: int, bins: int, kind: Bins, choices: int | None = None) -> None:
    """Raise `LegatoError` where so many rows cannot be put into so many bins."""
    if bins < 2:
        raise LegatoError(f"a column has at least 2 bins; {bins} were asked for")
    if rows < (bins if kind == "quantile" else 1):
        raise LegatoError(f"{rows} steps cannot fill {bins} bins equally: lower `bins`, or choose `edges=uniform`")
    if choices is not None and choices > bins:
        raise LegatoError(f"{choices} discrete actions need as many bins; there are {bins}: raise `bins`")


def _edges(x: np.ndarray, bins: int, kind: Bins) -> np.ndarray:
    if kind == "uniform":
        edges = np.linspace(x.min(), x.max(), bins + 1, dtype=np.float64).astype(np.float32)
        edges[-1] = x.max()
        return edges
    at = np.arange(bins + 1) * len(x) // bins  # evenly spaced, whatever the number of rows
    return np.sort(x)[np.minimum(at, len(x) - 1)]


def _centres(x: np.ndarray, edges: np.ndarray, kind: Centres) -> np.ndarray:
    middle = (edges[:-1].astype(np.float64) + edges[1:]) / 2
    if kind == "mean":
        at = _encoded(x, edges)
        count = np.bincount(at, minlength=len(middle))
        total = np.bincount(at, weights=x, minlength=len(middle))
        middle = np.where(count > 0, total / np.maximum(count, 1), middle)
    # Rounding must not carry a centre out of its bin; the last one holds its upper edge as well.
    last = np.maximum(np.nextafter(edges[1:], -np.inf, dtype=np.float32), edges[:-1])
    last[-1] = edges[-1]
    return np.clip(middle.astype(np.float32), edges[:-1], last)


def _encoded(x: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.clip(np.searchsorted(edges, x, side="right") - 1, 0, len(edges) - 2)


def encode(discretiser: Discretiser, rows: np.ndarray) -> np.ndarray:
    """Tokens of a table on the host, in the smallest type that also has room for the stop."""
    edges = np.asarray(discretiser.edges)
    dtype = np.uint8 if discretiser.bins < 256 else np.uint16
    out = np.empty(rows.shape, dtype)
    for first, part in _chunks(rows):
        for column in range(rows.shape[1]):
            out[first : first + len(part), column] = _encoded(np.asarray(part[:, column], np.float32), edges[column])
    return out


def _chunks(rows: np.ndarray) -> list[tuple[int, np.ndarray]]:
    return [(i, rows[i : i + CHUNK]) for i in range(0, len(rows), CHUNK)]


def table(
    data: Trajectories, layout: Layout, gamma: float = 1.0, penalty: float | None = None
) -> Float32[np.ndarray, "steps columns"]:
    """The columns of every step. At a true termination the reward is replaced by `penalty`, and values follow.

    Raises `LegatoError` where rewards are wanted and missing.
    """
    actions = data.actions[:, None] if data.discrete else data.actions
    columns = [np.asarray(data.observations, np.float32), np.asarray(actions, np.float32)]
    if layout.rewards or layout.values:
        penalised = logs.penalise_terminations(data, penalty)
        rewards = logs.rewards(penalised)
        if layout.rewards:
            columns.append(np.asarray(rewards, np.float32)[:, None])
        if layout.values:
            columns.append(values(penalised, gamma)[:, None])
    return np.concatenate(columns, axis=1)


def values(data: Trajectories, gamma: float = 1.0) -> Float32[np.ndarray, " steps"]:
    """V_t = r_{t+1} + gamma V_{t+1}, 0 at the last step: what comes after a step's own reward."""
    togo = logs.returns_to_go(data, gamma)
    after = np.append(togo[1:], np.float32(0))
    after[data.offsets[1:] - 1] = 0
    return after


class Windows(eqx.Module):
    """L consecutive steps as tokens. After the episode's end every token is the stop."""

    tokens: Int[Array, "*batch L columns"]
    known: Bool[Array, "*batch L"]
    """which steps are to be learnt: all up to the end, and stops after a true termination"""
    goals: Int[Array, "*batch obs"]
    """tokens of an observation that the episode reaches after these steps"""


class Encoded(eqx.Module):
    """A set of trajectories on the device, one row of tokens per step."""

    tokens: Int[Array, "steps columns"]
    left: Int[Array, " steps"]
    """steps to the end of the episode, this one included"""
    terminates: Bool[Array, " episodes"]
    """rather than being cut"""
    goals: Int[Array, "episodes obs"]
    """the last observation of each episode: that after its last step, where it is known"""
    episode: Int[Array, " steps"]
    stop: int = eqx.field(static=True)
    later: bool = eqx.field(static=True)
    """are goals any observation after the window, all as likely, rather than the last one of all?"""

    def draw(self, key: PRNGKeyArray, batch_spec: BatchSpec) -> Windows:
        """Windows of `batch_spec.length` steps, whose first steps are drawn uniformly from all steps."""
        if not self.later:
            return self.windows(jax.random.randint(key, (batch_spec.size,), 0, len(self.left)), batch_spec.length)
        k_start, k_goal = jax.random.split(key)
        start = jax.random.randint(k_start, (batch_spec.size,), 0, len(self.left))
        spare = jnp.maximum(self.left[start] - batch_spec.length, 0)
        return self.windows(start, batch_spec.length, jax.random.randint(k_goal, start.shape, 0, spare + 1))

    def windows(self, start: Int[Array, "*batch"], length: int, after: Int[Array, "*batch"] | None = None) -> Windows:
        """The windows that begin at these rows. Their goals are the last observations, or those `after` so many steps
        behind the window, where the episode is that long."""
        step = jnp.arange(length)
        there = step < self.left[start][..., None]
        rows = jnp.where(there, start[..., None] + step, start[..., None])
        tokens = jnp.where(there[..., None], self.tokens[rows].astype(jnp.int32), self.stop)
        goals = self.goals[self.episode[start]]
        if after is not None:
            row = start + length + after
            inside = (length + after < self.left[start])[..., None]
            goals = jnp.where(inside, self.tokens[jnp.where(inside[..., 0], row, start), : goals.shape[-1]], goals)
        goals = goals.astype(jnp.int32)
        return Windows(tokens, there | self.terminates[self.episode[start]][..., None], goals)


def encode_dataset(
    data: Trajectories, tokens: np.ndarray, layout: Layout, discretiser: Discretiser, later: bool = False
) -> Encoded:
    """Put tokens on the device, with what is to be known of their episodes."""
    final = data.offsets[1:] - 1
    last = tokens[final, : layout.observations]
    if data.final_observations is not None:
        last = encode(discretiser.columns(slice(0, layout.observations)), data.final_observations)
    return Encoded(
        jnp.asarray(tokens),
        jnp.asarray(np.repeat(data.lengths, data.lengths) - logs.timesteps(data), jnp.int32),
        jnp.asarray(data.terminations[final]),
        jnp.asarray(last),
        jnp.asarray(np.repeat(np.arange(len(data)), data.lengths), jnp.int32),
        discretiser.bins,
        later,
    )


@dataclass(frozen=True)
class Recipe:
    """How a set becomes tokens."""

    bins: int = 100
    kind: Bins = "quantile"
    centres: Centres = "middle"
    gamma: float = 0.99
    penalty: float | None = None
    rewards: bool = True
    values: bool = True


def prepare(
    data: Trajectories, spec: Spec, recipe: Recipe, kept: Path | None = None, name: str = "", *, later: bool = False
) -> tuple[Discretiser, Encoded]:
    """The bins of a set and the set in them. A file `kept` is read where it was made from the same numbers, `name`, by
    the same recipe, and written anew where it was not."""
    layout = Layout(spec.observation_size, spec.action_size, recipe.rewards, recipe.values)
    digest = hashlib.blake2b(f"{name} {recipe} {layout} {spec.choices}".encode(), digest_size=16).hexdigest()
    found = None if kept is None else _read(kept, digest, (data.steps, layout.width))
    if found is None:
        rows = table(data, layout, recipe.gamma, recipe.penalty)
        choices = {} if spec.choices is None else {layout.observations: spec.choices}
        discretiser = fit(rows, recipe.bins, recipe.kind, recipe.centres, choices)
        found = discretiser, encode(discretiser, rows)
        if kept is not None:
            _write(kept, digest, *found)
    return found[0], encode_dataset(data, found[1], layout, found[0], later)


def _read(path: Path, digest: str, shape: tuple[int, int]) -> tuple[Discretiser, np.ndarray] | None:
    try:
        file, _ = npy.npz(path, ("digest", "edges", "centres", "tokens"))
        if str(file["digest"]) != digest or file["tokens"].shape != shape:
            return None
        return Discretiser(jnp.asarray(file["edges"]), jnp.asarray(file["centres"])), file["tokens"]
    except (LegatoError, KeyError):
        return None  # none, half of one, or none of ours: it is made again


def _write(path: Path, digest: str, discretiser: Discretiser, tokens: np.ndarray) -> None:
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with beside.open("xb") as file:
            np.savez(
                file,
                digest=np.array(digest),
                edges=np.asarray(discretiser.edges),
                centres=np.asarray(discretiser.centres),
                tokens=tokens,
            )
        beside.replace(path)
    except OSError:  # a full disk: the file only saves the time to make it again
        beside.unlink(missing_ok=True)

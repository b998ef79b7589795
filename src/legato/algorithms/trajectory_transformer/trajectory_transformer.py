"""Trajectory Transformer (Janner et al. 2021, arXiv 2106.02039): decisions from a model of whole trajectories.

    tokens  s^1 ... s^N a^1 ... a^M r V   of each step, every number in one of its bins (`data.tokens`)
    V_t     = sum_{k > t} gamma^(k-t-1) r_k
    L       = mean of w_i CE(p(token_i | token_<i), token_i)        w = 5 for actions, 1 for all else
    act     : the first actions of a beam search in p (`planning.beam`), for return or for likelihood

A window is L steps; after a true termination its tokens are the stop, which is learnt as well. What follows an episode
that was cut is not.

Options of ours: `blur` learns a bin as a distribution about it (as the HL-Gauss loss does, Farebrother et al. 2024,
arXiv 2403.03950), which tells the model that bins have neighbours; `search="mean"` acts by means.
"""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any, Literal, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from legato.algorithms.trajectory_transformer.config import TT as Config
from legato.data import tokens as encoding
from legato.data import trajectories as logs
from legato.data.spec import Spec
from legato.data.tokens import Discretiser, Encoded, Layout, Recipe, Windows
from legato.data.trajectories import Trajectories
from legato.data.windows import BatchSpec
from legato.errors import LegatoError
from legato.losses.imitation import cross_entropy
from legato.losses.means import masked_mean
from legato.models.q_functions import QFunction
from legato.models.trajectory import TrajectoryModel
from legato.nn.optimisation import descend, linear_weights, mean_gradient, muon, optax
from legato.planning import beam
from legato.planning.beam import Filter, Plans, Search
from legato.planning.imagine import expected
from legato.policy import Policy, Step, numbers, refuse_command

Metrics = dict[str, Float[Array, ""]]

FAR = 0.5  # of a column's range: how far beyond the data an observation lies that is counted as foreign to the model


class TokenStatistics(eqx.Module):
    """What the policy keeps of its data."""

    discretiser: Discretiser
    spec: Spec = eqx.field(static=True)

    @classmethod
    def identity(cls, config: Config, spec: Spec) -> TokenStatistics:
        """Of no data: bins of no width."""
        width = _layout(config, spec).width
        return cls(Discretiser(jnp.zeros((width, config.bins + 1)), jnp.zeros((width, config.bins))), spec)


class Learner(eqx.Module):
    """Everything the Trajectory Transformer carries while training."""

    network: TrajectoryModel
    statistics: TokenStatistics
    targets: Float[Array, "columns tokens tokens"] | None
    """the targets of each token (computed once from the statistics: it takes longer than an update); None: itself"""
    optimiser: optax.OptState
    updates: Int[Array, ""]


def _layout(config: Config, spec: Spec) -> Layout:
    return Layout(spec.observation_size, spec.action_size, config.returns, config.returns)


def select_data(config: Config, data: Trajectories, limit: int | None = None) -> Trajectories:
    """The data as it is learnt from: all of it.

    Raises `LegatoError` where rewards are wanted and missing, and where there are fewer steps or bins than are needed.
    """
    if config.returns:
        logs.rewards(data)
    encoding.enough(data.steps, config.bins, config.edges, data.about.choices)
    return data


def prepare(
    config: Config, spec: Spec, data: Trajectories, folder: Path | None, fingerprint: str
) -> tuple[TokenStatistics, Encoded]:
    """The bins of the data, and the data as tokens on the device. A file in the folder keeps both for this data."""
    recipe = Recipe(
        config.bins, config.edges, config.centres, config.gamma, config.penalty, config.returns, config.returns
    )
    kept = None if folder is None else folder / "tokens.npz"
    discretiser, source = encoding.prepare(data, spec, recipe, kept, fingerprint, later=config.goals == "later")
    return TokenStatistics(discretiser, spec), source


def init(config: Config, spec: Spec, key: PRNGKeyArray, statistics: TokenStatistics | None = None) -> Learner:
    """A learner before its first update. `statistics` are those of the data."""
    network = _network(config, spec, key)
    statistics = TokenStatistics.identity(config, spec) if statistics is None else statistics
    targets = None
    if config.label_smoothing_bins:
        choice = None if spec.choices is None else spec.observation_size
        targets = smooth_labels(statistics.discretiser.centres, config.label_smoothing_bins, choice)
    return Learner(network, statistics, targets, _optimiser(config).init(cast(Any, network)), jnp.zeros((), jnp.int32))


def _network(config: Config, spec: Spec, key: PRNGKeyArray) -> TrajectoryModel:
    return TrajectoryModel(
        _layout(config, spec),
        config.bins,
        window=config.window,
        layers=config.layers,
        heads=config.heads,
        size=config.size,
        dropout=config.dropout,
        goals=config.goals != "none",
        cosine_embeddings=config.cosine_embeddings,
        key=key,
    )


def step_size(config: Config, i: Int[Array, ""]) -> Float[Array, ""]:
    """Of the i-th update: risen over the warm-up, then on a cosine to a tenth, where it stays.

    The official code's cosine climbs again after its lowest point.
    """
    risen = jnp.minimum(1.0, (i + 1) / max(config.warmup, 1))
    if config.anneal_over == 0:
        return config.learning_rate * risen
    progress = jnp.clip((i - config.warmup) / max(config.anneal_over - config.warmup, 1), 0, 1)
    return config.learning_rate * risen * jnp.maximum(0.1, 0.5 * (1 + jnp.cos(jnp.pi * progress)))


def _optimiser(config: Config) -> optax.GradientTransformation:
    def rate(i: Any) -> Float[Array, ""]:
        return step_size(config, jnp.asarray(i))

    if config.optimiser == "muon":
        step = muon(rate, config.weight_decay, b2=0.95)
    else:
        step = optax.adamw(rate, 0.9, 0.95, weight_decay=config.weight_decay, mask=matrices)
    return optax.chain(optax.clip_by_global_norm(config.clip), step)


def matrices(network: Any) -> Any:
    """Which parameters AdamW lets decay: the weights of linear layers and heads."""
    return eqx.tree_at(lambda n: n.heads, linear_weights(network, True, False), True)


def loss(
    network: TrajectoryModel,
    batch: Windows,
    action_weight: float = 5.0,
    targets: Float[Array, "columns tokens tokens"] | None = None,
    key: PRNGKeyArray | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """L over the tokens that are to be learnt, and the plain mean of the cross-entropy; both to `targets`, if there are
    any. With a `key` dropout is on."""
    layout = network.layout
    flat = batch.tokens.reshape(len(batch.tokens), -1)
    known = jnp.repeat(batch.known, layout.width, axis=-1)[:, 1:]
    logits = network(flat[:, :-1], batch.goals if network.goal is not None else None, key=key).astype(jnp.float32)
    column = jnp.arange(1, flat.shape[-1]) % layout.width
    if targets is None:
        error = cross_entropy(logits, flat[:, 1:])
    else:
        error = optax.softmax_cross_entropy(logits, targets[column, flat[:, 1:]])
    acts = (column >= layout.observations) & (column < layout.observations + layout.actions)
    weighted = masked_mean(error * jnp.where(acts, action_weight, 1.0), known)
    return weighted, {"cross_entropy": masked_mean(error, known)}


def smooth_labels(
    centres: Float[Array, "columns bins"], width: float, choice: int | None = None
) -> Float[Array, "columns tokens tokens"]:
    """The targets of each token: w_ij exp(lambda_i c_j), with w_ij a normal distribution over bins j, `width` wide,
    and lambda_i such that the mean is the token's own centre c_i.

    Without lambda the mean would be off where bins differ in width, as they do beside a bound that actions often lie
    at. The stop, and the tokens of column `choice`, have no neighbours.
    """
    bins = centres.shape[-1]
    i = jnp.arange(bins)
    weight = -0.5 * ((i[:, None] - i) / width) ** 2
    away = centres[:, None, :] - centres[:, :, None]
    spread = jnp.sum(jax.nn.softmax(weight, axis=-1) * jnp.abs(away), axis=-1, keepdims=True)
    away = away / jnp.maximum(spread, 1e-12)

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        tilt = (low + high) / 2
        above = jnp.sum(jax.nn.softmax(weight + tilt * away, axis=-1) * away, axis=-1, keepdims=True) > 0
        return jnp.where(above, low, tilt), jnp.where(above, tilt, high)

    ends = jnp.full_like(spread, -1e3), jnp.full_like(spread, 1e3)
    low, high = jax.lax.fori_loop(0, 50, halve, ends)
    near = jax.nn.softmax(weight + (low + high) / 2 * away, axis=-1)
    if choice is not None:
        near = near.at[choice].set(jnp.eye(bins))
    return jnp.zeros((len(centres), bins + 1, bins + 1)).at[:, :bins, :bins].set(near).at[:, bins, bins].set(1.0)


def update(config: Config, learner: Learner, batch: Windows, key: PRNGKeyArray) -> tuple[Learner, Metrics]:
    """One gradient step."""

    def of(network: TrajectoryModel, batch: Windows, key: PRNGKeyArray) -> tuple[Float[Array, ""], Metrics]:
        if config.dtype != "float32":
            network = jax.tree.map(lambda leaf: leaf.astype(config.dtype), network)
        return loss(network, batch, config.action_weight, learner.targets, key)

    _, steps, width = batch.tokens.shape
    learnt = batch.known.sum(axis=-1) * width - batch.known[:, 0]  # nothing predicts a window's first token
    (value, metrics), gradient = mean_gradient(of, learner.network, batch, learnt, key, steps * width)
    network, state = descend(_optimiser(config), learner.network, gradient, learner.optimiser)
    metrics = {"loss": value, **metrics, "gradient_norm": optax.tree.norm(gradient)}
    return Learner(network, learner.statistics, learner.targets, state, learner.updates + 1), metrics


# --- acting ---


class Memory(eqx.Module):
    """The last steps as tokens, newest last, and the present observation."""

    past: Int[Array, "steps columns"]
    count: Int[Array, ""]
    """how many of the past steps there are"""
    newest: Int[Array, " obs"]
    goal: Int[Array, " obs"]
    time: Int[Array, ""]
    """primitive steps since the episode began; -1 before the first"""
    foreign: Int[Array, ""]
    """observed numbers so far that lay far outside the data"""


class Planning(Policy[Memory]):
    """Searches for a plan at each decision and acts by its first steps; beyond its end, the last action is held."""

    network: TrajectoryModel
    statistics: TokenStatistics
    search: Search = eqx.field(static=True)
    context: int = eqx.field(static=True)
    by: Literal["return", "likelihood", "mean"] = eqx.field(static=True)
    q_function: QFunction | None = None
    """a critic of another algorithm, whose Q takes the place of values: TT(+Q)"""

    def init_state(self, command: Any) -> Memory:
        layout, spec = self.network.layout, self.statistics.spec
        goal = jnp.zeros(spec.observation_size, jnp.int32)
        if self.network.goal is not None:
            goal = self.observed.encode(self._known_goal(command))
        else:
            refuse_command(command)
        zero = jnp.zeros((), jnp.int32)
        newest = jnp.zeros(spec.observation_size, jnp.int32)
        return Memory(jnp.zeros((self.context - 1, layout.width), jnp.int32), zero, newest, goal, zero - 1, zero)

    def _known_goal(self, goal: Any) -> Float[Array, " obs"]:
        """A goal that the data knows. Raises `LegatoError` for none, and for one beyond what was observed."""
        size = self.statistics.spec.observation_size
        given = goal if isinstance(goal, Tracer) else numbers(goal, size)
        if given is None or given.shape != (size,):
            asked = f"begin with an observation of {size} numbers, all finite; {reprlib.repr(goal)} was given"
            raise LegatoError(f"this policy walks to a goal: {asked}")
        goal = jnp.asarray(given, jnp.float32)
        if not isinstance(goal, Tracer) and bool((far := self.observed.outside(goal)).any()):
            i = int(far.argmax())
            low, high = (float(self.observed.edges[i, end]) for end in (0, -1))
            raise LegatoError(f"number {i} of the goal is {goal[i]:g}; the data lies between {low:g} and {high:g}")
        return goal

    @property
    def observed(self) -> Discretiser:
        """The bins of what is observed."""
        return self.statistics.discretiser.columns(slice(0, self.network.layout.observations))

    @property
    def acted(self) -> Discretiser:
        n = self.network.layout.observations
        return self.statistics.discretiser.columns(slice(n, n + self.network.layout.actions))

    def observe(self, state: Memory, step: Step) -> Memory:
        layout = self.network.layout
        row = [state.newest, self.acted.encode(step.executed)]
        if layout.rewards:
            n = layout.observations + layout.actions
            row.append(self.statistics.discretiser.columns(slice(n, n + 1)).encode(step.reward[None]))
        if layout.values:  # unknown, and masked as a key
            row.append(jnp.full(1, self.network.bins - 1, jnp.int32))
        past = jnp.concatenate([state.past[1:], jnp.concatenate(row)[None]])
        foreign = jnp.sum(self.observed.outside(step.observation, FAR), dtype=jnp.int32)
        return Memory(
            jnp.where(step.first, state.past, past),
            jnp.where(step.first, 0, jnp.minimum(state.count + 1, len(past))),
            self.observed.encode(step.observation),
            state.goal,
            state.time + 1,
            state.foreign + foreign,
        )

    def decide(self, state: Memory, key: PRNGKeyArray | None, length: int) -> tuple[Array, Memory]:
        # A search draws in any case; without a key, what it draws depends on the time alone.
        key = jax.random.fold_in(jax.random.key(0), state.time) if key is None else key
        n = self.network.layout.observations
        acts = slice(n, n + self.network.layout.actions)
        held = jnp.minimum(jnp.arange(length), self.search.horizon - 1)
        if self.by == "mean":
            past = state.past, state.count, state.newest, self._goal(state)
            choices = self.statistics.spec.choices
            column = None if choices is None else n
            actions = expected(self.network, self.statistics.discretiser, self.search.horizon, *past, column)[
                held, acts
            ]
            return actions if choices is None else jnp.minimum(actions, choices - 1), state
        plans = jax.tree.map(lambda x: x[: self.search.elite_count], self.plans(state, key))
        actions = jax.vmap(self._real)(plans.tokens[..., acts])
        shares = self._shares(plans.score)[:, None, None]
        if self.statistics.spec.choices is None:
            mean = jnp.sum(shares * self.acted.decode(actions), axis=0)
        else:  # choices have no mean: each plan votes
            votes = jnp.sum(shares * jax.nn.one_hot(actions[..., 0], self.statistics.spec.choices), axis=0)
            mean = jnp.argmax(votes, axis=-1)[:, None].astype(jnp.float32)
        return mean[held], state

    def _shares(self, score: Float[Array, " plans"]) -> Float[Array, " plans"]:
        """What each of these plans counts for in the action."""
        spread = jnp.std(self.statistics.discretiser.centres[-1])
        spread = spread if self.q_function is None else self.q_function.statistics.scale_return(spread)
        return beam.shares(score, self.search.plan_temperature * spread)

    def plans(self, state: Memory, key: PRNGKeyArray) -> Plans:
        """What a search for return or for likelihood finds from here."""
        past = state.past, state.count, state.newest
        if self.by == "return":
            return beam.best_return(self.network, self.statistics.discretiser, self.search, *past, key, self.q_function)
        return beam.likeliest(self.network, self.search, *past, self._goal(state))

    def _goal(self, state: Memory) -> Int[Array, " obs"] | None:
        return state.goal if self.network.goal is not None else None

    def warning(self, state: Memory) -> str | None:
        if not np.any(state.foreign):
            return None
        return f"observations lay outside the policy's data by more than {FAR:g} of a column's range"

    def _real(self, actions: Int[Array, "horizon act"]) -> Int[Array, "horizon act"]:
        """Actions of a plan; where it foresees the episode's end, the last action before."""
        stops: Bool[Array, " horizon"] = jnp.any(actions >= self.network.bins, axis=-1)
        last = jax.lax.cummax(jnp.where(stops, 0, jnp.arange(len(stops))))
        return actions[last]


def policy(config: Config, learner: Learner) -> Planning:
    """The deployable part: the network, the data's bins and the search."""
    return Planning(learner.network.materialise(), learner.statistics, search_of(config), config.context, config.search)


def new_policy(config: Config, spec: Spec, key: PRNGKeyArray) -> Planning:
    """`policy` of what `init` gives, without what only learns."""
    network = _network(config, spec, key).materialise()
    return Planning(network, TokenStatistics.identity(config, spec), search_of(config), config.context, config.search)


def search_of(config: Config) -> Search:
    return Search(
        config.horizon,
        config.beams,
        config.expand,
        config.gamma,
        Filter(config.action_k or None, config.action_cdf or None),
        Filter(config.observation_k or None),
        config.percentile or None,
        max(1, round(config.elite_fraction * config.beams)) if config.search == "return" else 1,
        config.plan_temperature,
    )


def batches(config: Config) -> BatchSpec:
    """Windows of L steps."""
    return BatchSpec(config.batch_size, config.window)


def plan_length(config: Config) -> int:
    """Primitive steps between decisions while training."""
    return 1

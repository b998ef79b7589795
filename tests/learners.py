"""What the tests of algorithms share: transitions, windows and episodes of no particular environment, and what differs
between two learners.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from legato.data.dataset_statistics import DatasetStatistics
from legato.data.normaliser import Normaliser
from legato.data.replay import Transition
from legato.data.spec import Spec
from legato.data.windows import Window
from legato.models import dynamics
from legato.models.dynamics import Dynamics
from legato.policy import Policy, Step


def transitions(seed: int, spec: Spec, size: int, continues: float | None = None) -> Transition:
    """Random transitions: states ~ N(0, 1), actions uniform in the box; ends as given, or half of each."""
    rng = np.random.default_rng(seed)
    state, action = (size, spec.observation_size), (size, spec.action_size)
    ends = rng.integers(0, 2, size) if continues is None else np.full(size, continues)
    fields = (
        rng.normal(size=state),
        rng.uniform(spec.low, spec.high, action),
        rng.uniform(spec.low, spec.high, action),
        rng.normal(size=size),
        rng.normal(size=state),
        ends.astype(float),
    )
    return Transition(*map(jnp.asarray, fields))


def model_loss(model: Dynamics, s: jax.Array, a: jax.Array, s_next: jax.Array) -> jax.Array:
    """A model's loss on single transitions."""
    return dynamics.multi_step_loss(model, s, a[None], s_next[None], jnp.ones((1, len(s))), 1.0)


def noise(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def size(tree: Any) -> int:
    """Numbers in a pytree."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def same(one: Any, other: Any) -> bool:
    """Are two pytrees equal, bit for bit?"""
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def differences(one: Any, other: Any, names: tuple[str, ...]) -> set[str]:
    """The fields that are not equal, bit for bit."""
    return {name for name in names if not same(getattr(one, name), getattr(other, name))}


def nudged(tree: Any) -> Any:
    """Every number changed a little."""
    return jax.tree.map(lambda leaf: jnp.asarray(1.05 * np.asarray(leaf) + 0.02), tree)


def plus(x: Any, by: float, at: Any = slice(None)) -> Any:
    """The same array with something added to some of its rows."""
    found = np.array(x)
    found[at] += by
    return jnp.asarray(found)


def close(one: Any, other: Any, atol: float) -> None:
    """Assert that two pytrees hold nearly the same numbers."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol, rtol=atol), one, other)


def check_gradients(of: Callable[..., Any], args: tuple[Any, ...], eps: float = 1e-6) -> tuple[Any, Any]:
    """Assert that gradients agree with finite differences along a random direction (within the fixture `x64`).

    Of several outputs or an array it is a random sum that is differentiated. Returns the value and the gradients.
    """
    rng = np.random.default_rng(0)

    def random(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), tree)

    @jax.jit
    def both(args: tuple[Any, ...], weights: Any) -> tuple[Any, Any]:
        value, back = jax.vjp(of, *args)
        return value, back(weights)

    shapes = jax.eval_shape(of, *args)
    weights = np.ones(()) if isinstance(shapes, jax.ShapeDtypeStruct) and not shapes.shape else random(shapes)
    value, gradients = both(args, weights)
    direction = random(args)

    def at(h: float) -> float:
        moved = jax.tree.map(lambda x, v: jnp.asarray(np.asarray(x) + h * v), args, direction)
        return inner(both(moved, weights)[0], weights)

    np.testing.assert_allclose(inner(gradients, direction), (at(eps) - at(-eps)) / (2 * eps), atol=1e-6, rtol=1e-5)
    return value, gradients


def inner(one: Any, other: Any) -> float:
    """The inner product of two pytrees."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return sum(float(np.vdot(a, b)) for a, b in pairs)


def double(tree: Any) -> Any:
    """The same pytree in double precision (within the fixture `x64`)."""
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float64)) if is_float(leaf) else leaf, tree)


def is_float(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


# --- logged episodes ---


@cache
def facts_of(spec: Spec, seed: int = 0, target: float = 5.0) -> DatasetStatistics:
    """DatasetStatistics of which none is neutral: a scale of 2.5, and every number of an observation in units of its
    own.
    """
    rng = np.random.default_rng(seed)
    mean, deviation = rng.normal(size=spec.observation_size), rng.uniform(0.5, 2, spec.observation_size)
    units = Normaliser(jnp.asarray(mean, jnp.float32), jnp.asarray(deviation, jnp.float32))
    return DatasetStatistics(
        units, jnp.asarray(2.5), jnp.asarray(target), jnp.asarray(np.linspace(-1, 6, 11), jnp.float32), spec
    )


def actions_of(spec: Spec, rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Uniform in the box, or choices."""
    if spec.choices is not None:
        return rng.integers(0, spec.choices, shape).astype(np.int32)
    return rng.uniform(spec.low, spec.high, (*shape, spec.action_size)).astype(np.float32)


def windows_of(seed: int, spec: Spec, lengths: list[int], length: int, first: int = 0) -> Window:
    """Random windows of which the first `lengths` steps are valid, the rest zeros; they begin at timestep `first`."""
    rng, size = np.random.default_rng(seed), len(lengths)
    mask = np.arange(length) < np.array(lengths)[:, None]
    actions = actions_of(spec, rng, size, length)
    before = np.concatenate([actions_of(spec, rng, size, 1), actions[:, :-1]], axis=1)
    timesteps = np.broadcast_to(np.arange(first, first + length), mask.shape)
    before[timesteps == 0] = 0
    fields = (
        rng.normal(size=(size, length, spec.observation_size)).astype(np.float32),
        actions,
        before,
        rng.normal(size=(size, length)).astype(np.float32) * 3,
        timesteps.astype(np.int32),
    )
    cut = (np.where(mask.reshape(*mask.shape, *(1,) * (field.ndim - 2)), field, 0) for field in fields)
    return Window(*map(jnp.asarray, cut), jnp.asarray(mask))


def episode_of(seed: int, spec: Spec, length: int) -> Step:
    """What an environment shows a policy over one episode, `[length, ...]`, whatever the policy asked for."""
    rng = np.random.default_rng(seed)
    executed = actions_of(spec, rng, length).reshape(length, -1).astype(np.float32)
    reward = rng.normal(size=length).astype(np.float32)
    executed[0] = reward[0] = 0
    observations = rng.normal(size=(length, spec.observation_size)).astype(np.float32)
    return Step(*map(jnp.asarray, (observations, reward, executed, np.arange(length) == 0)))


@jax.jit
def acted(policy: Policy[Any], episode: Step, command: Any = ()) -> jax.Array:
    """The greedy actions of a policy that decides at every step of an episode, `[length, act]`."""

    def turn(state: Any, step: Step) -> tuple[Any, jax.Array]:
        actions, state = policy.decide(policy.observe(state, step), None, 1)
        return state, actions[0]

    return jax.lax.scan(turn, policy.init_state(command), episode)[1]


def target_returns_to_go(target: float, episode: Step, gamma: float) -> np.ndarray:
    """The return-to-go at each step: what was asked for less what was earned, one step nearer."""
    found = [target]
    for reward in np.asarray(episode.reward, np.float64)[1:]:
        found.append((found[-1] - reward) / gamma)
    return np.array(found)

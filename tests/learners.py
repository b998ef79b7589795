"""What the tests of algorithms share: transitions of no particular world, and what differs between two learners."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from legato.data.replay import Transition
from legato.data.spec import Spec


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
    return jax.tree.map(lambda leaf: 1.05 * leaf + 0.02, tree)


def close(one: Any, other: Any, atol: float) -> None:
    """Assert that two pytrees hold nearly the same numbers."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol, rtol=atol), one, other)


def double(tree: Any) -> Any:
    """The same pytree in double precision (within the fixture `x64`)."""
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float64)) if is_float(leaf) else leaf, tree)


def is_float(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)

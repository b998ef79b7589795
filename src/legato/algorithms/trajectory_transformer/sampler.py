"""Trajectories sampled from a Trajectory Transformer's model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from legato.algorithms.trajectory_transformer.config import TT as Config
from legato.algorithms.trajectory_transformer.trajectory_transformer import Planning
from legato.data.masking import Mask
from legato.data.tokens import Discretiser
from legato.errors import LegatoError
from legato.models.trajectory import TrajectoryModel
from legato.planning.imagine import imagine

TOGETHER = 50  # trajectories per compiled call


def trajectories(config: Config, policy: Planning) -> Sampler:
    """The policy's model. Raises `LegatoError` for one that reads goals."""
    if policy.network.goal is not None:
        raise LegatoError("a model with goals predicts only with one: choose a run without goals")
    return Sampler(policy.network, policy.observed)


@dataclass(frozen=True)
class Sampler:
    """Samples trajectories (see `protocol.TrajectorySampler`)."""

    network: TrajectoryModel
    observed: Discretiser

    @property
    def window(self) -> int:
        return self.network.window

    def __call__(
        self,
        starts: Float32[np.ndarray, "starts obs"],
        samples: int,
        steps: int,
        *,
        context: int | None = None,
        seed: int = 0,
        mask: Mask | None = None,
        on_samples: Callable[[int], None] = lambda done: None,
    ) -> Float32[np.ndarray, "samples steps obs"]:
        """With a `mask` starts are hidden too, and sampled marks are missing numbers."""
        context = self.window if context is None else context
        past = jnp.zeros((TOGETHER, context - 1, self.network.layout.width), jnp.int32)
        sample = jax.jit(partial(imagine, horizon=steps + 1))
        rng, found = np.random.default_rng(seed), []
        for first in range(0, samples, TOGETHER):
            index = first + np.arange(TOGETHER)
            keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))(jnp.asarray(index))
            begun = jnp.asarray(starts[index % len(starts)])
            if mask is not None:
                begun = jax.vmap(lambda s, key: mask.hide(s, jax.random.fold_in(key, steps + 1)))(begun, keys)
            newest = self.observed.encode(begun)
            tokens = sample(self.network, past, jnp.asarray(0), newest, keys)[:, 1:, : newest.shape[-1]]
            found.append(_numbers(self.observed, tokens, mask, rng))
            on_samples(min(first + TOGETHER, samples))
        return np.concatenate(found)[:samples]


def _numbers(
    observed: Discretiser, tokens: Array, mask: Mask | None, rng: np.random.Generator
) -> Float32[np.ndarray, "samples steps obs"]:
    """A number of each token's bin, all of the bin as likely; NaN for stops and for marks."""
    found, edges = np.asarray(tokens), np.asarray(observed.edges)
    at, column = np.clip(found, 0, observed.bins - 1), np.arange(found.shape[-1])
    low, high = edges[column, at], edges[column, at + 1]
    numbers = (low + (high - low) * rng.random(found.shape)).astype(np.float32)
    gone = found >= observed.bins
    if mask is not None:
        gone |= np.asarray(mask.missing(observed.decode(tokens)))
    return np.where(gone, np.nan, numbers)

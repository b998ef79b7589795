"""Who predicts: a model of trajectories, an ensemble of the dynamics beside it, and the data itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from legato.algorithms.protocol import TrajectorySampler
from legato.data.masking import Mask
from legato.data.spec import Spec
from legato.data.trajectories import Trajectories
from legato.errors import LegatoError
from legato.evaluation.prediction.likelihood_curve import Samples, references
from legato.models import ensemble
from legato.models.ensemble import Ensemble


def of_model(
    sampler: TrajectorySampler,
    starts: Float32[np.ndarray, "starts obs"],
    samples: int,
    steps: int,
    *,
    context: int | None = None,
    seed: int = 0,
    mask: Mask | None = None,
    on_samples: Callable[[int], None] = lambda done: None,
) -> Samples:
    """Sampled trajectories of a model; sample i begins at start i, round and round.

    `context` steps are read, the one being written included: by default all that the model was made to read, and 2
    for a Markovian one. With a `mask` starts are hidden too, and sampled marks are missing numbers. Raises
    `LegatoError` for a context that the model cannot read.
    """
    if context is not None and not 2 <= context <= sampler.window:
        raise LegatoError(f"the model reads 2 to {sampler.window} steps; a context of {context} was given")
    options = {"context": context, "seed": seed, "mask": mask, "on_samples": on_samples}
    return Samples(sampler(starts, samples, steps, **options))


@dataclass(frozen=True)
class EnsembleBaseline:
    """A probabilistic ensemble of the dynamics, and one of what the data's policy did: together they predict alone,
    as the transformer does."""

    dynamics: Ensemble
    behaviour: Ensemble
    spec: Spec
    mask: Mask | None = None


def fit_baseline(
    data: Trajectories,
    spec: Spec,
    *,
    updates: int = 12_000,
    hidden: tuple[int, ...] = (200, 200, 200, 200),
    seed: int = 0,
    mask: Mask | None = None,
    on_updates: Callable[[int], None] = lambda done: None,
) -> EnsembleBaseline:
    """Fit both on the data; the behaviour takes as many updates again. Of hidden data, they are told by the `mask`
    which numbers are missing, and learn from those that are not."""
    k_dynamics, k_behaviour = jax.random.split(jax.random.key(seed))
    x, y = ensemble.transitions(data, mask=mask)
    dynamics, _ = ensemble.fit(x, y, hidden=hidden, updates=updates, key=k_dynamics, on_updates=on_updates)
    s = np.asarray(data.observations, np.float32)
    s = s if mask is None else np.asarray(mask.read(jnp.asarray(s)))
    behaviour, _ = ensemble.fit(
        s,
        np.asarray(data.actions, np.float32),
        hidden=hidden,
        updates=updates,
        key=k_behaviour,
        on_updates=lambda done: on_updates(updates + done),
    )
    return EnsembleBaseline(dynamics, behaviour, spec, mask)


def of_ensemble(
    baseline: EnsembleBaseline,
    starts: Float32[np.ndarray, "starts obs"],
    samples: int,
    steps: int,
    *,
    seed: int = 0,
    mixed: bool = False,
    actions: Float32[np.ndarray, "starts steps act"] | None = None,
) -> Samples:
    """Sampled roll-outs of the ensemble; sample i begins at start i, round and round.

    Each keeps its member, or draws one at every step where they are `mixed`. What is done is drawn from the fitted
    behaviour or, where they are given, the `actions` that were done after each start.
    """
    index = np.arange(samples) % len(starts)
    given = None if actions is None else jnp.asarray(actions[index])
    low, high = jnp.asarray(baseline.spec.low), jnp.asarray(baseline.spec.high)

    @jax.jit
    def run(dynamics: Ensemble, behaviour: Ensemble, s: Array, key: Array) -> Array:
        k_member, k_run = jax.random.split(key)
        member = ensemble.draw_members(behaviour, samples, k_member)

        def act(seen: Array, t: Array, key: Array) -> Array:
            if given is not None:
                return given[:, t]
            x = seen if baseline.mask is None else baseline.mask.read(seen)
            return jnp.clip(ensemble.sample(behaviour, x, member, key), low, high)

        return ensemble.unroll(dynamics, act, s, steps, k_run, mixed=mixed, mask=baseline.mask)

    return Samples(
        np.asarray(run(baseline.dynamics, baseline.behaviour, jnp.asarray(starts[index]), jax.random.key(seed)))
    )


def of_data(data: Trajectories, steps: int, samples: int) -> Samples:
    """The data's own episodes in the place of samples: what a perfect model of as many samples would come to.

    Fewer where there are fewer that are so long.
    """
    return Samples(references(data, steps, samples)[:, 1:])

"""The units in which SAC counts: those of the newest data, to which its networks are converted whenever they change."""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from legato.algorithms import soft_actor_critic
from legato.data import normaliser
from legato.data.normaliser import Normaliser
from legato.data.spec import Spec
from legato.nn.distributions import TanhNormal
from legato.nn.ensembles import TwinCritic
from legato.nn.mlp import Linear


class NormalisedActor(eqx.Module):
    """An actor that reads observations in units of the data."""

    actor: soft_actor_critic.Actor
    observation: Normaliser

    def __call__(self, s: Float[Array, "*batch obs"]) -> TanhNormal:
        return self.actor(self.observation(s))

    @property
    def spec(self) -> Spec:
        """In which actions are."""
        return self.actor.spec


class Units(eqx.Module):
    """What SAC counts in."""

    observation: Normaliser
    reward: Float[Array, ""]


@partial(jax.jit, static_argnums=0)
def measure_units(
    steps: int,
    s: Float[Array, "capacity obs"],
    r: Float[Array, " capacity"],
    count: Int[Array, ""],
    newest: Int[Array, ""],
) -> Units:
    """Mean and deviation of the newest observations, and the deviation of their rewards; that of a constant is 1."""
    age = (newest - jnp.arange(len(s))) % len(s)
    newer = (age < jnp.minimum(count, steps))[:, None]
    return Units(normaliser.of_some(s, newer), normaliser.of_some(r[:, None], newer).deviation[0])


@jax.jit
def change_units(sac: soft_actor_critic.Learner, old: Units, new: Units) -> soft_actor_critic.Learner:
    """The same policy, values and temperature, by networks that read and write in other units.

    As van Hasselt et al. 2016 (arXiv 1602.07714) keep what a network says while its targets are normalised anew. The
    optimisers' moments stay as they are.
    """
    scale = new.observation.deviation / old.observation.deviation
    shift = (new.observation.mean - old.observation.mean) / old.observation.deviation
    worth = old.reward / new.reward

    def reading(layer: Linear) -> Linear:
        seen, rest = jnp.split(layer.weight, (len(scale),), axis=-2)
        bias = layer.bias + jnp.einsum("i,...io->...o", shift, seen)
        return eqx.tree_at(
            lambda part: (part.weight, part.bias),
            layer,
            (jnp.concatenate([scale[:, None] * seen, rest], axis=-2), bias),
        )

    def valuing(critic: TwinCritic) -> TwinCritic:
        first, last = critic.q.layers[0], critic.q.layers[-1]
        last = jax.tree.map(lambda leaf: worth * leaf, last)
        return eqx.tree_at(lambda c: (c.q.layers[0], c.q.layers[-1]), critic, (reading(first), last))

    return eqx.tree_at(
        lambda part: (part.actor.l1, part.critic, part.target_critic, part.log_alpha, part.alpha),
        sac,
        (
            reading(sac.actor.l1),
            valuing(sac.critic),
            valuing(sac.target_critic),
            sac.log_alpha + jnp.log(worth),
            sac.alpha * worth,
        ),
    )

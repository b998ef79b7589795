"""Planning with what an actor was taught by: a model of the environment and critics of primitive steps.

    z_0 = s,  z_{k+1} = m(z_k, a_k),   J(a_0 ... a_{H-1}) = sum_k min_i Q_i(z_k, a_k)

which is what temporal recall teaches SRL's actor to write (`srl`, with alpha = 0), looked for anew at every
decision instead. `Shooting` says how; without it nothing is looked for: the actor decides step by step in imagined
states, the online planning that Patel & Siegelmann (arXiv 2410.08979) compare with, in its most natural reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from legato.algorithms.action_sequence import ActionSequence
from legato.algorithms.model_planner import ModelPlanner, read_search
from legato.algorithms.protocol import Parts
from legato.algorithms.srl.config import PLANNERS, SRL
from legato.data.spec import Spec
from legato.models import dynamics
from legato.models.dynamics import Dynamics
from legato.nn.ensembles import TwinCritic
from legato.nn.mlp import MLP


class SRLModel(eqx.Module):
    """What SRL plans in (see `model_planner.PlanningModel`)."""

    actor: Any
    """`greedy(s, a_prev, length)`, of which the first action is used; model and critics read actions as its `spec` has
    them"""
    critic: TwinCritic
    model: Dynamics
    encoder: MLP | None = None
    """of observations into the state that actor, critics and model work in; None where that is the observation"""
    indexed_steps: int = eqx.field(static=True, default=0)
    """J, for critics that read an action's place in a plan, in units of J, beside the state"""

    @property
    def spec(self) -> Spec:
        """In which actions are."""
        return self.actor.spec

    @property
    def judges(self) -> tuple[Dynamics, TwinCritic]:
        """The networks that are asked along every sequence."""
        return self.model, self.critic

    def encode(self, observation: Float[Array, " obs"]) -> Float[Array, " state"]:
        """The state that an observation stands for."""
        return observation if self.encoder is None else self.encoder(observation)

    def act(
        self, z: Float[Array, " state"], a_prev: Float[Array, " act"], noise: Float[Array, " act"] | None
    ) -> Float[Array, " act"]:
        """The first action of the actor's plan."""
        return self.actor.greedy(z, a_prev, 1)[0] if noise is None else self.actor.sample(z, a_prev, noise[None])[0][0]

    def step(self, z: Float[Array, " state"], a: Float[Array, " act"]) -> Float[Array, " state"]:
        """m(z, a)."""
        return self.model(z, a)

    def value(self, z: Float[Array, " state"], actions: Float[Array, "horizon act"]) -> Float[Array, ""]:
        """J."""
        z = dynamics.unroll(self.model, z, actions)
        if self.indexed_steps:
            k = jnp.minimum(jnp.arange(len(actions)), self.indexed_steps - 1) / self.indexed_steps
            z = jnp.concatenate([z, k[:, None]], axis=-1)
        return jnp.minimum(*self.critic(z, actions)).sum()  # all steps at once: one product per layer


def compose(config: SRL, policy: ActionSequence, options: Mapping[str, Any], parts: Parts) -> tuple[SRL, ModelPlanner]:
    """The actor with a planner over its run's model and critics.

    Raises `LegatoError` for options that are none or make no sense, and for a critic.
    """
    how, learner = read_search("srl", options, parts, PLANNERS), parts.learner()
    indexed_steps = 0 if config.critic == "one_step" else config.horizon
    model = SRLModel(policy.actor, learner.critic, learner.model, learner.encoder, indexed_steps)
    found = ModelPlanner(model, policy.spec, how)
    found.check()
    return config, found

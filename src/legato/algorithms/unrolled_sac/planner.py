"""Planning with what unrolled SAC has learnt: its actor, its models and its critics.

    J(a_0 ... a_{H-1}) = sum_k min_i Q_i(z_k, a_k),     z_{k+1} = mean_e mbar_e(z_k, a_k)

as with SRL (`srl.planner`): there is no model of rewards. Unrolled, nothing is looked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from legato.algorithms.action_sequence import ActionSequence
from legato.algorithms.model_planner import ModelPlanner, read_search
from legato.algorithms.protocol import Parts
from legato.algorithms.unrolled_sac.config import PLANNERS, UnrolledSAC
from legato.data.spec import Spec
from legato.models.dynamics import Dynamics, mean_prediction
from legato.nn.ensembles import TwinCritic


class UnrolledModel(eqx.Module):
    """What unrolled SAC plans in (see `model_planner.PlanningModel`)."""

    actor: Any
    """pi"""
    models: Dynamics
    """stacked"""
    critic: TwinCritic | None = None
    """for a search"""

    @property
    def spec(self) -> Spec:
        """In which actions are."""
        return self.actor.spec

    @property
    def judges(self) -> tuple[Dynamics, TwinCritic | None]:
        """The networks that are asked along every sequence."""
        return self.models, self.critic

    def encode(self, observation: Float[Array, " obs"]) -> Float[Array, " obs"]:
        """The observation itself."""
        return observation

    def act(
        self, z: Float[Array, " obs"], a_prev: Float[Array, " act"], noise: Float[Array, " act"] | None
    ) -> Float[Array, " act"]:
        """The mode of pi(z), or what the noise selects."""
        pi = self.actor(z)
        return pi.mode() if noise is None else pi.sample(noise)[0]

    def step(self, z: Float[Array, " obs"], a: Float[Array, " act"]) -> Float[Array, " obs"]:
        """The mean of the models' predictions."""
        return mean_prediction(self.models, z, a)

    def value(self, z: Float[Array, " obs"], actions: Float[Array, "horizon act"]) -> Float[Array, ""]:
        """J."""

        def turn(z: Array, a: Array) -> tuple[Array, Array]:
            return self.step(z, a), z

        assert self.critic is not None
        states = jax.lax.scan(turn, z, actions)[1]
        return jnp.minimum(*self.critic(states, actions)).sum()


def compose(
    config: UnrolledSAC, policy: ModelPlanner | ActionSequence, options: Mapping[str, Any], parts: Parts
) -> tuple[UnrolledSAC, ModelPlanner]:
    """The actor with a planner over its run's models and critics.

    Raises `LegatoError` for options that are none or make no sense, and for a critic.
    """
    how, learner = read_search("usac", options, parts, PLANNERS), parts.learner()
    model = UnrolledModel(learner.sac.actor, learner.target_models, learner.sac.critic)
    found = ModelPlanner(model, policy.spec, how)
    found.check()
    return config, found

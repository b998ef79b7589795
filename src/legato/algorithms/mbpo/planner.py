"""Planning in the ensemble of a run, with the actor and the critics that learnt beside it.

    z_0 = s,  z_{k+1} = the mean of the elites' means of s' in (z_k, a_k)
    J(a_0 ... a_{H-1}) = sum_k gamma^k c_k r_k + gamma^H c_H min_i Q_i(z_H, pi(z_H)),   c_k = product of continuations

with rewards in SAC's units and H the horizon of `Shooting`: the return of a short plan, with what the critics expect
after it (as in TD-MPC, Hansen et al. 2022, arXiv 2203.04955). A state is an observation and the model's memory in it;
that of a recurrent model (`model=convlstm`) begins anew with every decision, from the newest observation alone.
Without `Shooting` nothing is looked for: the actor
decides step by step in imagined states.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from legato.algorithms.mbpo.config import PLANNERS, ModelBased
from legato.algorithms.mbpo.units import NormalisedActor, Units
from legato.algorithms.model_planner import ModelPlanner, read_search
from legato.algorithms.protocol import Parts
from legato.algorithms.soft_actor_critic import HeldAction
from legato.data.spec import Spec
from legato.errors import LegatoError
from legato.models.environment_model import EnvironmentModel
from legato.nn.ensembles import TwinCritic

Config = TypeVar("Config", bound=ModelBased)
State = tuple[Float[Array, " obs"], Any]
"""an observation, and the model's memory in it"""


class EnsembleModel(eqx.Module):
    """What MBPO, CMLO and MOPO plan in (see `model_planner.PlanningModel`)."""

    actor: NormalisedActor
    critic: TwinCritic
    model: EnvironmentModel
    units: Units
    """what the critics count in"""
    gamma: float = eqx.field(static=True)

    @property
    def spec(self) -> Spec:
        """In which actions are."""
        return self.actor.spec

    @property
    def judges(self) -> tuple[EnvironmentModel, TwinCritic]:
        """The networks that are asked along every sequence."""
        return self.model, self.critic

    def encode(self, observation: Float[Array, " obs"]) -> State:
        """The observation itself, and the model's memory where nothing was seen before."""
        return observation, self.model.recall(observation)

    def act(self, z: State, a_prev: Float[Array, " act"], noise: Float[Array, " act"] | None) -> Float[Array, " act"]:
        """The mode of pi(z), or what the noise selects."""
        pi = self.actor(z[0])
        return pi.mode() if noise is None else pi.sample(noise)[0]

    def step(self, z: State, a: Float[Array, " act"]) -> State:
        """The mean next observation."""
        s, _, _, memory = self.model.mean_step(z[0], a, z[1])
        return s, memory

    def value(self, z: State, actions: Float[Array, "horizon act"]) -> Float[Array, ""]:
        """J."""

        def turn(carry: tuple[State, Array], a: Array) -> tuple[tuple[State, Array], Array]:
            (s, memory), share = carry  # gamma^k c_k
            s, r, goes_on, memory = self.model.mean_step(s, a, memory)
            return ((s, memory), self.gamma * share * goes_on), share * r

        ((s, _), share), rewards = jax.lax.scan(turn, (z, jnp.ones(())), actions)
        q = jnp.minimum(*self.critic(self.units.observation(s), self.actor(s).mode()))
        return rewards.sum() / self.units.reward + share * q


def compose(
    config: Config, policy: HeldAction, options: Mapping[str, Any], parts: Parts
) -> tuple[Config, ModelPlanner]:
    """The actor with a planner over its run's model and critics.

    Raises `LegatoError` for options that are none or make no sense, for a critic, and for a run without a model.
    """
    how = read_search(type(config).__name__.lower(), options, parts, PLANNERS)
    learner = parts.learner()
    if float(learner.report["refits"]) == 0:
        raise LegatoError("no model to plan in: none was fitted in this run (`real_share=1`, or too few steps)")
    model = EnsembleModel(policy.actor, learner.sac.critic, learner.model, learner.units, config.gamma)
    found = ModelPlanner(model, policy.spec, how)
    found.check()
    return config, found

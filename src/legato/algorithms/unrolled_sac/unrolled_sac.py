"""Unrolled soft actor-critic: SAC whose plans are its own decisions in predicted states.

A policy that is asked at every step loses nothing by being asked rarely, where the environment is deterministic and
its model exact: the actions that it would decide on can be computed in advance. A plan is

    z_0 = s,   a_k ~ pi(z_k)  (its mode when acting greedily),   z_{k+1} = mean_e mbar_e(z_k, a_k)

with mbar_e, e = 1 ... E, the Polyak averages of models that each learn from stretches of their own to predict K steps
ahead from their own predictions,

    L_m  = sum_{k < K} |(z_{k+1} - s_{k+1}) / unit|^2 / K,    z_0 = s_0,  z_{k+1} = m_e(z_k, a_k)

in units of how much observations usually change. Actor, critics and temperature learn as in `soft_actor_critic`, from
transitions that such plans collected.
"""

from __future__ import annotations

from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from legato.algorithms import soft_actor_critic
from legato.algorithms.action_sequence import ActionSequence
from legato.algorithms.action_sequence import Actor as WrittenActor
from legato.algorithms.model_planner import ModelPlanner
from legato.algorithms.soft_actor_critic import Actor, Losses
from legato.algorithms.unrolled_sac.config import UnrolledSAC as Config
from legato.algorithms.unrolled_sac.planner import UnrolledModel
from legato.data.replay import ReplayBatchSpec, Sequences, Transition, as_sequences, first_steps, scale_actions
from legato.data.spec import Spec
from legato.losses import soft
from legato.losses.temporal_difference import n_step_transition, td_target, twin_loss
from legato.models import dynamics
from legato.models.dynamics import Dynamics
from legato.nn.ensembles import TwinCritic
from legato.nn.optimisation import descend, linear_decay, optax, polyak
from legato.policy import Policy, RandomPlans

Metrics = dict[str, Float[Array, ""]]
Batch = tuple[Transition | Sequences, Transition | Sequences]


class Learner(eqx.Module):
    """Everything unrolled SAC carries while training."""

    sac: soft_actor_critic.Learner
    models: Dynamics  # stacked
    target_models: Dynamics
    model_optimiser: optax.OptState
    writer: WrittenActor | None = None
    """with `policy=written`"""

    @property
    def spec(self) -> Spec:
        """The environment's."""
        return self.sac.spec


def init(config: Config, spec: Spec, key: PRNGKeyArray) -> Learner:
    """A learner before its first update."""
    k_actor, k_critic, k_models, k_writer = jax.random.split(key, 4)
    o, a = spec.observation_size, spec.action_size
    critic = TwinCritic(o, a, (config.hidden, config.hidden), norm=config.critic_norm, key=k_critic)
    models = _models(config, spec, k_models)
    return Learner(
        sac=soft_actor_critic.init(_actor(config, spec, k_actor), critic, spec, config.learning_rate),
        models=models,
        target_models=jax.tree.map(jnp.copy, models),
        model_optimiser=optax.adam(config.learning_rate).init(cast(Any, models)),
        writer=_writer(config, spec, k_writer) if config.policy == "written" else None,
    )


def _actor(config: Config, spec: Spec, key: PRNGKeyArray) -> Actor:
    return Actor(spec.with_unit_bounds(), config.hidden, key=key)


def _models(config: Config, spec: Spec, key: PRNGKeyArray) -> Dynamics:
    o, a = spec.observation_size, spec.action_size
    one = lambda k: Dynamics(o, a, config.model_hidden, differences=True, key=k)  # noqa: E731
    return jax.vmap(one)(jax.random.split(key, config.members))


def _writer(config: Config, spec: Spec, key: PRNGKeyArray) -> WrittenActor:
    return WrittenActor(spec.with_unit_bounds(), spec.observation_size, config.hidden, key=key)


def update(config: Config, learner: Learner, batch: Batch, key: PRNGKeyArray) -> tuple[Learner, Metrics]:
    """One gradient step of critics, actor, temperature and models, and one Polyak step of critics and models."""
    batch_q, batch_m = (scale_actions(each, learner.spec) for each in batch)
    k_sac, k_ahead = jax.random.split(key)
    y = targets(config, learner.sac, batch_q, k_ahead)
    here = first_steps(batch_q)

    def critic_loss(critic: Any, *_: Any) -> tuple[Array, Array]:
        q = critic(here.observation, here.action)
        return twin_loss(q, y), q[0].mean()

    losses, entropy = Losses(critic_loss, soft.actor_loss), -learner.spec.action_size
    sac, metrics = soft_actor_critic.update(config, learner.sac, here, k_sac, target_entropy=entropy, losses=losses)

    rate = linear_decay(config.learning_rate, config.anneal_over, learner.sac.updates)
    shared = first_steps(batch_m)
    models = jax.vmap(lambda m: m.update_delta_scale(shared.observation, shared.next_observation, sac.updates - 1))(
        learner.models
    )
    loss_m, g = jax.value_and_grad(model_loss)(models, config, as_sequences(batch_m))
    models, model_optimiser = descend(optax.adam(rate), models, g, learner.model_optimiser)
    metrics["model_loss"] = loss_m
    target_models = polyak(learner.target_models, models, config.tau)
    return Learner(sac, models, target_models, model_optimiser, learner.writer), metrics


def targets(
    config: Config, sac: soft_actor_critic.Learner, batch: Transition | Sequences, key: PRNGKeyArray
) -> Float[Array, " batch"]:
    """y of the critics, of `n_step` steps or as many as the episode had left."""
    rewards, discount, last = n_step_transition(as_sequences(batch), config.gamma)
    a, log_pi = sac.actor(last.next_observation).sample(jax.random.normal(key, last.action.shape))
    v = soft.state_value(sac.target_critic(last.next_observation, a), log_pi, sac.alpha)
    return td_target(rewards, last.continues, discount, v)


def model_loss(models: Dynamics, config: Config, batch: Sequences) -> Float[Array, ""]:
    """The sum of the members' L_m, each on its own part of the stretches."""

    def dealt(leaf: Array) -> Array:  # [K, members * batch, ...] -> [members, K, batch, ...]
        each = leaf.shape[1] // config.members
        parts = leaf[:, : each * config.members].reshape(len(leaf), config.members, each, *leaf.shape[2:])
        return jnp.moveaxis(parts, 1, 0)

    def one(model: Dynamics, part: Sequences) -> Array:
        s, ahead = part.steps.observation[0], part.steps.next_observation
        return dynamics.multi_step_loss(model, s, part.steps.action, ahead, part.valid, config.model_decay)

    return jax.vmap(one)(models, jax.tree.map(dealt, batch)).sum()


def policy(config: Config, learner: Learner) -> ModelPlanner | ActionSequence:
    """The deployable part: the actor and the models that it is asked in, or what writes its plans alone."""
    return planned(learner) if learner.writer is None else ActionSequence(learner.writer, learner.spec)


def planned(learner: Learner) -> ModelPlanner:
    """The actor and the models that it is asked in."""
    return ModelPlanner(UnrolledModel(learner.sac.actor, learner.target_models), learner.spec, None)


def new_policy(config: Config, spec: Spec, key: PRNGKeyArray) -> ModelPlanner | ActionSequence:
    """`policy` of what `init` gives, without what only learns."""
    k_actor, _, k_models, k_writer = jax.random.split(key, 4)
    if config.policy == "written":
        return ActionSequence(_writer(config, spec, k_writer), spec)
    return ModelPlanner(UnrolledModel(_actor(config, spec, k_actor), _models(config, spec, k_models)), spec, None)


def batches(config: Config) -> ReplayBatchSpec:
    """Two independent minibatches per update: one for actor and critics, one for the models."""
    return ReplayBatchSpec(config.batch_size, (config.n_step, config.model_steps))


def plan_length(config: Config) -> int:
    """Primitive steps that a plan is made for: J."""
    return config.horizon


def collect_interval(config: Config) -> int | tuple[int, int]:
    """Primitive steps between decisions while collecting, or the least and the most of a random number of them."""
    return (1, config.horizon) if config.execute == -1 else config.execute or config.horizon


def explorer(config: Config, learner: Learner, spec: Spec, step: int, random: bool) -> Policy[Any]:
    """What collects: at first random actions, each drawn anew, then the policy."""
    policies = planned(learner)
    return RandomPlans(policies, spec, hold=False) if random else policies

"""Soft actor-critic (Haarnoja et al., arXiv 1812.05905), and SAC-J: SAC whose actions are held for J primitive steps.

    y    = r + m gamma (min_i Qbar_i(s', a') - alpha log pi(a'|s')),   a' ~ pi(s')
    L_Q  = MSE(Q_1(s, a), y) + MSE(Q_2(s, a), y)
    L_pi = mean(alpha log pi(a~|s) - min_i Q_i(s, a~)),                a~ ~ pi(s), reparameterised
    L_al = -log alpha * mean(log pi + H),                              H = -|A|

As in Patel & Siegelmann (arXiv 2410.08979), whose rival this is, alpha is 0.2 for the first update and exp(log alpha)
afterwards. Actions, and so densities and H, are in units of their bounds, [-1, 1]: what is learnt does not depend on
the unit in which an environment counts. `action_units = "environment"` is the published form. For choices see
`discrete`. Where observations are images, actor and critics have an encoder each.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
from jaxtyping import PRNGKeyArray

from legato.algorithms import soft_actor_critic
from legato.algorithms.action_units import warn_of_units
from legato.algorithms.sac import discrete
from legato.algorithms.sac.config import SAC as Config
from legato.algorithms.soft_actor_critic import Actor, HeldAction, Learner, Metrics, critic_loss
from legato.data.replay import ReplayBatchSpec, Transition, scale_actions
from legato.data.spec import Spec
from legato.losses.soft import actor_loss
from legato.models.image_network import with_encoder
from legato.nn.ensembles import TwinCritic

__all__ = [
    "Actor",
    "Config",
    "HeldAction",
    "Learner",
    "actor_loss",
    "batches",
    "check",
    "critic_loss",
    "init",
    "new_policy",
    "plan_length",
    "policy",
    "update",
]


def check(config: Config, spec: Spec, environment: str) -> None:
    """Warns of units in which the published form learns badly."""
    if spec.choices is None and config.action_units == "environment":
        warn_of_units(spec, environment)


def init(config: Config, spec: Spec, key: PRNGKeyArray) -> Learner:
    """A learner before its first update."""
    k_actor, k_critic = jax.random.split(key)
    actor = with_encoder(partial(_actor, config), spec, key=k_actor)
    critic = with_encoder(partial(_critic, config), spec, key=k_critic)
    return soft_actor_critic.init(actor, critic, spec, config.learning_rate)


def _actor(config: Config, spec: Spec, *, key: PRNGKeyArray) -> Any:
    if spec.choices is not None:
        return discrete.Actor(spec, config.hidden, key=key)
    return Actor(spec.with_unit_bounds() if config.action_units == "bounds" else spec, config.hidden, key=key)


def _critic(config: Config, spec: Spec, *, key: PRNGKeyArray) -> Any:
    if spec.choices is not None:
        return discrete.Critics(spec, config.hidden, key=key)
    return TwinCritic(spec.observation_size, spec.action_size, (config.hidden, config.hidden), key=key)


def update(config: Config, learner: Learner, batch: tuple[Transition], key: PRNGKeyArray) -> tuple[Learner, Metrics]:
    """One gradient step of critics, actor and temperature, and one Polyak step of the target critics."""
    (batch_t,) = batch
    if learner.spec.choices is not None:
        entropy = config.entropy_share * math.log(learner.spec.choices)
        losses = discrete.LOSSES
        return soft_actor_critic.update(config, learner, batch_t, key, target_entropy=entropy, losses=losses)
    if config.action_units == "bounds":
        batch_t = scale_actions(batch_t, learner.spec)
    return soft_actor_critic.update(config, learner, batch_t, key, target_entropy=-learner.spec.action_size)


def policy(config: Config, learner: Learner) -> HeldAction | discrete.HeldChoice:
    """The deployable part: the actor alone."""
    return _held(learner.actor, learner.spec)


def new_policy(config: Config, spec: Spec, key: PRNGKeyArray) -> HeldAction | discrete.HeldChoice:
    """`policy` of what `init` gives, without what only learns."""
    return _held(with_encoder(partial(_actor, config), spec, key=jax.random.split(key)[0]), spec)


def _held(actor: Any, spec: Spec) -> HeldAction | discrete.HeldChoice:
    return HeldAction(actor, spec) if spec.choices is None else discrete.HeldChoice(actor, spec)


def batches(config: Config) -> ReplayBatchSpec:
    """One minibatch per update; of decisions instead of steps in the paper's SAC-J accounting."""
    return ReplayBatchSpec(config.batch_size, per_decision=config.updates == "decision")


def plan_length(config: Config) -> int:
    """Primitive steps between decisions while training."""
    return config.action_repeat

"""Twin delayed deep deterministic policy gradients, TD3 (Fujimoto, van Hoof & Meger 2018, arXiv 1802.09477).

a'   = clip(mu'(s') + clip(eps, -c, c))               eps ~ N(0, smoothing^2), in units of the bounds
y    = r + m gamma min_i Q'_i(s', a')                 m: 0 where the environment ended the episode
L_Q  = MSE(Q_1(s, a), y) + MSE(Q_2(s, a), y)
L_mu = -mean Q_1(s, mu(s))                            every second update, and with it a step of all targets

Critics read actions in units of their bounds, [-1, 1]; with `action_units = "environment"` in the environment's, as
published. Learner and update are those of `deterministic_actor_critic`.
"""

from __future__ import annotations

from jaxtyping import PRNGKeyArray

from legato.algorithms import deterministic_actor_critic
from legato.algorithms.action_units import warn_of_units
from legato.algorithms.deterministic_actor_critic import (
    Actor,
    HeldAction,
    Learner,
    Metrics,
    actor_loss,
    critic_loss,
    new_actor,
)
from legato.algorithms.td3.config import TD3 as Config
from legato.data.replay import ReplayBatchSpec, Transition, scale_actions
from legato.data.spec import Spec

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
    if config.action_units == "environment":
        warn_of_units(spec, environment)


def init(config: Config, spec: Spec, key: PRNGKeyArray) -> Learner:
    """A learner before its first update."""
    return deterministic_actor_critic.init(config, spec, key)


def update(config: Config, learner: Learner, batch: tuple[Transition], key: PRNGKeyArray) -> tuple[Learner, Metrics]:
    """One gradient step of the critics and, every `actor_every`-th time, of the actor, with a step of all targets."""
    (batch_t,) = batch
    if config.action_units == "bounds":
        batch_t = scale_actions(batch_t, learner.spec)
    return deterministic_actor_critic.update(config, learner, batch_t, key)


def policy(config: Config, learner: Learner) -> HeldAction:
    """The deployable part: the actor alone."""
    return HeldAction(learner.actor, config.noise, learner.spec)


def new_policy(config: Config, spec: Spec, key: PRNGKeyArray) -> HeldAction:
    """`policy` of what `init` gives, without what only learns."""
    return HeldAction(new_actor(config, spec, key), config.noise, spec)


def batches(config: Config) -> ReplayBatchSpec:
    """One minibatch per update."""
    return ReplayBatchSpec(config.batch_size)


def plan_length(config: Config) -> int:
    """Primitive steps between decisions while training."""
    return 1

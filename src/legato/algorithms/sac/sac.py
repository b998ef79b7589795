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

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from legato.algorithms.action_units import warn_of_units
from legato.algorithms.sac import discrete
from legato.algorithms.sac.config import SAC as Config
from legato.data.replay import ReplayBatchSpec, Transition, scale_actions
from legato.data.spec import Spec, convert_actions
from legato.losses import soft
from legato.models.image_network import ImageNetwork, with_encoder
from legato.nn.distributions import TanhNormal
from legato.nn.ensembles import TwinCritic
from legato.nn.mlp import Linear
from legato.nn.optimisation import descend, linear_decay, optax, polyak
from legato.policy import LastStep, Policy, Step, hold_action, refuse_command

Metrics = dict[str, Float[Array, ""]]


class Actor(eqx.Module):
    """pi(a|s): two hidden ReLU layers, a squashed Gaussian within the bounds of `spec`."""

    l1: Linear
    l2: Linear
    mean: Linear
    log_std: Linear
    spec: Spec = eqx.field(static=True)

    def __init__(self, spec: Spec, hidden: int, *, key: PRNGKeyArray):
        k1, k2, k3, k4 = jax.random.split(key, 4)
        self.l1 = Linear(spec.observation_size, hidden, key=k1)
        self.l2 = Linear(hidden, hidden, key=k2)
        self.mean = Linear(hidden, spec.action_size, key=k3)
        self.log_std = Linear(hidden, spec.action_size, key=k4)
        self.spec = spec

    def __call__(self, s: Float[Array, "*batch obs"]) -> TanhNormal:
        h = jax.nn.relu(self.l2(jax.nn.relu(self.l1(s))))
        return TanhNormal(self.mean(h), self.log_std(h), *self.spec.box())


class Learner(eqx.Module):
    """Everything SAC carries while training; where actions are choices, with the networks of `discrete`."""

    actor: Any
    critic: Any
    target_critic: Any
    log_alpha: Float[Array, ""]
    alpha: Float[Array, ""]
    optimisers: dict[str, optax.OptState]
    updates: Int[Array, ""]
    spec: Spec = eqx.field(static=True)  # of the environment


def check(config: Config, spec: Spec, environment: str) -> None:
    """Warns of units in which the published form learns badly."""
    if spec.choices is None and config.action_units == "environment":
        warn_of_units(spec, environment)


def init(config: Config, spec: Spec, key: PRNGKeyArray) -> Learner:
    """A learner before its first update."""
    k_actor, k_critic = jax.random.split(key)
    actor = with_encoder(partial(_actor, config), spec, key=k_actor)
    critic = with_encoder(partial(_critic, config), spec, key=k_critic)
    log_alpha = jnp.zeros(())
    trained = {"actor": actor, "critic": critic, "log_alpha": log_alpha}
    return Learner(
        actor=actor,
        critic=critic,
        target_critic=jax.tree.map(jnp.copy, critic),
        log_alpha=log_alpha,
        alpha=jnp.full((), 0.2, jnp.float32),
        optimisers={name: optax.adam(config.learning_rate).init(part) for name, part in trained.items()},
        updates=jnp.zeros((), jnp.int32),
        spec=spec,
    )


def _actor(config: Config, spec: Spec, *, key: PRNGKeyArray) -> Any:
    if spec.choices is not None:
        return discrete.Actor(spec, config.hidden, key=key)
    return Actor(spec.with_unit_bounds() if config.action_units == "bounds" else spec, config.hidden, key=key)


def _critic(config: Config, spec: Spec, *, key: PRNGKeyArray) -> Any:
    if spec.choices is not None:
        return discrete.Critics(spec, config.hidden, key=key)
    return TwinCritic(spec.observation_size, spec.action_size, (config.hidden, config.hidden), key=key)


def critic_loss(
    critic: TwinCritic | ImageNetwork,
    learner: Learner,
    config: Config,
    batch: Transition,
    noise: Float[Array, "batch act"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """L_Q and the mean Q_1. `noise` is standard normal and picks a'."""
    return soft.critic_loss(critic, learner.target_critic, learner.actor, learner.alpha, config.gamma, batch, noise)


def actor_loss(
    actor: Actor | ImageNetwork,
    critic: TwinCritic | ImageNetwork,
    alpha: Float[Array, ""],
    s: Float[Array, "batch obs"] | UInt8[Array, "batch obs"],
    noise: Float[Array, "batch act"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """L_pi and the mean log pi. `noise` is standard normal and picks a~."""
    return soft.actor_loss(actor, critic, alpha, s, noise)


def update(config: Config, learner: Learner, batch: tuple[Transition], key: PRNGKeyArray) -> tuple[Learner, Metrics]:
    """One gradient step of critics, actor and temperature, and one Polyak step of the target critics."""
    (batch_t,) = batch
    if learner.spec.choices is None and config.action_units == "bounds":
        batch_t = scale_actions(batch_t, learner.spec)
    adam = optax.adam(linear_decay(config.learning_rate, config.anneal_over, learner.updates))
    states = learner.optimisers
    noise_next, noise = jax.random.normal(key, (2, *batch_t.action.shape))

    of_critic, of_actor = critic_loss, actor_loss
    target_entropy: float | int = -batch_t.action.shape[-1]
    if learner.spec.choices is not None:
        of_critic, of_actor = discrete.critic_loss, discrete.actor_loss
        target_entropy = config.entropy_share * math.log(learner.spec.choices)

    (loss_q, q), g = jax.value_and_grad(of_critic, has_aux=True)(learner.critic, learner, config, batch_t, noise_next)
    critic, critic_state = descend(adam, learner.critic, g, states["critic"])

    (loss_pi, log_pi), g = jax.value_and_grad(of_actor, has_aux=True)(
        learner.actor, critic, learner.alpha, batch_t.observation, noise
    )
    actor, actor_state = descend(adam, learner.actor, g, states["actor"])

    g_alpha = soft.temperature_gradient(log_pi, target_entropy)
    log_alpha, alpha_state = descend(adam, learner.log_alpha, g_alpha, states["log_alpha"])

    metrics = {
        "critic_loss": loss_q,
        "actor_loss": loss_pi,
        "q": q,
        "entropy": -log_pi,
        "alpha": learner.alpha,
    }
    return Learner(
        actor=actor,
        critic=critic,
        target_critic=polyak(learner.target_critic, critic, config.tau),
        log_alpha=log_alpha,
        alpha=jnp.exp(log_alpha),
        optimisers={"actor": actor_state, "critic": critic_state, "log_alpha": alpha_state},
        updates=learner.updates + 1,
        spec=learner.spec,
    ), metrics


class HeldAction(Policy[LastStep]):
    """Decides one action and holds it."""

    actor: Actor | ImageNetwork
    spec: Spec = eqx.field(static=True)

    def init_state(self, command: Any) -> LastStep:
        refuse_command(command)
        return LastStep.empty(self.spec)

    def observe(self, state: LastStep, step: Step) -> LastStep:
        return LastStep.of(step)

    def decide(self, state: LastStep, key: PRNGKeyArray | None, length: int) -> tuple[Array, LastStep]:
        pi = self.actor(state.observation)
        a = pi.mode() if key is None else pi.sample(jax.random.normal(key, pi.mean.shape))[0]
        return hold_action(convert_actions(a, self.actor.spec, self.spec), length), state


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

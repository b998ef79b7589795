"""A learner of soft actor-critic and its update, for SAC itself and for what learns from other rows than it.

    y    = r + m gamma (min_i Qbar_i(s', a') - alpha log pi(a'|s')),   a' ~ pi(s')
    L_Q  = MSE(Q_1(s, a), y) + MSE(Q_2(s, a), y)
    L_pi = mean(alpha log pi(a~|s) - min_i Q_i(s, a~)),                a~ ~ pi(s), reparameterised
    L_al = -log alpha * mean(log pi + H)

(Haarnoja et al., arXiv 1812.05905.) alpha is 0.2 for the first update and exp(log alpha) afterwards. Whoever calls
`update` gives batches in the units in which it learns, and says what the losses are and how much entropy is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from legato.data.replay import Transition
from legato.data.spec import Spec, convert_actions
from legato.losses import soft
from legato.nn.distributions import TanhNormal
from legato.nn.mlp import Linear
from legato.nn.optimisation import descend, linear_decay, optax, polyak
from legato.policy import LastStep, Policy, Step, hold_action, refuse_command

Metrics = dict[str, Float[Array, ""]]


@runtime_checkable
class Options(Protocol):
    """Hyper-parameters of an update."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def anneal_over(self) -> int: ...
    @property
    def gamma(self) -> float: ...
    @property
    def tau(self) -> float: ...


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
    """Everything SAC carries while training."""

    actor: Any
    critic: Any
    target_critic: Any
    log_alpha: Float[Array, ""]
    alpha: Float[Array, ""]
    optimisers: dict[str, optax.OptState]
    updates: Int[Array, ""]
    spec: Spec = eqx.field(static=True)  # of the environment


class Losses(NamedTuple):
    """What critics and actor minimise, and beside it the mean Q_1 and the mean log pi. The noise is standard normal."""

    critic: Callable[..., Any]
    """of (critic, learner, options, batch, noise)"""
    actor: Callable[..., Any]
    """of (actor, critic, alpha, s, noise)"""


def init(actor: Any, critic: Any, spec: Spec, learning_rate: float) -> Learner:
    """A learner of these networks before its first update."""
    log_alpha = jnp.zeros(())
    trained = {"actor": actor, "critic": critic, "log_alpha": log_alpha}
    return Learner(
        actor=actor,
        critic=critic,
        target_critic=jax.tree.map(jnp.copy, critic),
        log_alpha=log_alpha,
        alpha=jnp.full((), 0.2, jnp.float32),
        optimisers={name: optax.adam(learning_rate).init(part) for name, part in trained.items()},
        updates=jnp.zeros((), jnp.int32),
        spec=spec,
    )


def critic_loss(
    critic: Any, learner: Learner, options: Options, batch: Transition, noise: Float[Array, "batch act"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """L_Q and the mean Q_1. `noise` is standard normal and picks a'."""
    return soft.critic_loss(critic, learner.target_critic, learner.actor, learner.alpha, options.gamma, batch, noise)


CONTINUOUS = Losses(critic_loss, soft.actor_loss)


def update(
    options: Options,
    learner: Learner,
    batch: Transition,
    key: PRNGKeyArray,
    *,
    target_entropy: float | int,
    losses: Losses = CONTINUOUS,
) -> tuple[Learner, Metrics]:
    """One gradient step of critics, actor and temperature, and one Polyak step of the target critics."""
    adam = optax.adam(linear_decay(options.learning_rate, options.anneal_over, learner.updates))
    states = learner.optimisers
    noise_next, noise = jax.random.normal(key, (2, *batch.action.shape))

    of_critic, of_actor = (jax.value_and_grad(loss, has_aux=True) for loss in losses)
    (loss_q, q), g = of_critic(learner.critic, learner, options, batch, noise_next)
    critic, critic_state = descend(adam, learner.critic, g, states["critic"])

    (loss_pi, log_pi), g = of_actor(learner.actor, critic, learner.alpha, batch.observation, noise)
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
        target_critic=polyak(learner.target_critic, critic, options.tau),
        log_alpha=log_alpha,
        alpha=jnp.exp(log_alpha),
        optimisers={"actor": actor_state, "critic": critic_state, "log_alpha": alpha_state},
        updates=learner.updates + 1,
        spec=learner.spec,
    ), metrics


class HeldAction(Policy[LastStep]):
    """Decides one action and holds it."""

    actor: Any
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

"""A learner of twin delayed deterministic policy gradients and its update, for TD3 itself and for what builds on it.

a'   = clip(mu'(s') + clip(eps, -c, c))               eps ~ N(0, smoothing^2), in units of the bounds
y    = r + m gamma min_i Q'_i(s', a')                 m: 0 where the environment ended the episode
L_Q  = MSE(Q_1(s, a), y) + MSE(Q_2(s, a), y)
L_mu = -mean Q_1(s, mu(s))                            every second update, and with it a step of all targets

(Fujimoto, van Hoof & Meger 2018, arXiv 1802.09477.) Critics read actions in units of their bounds, [-1, 1]; with
`action_units = "environment"` in the environment's, as published. Whoever calls `update` gives batches in these units.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from legato.data.replay import Transition
from legato.data.spec import Spec, convert_actions
from legato.losses import deterministic
from legato.nn.ensembles import TwinCritic
from legato.nn.mlp import MLP
from legato.nn.optimisation import descend, linear_decay, optax, polyak
from legato.policy import LastStep, Policy, Step, hold_action, refuse_command

Metrics = dict[str, Float[Array, ""]]


@runtime_checkable
class Options(Protocol):
    """Hyper-parameters of networks and updates."""

    @property
    def hidden(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def anneal_over(self) -> int: ...
    @property
    def gamma(self) -> float: ...
    @property
    def tau(self) -> float: ...
    @property
    def smoothing(self) -> float: ...
    @property
    def smoothing_clip(self) -> float: ...
    @property
    def actor_every(self) -> int: ...
    @property
    def action_units(self) -> str: ...


class Actor(eqx.Module):
    """mu(s): two hidden ReLU layers and a tanh, within the bounds of `spec`."""

    network: MLP
    spec: Spec = eqx.field(static=True)

    def __call__(
        self, s: Float[Array, "*batch obs"], noise: Float[Array, "*batch act"] | float = 0.0
    ) -> Float[Array, "*batch act"]:
        """The action, moved by `noise` in units of the bounds and clipped to them."""
        return self.spec.denormalise(jnp.clip(jnp.tanh(self.network(s)) + noise, -1, 1))


class Learner(eqx.Module):
    """Everything TD3 carries while training."""

    actor: Actor
    target_actor: Actor
    critic: TwinCritic
    target_critic: TwinCritic
    optimisers: dict[str, optax.OptState]
    updates: Int[Array, ""]
    spec: Spec = eqx.field(static=True)  # of the environment


def init(options: Options, spec: Spec, key: PRNGKeyArray) -> Learner:
    """A learner before its first update."""
    k_actor, k_critic = jax.random.split(key)
    hidden = (options.hidden, options.hidden)
    actor = _actor(options, spec, k_actor)
    critic = TwinCritic(spec.observation_size, spec.action_size, hidden, key=k_critic)
    return Learner(
        actor=actor,
        target_actor=jax.tree.map(jnp.copy, actor),
        critic=critic,
        target_critic=jax.tree.map(jnp.copy, critic),
        optimisers={
            name: optax.adam(options.learning_rate).init(part)
            for name, part in {"actor": actor, "critic": critic}.items()
        },
        updates=jnp.zeros((), jnp.int32),
        spec=spec,
    )


def new_actor(options: Options, spec: Spec, key: PRNGKeyArray) -> Actor:
    """The actor of what `init` gives, alone."""
    return _actor(options, spec, jax.random.split(key)[0])


def _actor(options: Options, spec: Spec, key: PRNGKeyArray) -> Actor:
    sizes = (spec.observation_size, options.hidden, options.hidden, spec.action_size)
    return Actor(MLP(sizes, key=key), learned_spec(options, spec))


def learned_spec(options: Options, spec: Spec) -> Spec:
    """The environment's spec with actions in the units in which they are learnt."""
    return spec.with_unit_bounds() if options.action_units == "bounds" else spec


def critic_loss(
    critic: TwinCritic, learner: Learner, options: Options, batch: Transition, noise: Float[Array, "batch act"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """L_Q and the mean Q_1. `noise` is standard normal and moves a'."""
    epsilon = deterministic.smoothing_noise(noise, options.smoothing, options.smoothing_clip)
    return deterministic.critic_loss(critic, learner.target_critic, learner.target_actor, options.gamma, batch, epsilon)


def actor_loss(actor: Actor, critic: TwinCritic, s: Float[Array, "batch obs"]) -> Float[Array, ""]:
    """L_mu."""
    return deterministic.actor_loss(actor, critic, s)


def target_value(learner: Learner, s: Float[Array, "*batch obs"]) -> Float[Array, "*batch"]:
    """min_i Q'_i(s, mu'(s)): what the targets say of the behaviour, without noise."""
    return jnp.minimum(*learner.target_critic(s, learner.target_actor(s)))


def update(options: Options, learner: Learner, batch: Transition, key: PRNGKeyArray) -> tuple[Learner, Metrics]:
    """One gradient step of the critics and, every `actor_every`-th time, of the actor, with a step of all targets.

    The actor's is computed every time: a condition that differs between seeds side by side saves nothing.
    """
    adam = optax.adam(linear_decay(options.learning_rate, options.anneal_over, learner.updates))
    states = learner.optimisers
    noise = jax.random.normal(key, batch.action.shape)
    (loss_q, q), g = jax.value_and_grad(critic_loss, has_aux=True)(learner.critic, learner, options, batch, noise)
    critic, critic_state = descend(adam, learner.critic, g, states["critic"])

    loss_mu, g = jax.value_and_grad(actor_loss)(learner.actor, critic, batch.observation)
    actor, actor_state = descend(adam, learner.actor, g, states["actor"])
    moved = (
        actor,
        actor_state,
        polyak(learner.target_actor, actor, options.tau),
        polyak(learner.target_critic, critic, options.tau),
    )
    stayed = learner.actor, states["actor"], learner.target_actor, learner.target_critic
    due = learner.updates % options.actor_every == options.actor_every - 1
    actor, actor_state, target_actor, target_critic = jax.tree.map(lambda x, y: jnp.where(due, x, y), moved, stayed)
    return Learner(
        actor=actor,
        target_actor=target_actor,
        critic=critic,
        target_critic=target_critic,
        optimisers={"actor": actor_state, "critic": critic_state},
        updates=learner.updates + 1,
        spec=learner.spec,
    ), {"critic_loss": loss_q, "actor_loss": loss_mu, "q": q}


class HeldAction(Policy[LastStep]):
    """Decides one action and holds it; with a key it adds noise."""

    actor: Actor
    noise: float = eqx.field(static=True)
    spec: Spec = eqx.field(static=True)

    def init_state(self, command: Any) -> LastStep:
        refuse_command(command)
        return LastStep.empty(self.spec)

    def observe(self, state: LastStep, step: Step) -> LastStep:
        return LastStep.of(step)

    def decide(self, state: LastStep, key: PRNGKeyArray | None, length: int) -> tuple[Array, LastStep]:
        size = (self.spec.action_size,)
        noise = 0.0 if key is None else self.noise * jax.random.normal(key, size)
        a = self.actor(state.observation, noise)
        return hold_action(convert_actions(a, self.actor.spec, self.spec), length), state

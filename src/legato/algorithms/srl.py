"""Sequence Reinforcement Learning (Patel & Siegelmann, ICLR 2025, arXiv 2410.08979).

The actor is asked once every J primitive steps: a GRU, started from the state, writes a_0 ... a_{J-1}. Critic and model
are ordinary one-step functions trained on real transitions; the model is used only to teach the actor what its later
actions will meet ("temporal recall"), and not when acting.

    y    = r + m gamma (min_i Qbar_i(s', a') - alpha log pi(a'|s', a)),        a' the first action of a plan from s'
    L_Q  = MSE(Q_1(s, a), y) + MSE(Q_2(s, a), y)
    L_m  = MSE(m(s, a), s')                                                    on a second minibatch
    L_pi = sum_k mean(alpha log pi_k - min_i Q_i(z_k, a_k)),                   on the second minibatch
           z_0 = s,  z_{k+1} = stop_gradient(mbar(z_k, a_k))
    L_al = -log alpha * mean(mean_k log pi_k + H),                             H = -|A| per primitive step

The log-density is kept per primitive step. Actions are fed back to the GRU undetached, in the environment's units: each
is shaped by Q at its own predicted state and by the later actions that read it, never by the model's gradient. With
J = 1 the actor's loss is SAC's.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from legato.algorithms.configs import SRL as Config
from legato.data.replay import Minibatches, Transition
from legato.data.spec import Spec
from legato.models import dynamics
from legato.models.dynamics import Dynamics
from legato.nn.distributions import TanhNormal
from legato.nn.ensembles import TwinCritic
from legato.nn.gru import GRUCell, RNNCell
from legato.nn.mlp import Linear
from legato.nn.optimisation import annealed, descend, polyak
from legato.nn.recurrence import recur
from legato.policy import LastStep, Policy, Step

Metrics = dict[str, Float[Array, ""]]


class Actor(eqx.Module):
    """pi(a_0 ... a_{J-1} | s, a_prev): the state enters only as the cell's first hidden vector.

    h_0 = W_2 relu(W_1 s + b_1) + b_2;  h_{k+1} = cell(h_k, a_{k-1}), a_{-1} the action executed before the decision;
    mean and log-std are linear in h_{k+1}, the same for every k.
    """

    l1: Linear
    l2: Linear
    cell: GRUCell | RNNCell
    mean: Linear
    log_std: Linear
    spec: Spec = eqx.field(static=True)

    def __init__(self, spec: Spec, config: Config, *, key: PRNGKeyArray):
        k1, k2, k3, k4, k5 = jax.random.split(key, 5)
        cell = {"gru": GRUCell, "rnn": RNNCell}[config.cell]
        self.l1 = Linear(spec.observation_size, config.hidden, key=k1)
        self.l2 = Linear(config.hidden, config.hidden, key=k2)
        self.cell = cell(spec.action_size, config.hidden, key=k3)
        self.mean = Linear(config.hidden, spec.action_size, key=k4)
        self.log_std = Linear(config.hidden, spec.action_size, key=k5)
        self.spec = spec

    def start(self, s: Float[Array, "*batch obs"]) -> Float[Array, "*batch hidden"]:
        """h_0 of a state."""
        return self.l2(jax.nn.relu(self.l1(s)))

    def head(self, h: Float[Array, "*batch hidden"]) -> TanhNormal:
        return TanhNormal(self.mean(h), self.log_std(h), jnp.asarray(self.spec.low), jnp.asarray(self.spec.high))

    def sample(
        self,
        s: Float[Array, "*batch obs"],
        a_prev: Float[Array, "*batch act"],
        noise: Float[Array, "J *batch act"],
    ) -> tuple[Float[Array, "J *batch act"], Float[Array, "J *batch"]]:
        """A plan of J actions that standard-normal `noise` selects, differentiable, and each action's log-density."""
        _, (a, log_pi) = recur(Actor.step, self, (self.start(s), a_prev), noise)
        return a, log_pi

    def step(self, carry: tuple[Array, Array], noise_k: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """(h_k, a_{k-1}) -> (h_{k+1}, a_k), and the k-th action with its log-density."""
        h, a = carry
        h = self.cell(h, a)
        a, log_pi = self.head(h).sample(noise_k)
        return (h, a), (a, log_pi)

    def greedy(
        self, s: Float[Array, "*batch obs"], a_prev: Float[Array, "*batch act"], length: int
    ) -> Float[Array, "J *batch act"]:
        """The plan of the most likely actions, each fed to the next."""

        def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
            h, a = carry
            h = self.cell(h, a)
            a = self.head(h).mode()
            return (h, a), a

        # One turn would be compiled without a loop and round otherwise; with two, all lengths agree to the bit.
        _, a = jax.lax.scan(step, (self.start(s), a_prev), None, max(length, 2))
        return a[:length]


class Learner(eqx.Module):
    """Everything SRL carries while training."""

    actor: Actor
    critic: TwinCritic
    target_critic: TwinCritic
    model: Dynamics
    target_model: Dynamics
    log_alpha: Float[Array, ""]
    alpha: Float[Array, ""]
    optimisers: dict[str, optax.OptState]
    updates: Int[Array, ""]


def init(config: Config, spec: Spec, key: PRNGKeyArray) -> Learner:
    """A learner before its first update."""
    k_actor, k_critic, k_model = jax.random.split(key, 3)
    actor = Actor(spec, config, key=k_actor)
    critic = TwinCritic(spec.observation_size, spec.action_size, (config.hidden, config.hidden), key=k_critic)
    differences = config.model_target == "difference"
    model = Dynamics(spec.observation_size, spec.action_size, config.model_hidden, differences=differences, key=k_model)
    log_alpha = jnp.zeros(())
    trained = {"actor": actor, "critic": critic, "model": model, "log_alpha": log_alpha}
    return Learner(
        actor=actor,
        critic=critic,
        target_critic=jax.tree.map(jnp.copy, critic),
        model=model,
        target_model=jax.tree.map(jnp.copy, model),
        log_alpha=log_alpha,
        alpha=jnp.full((), 0.2, jnp.float32),
        optimisers={name: optax.adam(config.learning_rate).init(part) for name, part in trained.items()},
        updates=jnp.zeros((), jnp.int32),
    )


def critic_loss(
    critic: TwinCritic,
    learner: Learner,
    config: Config,
    batch: Transition,
    noise: Float[Array, "1 batch act"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """L_Q and the mean Q_1: one-step TD on real transitions, for the policy that decides anew at every step."""
    a_next, log_pi = learner.actor.sample(batch.next_observation, batch.action, noise)
    q_next = jnp.minimum(*learner.target_critic(batch.next_observation, a_next[0])) - learner.alpha * log_pi[0]
    y = jax.lax.stop_gradient(batch.reward + batch.continues * config.gamma * q_next)
    q1, q2 = critic(batch.observation, batch.action)
    return jnp.mean((q1 - y) ** 2) + jnp.mean((q2 - y) ** 2), q1.mean()


class Recall(NamedTuple):
    """What temporal recall saw: `[J, batch, ...]`."""

    states: Float[Array, "J batch obs"]
    actions: Float[Array, "J batch act"]
    log_pi: Float[Array, "J batch"]


def value(
    critic: TwinCritic, z: Float[Array, "J batch obs"], a: Float[Array, "J batch act"]
) -> Float[Array, "J batch"]:
    """min_i Q_i(z_k, a_k), differentiable with respect to the actions alone.

    Step by step, each with its slope at once, so that what the critics' backward pass reads is still in the cache.
    """

    def with_slope(at: tuple[Array, Array]) -> tuple[Array, Array]:
        def total(a: Array) -> tuple[Array, Array]:
            q = jnp.minimum(*critic(at[0], a))
            return q.sum(), q  # an example's value depends on no other's action

        (_, q), slope = jax.value_and_grad(total, has_aux=True)(at[1])
        return q, slope

    here = jax.lax.stop_gradient(a)
    q, slope = jax.lax.stop_gradient(jax.lax.map(with_slope, (z, here)))
    return q + jnp.sum(slope * (a - here), axis=-1)  # adds 0 to the value and the slope to the gradient


def actor_loss(
    actor: Actor,
    critic: TwinCritic,
    target_model: Dynamics,
    alpha: Float[Array, ""],
    batch: Transition,
    noise: Float[Array, "J batch act"],
) -> tuple[Float[Array, ""], Recall]:
    """L_pi: temporal recall, of a plan that is written whole before it is judged."""
    a, log_pi = actor.sample(batch.observation, batch.previous_action, noise)
    z = dynamics.unroll(target_model, batch.observation, a)
    q = value(critic, z, a)
    return jnp.sum(jnp.mean(alpha * log_pi - q, axis=1)), Recall(z, a, log_pi)


def actor_loss_through_time(
    actor: Actor,
    critic: TwinCritic,
    target_model: Dynamics,
    alpha: Float[Array, ""],
    batch: Transition,
    noise: Float[Array, "J batch act"],
) -> tuple[Float[Array, ""], Recall]:
    """mean(alpha log pi_{J-1} - min_i Q_i(z_{J-1}, a_{J-1})), whose gradient goes back through all predictions.

    The published code asks the critic in z_J, one state too late for a_{J-1}; here it is asked where that is done.
    """
    a, log_pi = actor.sample(batch.observation, batch.previous_action, noise)
    z = dynamics.unroll(target_model, batch.observation, a, through=True)
    q = jnp.minimum(*critic(z[-1], a[-1]))
    return jnp.mean(alpha * log_pi[-1] - q), Recall(z, a, log_pi)


def update(
    config: Config, learner: Learner, batch: tuple[Transition, Transition], key: PRNGKeyArray
) -> tuple[Learner, Metrics]:
    """One gradient step of critics and model (and, every `actor_every`-th, of actor and temperature), and Polyak."""
    batch_q, batch_m = batch
    adam = optax.adam(annealed(config.learning_rate, config.anneal_over, learner.updates))
    states = learner.optimisers
    noise = jax.random.normal(key, (1 + config.horizon, *batch_q.action.shape))

    (loss_q, q), g = jax.value_and_grad(critic_loss, has_aux=True)(learner.critic, learner, config, batch_q, noise[:1])
    critic, critic_state = descend(adam, learner.critic, g, states["critic"])

    model = learner.model.measured(batch_m.observation, batch_m.next_observation, learner.updates)
    loss_m, g = jax.value_and_grad(dynamics.loss)(model, batch_m.observation, batch_m.action, batch_m.next_observation)
    model, model_state = descend(adam, model, g, states["model"])

    def update_actor():
        teach = actor_loss if config.teaching == "recall" else actor_loss_through_time
        (loss_pi, recall), g = jax.value_and_grad(teach, has_aux=True)(
            learner.actor, critic, learner.target_model, learner.alpha, batch_m, noise[1:]
        )
        actor, actor_state = descend(adam, learner.actor, g, states["actor"])
        log_pi = recall.log_pi.mean()
        target_entropy = -batch_m.action.shape[-1]
        g_alpha = -(log_pi + target_entropy)
        log_alpha, alpha_state = descend(adam, learner.log_alpha, g_alpha, states["log_alpha"])
        return (actor, actor_state, log_alpha, alpha_state, jnp.exp(log_alpha)), (loss_pi, -log_pi)

    def keep_actor():
        kept = (learner.actor, states["actor"], learner.log_alpha, states["log_alpha"], learner.alpha)
        return kept, (jnp.zeros(()), jnp.zeros(()))

    if config.actor_every == 1:
        updated, (loss_pi, entropy) = update_actor()
    else:
        due = learner.updates % config.actor_every == 0
        updated, (loss_pi, entropy) = jax.lax.cond(due, update_actor, keep_actor)
    actor, actor_state, log_alpha, alpha_state, alpha = updated

    metrics = {
        "critic_loss": loss_q,
        "model_loss": loss_m,
        "actor_loss": loss_pi,
        "q": q,
        "entropy": entropy,
        "alpha": learner.alpha,
    }
    return Learner(
        actor=actor,
        critic=critic,
        target_critic=polyak(learner.target_critic, critic, config.tau),
        model=model,
        target_model=polyak(learner.target_model, model, config.tau),
        log_alpha=log_alpha,
        alpha=alpha,
        optimisers={
            "actor": actor_state,
            "critic": critic_state,
            "model": model_state,
            "log_alpha": alpha_state,
        },
        updates=learner.updates + 1,
    ), metrics


class ActionSequence(Policy[LastStep]):
    """Unrolls the actor to any length: shorter than it was trained for, or longer."""

    actor: Actor

    def init_state(self, command: tuple[()]) -> LastStep:
        return LastStep.empty(self.actor.spec)

    def observe(self, state: LastStep, step: Step) -> LastStep:
        return LastStep.of(step)

    def decide(self, state: LastStep, key: PRNGKeyArray | None, length: int) -> tuple[Array, LastStep]:
        if key is None:
            return self.actor.greedy(state.observation, state.executed, length), state
        noise = jax.random.normal(key, (length, self.actor.spec.action_size))
        return self.actor.sample(state.observation, state.executed, noise)[0], state


def policy(config: Config, learner: Learner) -> ActionSequence:
    """The deployable part: the actor alone, model-free."""
    return ActionSequence(learner.actor)


def batches(config: Config) -> Minibatches:
    """Two independent minibatches per update: one for the critics, one for model and actor."""
    return Minibatches(config.batch_size, count=2)


def plan_length(config: Config) -> int:
    """Primitive steps that a plan is made for: J."""
    return config.horizon


def collecting(config: Config) -> int:
    """Primitive steps between decisions while collecting."""
    return config.execute or config.horizon


HOLDS_ACTION = False  # a random plan before learning is J actions, each drawn anew

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

The log-density is kept per primitive step. Actions are fed back to the GRU undetached: each is shaped by Q at its own
predicted state and by the later actions that read it, never by the model's gradient. With J = 1 the actor's loss is
SAC's. Everything reads actions in units of their bounds, [-1, 1], so that what is learnt does not depend on the unit
in which an environment counts; `action_units = "environment"` is the published form.

Options beyond that are those of the published code (critics that know k, teaching through time, a latent state) and of
this library (`predict_terminations`, `model_target`, `execute`, `n_step`). In a latent state everything above happens
to e(s) instead of s, and e is learnt with the model, by temporal consistency over five steps:

    L_m  = sum_k rho^k MSE(m^{k+1}(e(s), a_0 ... a_k), stop_gradient(ebar(s_{k+1}))) / sum_k rho^k
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from legato.algorithms.action_sequence import ActionSequence, Actor
from legato.algorithms.action_units import warn_of_units
from legato.algorithms.srl.config import SRL as Config
from legato.algorithms.srl.plan_critic import plan_critic_loss, with_step_index
from legato.data.replay import ReplayBatchSpec, Sequences, Transition, as_sequences, first_steps, scale_actions
from legato.data.spec import Spec
from legato.losses import soft
from legato.losses.temporal_difference import n_step_transition, td_target, twin_loss
from legato.models import dynamics
from legato.models.dynamics import Dynamics, TerminationModel
from legato.nn.ensembles import TwinCritic
from legato.nn.mlp import MLP
from legato.nn.optimisation import descend, linear_decay, optax, polyak
from legato.policy import Policy, RandomPlans

Metrics = dict[str, Float[Array, ""]]
Batch = tuple[Transition | Sequences, Transition | Sequences]
LATENT_STEPS = 5  # that a model of latent states learns to predict from its own predictions


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
    termination_model: TerminationModel | None = None  # with `predict_terminations`
    encoder: MLP | None = None  # with a latent state
    target_encoder: MLP | None = None
    spec: Spec = eqx.field(static=True, kw_only=True)  # of the environment


def check(config: Config, spec: Spec, environment: str) -> None:
    """Warns of units in which the published form learns badly."""
    if config.action_units == "environment":
        warn_of_units(spec, environment)


def init(config: Config, spec: Spec, key: PRNGKeyArray) -> Learner:
    """A learner before its first update."""
    k_actor, k_critic, k_model = jax.random.split(key, 3)
    k_ends, k_encoder = jax.random.split(jax.random.fold_in(key, 1))
    o, a, width = config.latent or spec.observation_size, spec.action_size, (config.hidden, config.hidden)
    differences = config.model_target == "difference" and not config.latent
    actor = _actor(config, spec, k_actor)
    critic = TwinCritic(o + (config.critic != "one_step"), a, width, key=k_critic)
    model = Dynamics(o, a, width if config.latent else config.model_hidden, differences=differences, key=k_model)
    termination_model = TerminationModel(o, a, width, key=k_ends) if config.predict_terminations else None
    encoder = _encoder(config, spec, k_encoder)
    log_alpha = jnp.zeros(())
    trained = {"actor": actor, "critic": critic, "model": model, "log_alpha": log_alpha}
    trained |= {"ends": termination_model} if termination_model else {}
    trained |= {"encoder": encoder} if encoder else {}
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
        termination_model=termination_model,
        encoder=encoder,
        target_encoder=jax.tree.map(jnp.copy, encoder),
        spec=spec,
    )


def _actor(config: Config, spec: Spec, key: PRNGKeyArray) -> Actor:
    own = spec.with_unit_bounds() if config.action_units == "bounds" else spec
    return Actor(own, config.latent or spec.observation_size, config.hidden, config.cell, key=key)


def _encoder(config: Config, spec: Spec, key: PRNGKeyArray) -> MLP | None:
    sizes = (spec.observation_size, config.hidden, config.hidden, config.latent)
    return MLP(sizes, key=key) if config.latent else None


# --- what is learnt from real transitions ---


def critic_loss(
    critic: TwinCritic,
    learner: Learner,
    config: Config,
    batch: Transition | Sequences,
    noise: Float[Array, "1 batch act"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """L_Q and the mean Q_1: TD on real transitions, for the policy that decides anew at every step.

    With subsequences of n steps, or of as many as the episode had left, as they were really acted, by whichever policy:

        y = sum_i gamma^i r_i + m gamma^n (min_i Qbar_i(s_n, a') - alpha log pi(a'|s_n, a_{n-1}))
    """
    rewards, discount, last = n_step_transition(as_sequences(batch), config.gamma)
    a_next, log_pi = learner.actor.sample(last.next_observation, last.action, noise)
    v_next = soft.state_value(learner.target_critic(last.next_observation, a_next[0]), log_pi[0], learner.alpha)
    y = td_target(rewards, last.continues, discount, v_next)
    here = first_steps(batch)
    q = critic(here.observation, here.action)
    return twin_loss(q, y), q[0].mean()


def model_loss(
    parts: tuple[Dynamics, MLP | None], target_encoder: MLP | None, config: Config, batch: Sequences
) -> Float[Array, ""]:
    """L_m of the model and, with a latent state, of the encoder."""
    (model, encoder), steps = parts, batch.steps
    if encoder is None or target_encoder is None:
        s, ahead = steps.observation[0], steps.next_observation
    else:
        s, ahead = encoder(steps.observation[0]), jax.lax.stop_gradient(target_encoder(steps.next_observation))
    return dynamics.multi_step_loss(model, s, steps.action, ahead, batch.valid, config.model_decay)


def encode_batch(encoder: MLP | None, batch: Transition | Sequences) -> Transition | Sequences:
    """The same transitions between latent states, held still."""
    if encoder is None:
        return batch
    if isinstance(batch, Sequences):
        return replace(batch, steps=encode_batch(encoder, batch.steps))
    s, s_next = jax.lax.stop_gradient((encoder(batch.observation), encoder(batch.next_observation)))
    return replace(batch, observation=s, next_observation=s_next)


# --- what the actor is taught ---


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


class Teacher(eqx.Module):
    """What teaches the actor, none of which learns from it."""

    config: Config = eqx.field(static=True)
    critic: TwinCritic
    model: Dynamics  # the target model
    alpha: Float[Array, ""]
    termination_model: TerminationModel | None = None

    def step_weights(self, recall: Recall) -> Float[Array, "J batch"]:
        """How much each step of a plan counts, its entropy too: 1, where nothing else is asked for.

        Through time only the last one does: a temperature that heeded the others, whose entropy nothing holds up, would
        rise without end.
        """
        counts = jnp.ones(recall.log_pi.shape)
        if self.termination_model is not None:
            counts = jax.lax.stop_gradient(self.termination_model.reach_probability(recall.states, recall.actions))
        if self.config.teaching == "through_time":
            counts = jnp.where(jnp.arange(len(counts))[:, None] == len(counts) - 1, counts, 0.0)
        return counts


def actor_loss(
    actor: Actor, teacher: Teacher, batch: Transition, noise: Float[Array, "J batch act"]
) -> tuple[Float[Array, ""], Recall]:
    """L_pi: temporal recall, of a plan that is written whole before it is judged."""
    a, log_pi = actor.sample(batch.observation, batch.previous_action, noise)
    z = dynamics.unroll(teacher.model, batch.observation, a)
    recall = Recall(z, a, log_pi)
    q = value(teacher.critic, with_step_index(z, jnp.arange(len(a))[:, None], teacher.config), a)
    return jnp.sum(jnp.mean(teacher.step_weights(recall) * soft.action_cost(q, log_pi, teacher.alpha), axis=1)), recall


def actor_loss_through_time(
    actor: Actor, teacher: Teacher, batch: Transition, noise: Float[Array, "J batch act"]
) -> tuple[Float[Array, ""], Recall]:
    """mean(alpha log pi_{J-1} - min_i Q_i(z_{J-1}, a_{J-1})), whose gradient goes back through all predictions.

    The published code asks the critic in z_J, one state too late for a_{J-1}; here it is asked where that is done.
    """
    a, log_pi = actor.sample(batch.observation, batch.previous_action, noise)
    z = dynamics.unroll(teacher.model, batch.observation, a, through=True)
    recall = Recall(z, a, log_pi)
    q = jnp.minimum(*teacher.critic(with_step_index(z, jnp.arange(len(a))[:, None], teacher.config)[-1], a[-1]))
    return jnp.mean(teacher.step_weights(recall)[-1] * soft.action_cost(q, log_pi[-1], teacher.alpha)), recall


def update(config: Config, learner: Learner, batch: Batch, key: PRNGKeyArray) -> tuple[Learner, Metrics]:
    """One gradient step of critics and model (and, every `actor_every`-th, of actor and temperature), and Polyak."""
    if config.action_units == "bounds":
        batch = scale_actions(batch[0], learner.spec), scale_actions(batch[1], learner.spec)
    batch_q, batch_m = (encode_batch(learner.encoder, each) for each in batch)
    adam = optax.adam(linear_decay(config.learning_rate, config.anneal_over, learner.updates))
    states, after = learner.optimisers, {}
    here = first_steps(batch_m)
    noise = jax.random.normal(key, (1 + config.horizon, *here.action.shape))
    k_critic, _ = jax.random.split(jax.random.fold_in(key, 1))

    if config.critic == "one_step":
        loss, seen, drawn = critic_loss, batch_q, noise[:1]
    else:
        loss, seen, drawn = plan_critic_loss, as_sequences(batch_q), jax.random.normal(k_critic, noise[1:].shape)
    (loss_q, q), g = jax.value_and_grad(loss, has_aux=True)(learner.critic, learner, config, seen, drawn)
    critic, after["critic"] = descend(adam, learner.critic, g, states["critic"])
    metrics = {"critic_loss": loss_q, "q": q}

    parts = learner.model.update_delta_scale(here.observation, here.next_observation, learner.updates), learner.encoder
    loss_m, g = jax.value_and_grad(model_loss)(parts, learner.target_encoder, config, as_sequences(batch[1]))
    model, after["model"] = descend(adam, parts[0], g[0], states["model"])
    encoder, termination_model = learner.encoder, learner.termination_model
    if encoder is not None:
        encoder, after["encoder"] = descend(adam, encoder, g[1], states["encoder"])
    if termination_model is not None:
        led = here.observation, here.action, here.next_observation, here.continues
        metrics["ends_loss"], g = jax.value_and_grad(dynamics.termination_loss)(termination_model, *led)
        termination_model, after["ends"] = descend(adam, termination_model, g, states["ends"])

    teacher = Teacher(config, critic, learner.target_model, learner.alpha, termination_model)

    def update_actor():
        teach = actor_loss if config.teaching == "recall" else actor_loss_through_time
        (loss_pi, recall), g = jax.value_and_grad(teach, has_aux=True)(learner.actor, teacher, here, noise[1:])
        actor, actor_state = descend(adam, learner.actor, g, states["actor"])
        log_pi = jnp.average(recall.log_pi, weights=teacher.step_weights(recall))
        target_entropy = -here.action.shape[-1]
        g_alpha = soft.temperature_gradient(log_pi, target_entropy)
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
    actor, after["actor"], log_alpha, after["log_alpha"], alpha = updated

    metrics |= {"model_loss": loss_m, "actor_loss": loss_pi, "entropy": entropy, "alpha": learner.alpha}
    return Learner(
        actor=actor,
        critic=critic,
        target_critic=polyak(learner.target_critic, critic, config.tau),
        model=model,
        target_model=polyak(learner.target_model, model, config.tau),
        log_alpha=log_alpha,
        alpha=alpha,
        optimisers=after,
        updates=learner.updates + 1,
        termination_model=termination_model,
        encoder=encoder,
        target_encoder=encoder and polyak(learner.target_encoder, encoder, config.tau),
        spec=learner.spec,
    ), metrics


# --- the policy ---


def policy(config: Config, learner: Learner) -> ActionSequence:
    """The deployable part: the actor alone (behind its encoder, with a latent state), model-free."""
    return ActionSequence(learner.actor, learner.spec, learner.encoder)


def new_policy(config: Config, spec: Spec, key: PRNGKeyArray) -> ActionSequence:
    """`policy` of what `init` gives, without what only learns."""
    k_actor, k_encoder = jax.random.split(key, 3)[0], jax.random.split(jax.random.fold_in(key, 1))[1]
    return ActionSequence(_actor(config, spec, k_actor), spec, _encoder(config, spec, k_encoder))


def batches(config: Config) -> ReplayBatchSpec:
    """Two independent minibatches per update: one for the critics, one for model and actor."""
    critics = config.n_step if config.critic == "one_step" else config.horizon
    return ReplayBatchSpec(config.batch_size, (critics, LATENT_STEPS if config.latent else 1))


def plan_length(config: Config) -> int:
    """Primitive steps that a plan is made for: J."""
    return config.horizon


def collect_interval(config: Config) -> int | tuple[int, int]:
    """Primitive steps between decisions while collecting, or the least and the most of a random number of them."""
    return (1, config.horizon) if config.execute == -1 else config.execute or config.horizon


def explorer(config: Config, learner: Learner, spec: Spec, step: int, random: bool) -> Policy[Any]:
    """What collects: at first random plans of J actions, each drawn anew, then the policy."""
    policies = policy(config, learner)
    return RandomPlans(policies, spec, hold=False) if random else policies

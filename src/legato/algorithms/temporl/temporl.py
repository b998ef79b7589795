"""TempoRL (Biedenkapp, Rajan, Hutter & Lindauer 2021, arXiv 2106.05262): what to do, and for how many steps.

a      = mu(s)                                        the behaviour: TD3, or of choices argmax_a Q(s, a), double DQN
j      = argmax_(j = 1..J) Q(s, j | a)                the skip, which is told the action; of equal ones the longest
y_j    = sum_(i<j) gamma^i r_i + m gamma^j V(s_j)     of every skip that was played, and of all within it; m: 0 where
                                                      the environment ended the episode

The behaviour learns from single steps, as if nothing were held, and V is its own: min_i Q'_i(s, mu'(s)), or
Q'(s, argmax_a Q(s, a)). While collecting, lengths are explored apart from actions (`skip_epsilon`). Critics and skips
read actions in units of their bounds, [-1, 1]; with `action_units = "environment"` in the environment's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from legato.algorithms import deterministic_actor_critic
from legato.algorithms.action_units import warn_of_units
from legato.algorithms.deterministic_actor_critic import learned_spec, new_actor
from legato.algorithms.temporl import double_dqn
from legato.algorithms.temporl.config import TempoRL as Config
from legato.algorithms.temporl.skips import SkipNetwork, greedy_length, skip_loss, skip_targets
from legato.data.replay import ReplayBatchSpec, Sequences, Transition, as_sequences, scale_actions
from legato.data.spec import Spec, convert_actions
from legato.nn.optimisation import descend, linear_decay, optax
from legato.policy import LastStep, Policy, RandomPlans, Step, hold_action, refuse_command

Metrics = dict[str, Float[Array, ""]]


class Learner(eqx.Module):
    """Everything TempoRL carries while training."""

    behaviour: Any  # the learner of TD3, or of double DQN
    skip: SkipNetwork
    optimiser: optax.OptState  # of the skip network

    @property
    def spec(self) -> Spec:
        """Of the environment."""
        return self.behaviour.spec


def check(config: Config, spec: Spec, environment: str) -> None:
    """Warns of units in which the published form learns badly."""
    if spec.choices is None and config.action_units == "environment":
        warn_of_units(spec, environment)


def init(config: Config, spec: Spec, key: PRNGKeyArray) -> Learner:
    """A learner before its first update."""
    k_behaviour, k_skip = jax.random.split(key)
    kind = deterministic_actor_critic if spec.choices is None else double_dqn
    skip = _skip(config, spec, k_skip)
    return Learner(kind.init(config, spec, k_behaviour), skip, optax.adam(config.learning_rate).init(skip))  # type: ignore[arg-type]


def _skip(config: Config, spec: Spec, key: PRNGKeyArray) -> SkipNetwork:
    return SkipNetwork(learned_spec(config, spec), config.max_skip, config.hidden, key=key)


def update(
    config: Config, learner: Learner, batch: tuple[Transition, Transition | Sequences], key: PRNGKeyArray
) -> tuple[Learner, Metrics]:
    """One update of the behaviour by single steps, then one gradient step of the skips by stretches of J steps."""
    steps, stretch = batch[0], as_sequences(batch[1])
    if config.action_units == "bounds":
        steps, stretch = scale_actions(steps, learner.spec), scale_actions(stretch, learner.spec)
    adam = optax.adam(linear_decay(config.learning_rate, config.anneal_over, learner.behaviour.updates))
    if learner.spec.choices is None:
        behaviour, metrics = deterministic_actor_critic.update(config, learner.behaviour, steps, key)
        v_next = deterministic_actor_critic.target_value(behaviour, stretch.steps.next_observation)
    else:
        behaviour, metrics = double_dqn.update(config, learner.behaviour, steps)
        v_next = double_dqn.target_value(behaviour, stretch.steps.next_observation)
    of_skips = skip_targets(stretch, config.gamma, v_next)
    (loss, length), g = jax.value_and_grad(skip_loss, has_aux=True)(learner.skip, stretch, *of_skips)
    skip, state = descend(adam, learner.skip, g, learner.optimiser)
    return Learner(behaviour, skip, state), {**metrics, "skip_loss": loss, "skip_length": length}


# --- the policy ---


class Memory(eqx.Module):
    """The newest observation, and the length that was chosen at the last decision, in primitive steps."""

    last: LastStep
    length: Int[Array, ""]


class SkipAction(Policy[Memory]):
    """Decides one action, which it holds, and for how long: `interval`. With a key it explores both."""

    behaviour: Any  # the actor of TD3, or the Q of choices
    skip: SkipNetwork
    noise: float = eqx.field(static=True)
    epsilon: float = eqx.field(static=True)
    skip_epsilon: float = eqx.field(static=True)
    spec: Spec = eqx.field(static=True)

    def init_state(self, command: Any) -> Memory:
        refuse_command(command)
        return Memory(LastStep.empty(self.spec), jax.device_put(np.ones((), np.int32)))

    def observe(self, state: Memory, step: Step) -> Memory:
        return Memory(LastStep.of(step), state.length)

    def decide(self, state: Memory, key: PRNGKeyArray | None, length: int) -> tuple[Array, Memory]:
        s, (k_action, k_skip) = state.last.observation, (None, None) if key is None else jax.random.split(key)
        a = self._action(s, k_action)
        skip = greedy_length(self.skip(s, a))
        if k_skip is not None:
            k_explore, k_length = jax.random.split(k_skip)
            explores = jax.random.uniform(k_explore) < self.skip_epsilon
            skip = jnp.where(explores, random_length(self.skip, k_length), skip)
        return hold_action(convert_actions(a, self.behaviour.spec, self.spec), length), replace(state, length=skip)

    def _action(self, s: Array, key: PRNGKeyArray | None) -> Float[Array, " act"]:
        """In the units in which actions are learnt."""
        if self.spec.choices is None:
            noise = 0.0 if key is None else self.noise * jax.random.normal(key, (self.spec.action_size,))
            return self.behaviour(s, noise)
        chosen = jnp.argmax(self.behaviour(s))
        if key is not None:
            k_explore, k_choice = jax.random.split(key)
            drawn = jax.random.randint(k_choice, (), 0, self.spec.choices)
            chosen = jnp.where(jax.random.uniform(k_explore) < self.epsilon, drawn, chosen)
        return chosen[None].astype(jnp.float32)

    def interval(self, state: Memory) -> Int[Array, ""]:
        return state.length


def random_length(skip: SkipNetwork, key: PRNGKeyArray) -> Int[Array, ""]:
    """U{1..J}."""
    return jax.random.randint(key, (), 1, skip.longest + 1, jnp.int32)


class RandomSkips(Policy[Memory]):
    """The same with uniformly random actions, each held for a random length: exploration before learning begins."""

    policy: SkipAction

    def init_state(self, command: Any) -> Memory:
        return self.policy.init_state(command)

    def observe(self, state: Memory, step: Step) -> Memory:
        return self.policy.observe(state, step)

    def decide(self, state: Memory, key: PRNGKeyArray | None, length: int) -> tuple[Array, Memory]:
        plan, _ = RandomPlans(self.policy, self.policy.spec, hold=True).decide(state, key, length)
        assert key is not None  # a random policy without one was refused
        return plan, replace(state, length=random_length(self.policy.skip, jax.random.fold_in(key, 1)))

    def interval(self, state: Memory) -> Int[Array, ""]:
        return state.length


def policy(config: Config, learner: Learner) -> SkipAction:
    """The deployable part: the actor, or the Q of choices, and the skips."""
    behaviour = learner.behaviour.actor if learner.spec.choices is None else learner.behaviour.q
    return _skip_action(config, behaviour, learner.skip, learner.spec)


def new_policy(config: Config, spec: Spec, key: PRNGKeyArray) -> SkipAction:
    """`policy` of what `init` gives, without what only learns."""
    k_behaviour, k_skip = jax.random.split(key)
    if spec.choices is None:
        behaviour = new_actor(config, spec, k_behaviour)
    else:
        behaviour = double_dqn.QNetwork(spec, config.hidden, key=k_behaviour)
    return _skip_action(config, behaviour, _skip(config, spec, k_skip), spec)


def _skip_action(config: Config, behaviour: Any, skip: SkipNetwork, spec: Spec) -> SkipAction:
    return SkipAction(behaviour, skip, config.noise, config.epsilon, config.skip_epsilon, spec)


def explorer(config: Config, learner: Learner, spec: Spec, step: int, random: bool) -> Policy[Memory]:
    """At first random actions, each held for a random length, then the policy."""
    policies = policy(config, learner)
    return RandomSkips(policies) if random else policies


def batches(config: Config) -> ReplayBatchSpec:
    """Two independent minibatches per update: single steps for the behaviour, stretches of J for the skips."""
    return ReplayBatchSpec(config.batch_size, (1, config.max_skip))


def plan_length(config: Config) -> int:
    """Primitive steps between the decisions that the behaviour learns by; its skips say others (`policy_interval`)."""
    return 1


def policy_interval(config: Config) -> tuple[int, int]:
    """The shortest and the longest skip."""
    return 1, config.max_skip

"""Planning with what an actor was taught by: a model of the environment and critics of primitive steps.

    z_0 = s,  z_{k+1} = m(z_k, a_k),   J(a_0 ... a_{H-1}) = sum_k min_i Q_i(z_k, a_k)

which is what temporal recall teaches SRL's actor to write (`srl`, with alpha = 0), looked for anew at every
decision instead. `Shooting` says how; without it nothing is looked for: the actor decides step by step in imagined
states, the online planning that Patel & Siegelmann (arXiv 2410.08979) compare with, in its most natural reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from legato.algorithms.protocol import Parts
from legato.algorithms.srl.config import PLANNERS, SRL
from legato.algorithms.srl.srl import ActionSequence
from legato.data.spec import Spec, convert_actions
from legato.errors import LegatoError, unknown
from legato.models import dynamics
from legato.models.dynamics import Dynamics
from legato.nn.ensembles import TwinCritic
from legato.nn.mlp import MLP, Linear
from legato.options import require_types, types
from legato.planning import shooting
from legato.planning.options import Shooting
from legato.policy import LastStep, Policy, Step, refuse_command

MEMORY = 4.0  # GiB that one decision may take


class ModelPlanner(Policy[LastStep]):
    """Plans in a model. Beyond the horizon of a search the actor goes on from where the plan is imagined to end."""

    actor: Any
    """`greedy(s, a_prev, length)`, of which the first action is used; model and critics read actions as its `spec` has
    them"""
    critic: TwinCritic
    model: Dynamics
    spec: Spec = eqx.field(static=True)
    how: Shooting | None = eqx.field(static=True)
    encoder: MLP | None = None
    """of observations into the state that actor, critics and model work in; None where that is the observation"""
    indexed_steps: int = eqx.field(static=True, default=0)
    """J, for critics that read an action's place in a plan, in units of J, beside the state"""

    def init_state(self, command: Any) -> LastStep:
        refuse_command(command)
        return LastStep.empty(self.spec)

    def observe(self, state: LastStep, step: Step) -> LastStep:
        return LastStep.of(step)

    def decide(self, state: LastStep, key: PRNGKeyArray | None, length: int) -> tuple[Array, LastStep]:
        s, own = state.observation, self.actor.spec
        s, a_prev = s if self.encoder is None else self.encoder(s), convert_actions(state.executed, self.spec, own)
        if self.how is None:
            return convert_actions(self.write_plan(s, a_prev, length), own, self.spec), state
        begin = own.normalise(self.write_plan(s, a_prev, self.how.horizon))
        key = jax.random.key(0) if key is None else key  # the draws of a greedy decision are always the same
        plan = shooting.plan(lambda actions: self.plan_value(s, actions), begin, key, self.how, begin[None])
        actions = own.denormalise(plan)
        if length > self.how.horizon:
            end = jax.lax.scan(lambda z, a: (self.model(z, a), None), s, actions)[0]
            rest = self.write_plan(end, actions[-1], length - self.how.horizon)
            actions = jnp.concatenate([actions, rest])
        return convert_actions(actions[:length], own, self.spec), state

    def write_plan(
        self, s: Float[Array, " obs"], a_prev: Float[Array, " act"], length: int
    ) -> Float[Array, "length act"]:
        """What the actor does step by step where the model's predictions are all that it sees."""

        def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
            z, before = carry
            a = self.actor.greedy(z, before, 1)[0]
            return (self.model(z, a), a), a

        # Two turns at least, as in `Actor.greedy`: a single one would be rounded otherwise.
        return jax.lax.scan(step, (s, a_prev), None, max(length, 2))[1][:length]

    def plan_value(self, s: Float[Array, " obs"], unit: Float[Array, "horizon act"]) -> Float[Array, ""]:
        """J of actions in units of their bounds."""
        actions = self.actor.spec.denormalise(unit)
        z = dynamics.unroll(self.model, s, actions)
        if self.indexed_steps:
            k = jnp.minimum(jnp.arange(len(unit)), self.indexed_steps - 1) / self.indexed_steps
            z = jnp.concatenate([z, k[:, None]], axis=-1)
        return jnp.minimum(*self.critic(z, actions)).sum()  # all steps at once: one product per layer

    def check(self) -> None:
        """Raises `LegatoError` where a decision would take more than `MEMORY`: all sequences are imagined at once."""
        if self.how is None:
            return
        layers = jax.tree.leaves((self.model, self.critic), is_leaf=lambda node: isinstance(node, Linear))
        numbers = sum(layer.bias.size for layer in layers if isinstance(layer, Linear))  # alive at once, per sequence
        each = 4 * (numbers + 2 * self.how.horizon * self.spec.action_size) / 2**30
        if each * self.how.samples > MEMORY:
            raise LegatoError(
                f"{self.how.samples} samples would take {each * self.how.samples:.1f} GiB for a decision, and "
                f"{MEMORY:g} are allowed: at most {int(MEMORY / each)} samples fit"
            )


def compose(config: SRL, policy: ActionSequence, options: Mapping[str, Any], parts: Parts) -> tuple[SRL, ModelPlanner]:
    """The actor with a planner over its run's model and critics.

    Raises `LegatoError` for options that are none or make no sense, and for a critic.
    """
    if parts.q_function is not None:
        raise LegatoError("a policy of 'srl' searches for no return: it takes no critic")
    name, others = options.get("planner"), {k: v for k, v in options.items() if k != "planner"}
    if name is None:
        raise LegatoError(f"which planner? a search in the model of an SRL run is one of {', '.join(PLANNERS)}")
    if name not in PLANNERS:
        raise unknown("planner", str(name), PLANNERS)
    require_types({} if name == "unrolled" else types(Shooting), others, "planner")
    how = None
    if name != "unrolled":
        how = Shooting(**{"temperature": 0.0 if name == "cem" else Shooting.temperature, **others})
    learner = parts.learner()
    indexed_steps = 0 if config.critic == "one_step" else config.horizon
    found = ModelPlanner(policy.actor, learner.critic, learner.model, policy.spec, how, learner.encoder, indexed_steps)
    found.check()
    return config, found

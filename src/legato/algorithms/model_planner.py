"""A policy that plans in a learnt model of the environment, for any algorithm that has one.

Without `Shooting` the actor decides step by step in imagined states; with it, sequences of actions are looked for, of
which the actor's is the first proposal. Beyond the horizon of a search the actor goes on from where the plan is
imagined to end.

A plan that takes effect d steps late (`Clock.delay`) is begun, with `with_delay`, where the model predicts that those d
steps end: their actions are known, as the plan before runs on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from legato.algorithms.protocol import Parts
from legato.data.spec import Spec, convert_actions
from legato.errors import LegatoError, unknown
from legato.nn.mlp import Linear
from legato.options import require_types, types
from legato.planning import shooting
from legato.planning.options import Shooting
from legato.policy import LastStep, Policy, Step, refuse_command

MEMORY = 4.0  # GiB that one decision may take


class PlanningModel(Protocol):
    """What plans are imagined in and judged by: pytrees of networks. Actions are in the units of its `spec`."""

    @property
    def spec(self) -> Spec: ...

    @property
    def judges(self) -> Any:
        """The networks that are asked along every sequence of a search."""
        ...

    def encode(self, observation: Float[Array, " obs"]) -> Any:
        """The state that an observation stands for, a pytree."""
        ...

    def act(self, z: Any, a_prev: Float[Array, " act"], noise: Float[Array, " act"] | None) -> Float[Array, " act"]:
        """What the actor does there: what standard-normal `noise` selects, or greedily without."""
        ...

    def step(self, z: Any, a: Float[Array, " act"]) -> Any:
        """The state after it."""
        ...

    def value(self, z: Any, actions: Float[Array, "horizon act"]) -> Float[Array, ""]:
        """J, what a sequence is worth."""
        ...


class CommittedPlan(eqx.Module):
    """The memory of a planner whose plans take effect late: what it has seen, and what is going to be done."""

    last: LastStep
    plan: Float[Array, "steps act"]
    since: Int[Array, ""]
    """steps that were seen since it was made"""
    exists: Bool[Array, ""]
    """has anything been decided in this episode?"""


class ModelPlanner(Policy[Any]):
    """Plans in a model."""

    model: Any
    """a `PlanningModel`"""
    spec: Spec = eqx.field(static=True)
    how: Shooting | None = eqx.field(static=True)
    delay: int = eqx.field(static=True, default=0)
    """primitive steps after which a plan takes effect"""
    kept: int = eqx.field(static=True, default=0)
    """steps of a plan that are remembered where there is a delay"""

    def with_delay(self, delay: int, plan_length: int) -> ModelPlanner:
        return ModelPlanner(self.model, self.spec, self.how, delay, plan_length if delay else 0)

    def init_state(self, command: Any) -> LastStep | CommittedPlan:
        refuse_command(command)
        last = LastStep.empty(self.spec)
        if not self.delay:
            return last
        plan = np.zeros((self.kept, self.spec.action_size), np.float32)
        return CommittedPlan(last, *map(jax.device_put, (plan, np.zeros((), np.int32), np.zeros((), bool))))

    def observe(self, state: LastStep | CommittedPlan, step: Step) -> LastStep | CommittedPlan:
        last = LastStep.of(step)
        if isinstance(state, CommittedPlan):
            return CommittedPlan(last, state.plan, state.since + 1, state.exists)
        return last

    def decide(
        self, state: LastStep | CommittedPlan, key: PRNGKeyArray | None, length: int
    ) -> tuple[Array, LastStep | CommittedPlan]:
        own = self.model.spec
        last = state.last if isinstance(state, CommittedPlan) else state
        z, a_prev = self.model.encode(last.observation), convert_actions(last.executed, self.spec, own)
        if not isinstance(state, CommittedPlan):
            return convert_actions(self.plan(z, a_prev, key, length), own, self.spec), state
        still = jax.lax.dynamic_slice_in_dim(state.plan, state.since, self.delay)
        done = convert_actions(still, self.spec, own)
        ahead = jax.lax.scan(lambda z, a: (self.model.step(z, a), None), z, done)[0], done[-1]
        z, a_prev = jax.tree.map(lambda late, now: jnp.where(state.exists, late, now), ahead, (z, a_prev))
        actions = convert_actions(self.plan(z, a_prev, key, length), own, self.spec)
        actions = jnp.where(state.exists, jnp.concatenate([still, actions])[:length], actions)
        kept = jnp.zeros_like(state.plan).at[:length].set(actions[: self.kept])
        return actions, CommittedPlan(last, kept, jnp.zeros_like(state.since), jnp.ones_like(state.exists))

    def plan(
        self, z: Any, a_prev: Float[Array, " act"], key: PRNGKeyArray | None, length: int
    ) -> Float[Array, "length act"]:
        """Actions from a state on, in the model's units."""
        own = self.model.spec
        if self.how is None:
            return self.write_plan(z, a_prev, length, key)
        begin = own.normalise(self.write_plan(z, a_prev, self.how.horizon))
        key = jax.random.key(0) if key is None else key  # the draws of a greedy decision are always the same
        plan = shooting.plan(lambda actions: self.plan_value(z, actions), begin, key, self.how, begin[None])
        actions = own.denormalise(plan)
        if length > self.how.horizon:
            end = jax.lax.scan(lambda z, a: (self.model.step(z, a), None), z, actions)[0]
            rest = self.write_plan(end, actions[-1], length - self.how.horizon)
            actions = jnp.concatenate([actions, rest])
        return actions[:length]

    def write_plan(
        self, z: Any, a_prev: Float[Array, " act"], length: int, key: PRNGKeyArray | None = None
    ) -> Float[Array, "length act"]:
        """What the actor does step by step where the model's predictions are all that it sees; greedily without key."""
        turns = max(length, 2)  # a single one would be rounded otherwise (see `Policy.decide`)
        noise = None if key is None else jax.random.normal(key, (turns, self.spec.action_size))

        def step(carry: tuple[Any, Array], noise_k: Array | None) -> tuple[tuple[Any, Array], Array]:
            z, before = carry
            a = self.model.act(z, before, noise_k)
            return (self.model.step(z, a), a), a

        return jax.lax.scan(step, (z, a_prev), noise, turns)[1][:length]

    def plan_value(self, z: Any, unit: Float[Array, "horizon act"]) -> Float[Array, ""]:
        """J of actions in units of their bounds."""
        return self.model.value(z, self.model.spec.denormalise(unit))

    def check(self) -> None:
        """Raises `LegatoError` where a decision would take more than `MEMORY`: all sequences are imagined at once."""
        if self.how is None:
            return
        layers = jax.tree.leaves(self.model.judges, is_leaf=lambda node: isinstance(node, Linear))
        numbers = sum(layer.bias.size for layer in layers if isinstance(layer, Linear))  # alive at once, per sequence
        each = 4 * (numbers + 2 * self.how.horizon * self.spec.action_size) / 2**30
        if each * self.how.samples > MEMORY:
            raise LegatoError(
                f"{self.how.samples} samples would take {each * self.how.samples:.1f} GiB for a decision, and "
                f"{MEMORY:g} are allowed: at most {int(MEMORY / each)} samples fit"
            )


def read_search(algorithm: str, options: Mapping[str, Any], parts: Parts, planners: Sequence[str]) -> Shooting | None:
    """How is a plan looked for? None: not at all, the actor decides step by step (`unrolled`).

    Raises `LegatoError` for options that are none or make no sense, and for a critic.
    """
    if parts.q_function is not None:
        raise LegatoError(f"a policy of '{algorithm}' searches for no return: it takes no critic")
    name, others = options.get("planner"), {k: v for k, v in options.items() if k != "planner"}
    if name is None:
        raise LegatoError(f"which planner? a search in the model of '{algorithm}' is one of {', '.join(planners)}")
    if name not in planners:
        raise unknown("planner", str(name), planners)
    if name == "unrolled":
        if others:
            searching = " and ".join(each for each in planners if each != name)
            raise LegatoError(f"planner 'unrolled' takes no options: {next(iter(others))} is one of {searching}")
        return None
    require_types(types(Shooting), others, "planner")
    return Shooting(**{"temperature": 0.0 if name == "cem" else Shooting.temperature, **others})

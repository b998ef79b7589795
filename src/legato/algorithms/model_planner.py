"""A policy that plans in a learnt model of the environment, for any algorithm that has one.

Without `Shooting` the actor decides step by step in imagined states; with it, sequences of actions are looked for, of
which the actor's is the first proposal. Beyond the horizon of a search the actor goes on from where the plan is
imagined to end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

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

    def act(self, z: Any, a_prev: Float[Array, " act"]) -> Float[Array, " act"]:
        """What the actor does there, greedily."""
        ...

    def step(self, z: Any, a: Float[Array, " act"]) -> Any:
        """The state after it."""
        ...

    def value(self, z: Any, actions: Float[Array, "horizon act"]) -> Float[Array, ""]:
        """J, what a sequence is worth."""
        ...


class ModelPlanner(Policy[LastStep]):
    """Plans in a model."""

    model: Any
    """a `PlanningModel`"""
    spec: Spec = eqx.field(static=True)
    how: Shooting | None = eqx.field(static=True)

    def init_state(self, command: Any) -> LastStep:
        refuse_command(command)
        return LastStep.empty(self.spec)

    def observe(self, state: LastStep, step: Step) -> LastStep:
        return LastStep.of(step)

    def decide(self, state: LastStep, key: PRNGKeyArray | None, length: int) -> tuple[Array, LastStep]:
        own = self.model.spec
        z, a_prev = self.model.encode(state.observation), convert_actions(state.executed, self.spec, own)
        if self.how is None:
            return convert_actions(self.write_plan(z, a_prev, length), own, self.spec), state
        begin = own.normalise(self.write_plan(z, a_prev, self.how.horizon))
        key = jax.random.key(0) if key is None else key  # the draws of a greedy decision are always the same
        plan = shooting.plan(lambda actions: self.plan_value(z, actions), begin, key, self.how, begin[None])
        actions = own.denormalise(plan)
        if length > self.how.horizon:
            end = jax.lax.scan(lambda z, a: (self.model.step(z, a), None), z, actions)[0]
            rest = self.write_plan(end, actions[-1], length - self.how.horizon)
            actions = jnp.concatenate([actions, rest])
        return convert_actions(actions[:length], own, self.spec), state

    def write_plan(self, z: Any, a_prev: Float[Array, " act"], length: int) -> Float[Array, "length act"]:
        """What the actor does step by step where the model's predictions are all that it sees."""

        def step(carry: tuple[Any, Array], _: None) -> tuple[tuple[Any, Array], Array]:
            z, before = carry
            a = self.model.act(z, before)
            return (self.model.step(z, a), a), a

        # Two turns at least: a single one would be rounded otherwise (see `Policy.decide`).
        return jax.lax.scan(step, (z, a_prev), None, max(length, 2))[1][:length]

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
    require_types({} if name == "unrolled" else types(Shooting), others, "planner")
    if name == "unrolled":
        return None
    return Shooting(**{"temperature": 0.0 if name == "cem" else Shooting.temperature, **others})

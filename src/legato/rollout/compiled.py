"""What a rollout compiles: policies as flat arrays, their first memories, and one step of them."""

from __future__ import annotations

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from legato.errors import LegatoError
from legato.policy import Policy, Step


class Structure:
    """What policies are beside their arrays: static to the compiler, and quick to compare."""

    def __init__(self, policies: Policy[Any]):
        arrays, self.static = eqx.partition(policies, eqx.is_array)
        self.treedef = jax.tree.structure(arrays)
        self.hash = hash(self.treedef)

    @staticmethod
    def leaves(policies: Policy[Any]) -> tuple[Array, ...]:
        return tuple(leaf for leaf in jax.tree.leaves(policies) if eqx.is_array(leaf))

    def policy(self, leaves: tuple[Array, ...]) -> Policy[Any]:
        return eqx.combine(jax.tree.unflatten(self.treedef, leaves), self.static)

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Structure) or self.treedef != other.treedef:
            return False
        return bool(eqx.tree_equal(self.static, other.static))


def stack(policies: list[Policy[Any]]) -> Policy[Any]:
    """Policies of one structure, stacked along a leading axis as `Rollout.run` wants them. Compiles nothing."""

    def stacked(*leaves: Any) -> Any:
        return jax.device_put(np.stack(leaves)) if eqx.is_array(leaves[0]) else leaves[0]

    return jax.tree.map(stacked, *policies)


@partial(jax.jit, static_argnums=(1, 2))
def fresh_memory(weights: tuple[Array, ...], structure: Structure, shape: tuple[int, int], command: PyTree) -> PyTree:
    """Memory before the first step, for every member: leaves `[groups, members, ...]`."""

    def one(weights: tuple[Array, ...]) -> PyTree:
        state = structure.policy(weights).init_state(command)
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (shape[1], *jnp.shape(leaf))), state)

    return jax.vmap(one, axis_size=shape[0])(weights)


@partial(jax.jit, static_argnums=(1, 2))
def intervals(
    weights: tuple[Array, ...], structure: Structure, kind: Any, memory: tuple[Array, ...]
) -> Int[Array, "groups members"]:
    """Primitive steps until each member's policy wants to be asked again, after a decision.

    Raises `LegatoError` for a policy that does not say.
    """

    def one(weights: tuple[Array, ...], memory: tuple[Array, ...]) -> Array:
        steps = structure.policy(weights).interval(jax.tree.unflatten(kind, memory))
        if steps is None:
            raise LegatoError("this policy does not say when it wants to be asked again: let the clock decide")
        return steps

    return jax.vmap(jax.vmap(one, in_axes=(None, 0)))(weights, memory)


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=(4,))
def policy_step(
    structure: Structure,
    length: int,
    shape: tuple[int, int],
    weights: tuple[Array, ...],
    memory: tuple[Array, ...],
    command: PyTree,
    step: Step,
    seen: Array,
    due: Array,
    keys: PRNGKeyArray | None,
    time: int,
) -> tuple[Array | None, tuple[Array, ...]]:
    """Observe where `seen`; decide `length` actions (none if 0) and keep the memory of it where `due`."""

    def member(policy: Policy[Any], memory: PyTree, step: Step, seen: Array, due: Array, key: PRNGKeyArray | None):
        fresh, kind = jax.tree.flatten(policy.init_state(command))
        leaves = [jnp.where(step.first, new, old) for new, old in zip(fresh, memory, strict=True)]
        memory = jax.tree.unflatten(kind, leaves)
        observed = policy.observe(memory, step)
        memory = jax.tree.map(lambda new, old: jnp.where(seen, new, old), observed, memory)
        if not length:
            return None, tuple(jax.tree.leaves(memory))
        plan, decided = policy.decide(memory, key, length)
        memory = jax.tree.map(lambda new, old: jnp.where(due, new, old), decided, memory)
        return plan, tuple(jax.tree.leaves(memory))

    def group(
        weights: tuple[Array, ...],
        memory: tuple[Array, ...],
        step: Step,
        seen: Array,
        due: Array,
        key: PRNGKeyArray | None,
    ):
        policy = structure.policy(weights)
        split = None if key is None else jax.random.split(jax.random.fold_in(key, time), shape[1])
        return jax.vmap(partial(member, policy))(memory, step, seen, due, split)

    step, seen, due = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), (step, seen, due))
    return jax.vmap(group)(weights, memory, step, seen, due, keys)

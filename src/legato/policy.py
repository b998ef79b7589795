"""The policy protocol: a sequence model with a memory.

A policy *observes* every primitive step it is shown (folds it into memory) and *decides* when asked (reads memory and
writes the next actions). Memory is a value that the caller holds; a reset is data (`Step.first`), not a call. Policies
are pure and stand for one environment; `jax.vmap` gives batches.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from legato.data.spec import Spec
from legato.errors import LegatoError

State = TypeVar("State")

# JAX's CPU backend hands a computation to another thread. A control loop waits for each decision, and would wait for
# the way there and back as well. A backend that is in use already keeps its ways.
jax.config.update("jax_cpu_enable_async_dispatch", False)


class Step(eqx.Module):
    """What the world tells a policy at one primitive step t."""

    observation: Float[Array, "*batch obs"]  # o_t
    reward: Float[Array, "*batch"]  # r_{t-1}; 0 when first
    executed: Float[Array, "*batch act"]  # a_{t-1} as really applied; 0 when first
    first: Bool[Array, "*batch"]  # t == 0


class Policy(eqx.Module, Generic[State]):
    """One way to act. Final classes implement these three methods for a single environment."""

    @abc.abstractmethod
    def init_state(self, command: PyTree) -> State:
        """Memory before the first step; `command` is a target return, a goal or `()`."""

    @abc.abstractmethod
    def observe(self, state: State, step: Step) -> State:
        """Fold one primitive step into memory."""

    @abc.abstractmethod
    def decide(self, state: State, key: PRNGKeyArray | None, length: int) -> tuple[Float[Array, "length act"], State]:
        """The next `length` primitive actions from memory alone; `key=None` is greedy.

        A greedy policy's first k actions do not depend on `length`. A policy with no sequence of its own holds its
        action.
        """

    def remark(self, state: State) -> str | None:
        """What its user should be warned of, by the memory of one or many episodes; None: of nothing."""
        return None


class LastStep(eqx.Module):
    """The memory of a policy that reads only the newest observation and the action executed before it."""

    observation: Float[Array, " obs"]
    executed: Float[Array, " act"]

    @classmethod
    def empty(cls, spec: Spec) -> LastStep:
        return cls(jnp.zeros(spec.observation_size), jnp.zeros(spec.action_size))

    @classmethod
    def of(cls, step: Step) -> LastStep:
        return cls(step.observation, step.executed)


def held(action: Float[Array, " act"], length: int) -> Float[Array, "length act"]:
    """The plan of a policy that has no sequence of its own."""
    return jnp.broadcast_to(action, (length, *action.shape))


class RandomPlans(Policy[State]):
    """`policy` with its plans replaced by uniformly random ones: exploration before anything was learnt.

    Each primitive action is drawn anew, or one action is drawn and held (`hold`). Memory is the policy's own, so that
    the change from random to learnt happens between two decisions.
    """

    policy: Policy[State]
    spec: Spec = eqx.field(static=True)
    hold: bool = eqx.field(static=True, default=False)

    def init_state(self, command: PyTree) -> State:
        return self.policy.init_state(command)

    def observe(self, state: State, step: Step) -> State:
        return self.policy.observe(state, step)

    def decide(self, state: State, key: PRNGKeyArray | None, length: int) -> tuple[Array, State]:
        if key is None:
            raise LegatoError("a random policy has no greedy action: give it a key")
        low, high = jnp.asarray(self.spec.low), jnp.asarray(self.spec.high)
        shape = (1 if self.hold else length, self.spec.action_size)
        if self.spec.choices is not None:
            drawn = jax.random.randint(key, shape, 0, self.spec.choices).astype(jnp.float32)
        else:
            drawn = jax.random.uniform(key, shape, minval=low, maxval=high)
        return jnp.broadcast_to(drawn, (length, self.spec.action_size)), state


class Noisy(Policy[State]):
    """`policy` with normal noise on every action, kept within the bounds: exploration about what was learnt."""

    policy: Policy[State]
    deviation: Float[Array, ""]
    """in units of the bounds, [-1, 1]"""
    spec: Spec = eqx.field(static=True)

    def init_state(self, command: PyTree) -> State:
        return self.policy.init_state(command)

    def observe(self, state: State, step: Step) -> State:
        return self.policy.observe(state, step)

    def decide(self, state: State, key: PRNGKeyArray | None, length: int) -> tuple[Array, State]:
        if key is None:
            raise LegatoError("noise has no greedy action: give it a key")
        low, high = jnp.asarray(self.spec.low), jnp.asarray(self.spec.high)
        k_decide, k_noise = jax.random.split(key)
        actions, state = self.policy.decide(state, k_decide, length)
        noise = jax.random.normal(k_noise, actions.shape)
        return jnp.clip(actions + self.deviation * 0.5 * (high - low) * noise, low, high), state


class OpenLoop(Policy[Int[Array, ""]]):
    """Plays a fixed list of actions, whatever happens; after its end it holds the last one."""

    actions: Float[Array, "steps act"]

    def init_state(self, command: PyTree) -> Int[Array, ""]:
        return jnp.full((), -1)

    def observe(self, state: Int[Array, ""], step: Step) -> Int[Array, ""]:
        return state + 1

    def decide(self, state: Int[Array, ""], key: PRNGKeyArray | None, length: int) -> tuple[Array, Int[Array, ""]]:
        index = jnp.minimum(state + jnp.arange(length), len(self.actions) - 1)
        return self.actions[index], state


class Playing(eqx.Module, Generic[State]):
    """A policy at work: its memory, the plan in execution, and how much of that is done."""

    memory: State
    plan: Float[Array, "every act"]
    cursor: Int[Array, ""]


def begin(policy: Policy[State], command: PyTree, spec: Spec, every: int) -> Playing[State]:
    """A policy before its first step, deciding once in `every` primitive steps."""
    return Playing(policy.init_state(command), jnp.zeros((every, spec.action_size)), jnp.zeros((), jnp.int32))


def play(
    policy: Policy[State],
    fresh: Playing[State],
    playing: Playing[State],
    step: Step,
    key: PRNGKeyArray | None,
) -> tuple[Float[Array, " act"], Playing[State]]:
    """One primitive step of any policy: observe, decide if due, next action of the plan.

    `fresh` (from `begin`) replaces the state where `step.first`. This is the reference that the rollout, which decides
    only when it must, is tested against.
    """
    playing = jax.tree.map(lambda new, old: jnp.where(step.first, new, old), fresh, playing)
    every = playing.plan.shape[0]
    seen = policy.observe(playing.memory, step)
    decided = policy.decide(seen, key, every)
    due = playing.cursor == 0
    plan, memory = jax.tree.map(lambda new, old: jnp.where(due, new, old), decided, (playing.plan, seen))
    return plan[playing.cursor], Playing(memory, plan, (playing.cursor + 1) % every)


class Memory(NamedTuple):
    """What a `Player` carries between calls: opaque to its caller, and flat, because flat is fast to dispatch."""

    state: tuple[Array, ...]  # the leaves of the policy's own memory
    executed: Array | np.ndarray  # the action assumed executed last: the end of the last plan
    first: Array | np.ndarray


class Player:
    """A policy in a control loop: NumPy in, NumPy out, one compiled call per decision, memory held by the caller.

    >>> memory = player.begin()
    >>> actions, memory = player.act(memory, observation, length=8)
    """

    def __init__(self, policy: Policy[Any], spec: Spec):
        self.policy = policy
        self.spec = spec
        arrays, self._static = eqx.partition(policy, eqx.is_array)
        self._weights, self._structure = jax.tree.flatten(arrays)
        self._memory: Any = None  # structure of the policy's memory, known from `begin` on
        self._compiled: dict[int, Callable[..., tuple[Array, Memory]]] = {}

    def begin(self, command: PyTree = ()) -> Memory:
        """Memory at the start of an episode."""
        leaves, self._memory = jax.tree.flatten(self.policy.init_state(command))
        return Memory(tuple(leaves), jnp.zeros(self.spec.action_size), jnp.ones((), bool))

    def act(
        self,
        memory: Memory,
        observation: np.ndarray,
        length: int = 1,
        *,
        reward: float = 0.0,
        executed: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Memory]:
        """Observe one step and decide greedily: the next `length` primitive actions `[length, act]` and new memory.

        `reward` is the last step's; `executed` the action really applied last, by default the end of the last plan.
        Raises `LegatoError` when it or the observation has another size than the policy was trained with.
        """
        size = self.spec.observation_size
        if np.shape(observation) != (size,):
            raise LegatoError(f"the policy reads {size} numbers; the observation has shape {np.shape(observation)}")
        read = np.empty(size + 1, np.float32)  # one array: each that crosses to the device costs microseconds
        read[:-1], read[-1] = observation, reward
        if executed is not None:
            size = self.spec.action_size
            if np.shape(executed) != (size,):
                raise LegatoError(f"an action has {size} numbers; the executed action has shape {np.shape(executed)}")
            memory = memory._replace(executed=np.asarray(executed, np.float32))
        actions, memory = self._call(length)(self._weights, memory, read)
        return np.asarray(actions), memory

    def remark(self, memory: Memory) -> str | None:
        """What there is to warn of in the episode so far; None: nothing."""
        return self.policy.remark(jax.tree.unflatten(self._memory, memory.state)) if self._memory else None

    def _call(self, length: int) -> Callable[..., tuple[Array, Memory]]:
        if length not in self._compiled:
            if self._memory is None:
                raise LegatoError("an episode starts with begin()")
            if length < 1:
                raise LegatoError(f"a plan has at least one action; length {length} was asked for")

            def act(weights: list[Array], memory: Memory, read: Array) -> tuple[Array, Memory]:
                policy = eqx.combine(jax.tree.unflatten(self._structure, weights), self._static)
                state = jax.tree.unflatten(self._memory, memory.state)
                step = Step(read[:-1], read[-1], jnp.asarray(memory.executed), jnp.asarray(memory.first))
                actions, state = policy.decide(policy.observe(state, step), None, length)
                return actions, Memory(tuple(jax.tree.leaves(state)), actions[-1], jnp.zeros((), bool))

            self._compiled[length] = jax.jit(act)
        return self._compiled[length]

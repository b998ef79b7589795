"""The policy protocol: a sequence model with a memory.

A policy *observes* every primitive step it is shown (folds it into memory) and *decides* when asked (reads memory and
writes the next actions). Memory is a value that the caller holds; a reset is data (`Step.first`), not a call. Policies
are pure and stand for one environment; `jax.vmap` gives batches.
"""

from __future__ import annotations

import abc
import functools
import os
import reprlib
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, UInt8

from legato.data import returns_to_go
from legato.data.spec import Spec
from legato.errors import LegatoError

LONGEST = 100_000  # actions of a plan, and steps between decisions: more is a mistake, and would take the memory
State = TypeVar("State")
Given = ParamSpec("Given")
Found = TypeVar("Found")

# JAX's CPU backend hands a computation to another thread. A control loop waits for each decision, and would wait for
# the way there and back as well. A backend that is in use already keeps its ways.
jax.config.update("jax_cpu_enable_async_dispatch", False)


def in_single_precision(function: Callable[Given, Found]) -> Callable[Given, Found]:
    """The same function with numbers of 32 bits, whatever `jax_enable_x64` says to the rest of the program."""

    @functools.wraps(function)
    def single(*args: Given.args, **kwargs: Given.kwargs) -> Found:
        with jax.enable_x64(False):
            return function(*args, **kwargs)

    return single


_computed_in: int | None = None  # the process in which JAX has computed for this library, if any


def guard_computation(function: Callable[Given, Found]) -> Callable[Given, Found]:
    """The same function in single precision, and refused in a forked process, where JAX would wait for ever.

    Raises `LegatoError` where JAX has computed before the fork: the threads that it needs did not come along.
    """
    single = in_single_precision(function)

    @functools.wraps(function)
    def checked(*args: Given.args, **kwargs: Given.kwargs) -> Found:
        refuse_fork()
        found = single(*args, **kwargs)
        mark_computation()
        return found

    return checked


def mark_computation() -> None:
    """From now on, forked processes cannot compile."""
    global _computed_in
    _computed_in = os.getpid()


def refuse_fork() -> None:
    """Raises `LegatoError` in a process that was forked from one that has computed."""
    if _computed_in not in (None, os.getpid()):
        raise LegatoError(
            "this process was forked from one that has used JAX, and would wait for ever: "
            "start processes with multiprocessing's 'spawn', multiprocessing.get_context('spawn')"
        )


class Step(eqx.Module):
    """What the environment tells a policy at one primitive step t."""

    observation: Float[Array, "*batch obs"] | UInt8[Array, "*batch obs"]  # o_t
    reward: Float[Array, "*batch"]  # r_{t-1}; 0 when first
    executed: Float[Array, "*batch act"]  # a_{t-1} as really applied; `Spec.middle` when first
    first: Bool[Array, "*batch"]  # t == 0


class Policy(eqx.Module, Generic[State]):
    """One way to act. Final classes implement these three methods for a single environment."""

    @abc.abstractmethod
    def init_state(self, command: PyTree) -> State:
        """Memory before the first step; `command` is a target return, a goal or `()`.

        A command that the policy does not read is refused (`refuse_command`, `target_return`), not ignored.
        """

    @abc.abstractmethod
    def observe(self, state: State, step: Step) -> State:
        """Fold one primitive step into memory."""

    @abc.abstractmethod
    def decide(self, state: State, key: PRNGKeyArray | None, length: int) -> tuple[Float[Array, "length act"], State]:
        """The next `length` primitive actions from memory alone; `key=None` is greedy.

        A greedy policy's first k actions do not depend on `length`. A policy with no sequence of its own holds its
        action.
        """

    def interval(self, state: State) -> Int[Array, ""] | None:
        """Primitive steps until the policy's next decision, by the memory after a decision; None: it leaves that to the
        clock.

        A rollout heeds it with `Clock(every=(low, high), by="policy")`, within these bounds.
        """
        return None

    def with_delay(self, delay: int, plan_length: int) -> Policy[Any] | None:
        """The policy for plans that take effect `delay` primitive steps late: begun where it predicts to be by then.

        None: it has no model to predict with. `plan_length` is `Clock.plan_length`; it must be shown every step.
        """
        return None

    def warning(self, state: State) -> str | None:
        """What its user should be warned of, by the memory of one or many episodes; None: of nothing."""
        return None


class LastStep(eqx.Module):
    """The memory of a policy that reads only the newest observation and the action executed before it."""

    observation: Float[Array, " obs"] | UInt8[Array, " obs"]
    executed: Float[Array, " act"]

    @classmethod
    def empty(cls, spec: Spec) -> LastStep:
        """Memory before an episode's first step."""
        single = jnp.result_type(float)  # or double, where the program computes in it
        seen = np.zeros(spec.observation_size, np.uint8 if spec.images else single)
        return cls(*(jax.device_put(zeros) for zeros in (seen, np.zeros(spec.action_size, single))))  # compiles nothing

    @classmethod
    def of(cls, step: Step) -> LastStep:
        """Memory after a step."""
        return cls(step.observation, step.executed)


def is_empty_command(command: PyTree) -> bool:
    """Is it the empty command, `()`?"""
    return isinstance(command, tuple) and not command


def refuse_command(command: PyTree) -> None:
    """For policies that read no command. Raises `LegatoError` for anything but `()`."""
    if not is_empty_command(command):
        raise LegatoError(f"this policy reads no target return and no goal: begin without {reprlib.repr(command)}")


def target_return(command: PyTree, default: Float[Array, ""], *, read: bool = True) -> Float[Array, ""]:
    """The return to ask for: the `command`, or for `()` the `default`.

    Raises `LegatoError` for anything but one number that float32 can hold, and for any where targets are not `read`.
    """
    if not read:
        refuse_command(command)
    if is_empty_command(command):
        return default
    if not isinstance(command, Tracer):
        asked = as_array(command)
        if asked is None or asked.shape != () or not np.isfinite(as_float32(asked)):
            raise LegatoError(f"a target return is one finite number; {reprlib.repr(command)} was given")
    return jnp.asarray(command, jnp.float32)


def return_to_go(
    before: Float[Array, ""], step: Step, gamma: float, *, delay_rewards: bool = False
) -> Float[Array, ""]:
    """What is left of the return asked for when a step has been seen, of what was left `before`.

    The target itself at an episode's first step, and always where rewards are paid at its end (`delay_rewards`).
    """
    return (
        before
        if delay_rewards
        else jnp.where(step.first, before, returns_to_go.after_reward(before, step.reward, gamma))
    )


def numbers(values: Any, size: int) -> Float[np.ndarray, " size"] | None:
    """So many finite numbers in float32; None for anything else."""
    array = as_array(values)
    if array is None or array.shape != (size,):
        return None
    array = as_float32(array)
    return array if np.isfinite(array).all() else None


def as_array(values: Any) -> np.ndarray | None:
    """Numbers as an array; None for anything that is none, such as text or rows of unequal length."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):
        return None
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):  # what is masked was not read
        array = np.where(np.ma.getmaskarray(values), np.nan, array.astype(float))
    return array if array.dtype.kind in "fiub" else None


def as_float32(array: np.ndarray) -> np.ndarray:
    """What float32 cannot hold is infinite there."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def hold_action(action: Float[Array, " act"], length: int) -> Float[Array, "length act"]:
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
        low, high = self.spec.bounds()
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
        _, half = self.spec.box()
        k_decide, k_noise = jax.random.split(key)
        actions, state = self.policy.decide(state, k_decide, length)
        noise = jax.random.normal(k_noise, actions.shape)
        return self.spec.clip(actions + self.deviation * half * noise), state


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

"""A policy in a control loop: NumPy in, NumPy out, one compiled call for each decision."""

from __future__ import annotations

import functools
import operator
import reprlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from legato.data.spec import Spec
from legato.errors import LegatoError
from legato.policy import (
    LONGEST,
    Policy,
    Step,
    as_array,
    as_float32,
    in_single_precision,
    mark_computation,
    refuse_fork,
)


class Memory(NamedTuple):
    """What a `Player` carries between calls: opaque to its caller, and flat, because flat is fast to dispatch."""

    state: tuple[Array, ...]  # the leaves of the policy's own memory
    executed: Array | np.ndarray  # the action assumed executed last: the end of the last plan
    first: Array | np.ndarray


_ORDINARY = 1e6  # readings up to here make no sum overflow: what they lead to needs no second look


class Player:
    """A policy in a control loop: NumPy in, NumPy out, one compiled call per decision, memory held by the caller.

        memory = player.begin()
        actions, memory = player.act(memory, observation, length=8)

    Each length compiles once: at its first call, or in `warm_up`.
    """

    def __init__(self, policy: Policy[Any], spec: Spec):
        self.policy = policy
        self.spec = spec
        arrays, self._static = eqx.partition(policy, eqx.is_array)
        self._weights, self._structure = jax.tree.flatten(arrays)
        self._size = spec.observation_size
        # A policy of 32 bits stays one in a program that has turned `jax_enable_x64` on.
        self._single = not any(jnp.dtype(leaf.dtype).itemsize > 4 for leaf in self._weights if _inexact(leaf))
        self._memory: Any = None  # structure of the policy's memory, known from `begin` on
        self._shapes: list[tuple[tuple[int, ...], Any]] = []  # and of its leaves
        self._compiled: dict[int, Callable[..., tuple[Array, Memory]]] = {}

    def begin(self, command: PyTree = ()) -> Memory:
        """Memory at the start of an episode; `command` is the return to ask for, or the goal.

        Raises `LegatoError` for a command that the policy does not read, of another shape, or not finite.
        """
        if self._single and _doubled():
            return in_single_precision(self.begin)(command)
        leaves, self._memory = jax.tree.flatten(self.policy.init_state(command))
        self._shapes = [(leaf.shape, leaf.dtype) for leaf in leaves]
        return Memory(tuple(leaves), np.asarray(self.spec.middle, np.float32), np.ones((), bool))

    def act(
        self,
        memory: Memory,
        observation: np.ndarray,
        length: int = 1,
        *,
        reward: float = 0.0,
        executed: np.ndarray | float | None = None,
        on_invalid: Literal["raise", "hold"] = "raise",
    ) -> tuple[np.ndarray, Memory]:
        """Observe one step and decide greedily: the next `length` primitive actions `[length, act]` and new memory.

        `reward` is the last step's; `executed` the action really applied last (of one number: also that number), by
        default the end of the last plan. It is moved to its bounds where it lies outside. The actions are float32
        within the bounds, also once they are float64.

        A reading that is not finite (an observation, reward or executed action that is NaN, infinite or beyond
        float32, or one at which the policy's numbers overflow) is never folded into memory: it raises `LegatoError`, or
        with `on_invalid="hold"` the action executed last is held for `length` steps, and the memory is the same as
        before. What was read so is lost: of a reward, too. Nothing can be held before an episode's first decision.

        Raises `LegatoError` for an observation or action of another size than the policy was trained with, a choice
        that there is not, anything that is no number, a length that is no positive integer, and a memory that is not
        this policy's.
        """
        if type(length) is not int:
            length = _whole(length)
        if length > LONGEST:
            raise LegatoError(f"a plan has at most {LONGEST} actions; length {length} was asked for")
        if type(memory) is not Memory:
            raise LegatoError(f"memory is what begin() or act() returned last; {reprlib.repr(memory)} was given")
        if on_invalid != "raise" and on_invalid != "hold":
            raise LegatoError(f"on_invalid is 'raise' or 'hold'; {reprlib.repr(on_invalid)} was given")
        call = self._call(length)
        before, (read, ordinary) = memory, self._reading(observation, reward)
        valid = ordinary or bool(np.isfinite(read).all())
        if executed is not None:
            action = self._executed(executed)
            valid = valid and bool(np.isfinite(action).all())
            memory = memory._replace(executed=action)
        if valid:
            actions, after = call(self._weights, memory, read)
            actions = np.asarray(actions)
            flat = actions.ravel()
            found = np.dot(flat, flat)  # NaN where one of them is, and sooner known than by looking at each
            if found == found and (ordinary or _finite(after)):
                return actions, after
        if on_invalid == "hold":
            return self._held(memory, before, length), before
        raise self._invalid(memory, read)

    def warm_up(self, lengths: Sequence[int] = (1,), command: PyTree = ()) -> None:
        """Compile `act` for these lengths now, so that no decision of a control loop waits for it.

        `command` is what the episodes will begin with, if anything. No memory is touched. Raises `LegatoError` as
        `begin` and `act` do.
        """
        memory, read = self.begin(command), np.zeros(self._size + 1, np.float32)
        for length in lengths if isinstance(lengths, Iterable) else (lengths,):
            if (length := _whole(length)) > LONGEST:
                raise LegatoError(f"a plan has at most {LONGEST} actions; length {length} was asked for")
            call = self._call(length)
            _, after = call(self._weights, memory, read)
            call(self._weights, after, read)  # the memory that a decision leaves comes another way into the program

    def warning(self, memory: Memory) -> str | None:
        """What there is to warn of in the episode so far; None: nothing."""
        return self.policy.warning(jax.tree.unflatten(self._memory, memory.state)) if self._memory else None

    def interval(self, memory: Memory) -> int | None:
        """Primitive steps until the policy wants to decide again, by the memory that `act` gave; None: it does not say.

        `actions, memory = policy.act(memory, observation, length=8)`, and then `interval(memory)` of the actions are
        played before the next call.
        """
        found = self.policy.interval(jax.tree.unflatten(self._memory, memory.state)) if self._memory else None
        return None if found is None else int(found)

    def _reading(self, observation: Any, reward: Any) -> tuple[np.ndarray, bool]:
        """Observation and reward in one array, as each that crosses costs microseconds; are they ordinary?"""
        size = self._size
        given = observation if type(observation) is np.ndarray else as_array(observation)
        if given is None and self.spec.images:
            raise self._no_image(f"{reprlib.repr(observation)} is none")
        if given is None or given.dtype.kind not in "fiub":
            raise LegatoError(f"the policy reads {size} numbers; the observation {reprlib.repr(observation)} is none")
        if self.spec.images:
            given = self._image(given)
        if given.shape != (size,):
            raise LegatoError(f"the policy reads {size} numbers; the observation has shape {given.shape}")
        if type(reward) is not float:
            number = as_array(reward)
            if number is None or number.shape != ():
                raise LegatoError(f"a reward is one number; {reprlib.repr(reward)} was given")
            reward = float(number)
        # The sum of squares is a quick proof; without it, NumPy might warn of what float32 cannot hold.
        ordinary = bool(np.dot(given, given) <= _ORDINARY**2) and -_ORDINARY <= reward <= _ORDINARY
        if not ordinary:
            given, reward = as_float32(given), as_float32(np.asarray(reward))
        read = np.empty(size + 1, np.float32)
        read[:-1], read[-1] = given, reward
        return read, ordinary

    def _image(self, given: np.ndarray) -> np.ndarray:
        """An image as a row of numbers. Raises `LegatoError` for what is no image of the shape that is read."""
        if given.dtype != np.uint8 or given.shape not in (self.spec.shape, (self._size,)):
            raise self._no_image(f"the observation has shape {given.shape} and type {given.dtype}")
        return given.reshape(-1).astype(np.float32)

    def _no_image(self, what: str) -> LegatoError:
        shape = " x ".join(map(str, self.spec.shape or ()))
        return LegatoError(f"the policy reads images of {shape} bytes (uint8); {what}")

    def _executed(self, action: Any) -> np.ndarray:
        """An executed action within its bounds; what is not finite stays so."""
        size, choices = self.spec.action_size, self.spec.choices
        given = as_array(action)
        if given is None:
            raise LegatoError(f"an action has {size} numbers; the executed action {reprlib.repr(action)} is none")
        given = given.reshape(1) if given.shape == () and size == 1 else given
        if given.shape != (size,):
            raise LegatoError(f"an action has {size} numbers; the executed action has shape {given.shape}")
        if choices is not None and np.isfinite(given[0]) and given[0] not in range(choices):
            raise LegatoError(f"there are actions 0 to {choices - 1}; the executed action was {given[0]:g}")
        low, high = self.spec.float32_bounds
        given = as_float32(given)
        return np.where(np.isfinite(given), np.clip(given, low, high), np.nan).astype(np.float32)

    def _held(self, memory: Memory, before: Memory, length: int) -> np.ndarray:
        """The action executed last, as it was told or else as it was planned."""
        if bool(before.first):
            raise LegatoError("the first reading of an episode is not finite, and there is no action yet to hold")
        for last in (np.asarray(memory.executed, np.float32), np.asarray(before.executed, np.float32)):
            if np.isfinite(last).all():
                return np.repeat(last[None], length, axis=0)
        raise self._invalid(before, np.zeros(self._size + 1, np.float32))

    def _invalid(self, memory: Memory, read: np.ndarray) -> LegatoError:
        """The error for what was not finite."""
        hold = "; the memory is as it was, and on_invalid='hold' would hold the last action"
        named = (("observation", read[:-1]), ("executed action", np.asarray(memory.executed)), ("reward", read[-1:]))
        for what, array in named:
            if not np.isfinite(array).all():
                place = int(np.argmin(np.isfinite(array)))
                which = what if what == "reward" else f"{what}[{place}]"
                return LegatoError(f"the {which} is {'NaN' if np.isnan(array[place]) else 'infinite'}{hold}")
        if not _finite(memory):
            return LegatoError("the memory holds numbers that are not finite: begin() again")
        place = int(np.argmax(np.abs(read[:-1])))
        return LegatoError(f"the policy's numbers overflow at observation[{place}] = {read[place]:g}{hold}")

    def _call(self, length: int) -> Callable[..., tuple[Array, Memory]]:
        if length not in self._compiled:
            if self._memory is None:
                raise LegatoError("an episode starts with begin()")
            if length < 1:
                raise LegatoError(f"a plan has at least one action; length {length} was asked for")
            refuse_fork()
            mark_computation()

            def act(weights: list[Array], memory: Memory, read: Array) -> tuple[Array, Memory]:
                self._own(memory)  # once for each kind of memory
                policy = eqx.combine(jax.tree.unflatten(self._structure, weights), self._static)
                state = jax.tree.unflatten(self._memory, memory.state)
                seen = read[:-1].astype(jnp.uint8) if self.spec.images else read[:-1]
                step = Step(seen, read[-1], jnp.asarray(memory.executed), jnp.asarray(memory.first))
                actions, state = policy.decide(policy.observe(state, step), None, length)
                actions = jnp.clip(actions, *self.spec.float32_bounds)
                return actions, Memory(tuple(jax.tree.leaves(state)), actions[-1], jnp.zeros((), bool))

            compiled = jax.jit(act, compiler_options=_compiler_options())

            def call(weights: list[Array], memory: Memory, read: Array) -> tuple[Array, Memory]:
                if self._single and _doubled():
                    return in_single_precision(compiled)(weights, memory, read)
                return compiled(weights, memory, read)

            self._compiled[length] = call
        return self._compiled[length]

    def _own(self, memory: Memory) -> None:
        """Raises `LegatoError` for the memory of a policy that remembers something else."""
        found = [(np.shape(leaf), leaf.dtype) for leaf in memory.state]
        if found != self._shapes or np.shape(memory.executed) != (self.spec.action_size,):
            raise LegatoError("this is the memory of another policy: begin() with the policy that is to act")


_FEWER = {"xla_cpu_use_fusion_emitters": False}


@functools.cache
def _compiler_options() -> dict[str, Any]:
    """A CPU's programs without XLA's newer emitters, which take 30 MB to 150 MB and more time than they save.

    None where the compiler does not know them.
    """
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(operator.neg, compiler_options=_FEWER).lower(np.float32(0)).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return _FEWER


def _finite(memory: Memory) -> bool:
    return all(np.isfinite(leaf).all() for leaf in memory.state if _inexact(leaf))


def _inexact(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def _doubled() -> bool:
    """Are numbers of 64 bits, here and now, in this thread?"""
    return jax.config.jax_enable_x64  # type: ignore[attr-defined]


def _whole(length: Any) -> int:
    """A length as Python's own integer. Raises `LegatoError` for what is none."""
    try:
        if not isinstance(length, bool | np.bool_):
            return operator.index(length)
    except TypeError:
        pass
    raise LegatoError(f"a length is a whole number of actions; {reprlib.repr(length)} was given")

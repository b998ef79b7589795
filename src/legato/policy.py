"""The policy protocol: a sequence model with a memory.

A policy *observes* every primitive step it is shown (folds it into memory) and *decides* when asked (reads memory and
writes the next actions). Memory is a value that the caller holds; a reset is data (`Step.first`), not a call. Policies
are pure and stand for one environment; `jax.vmap` gives batches.
"""

from __future__ import annotations

import abc
import functools
import operator
import os
import reprlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, Literal, NamedTuple, ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from legato.data.spec import Spec
from legato.errors import LegatoError

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
    """What the world tells a policy at one primitive step t."""

    observation: Float[Array, "*batch obs"]  # o_t
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

    def remark(self, state: State) -> str | None:
        """What its user should be warned of, by the memory of one or many episodes; None: of nothing."""
        return None


class LastStep(eqx.Module):
    """The memory of a policy that reads only the newest observation and the action executed before it."""

    observation: Float[Array, " obs"]
    executed: Float[Array, " act"]

    @classmethod
    def empty(cls, spec: Spec) -> LastStep:
        """Memory before an episode's first step."""
        single = jnp.result_type(float)  # or double, where the program computes in it
        sizes = spec.observation_size, spec.action_size
        return cls(*(jax.device_put(np.zeros(size, single)) for size in sizes))  # which compiles nothing

    @classmethod
    def of(cls, step: Step) -> LastStep:
        """Memory after a step."""
        return cls(step.observation, step.executed)


def refuse_command(command: PyTree) -> None:
    """For policies that read no command. Raises `LegatoError` for anything but `()`."""
    if not (isinstance(command, tuple) and not command):
        raise LegatoError(f"this policy reads no target return and no goal: begin without {reprlib.repr(command)}")


def target_return(command: PyTree, default: Float[Array, ""], *, read: bool = True) -> Float[Array, ""]:
    """The return to ask for: the `command`, or for `()` the `default`.

    Raises `LegatoError` for anything but one number that float32 can hold, and for any where targets are not `read`.
    """
    if not read:
        refuse_command(command)
    if isinstance(command, tuple) and not command:
        return default
    if not isinstance(command, Tracer):
        asked = _array(command)
        if asked is None or asked.shape != () or not np.isfinite(_float32(asked)):
            raise LegatoError(f"a target return is one finite number; {reprlib.repr(command)} was given")
    return jnp.asarray(command, jnp.float32)


def numbers(values: Any, size: int) -> Float[np.ndarray, " size"] | None:
    """So many finite numbers in float32; None for anything else."""
    array = _array(values)
    if array is None or array.shape != (size,):
        return None
    array = _float32(array)
    return array if np.isfinite(array).all() else None


def _array(values: Any) -> np.ndarray | None:
    """Numbers as an array; None for anything that is none, such as text or rows of unequal length."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):
        return None
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):  # what is masked was not read
        array = np.where(np.ma.getmaskarray(values), np.nan, array.astype(float))
    return array if array.dtype.kind in "fiub" else None


def _float32(array: np.ndarray) -> np.ndarray:
    """What float32 cannot hold is infinite there."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


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


LONGEST = 100_000  # actions of a plan: more is a mistake, and would take the memory
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

    def remark(self, memory: Memory) -> str | None:
        """What there is to warn of in the episode so far; None: nothing."""
        return self.policy.remark(jax.tree.unflatten(self._memory, memory.state)) if self._memory else None

    def _reading(self, observation: Any, reward: Any) -> tuple[np.ndarray, bool]:
        """Observation and reward in one array, as each that crosses costs microseconds; are they ordinary?"""
        size = self._size
        given = observation if type(observation) is np.ndarray else _array(observation)
        if given is None or given.dtype.kind not in "fiub":
            raise LegatoError(f"the policy reads {size} numbers; the observation {reprlib.repr(observation)} is none")
        if given.shape != (size,):
            raise LegatoError(f"the policy reads {size} numbers; the observation has shape {given.shape}")
        if type(reward) is not float:
            number = _array(reward)
            if number is None or number.shape != ():
                raise LegatoError(f"a reward is one number; {reprlib.repr(reward)} was given")
            reward = float(number)
        # The sum of squares is a quick proof; without it, NumPy might warn of what float32 cannot hold.
        ordinary = bool(np.dot(given, given) <= _ORDINARY**2) and -_ORDINARY <= reward <= _ORDINARY
        if not ordinary:
            given, reward = _float32(given), _float32(np.asarray(reward))
        read = np.empty(size + 1, np.float32)
        read[:-1], read[-1] = given, reward
        return read, ordinary

    def _executed(self, action: Any) -> np.ndarray:
        """An executed action within its bounds; what is not finite stays so."""
        size, choices = self.spec.action_size, self.spec.choices
        given = _array(action)
        if given is None:
            raise LegatoError(f"an action has {size} numbers; the executed action {reprlib.repr(action)} is none")
        given = given.reshape(1) if given.shape == () and size == 1 else given
        if given.shape != (size,):
            raise LegatoError(f"an action has {size} numbers; the executed action has shape {given.shape}")
        if choices is not None and np.isfinite(given[0]) and given[0] not in range(choices):
            raise LegatoError(f"there are actions 0 to {choices - 1}; the executed action was {given[0]:g}")
        low, high = self.spec.float32_bounds
        given = _float32(given)
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
                step = Step(read[:-1], read[-1], jnp.asarray(memory.executed), jnp.asarray(memory.first))
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

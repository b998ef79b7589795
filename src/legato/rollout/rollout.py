"""Policies at work in environments, primitive step by primitive step."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from legato.data.spec import Spec
from legato.envs import Environments
from legato.errors import LegatoError, LegatoWarning
from legato.policy import Policy, Step
from legato.rollout.clock import Clock, Stream, episode_seed
from legato.rollout.compiled import Structure, fresh_memory, intervals, policy_step
from legato.rollout.experience import Episode, Experience
from legato.rollout.members import Members

LONG, ENDLESS = 10_000, 100_000
"""primitive steps of an episode without a time limit at which an evaluation says so, and gives up"""


class Rollout:
    """Policies at work in environments, primitive step by primitive step.

    Members are arranged `[groups, members per group]`: each group acts by its own policy (one group per training seed)
    and policies come stacked along a leading axis of that size.

    environments
        `groups x per_group` members, group after group.
    seeds
        `[groups]`; every episode's seed derives from its group's seed, the stream and the episode's number.
    once
        Each member plays one episode and then idles (evaluation), instead of starting the next one (collection).
    length
        Actions to ask of each decision, by default those the clock needs. Plans of one length share one compilation.
    first_episode
        The number of the first member's first episode in its stream.
    """

    def __init__(
        self,
        environments: Environments,
        spec: Spec,
        clock: Clock,
        seeds: list[int],
        stream: Stream,
        *,
        once: bool = False,
        command: PyTree = (),
        length: int | None = None,
        first_episode: int = 0,
    ):
        self.length = max(length or 0, clock.plan_length)
        if environments.count % len(seeds):
            raise ValueError("the members must divide evenly among the groups")
        self.environments, self.spec, self.clock = environments, spec, clock
        self.seeds, self.once, self.command = seeds, once, command
        self.stream: Stream = stream
        self.groups, self.per_group = len(seeds), environments.count // len(seeds)
        self.first_episode = first_episode
        self.memory: tuple[Array, ...] | None = None  # the leaves of the policies' memories: flat is fast to dispatch
        self.kind: Any = None  # what they are the leaves of
        self.structure: Structure | None = None  # of the policies that were at work last
        self.time = 0  # primitive steps in this rollout's life
        self.members = self._begin()

    # --- beginning an episode ---

    def _begin(self) -> Members:
        n, a, length = self.environments.count, self.spec.action_size, self.length
        members = Members(
            observation=np.zeros((n, self.spec.observation_size), self.spec.dtype),
            reward=np.zeros(n, np.float32),
            executed=np.zeros((n, a), np.float32),
            first=np.ones(n, bool),
            active=np.ones(n, bool),
            episode=self.first_episode + np.arange(n) % self.per_group,
            clock=np.zeros(n, np.int64),
            due=np.zeros(n, np.int64),
            decisions=np.zeros(n, np.int64),
            plan=np.zeros((n, length, a), np.float32),
            cursor=np.zeros(n, np.int64),
            pending=np.zeros((n, length, a), np.float32),
            pending_at=np.full(n, -1, np.int64),
            ret=np.zeros(n),
            actions=[[] for _ in range(n)],
        )
        self._reset(members, np.arange(n))
        return members

    def _reset(self, m: Members, index: np.ndarray) -> None:
        """Start an episode in each member of `index`: the queue is empty, time is 0, the last action `spec.middle`."""
        seeds = np.array([self._seed(int(i), m) for i in index])
        m.observation[index] = self.environments.reset(index, seeds)
        m.reward[index], m.executed[index], m.first[index] = 0, self.spec.middle, True
        m.clock[index] = m.due[index] = m.decisions[index] = m.cursor[index] = 0
        m.pending_at[index], m.ret[index] = -1, 0
        for i in index:
            m.actions[i] = []

    def _seed(self, member: int, m: Members | None = None) -> int:
        """The seed of a member's running episode."""
        episode = (m or self.members).episode[member]
        return episode_seed(self.seeds[member // self.per_group], self.stream, int(episode))

    def _interval(self, member: int) -> int:
        """Primitive steps until the next decision; random ones depend on the episode and the decision's number only."""
        low, high = self.clock.interval
        if low == high:
            return low
        m = self.members
        entropy = [self._seed(member), int(m.decisions[member])]
        return low + int(np.random.SeedSequence(entropy).generate_state(1)[0]) % (high - low + 1)

    # --- one primitive step ---

    def run(self, policies: Policy[Any], steps: int, keys: PRNGKeyArray | None) -> tuple[Experience, list[Episode]]:
        """Advance every active member by `steps` primitive steps (fewer when all have finished).

        `policies` is stacked over groups. `keys` `[groups]` must be the same in every call: the t-th step of this
        rollout's life draws from `fold_in(key, t)`; None acts greedily. Returns the experience and the episodes that
        ended in it.
        """
        weights, structure = self._split_policy(policies)
        rows: list[tuple[np.ndarray, ...]] = []
        episodes: list[Episode] = []
        for _ in range(steps):
            if not self.members.active.any():
                break
            row, ended = self._step(weights, structure, keys)
            rows.append(row)
            episodes += ended
        return Experience(*(np.stack(column) for column in zip(*rows, strict=True))), episodes

    def _split_policy(self, policies: Policy[Any]) -> tuple[tuple[Array, ...], Structure]:
        """The policies' arrays, and what they are beside; the same object for policies of the same kind."""
        found = Structure(policies)
        if found != self.structure:
            self.structure = found
        assert self.structure is not None
        return found.leaves(policies), self.structure

    def _step(
        self, weights: tuple[Array, ...], structure: Structure, keys: PRNGKeyArray | None
    ) -> tuple[tuple[np.ndarray, ...], list[Episode]]:
        m = self.members
        begins = self._query_policy(weights, structure, keys)
        index = np.flatnonzero(m.active)
        action = np.zeros_like(m.executed)  # a member that idles may have come to its plan's end
        action[index] = np.clip(m.plan[index, m.cursor[index]], *self.spec.float32_bounds)
        if not np.isfinite(action).all():  # said here, before an environment is blamed for what it makes of it
            member = int(np.flatnonzero(~np.isfinite(action).all(axis=-1))[0])
            raise LegatoError(
                f"the policy of seed {self.seeds[member // self.per_group]} gave an action that is not finite "
                f"at step {m.clock[member]} of an episode of '{self.environments.name}'"
            )
        before, previous = m.observation.copy(), m.executed.copy()
        reward, terminated, truncated = (
            np.zeros_like(m.reward),
            np.zeros_like(m.active),
            np.zeros_like(m.active),
        )
        m.observation[index], reward[index], terminated[index], truncated[index] = self.environments.step(
            index, action[index]
        )
        ended = terminated | truncated
        ends = ended | (m.clock + 1 == np.where(m.pending_at >= 0, m.pending_at, m.due + self.clock.delay))
        after, active = m.observation.copy(), m.active.copy()
        self.time += 1
        row = (before, action, previous, reward, after, terminated, truncated, begins, ends, active)

        m.executed[:], m.reward[:], m.first[:] = action, reward, False
        m.clock[index] += 1
        m.cursor[index] += 1
        m.ret += reward
        for i in index:
            m.actions[i].append(action[i])
        finished = self._end(np.flatnonzero(ended))
        if self.once and self.environments.episode_limit is None and m.active.any():
            self._watch()
        return row, finished

    def _watch(self) -> None:
        """Say that an episode has no end, and later give up, where no time limit will end it."""
        m = self.members
        member = int(np.argmax(np.where(m.active, m.clock, -1)))
        if (steps := int(m.clock[member])) not in (LONG, ENDLESS):
            return
        said = (
            f"episode {m.episode[member]} of seed {self.seeds[member // self.per_group]} has not ended after {steps} "
            f"steps: '{self.environments.name}' has no time limit"
        )
        if steps == ENDLESS:
            raise LegatoError(f"{said}; give one with `max_episode_steps`")
        warnings.warn(f"{said}; after {ENDLESS} it is given up", LegatoWarning, stacklevel=5)

    def _query_policy(self, weights: tuple[Array, ...], structure: Structure, keys: PRNGKeyArray | None) -> np.ndarray:
        """Show the policy this step, ask it where it is due, put plans into effect. Returns where a plan began."""
        m = self.members
        # A plan as late as an interval is long takes effect just before the next is written.
        begins = self._take_effect() if self.clock.delay else np.zeros_like(m.active)
        due = m.active & (m.clock == m.due)
        if due.any() or self.clock.observe == "every step":
            seen = m.active if self.clock.observe == "every step" else due
            step = Step(m.observation, m.reward, m.executed, m.first)  # type: ignore[arg-type]
            shape = (self.groups, self.per_group)
            if self.memory is None:
                fresh, self.kind = jax.tree.flatten(fresh_memory(weights, structure, shape, self.command))
                self.memory = tuple(fresh)
            length = self.length if due.any() else 0
            plans, self.memory = policy_step(
                structure, length, shape, weights, self.memory, self.command, step, seen, due, keys, self.time
            )
            if length:
                m.pending[due] = np.asarray(plans).reshape(m.pending.shape)[due]
        asked = None
        if self.clock.by == "policy" and due.any():
            assert self.memory is not None
            wanted = np.asarray(intervals(weights, structure, self.kind, self.memory)).reshape(-1)
            asked = np.clip(wanted, *self.clock.interval)
        for i in np.flatnonzero(due):
            m.pending_at[i] = m.clock[i] + (0 if m.first[i] else self.clock.delay)
            m.due[i] += self._interval(int(i)) if asked is None else int(asked[i])
            m.decisions[i] += 1
        return begins | self._take_effect()

    def _take_effect(self) -> np.ndarray:
        """Put the pending plans into effect whose time has come. Returns where."""
        m = self.members
        begins = m.active & (m.pending_at == m.clock)
        m.plan[begins] = m.pending[begins]
        # A plan counts from the step it was decided at: what was meant for the steps of the delay is past.
        m.cursor[begins] = np.where(m.first[begins], 0, self.clock.delay)
        m.pending_at[begins] = -1
        return begins

    def _end(self, index: np.ndarray) -> list[Episode]:
        m = self.members
        ended = [
            Episode(int(i), int(m.episode[i]), float(m.ret[i]), int(m.clock[i]), int(m.decisions[i])) for i in index
        ]
        if self.once:
            m.active[index] = False
        elif len(index):
            m.episode[index] += self.per_group
            self._reset(m, index)
        return ended

    def warn(self, policies: Policy[Any]) -> None:
        """Issue the policies' warnings; Python issues the same one once."""
        if self.memory is None:
            return
        if (warning := policies.warning(jax.tree.unflatten(self.kind, self.memory))) is not None:
            warnings.warn(warning, LegatoWarning, stacklevel=3)

    # --- checkpoints ---

    def state(self) -> dict[str, Any]:
        """Everything needed to go on exactly here: arrays only. The environments are restored by replay."""
        m = self.members
        lengths = np.array([len(actions) for actions in m.actions])
        flat = [a for actions in m.actions for a in actions]
        kept = ("episode", "due", "decisions", "plan", "cursor", "pending", "pending_at")
        state: dict[str, Any] = {name: getattr(m, name).copy() for name in kept}
        state["lengths"] = lengths
        state["actions"] = np.stack(flat) if flat else np.zeros((0, self.spec.action_size), np.float32)
        state["observation"] = m.observation.copy()
        state["time"] = np.array(self.time)
        state["memory"] = {str(i): np.array(leaf) for i, leaf in enumerate(self.memory or ())}
        return state

    def restore(self, state: dict[str, Any], policies: Policy[Any], *, fresh: bool = False) -> None:
        """Return to a `state`: the unfinished episodes are replayed from their seeds and stored actions.

        `fresh` begins the next episodes instead, which needs nothing of the environments.

        Raises `LegatoError` when an environment, replayed, ends up elsewhere: it is not deterministic then, and the run
        could not be continued as it was.
        """
        m = self.members
        m.episode[:] = state["episode"] + (self.per_group if fresh else 0)
        self.time = int(state["time"])
        self._reset(m, np.arange(self.environments.count))
        if fresh or not self.environments.seeded:
            return  # nothing to replay: go on with fresh episodes
        ends = np.cumsum(state["lengths"])
        for i, (end, length) in enumerate(zip(ends, state["lengths"], strict=True)):
            for action in state["actions"][end - length : end]:
                index = np.array([i])
                m.observation[index], m.reward[index], _, _ = self.environments.step(index, action[None])
                m.executed[i], m.first[i] = action, False
                m.ret[i] += m.reward[i]
                m.actions[i].append(action)
            m.clock[i] = length
        if not np.array_equal(m.observation, state["observation"]):
            raise LegatoError(
                f"'{self.environments.name}' did not replay to where it was: it is not deterministic, "
                "so the run cannot be resumed exactly; `fresh_episodes` goes on with new ones"
            )
        for name in ("due", "decisions", "plan", "cursor", "pending", "pending_at"):
            getattr(m, name)[:] = state[name]
        stored = state.get("memory", {})
        self.memory = tuple(jnp.asarray(stored[str(i)]) for i in range(len(stored))) or None
        weights, structure = self._split_policy(policies)
        shape = jax.eval_shape(lambda: fresh_memory(weights, structure, (self.groups, self.per_group), self.command))
        self.kind = jax.tree.structure(shape)


def episodes(
    policies: Policy[Any],
    environments: Environments,
    spec: Spec,
    clock: Clock,
    seeds: list[int],
    stream: Stream,
    *,
    keys: PRNGKeyArray | None = None,
    command: PyTree = (),
    length: int | None = None,
    first_episode: int = 0,
    pause: Callable[[], None] = lambda: None,
    on_episode: Callable[[Episode], None] = lambda episode: None,
) -> np.ndarray:
    """Undiscounted returns `[groups, episodes]` of one whole episode in every member; greedy without `keys`.

    Episodes are numbered from `first_episode` on: others are other episodes of the same stream. `pause` is called after
    every primitive step, and may stop it all by raising; `on_episode` is shown each episode that has ended.

    Raises `LegatoError` where an episode has no end, in an environment without a time limit.
    """
    first = {"length": length, "first_episode": first_episode}
    rollout = Rollout(environments, spec, clock, seeds, stream, once=True, command=command, **first)
    returns = np.zeros(environments.count)
    weights, structure = rollout._split_policy(policies)
    while rollout.members.active.any():
        _, ended = rollout._step(weights, structure, keys)
        for episode in ended:
            returns[episode.member] = episode.ret
            on_episode(episode)
        pause()
    rollout.warn(policies)
    return returns.reshape(rollout.groups, rollout.per_group)

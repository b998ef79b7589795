"""The clock against its own words: when a policy is asked, when its answer counts, what it sees and what is kept."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import WIDE, Diary, Scribe, environments

from legato.data.spec import Spec
from legato.data.trajectories import About
from legato.errors import LegatoError, LegatoWarning
from legato.policy import LastStep, OpenLoop, Policy, Step, begin, play
from legato.rollout import Clock, Episode, Experience, Rollout, Stream, episode_seed, episodes, stack, to_trajectories

LENGTH = 16  # what every plan below holds, so that most tests share one compilation
SCRIBE = Scribe(jnp.ones(()))
OBSERVE = jax.jit(lambda policy, state, step: policy.observe(state, step))
DECIDE = jax.jit(lambda policy, state, key: policy.decide(state, key, LENGTH))


def rollout(clock: Clock, *members: Diary, seeds: tuple[int, ...] = (0,), **options: Any) -> Rollout:
    return Rollout(environments(*members), WIDE, clock, list(seeds), "train", length=LENGTH, **options)


def run(clock: Clock, steps: int, *members: Diary, policy: Policy[Any] = SCRIBE, **options: Any) -> Experience:
    return rollout(clock, *members, **options).run(stack([policy]), steps, None)[0]


def reference(clock: Clock, limit: int, dies: int, starts: list[float], intervals: list[list[int]]) -> dict[str, list]:
    """One member's episodes straight from the docstring of `Clock`: the plan in effect at t is the newest that was
    decided at some t_i with t_i + delay <= t (the first: t_0 = 0 <= t), and its action is the one meant for t - t_i.
    """
    columns: dict[str, list] = {name: [] for name in Experience._fields if name != "active"}
    for start, gaps in zip(starts, intervals, strict=True):
        asked = [0, *itertools.accumulate(gaps)]
        effect = {t + (clock.delay if t else 0): t for t in asked}
        memory, plans = SCRIBE.init_state(()), {}
        observation, reward, executed = np.array([start, 0, 0]), 0.0, np.zeros(4)
        for t in range(min(limit, dies)):
            if clock.observe == "every step" or t in asked:
                step = Step(*(jnp.asarray(x, jnp.float32) for x in (observation, reward, executed)), jnp.array(t == 0))
                memory = OBSERVE(SCRIBE, memory, step)
            if t in asked:
                plan, memory = DECIDE(SCRIBE, memory, None)
                plans[t] = np.asarray(plan)
            began = max(e for e in effect if e <= t)
            action = plans[effect[began]][t - effect[began]]
            row = {"observation": observation, "action": action, "previous_action": executed, "plan_begins": t == began}
            reward, executed = action[3] / 4 - t, action
            observation = np.array([start, t + 1, action[3]])
            over = t + 1 == min(limit, dies)
            row |= {"reward": reward, "next_observation": observation, "plan_ends": t + 1 in effect or over}
            row |= {"terminated": t + 1 == dies, "truncated": t + 1 == limit}
            for name, value in row.items():
                columns[name].append(value)
    return columns


def starts(seed: int, numbers: list[int], stream: Stream = "train") -> list[float]:
    """What `Diary` observes first in the episodes of these numbers."""
    return [float(Diary().reset(seed=episode_seed(seed, stream, n))[0][0]) for n in numbers]


def same(found: Experience, member: int, expected: dict[str, list]) -> None:
    """A member's column of an experience, as far as both go."""
    for name, values in expected.items():
        column = getattr(found, name)[:, member]
        steps = min(len(column), len(values))
        assert steps > 0
        np.testing.assert_allclose(column[:steps], np.array(values[:steps]), rtol=1e-5, atol=1e-5, err_msg=name)


# --- when a policy is asked, and when its answer counts ---


def test_decisions_every_n_steps() -> None:
    """In the policy's own hand: who decided, how much it had seen, and which action of the plan is played."""
    found = run(Clock(3), 8, Diary())
    decided, observed, place = found.action[:, 0, :3].T
    np.testing.assert_array_equal(decided, [1, 1, 1, 2, 2, 2, 3, 3])
    np.testing.assert_array_equal(observed, [1, 1, 1, 4, 4, 4, 7, 7])
    np.testing.assert_array_equal(place, [0, 1, 2, 0, 1, 2, 0, 1])
    np.testing.assert_array_equal(found.plan_begins[:, 0], place == 0)
    np.testing.assert_array_equal(found.plan_ends[:, 0], place == 2)


def test_a_delay_skips_what_was_meant_for_the_steps_already_gone() -> None:
    """delay 2 of 4: asked at 0, 4, 8; the first answer counts at once, the others two steps later, from their third."""
    found = run(Clock(4, delay=2), 12, Diary())
    decided, observed, place = found.action[:, 0, :3].T
    np.testing.assert_array_equal(decided, [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3])
    np.testing.assert_array_equal(observed, [1, 1, 1, 1, 1, 1, 5, 5, 5, 5, 9, 9])
    np.testing.assert_array_equal(place, [0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 2, 3])
    np.testing.assert_array_equal(np.flatnonzero(found.plan_begins[:, 0]), [0, 6, 10])
    np.testing.assert_array_equal(np.flatnonzero(found.plan_ends[:, 0]), [5, 9])


def test_a_delay_as_long_as_the_interval() -> None:
    """A plan takes effect at the very step at which the next is written, and neither displaces the other."""
    found = run(Clock(2, delay=2), 8, Diary())
    np.testing.assert_array_equal(found.action[:, 0, 0], [1, 1, 1, 1, 2, 2, 3, 3])
    np.testing.assert_array_equal(found.action[:, 0, 2], [0, 1, 2, 3, 2, 3, 2, 3])


LIMITS = st.integers(1, 9)


@settings(max_examples=60)
@given(st.data())
def test_any_clock_is_its_docstring(data: st.DataObject) -> None:
    """Two members whose episodes end at different times, over several episodes, against the brute-force reference."""
    every = data.draw(st.integers(1, 6))
    clock = Clock(every, data.draw(st.integers(0, every)), data.draw(st.sampled_from(["every step", "decisions"])))
    ends = data.draw(st.tuples(st.tuples(LIMITS, LIMITS), st.tuples(LIMITS, LIMITS)))
    found = run(clock, 20, *(Diary(limit, dies) for limit, dies in ends))
    for member, (limit, dies) in enumerate(ends):
        numbers = list(range(member, 40, 2))[: 20 // min(limit, dies) + 1]
        same(found, member, reference(clock, limit, dies, starts(0, numbers), [[every] * 9] * len(numbers)))


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(0, 4), st.integers(0, 4), LIMITS)
def test_random_intervals_are_within_bounds_and_end_like_any(low: int, wider: int, delay: int, limit: int) -> None:
    """The drawn intervals are read off the number of steps observed, and the rest follows from them."""
    clock = Clock((low, low + wider), min(delay, low))
    found = run(clock, 18, Diary(limit=limit))
    for episode in range(18 // limit):
        rows = slice(episode * limit, (episode + 1) * limit)
        asked = np.unique(found.action[rows, 0, 1]) - 1  # decisions that came into effect
        gaps = np.diff(asked).astype(int)
        assert np.all((gaps >= low) & (gaps <= low + wider))
        # What is asked after the last plan in effect cannot be seen; it would have come into effect too late.
        part = {
            name: getattr(found, name)[rows, 0] for name in ("plan_begins", "plan_ends", "action", "previous_action")
        }
        expected = reference(clock, limit, 1000, [found.observation[episode * limit, 0, 0]], [[*gaps, 1000]])
        for name in ("plan_begins", "action", "previous_action"):
            np.testing.assert_allclose(part[name], expected[name], rtol=1e-5, atol=1e-5)


@settings(max_examples=40)
@given(st.data())
def test_every_plan_that_begins_ends(data: st.DataObject) -> None:
    """`plan_ends` marks exactly the steps before another plan or another episode; a plan begins every episode."""
    low = data.draw(st.integers(1, 5))
    every = data.draw(st.sampled_from([low, (low, low + 3)]))
    found = run(Clock(every, data.draw(st.integers(0, low))), 25, Diary(data.draw(LIMITS), data.draw(LIMITS)), Diary())
    over = found.terminated | found.truncated
    np.testing.assert_array_equal(found.plan_ends[:-1], over[:-1] | found.plan_begins[1:])
    assert found.plan_begins[0].all()
    assert found.plan_begins[1:][over[:-1]].all()
    started = np.cumsum(found.plan_begins, axis=0)
    stopped = np.cumsum(found.plan_ends, axis=0)
    np.testing.assert_array_equal(
        started - stopped, 1 - found.plan_ends
    )  # one plan at a time is open, until its last step


def test_random_intervals_are_drawn_anew_at_each_decision() -> None:
    clock = Clock((2, 5))
    found = run(clock, 400, Diary(limit=40))
    gaps = [np.diff(np.flatnonzero(found.plan_begins[i : i + 40, 0])) for i in range(0, 400, 40)]
    assert set(np.concatenate(gaps)) == {2, 3, 4, 5}
    assert len({tuple(g) for g in gaps}) == 10  # episodes differ
    assert all(len(set(g)) > 1 for g in gaps)  # and so do decisions within one


def test_random_intervals_depend_on_the_episode_alone() -> None:
    """Reproducible, and the same whoever else is at work."""
    clock = Clock((1, 4), delay=1)
    alone = run(clock, 30, Diary(), once=True)
    among = run(clock, 30, Diary(), Diary(limit=7), Diary(), once=True)
    again = run(clock, 30, Diary(), once=True)
    for name in ("plan_begins", "action", "observation"):
        np.testing.assert_array_equal(getattr(again, name), getattr(alone, name))
        np.testing.assert_allclose(getattr(among, name)[:, 0], getattr(alone, name)[:, 0], rtol=1e-6)
    assert not np.array_equal(among.plan_begins[:, 0], among.plan_begins[:, 2])


@pytest.mark.parametrize(
    ("clock", "message"),
    [
        ({"every": 0}, "1 <= low <= high; 0"),
        ({"every": -3}, "1 <= low <= high; -3"),
        ({"every": (3, 2)}, r"1 <= low <= high; \(3, 2\)"),
        ({"every": (0, 2)}, r"1 <= low <= high; \(0, 2\)"),
        ({"every": 4, "delay": 5}, "delay of 5 steps does not fit decisions every 4"),
        ({"every": 4, "delay": -1}, "delay of -1 steps does not fit"),
        ({"every": (2, 9), "delay": 3}, "delay of 3 steps does not fit decisions every 2"),
    ],
)
def test_a_clock_that_cannot_be_kept_is_refused(clock: dict[str, Any], message: str) -> None:
    with pytest.raises(LegatoError, match=message):
        Clock(**clock)


# --- what happens at an episode's end ---


def test_an_end_flushes_the_plan_and_zeroes_the_previous_action() -> None:
    found = run(Clock(4), 12, Diary(limit=6))
    np.testing.assert_array_equal(found.action[:, 0, 2], [0, 1, 2, 3, 0, 1, 0, 1, 2, 3, 0, 1])
    np.testing.assert_array_equal(found.action[6, 0, :2], [1, 1])  # memory is fresh: one decision, one step seen
    np.testing.assert_array_equal(found.previous_action[[0, 6], 0], np.zeros((2, 4)))
    np.testing.assert_array_equal(found.previous_action[1:6, 0], found.action[:5, 0])
    np.testing.assert_array_equal(found.previous_action[7:, 0], found.action[6:-1, 0])


def test_a_pending_plan_does_not_outlive_its_episode() -> None:
    """Truncated at 5, between a decision at 4 and its effect at 6: the next episode begins with a plan of its own."""
    found = run(Clock(4, delay=2), 10, Diary(limit=5))
    np.testing.assert_array_equal(found.action[:, 0, 0], np.ones(10))
    np.testing.assert_array_equal(found.action[:, 0, 2], [0, 1, 2, 3, 4] * 2)
    np.testing.assert_array_equal(np.flatnonzero(found.plan_begins), [0, 5])


def test_termination_and_truncation_are_told_apart_and_the_true_last_observation_is_kept() -> None:
    found = run(Clock(2), 8, Diary(limit=4), Diary(dies=4), Diary(limit=4, dies=4))
    np.testing.assert_array_equal(found.truncated[3], [True, False, True])
    np.testing.assert_array_equal(found.terminated[3], [False, True, True])
    assert not (found.truncated | found.terminated)[[0, 1, 2, 4, 5, 6]].any()
    np.testing.assert_array_equal(found.next_observation[3, :, 1], [4, 4, 4])  # not the next episode's first
    np.testing.assert_array_equal(found.observation[4, :, 1], [0, 0, 0])
    np.testing.assert_array_equal(found.next_observation[:3], found.observation[1:4])
    continues = found.rows()[..., -1]
    np.testing.assert_array_equal(continues[3], [1, 0, 0])  # only a termination stops bootstrapping
    assert (continues[:3] == 1).all()


def test_episodes_are_counted_and_summed() -> None:
    diary = Diary(limit=5)
    found, ended = rollout(Clock(2), diary, Diary(limit=3)).run(stack([SCRIBE]), 10, None)
    assert [(e.member, e.number, e.length, e.decisions) for e in ended] == [
        (1, 1, 3, 2),
        (0, 0, 5, 3),
        (1, 3, 3, 2),
        (1, 5, 3, 2),
        (0, 2, 5, 3),
    ]
    assert isinstance(ended[0], Episode)
    np.testing.assert_allclose([ended[1].ret, ended[4].ret], found.reward[:, 0].reshape(2, 5).sum(1), rtol=1e-6)
    assert diary.seeds == [episode_seed(0, "train", n) for n in (0, 2, 4)]


def test_members_that_play_once_idle_at_their_end() -> None:
    """Also when the end coincides with the last action of a plan that fills its buffer."""
    short, long = Diary(limit=4), Diary(limit=10)
    players = Rollout(environments(short, long), WIDE, Clock(4), [0], "test", once=True)
    found, ended = players.run(stack([SCRIBE]), 50, None)
    assert len(found.reward) == 10
    np.testing.assert_array_equal(found.active[:, 0], np.arange(10) < 4)
    assert found.active[:, 1].all()
    assert not found.plan_begins[4:, 0].any()
    assert [e.length for e in ended] == [4, 10]
    assert [len(e) for e in short.episodes] == [4]
    assert not players.members.active.any()


# --- what is kept of it as a dataset ---


def test_an_experience_is_logged_episode_by_episode() -> None:
    """11 of the 12 steps of two members: one is truncated after 4 and cut after 2, one dies after 3 and is cut."""
    made = run(Clock(2), 6, Diary(limit=4), Diary(dies=3))
    found = to_trajectories(made, About("diary"), 11)
    np.testing.assert_array_equal(found.lengths, [4, 2, 3, 2])
    np.testing.assert_array_equal(np.flatnonzero(found.terminations), [8])
    np.testing.assert_array_equal(np.flatnonzero(found.truncations), [3, 5, 10])
    begins = [*starts(0, [0, 2]), *starts(0, [1, 3])]
    for i, (length, start) in enumerate(zip([4, 2, 3, 2], begins, strict=True)):
        at, member, first = found.episode(i), i // 2, (0, 4, 0, 3)[i]
        steps = slice(first, first + length)
        for array, column in ((found.actions, made.action), (found.rewards, made.reward)):
            np.testing.assert_array_equal(array[at], column[steps, member])
        executed = found.actions[at][:, 3]
        expected = [[start, t, executed[t - 1] if t else 0] for t in range(length + 1)]
        np.testing.assert_array_equal([*found.observations[at], found.final_observations[i]], expected)
    assert len(to_trajectories(made, About("diary")).observations) == 12


def test_members_that_idle_are_not_logged() -> None:
    made = run(Clock(2), 10, Diary(limit=4), Diary(limit=6), once=True)
    np.testing.assert_array_equal(to_trajectories(made, About("diary")).lengths, [4, 6])


# --- what the environment gets ---


@pytest.mark.parametrize(("low", "high"), [((-3.0,), (7.0,)), ((-1.0, 0.0), (1.0, 0.5))])
def test_actions_are_clipped_to_the_box_and_recorded_as_executed(
    low: tuple[float, ...], high: tuple[float, ...]
) -> None:
    spec = Spec(3, low, high)
    emitted = np.linspace(-10, 10, 12 * len(low)).reshape(12, -1)
    diary = Diary(spec=spec)
    players = Rollout(environments(diary), spec, Clock(3), [0], "train")
    found, _ = players.run(stack([OpenLoop(jnp.array(emitted, jnp.float32))]), 12, None)
    expected = np.clip(emitted, low, high).astype(np.float32)
    np.testing.assert_array_equal(diary.episodes[0], expected)
    np.testing.assert_array_equal(found.action[:, 0], expected)
    np.testing.assert_array_equal(found.previous_action[1:, 0], expected[:-1])
    assert {a.dtype for a in diary.episodes[0]} == {np.dtype(np.float32)}


def test_a_policy_that_breaks_is_named_before_its_environment_is_asked() -> None:
    broken = stack([SCRIBE, Scribe(jnp.array(jnp.nan))])
    diaries = [Diary(), Diary()]
    players = rollout(Clock(2), *diaries, seeds=(4, 5))
    with pytest.raises(
        LegatoError, match=r"policy of seed 5 gave an action that is not finite at step 0 of an .* 'Diary'"
    ):
        players.run(broken, 5, None)
    assert diaries[1].episodes == [[]]


# --- what a policy sees ---


class Follower(Policy[LastStep]):
    """No memory but the last step: the action is a function of the newest observation."""

    def init_state(self, command: Any) -> LastStep:
        return LastStep.empty(WIDE)

    def observe(self, state: LastStep, step: Step) -> LastStep:
        return LastStep.of(step)

    def decide(self, state: LastStep, key: Any, length: int) -> tuple[jax.Array, LastStep]:
        action = jnp.append(state.observation, state.observation[1] + state.executed[3] / 2)
        return jnp.broadcast_to(action, (length, 4)), state


@pytest.mark.parametrize("clock", [{"every": 3}, {"every": (1, 4)}, {"every": 4, "delay": 2}])
def test_showing_only_decisions_makes_no_difference_without_memory(clock: dict[str, Any]) -> None:
    members = [Diary(limit=7), Diary(dies=10)]
    every_step = run(Clock(**clock), 25, *members, policy=Follower())
    decisions = run(Clock(**clock, observe="decisions"), 25, *members, policy=Follower())
    for name in Experience._fields:
        np.testing.assert_array_equal(getattr(decisions, name), getattr(every_step, name))


def test_showing_only_decisions_is_seen_by_a_policy_that_counts() -> None:
    found = run(Clock(3, observe="decisions"), 12, Diary(limit=7))
    np.testing.assert_array_equal(found.action[:, 0, 1], [1, 1, 1, 2, 2, 2, 3, 1, 1, 1, 2, 2])
    shown = run(Clock(3), 12, Diary(limit=7))
    np.testing.assert_array_equal(shown.action[:, 0, 1], [1, 1, 1, 4, 4, 4, 7, 1, 1, 1, 4, 4])


@pytest.mark.parametrize("greedy", [True, False])
def test_a_rollout_is_play_step_by_step(greedy: bool) -> None:
    """The rollout, which asks only when it must, against the reference that asks at every step."""
    every, steps = 3, 14
    key = None if greedy else jax.random.key(7)
    players = rollout(Clock(every), Diary(limit=8), Diary(dies=5))
    found, _ = players.run(stack([SCRIBE]), steps, None if key is None else key[None])
    played = jax.jit(play)
    for member in range(2):
        fresh = playing = begin(SCRIBE, (), WIDE, every)
        over = found.terminated[:, member] | found.truncated[:, member]
        for t in range(steps):
            first = t == 0 or bool(over[t - 1])
            step = Step(
                jnp.asarray(found.observation[t, member]),
                jnp.asarray(0.0 if first else found.reward[t - 1, member]),
                jnp.asarray(found.previous_action[t, member]),
                jnp.asarray(first),
            )
            mine = None if key is None else jax.random.split(jax.random.fold_in(key, t), 2)[member]
            action, playing = played(SCRIBE, fresh, playing, step, mine)
            np.testing.assert_allclose(found.action[t, member], action, rtol=1e-6)


def test_members_and_steps_draw_their_own_noise_and_the_same_key_the_same() -> None:
    blind = stack([Scribe(jnp.zeros(()))] * 2)  # its checksum is the noise

    def drawn(key: int) -> np.ndarray:
        players = rollout(Clock(1), *(Diary() for _ in range(4)), seeds=(0, 1))
        return players.run(blind, 3, jax.random.split(jax.random.key(key), 2))[0].action[..., 3]

    assert np.unique(drawn(0)).size == 12
    np.testing.assert_array_equal(drawn(0), drawn(0))
    assert not np.isin(drawn(1), drawn(0)).any()


def test_members_that_reset_at_different_times_are_each_as_if_alone() -> None:
    clock = Clock((2, 4), delay=1)
    limits = (5, 7, 12)
    together = run(clock, 30, *(Diary(limit=n) for n in limits), once=True)
    for member, limit in enumerate(limits):
        alone = run(clock, 30, Diary(limit=limit), once=True, first_episode=member)
        for name in Experience._fields:
            columns = getattr(together, name)[:limit, member], getattr(alone, name)[:, 0]
            np.testing.assert_allclose(*columns, rtol=1e-6, err_msg=name)


def test_groups_act_by_their_own_policies_on_their_own_episodes() -> None:
    policies = [Scribe(jnp.array(w)) for w in (1.0, -2.0)]
    options: dict[str, Any] = {"limit": 6}
    players = rollout(Clock(2), *(Diary(**options) for _ in range(4)), seeds=(3, 8))
    together, _ = players.run(stack(policies), 15, None)
    for group, (policy, seed) in enumerate(zip(policies, (3, 8), strict=True)):
        alone = run(Clock(2), 15, Diary(**options), Diary(**options), policy=policy, seeds=(seed,))
        for name in Experience._fields:
            columns = getattr(together, name)[:, 2 * group : 2 * group + 2], getattr(alone, name)
            np.testing.assert_allclose(*columns, rtol=1e-6, err_msg=name)
    assert not np.allclose(together.action[:, :2, 3], together.action[:, 2:, 3])


def test_groups_of_unequal_size_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="divide evenly"):
        rollout(Clock(1), Diary(), Diary(), Diary(), seeds=(0, 1))


# --- seeds ---


def test_no_two_episodes_share_a_seed() -> None:
    """Streams and seeds are separate: 8 runs, 5 streams, 100 episodes each."""
    streams: tuple[Stream, ...] = ("train", "select", "test", "latency", "collect")
    found = {episode_seed(s, stream, e) for s in range(8) for stream in streams for e in range(100)}
    assert len(found) == 8 * 5 * 100
    assert all(0 <= seed < 2**31 for seed in found)
    assert episode_seed(3, "test", 5) == episode_seed(3, "test", 5)


# --- going on from a state ---

CLOCKS = [
    Clock(3),
    Clock(5, delay=2),
    Clock(3, delay=3),
    Clock((2, 5)),
    Clock((3, 6), delay=2, observe="decisions"),
]


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize("clock", CLOCKS, ids=str)
def test_a_restored_rollout_goes_on_identically(clock: Clock, greedy: bool) -> None:
    """Saved after any number of steps: at a decision, amid a plan, while a plan is pending, at an episode's end."""
    policies = stack([SCRIBE, Scribe(jnp.array(-1.0))])
    keys = None if greedy else jax.random.split(jax.random.key(1), 2)

    def new() -> Rollout:
        members = [Diary(limit=11), Diary(dies=6), Diary(limit=9), Diary(dies=13)]
        return rollout(clock, *members, seeds=(0, 1))

    unbroken = new()
    states = [unbroken.state()]
    parts = []
    for _ in range(12):
        parts.append(unbroken.run(policies, 1, keys))
        states.append(unbroken.state())
    rest = unbroken.run(policies, 20, keys)
    for saved in (0, 1, 2, 3, 4, 5, 6, 7, 9, 12):
        restored = new()
        restored.restore(states[saved], policies)
        for experience, ended in parts[saved:]:
            again, ended_again = restored.run(policies, 1, keys)
            assert ended_again == ended
            for name in Experience._fields:
                np.testing.assert_array_equal(getattr(again, name), getattr(experience, name), err_msg=name)
        again, ended_again = restored.run(policies, 20, keys)
        assert ended_again == rest[1]
        for name in Experience._fields:
            np.testing.assert_array_equal(getattr(again, name), getattr(rest[0], name), err_msg=name)


def test_a_state_is_a_copy() -> None:
    players = rollout(Clock(3), Diary())
    players.run(stack([SCRIBE]), 4, None)
    state = players.state()
    before = jax.tree.map(np.copy, state)
    players.run(stack([SCRIBE]), 4, None)
    jax.tree.map(np.testing.assert_array_equal, state, before)


def test_an_environment_that_is_not_deterministic_is_not_resumed() -> None:
    noise = itertools.count()
    players = rollout(Clock(3), Diary(noise=noise))
    players.run(stack([SCRIBE]), 4, None)
    state = players.state()
    with pytest.raises(LegatoError, match="'Diary' did not replay to where it was: it is not deterministic"):
        rollout(Clock(3), Diary(noise=noise)).restore(state, stack([SCRIBE]))
    diary = Diary(noise=noise)
    fresh = rollout(Clock(3), diary)
    fresh.restore(state, stack([SCRIBE]), fresh=True)
    found = fresh.run(stack([SCRIBE]), 2, None)[0]
    assert diary.seeds[-1] == episode_seed(0, "train", 1)  # the next episode, from its beginning
    np.testing.assert_array_equal(found.observation[:, 0, 1], [0, 1])
    assert fresh.time == 6


# --- whole episodes ---


def test_episodes_gives_the_returns_of_one_episode_per_member() -> None:
    policies = stack([SCRIBE, Scribe(jnp.array(-1.0))])
    members = [Diary(limit=n) for n in (4, 9, 6, 5)]
    returns = episodes(policies, environments(*members), WIDE, Clock(3), [0, 1], "test", length=LENGTH)
    assert returns.shape == (2, 2)
    for i, member in enumerate(members):
        actions = np.array(member.episodes[0])
        assert len(actions) == member.limit
        expected = (actions[:, 3] / 4 - np.arange(member.limit)).sum()
        np.testing.assert_allclose(returns[i // 2, i % 2], expected, rtol=1e-6)
    assert [m.seeds for m in members] == [[episode_seed(s, "test", e)] for s in (0, 1) for e in (0, 1)]


@pytest.mark.parametrize("clock", [Clock(2), Clock((1, 3), delay=1)], ids=str)
def test_longer_plans_than_needed_change_nothing(clock: Clock) -> None:
    def returns(length: int | None) -> np.ndarray:
        members = environments(Diary(limit=9), Diary(dies=8))
        return episodes(stack([SCRIBE]), members, WIDE, clock, [0], "test", length=length)

    np.testing.assert_array_equal(returns(LENGTH), returns(None))
    np.testing.assert_array_equal(returns(1), returns(None))


class Worried(Scribe):
    """Remarks on everything that it was told."""

    def warning(self, state: Any) -> str | None:
        return f"{len(jax.tree.leaves(state))} leaves of memory"


def test_what_a_policy_remarks_on_is_said() -> None:
    policies, diary = stack([Worried(jnp.ones(()))]), Diary(3)
    with pytest.warns(LegatoWarning, match="leaves of memory"):
        episodes(policies, environments(diary), WIDE, Clock(1), [0], "test", length=LENGTH)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        episodes(stack([SCRIBE]), environments(Diary(3)), WIDE, Clock(1), [0], "test", length=LENGTH)


# --- episodes that have no end ---


def test_an_evaluation_of_episodes_without_an_end_says_so_and_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("legato.rollout.rollout.LONG", 5)
    monkeypatch.setattr("legato.rollout.rollout.ENDLESS", 9)
    ends, goes_on = Diary(limit=3), Diary(limit=10**9)
    with pytest.warns(LegatoWarning) as warned, pytest.raises(LegatoError) as problem:
        episodes(
            stack([SCRIBE]), environments(ends, goes_on), WIDE, Clock(1), [7], "test", first_episode=4, length=LENGTH
        )
    said = "episode 5 of seed 7 has not ended after {} steps: 'Diary' has no time limit; "
    assert [str(w.message) for w in warned] == [said.format(5) + "after 9 it is given up"]
    assert str(problem.value) == said.format(9) + "give one with `max_episode_steps`"
    assert len(goes_on.episodes[-1]) == 9
    limited = gymnasium.wrappers.TimeLimit(Diary(limit=10**9), 12)
    episodes(stack([SCRIBE]), environments(limited), WIDE, Clock(1), [7], "test", length=LENGTH)
    assert len(limited.unwrapped.episodes[-1]) == 12  # type: ignore[attr-defined]


# --- a policy that says when ---


class Restless(Scribe):
    """Wants its n-th decision to last 1 + n mod 5 steps."""

    def interval(self, state: Any) -> jax.Array:
        return 1 + jnp.mod(state["decided"], 5).astype(int)


@pytest.mark.parametrize(("low", "high"), [(1, 9), (2, 3)])
def test_a_policy_says_when_it_wants_to_be_asked_again(low: int, high: int) -> None:
    """Within the clock's bounds, each member by its own memory, which begins anew with an episode."""
    clock, limits = Clock((low, high), by="policy"), (11, 7)
    found = run(clock, 16, *(Diary(limit=limit) for limit in limits), policy=Restless(jnp.ones(())))
    gaps = [min(max(1 + n % 5, low), high) for n in range(1, 12)]
    for member, limit in enumerate(limits):
        same(found, member, reference(clock, limit, 1000, starts(0, [member, member + 2]), [gaps, gaps]))


def test_a_policy_that_does_not_say_when_is_refused() -> None:
    with pytest.raises(LegatoError, match="does not say when it wants to be asked again"):
        run(Clock((1, 4), by="policy"), 3, Diary())

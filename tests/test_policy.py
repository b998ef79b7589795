"""The policy protocol: `play` against its definition, the policies that need no training, and the control loop."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import WIDE, Scribe

from legato.algorithms import sac, srl
from legato.algorithms.configs import SAC, SRL
from legato.data.spec import Spec
from legato.errors import LegatoError
from legato.policy import OpenLoop, Player, Policy, RandomPlans, Step, begin, play

SPEC = Spec(3, (-3.0, -1.0), (7.0, 2.0))
SCRIBE = Scribe(jnp.ones(()))
OBSERVE = jax.jit(lambda state, step: SCRIBE.observe(state, step))
DECIDE = jax.jit(lambda state, key, length: SCRIBE.decide(state, key, length), static_argnums=2)
PLAY = jax.jit(play)
PLAYERS = {"scribe": Player(SCRIBE, WIDE)}  # kept, so that hypothesis compiles once


def learned(name: str, seed: int = 0) -> Policy[Any]:
    """An actor with random weights, in the box of `SPEC`."""
    if name == "sac":
        config = SAC(hidden=8)
        return sac.policy(config, sac.init(config, SPEC, jax.random.key(seed)))
    config = SRL(hidden=8, model_hidden=(4, 4), cell=name)  # type: ignore[arg-type]
    return srl.policy(config, srl.init(config, SPEC, jax.random.key(seed)))


LEARNED = ("sac", "gru", "rnn")


def steps(seed: int, firsts: list[bool]) -> list[Step]:
    """Integer-valued experience, so that sums are exact."""
    rng = np.random.default_rng(seed)
    return [
        Step(
            jnp.array(rng.integers(-4, 5, 3), jnp.float32),
            jnp.array(0.0 if first else rng.integers(-4, 5), jnp.float32),
            jnp.array(np.zeros(4) if first else rng.integers(-4, 5, 4), jnp.float32),
            jnp.array(first),
        )
        for first in firsts
    ]


# --- play ---


@given(st.integers(1, 5), st.lists(st.booleans(), min_size=1, max_size=12), st.integers(0, 9))
def test_play_is_observe_every_step_decide_every_nth(every: int, firsts: list[bool], seed: int) -> None:
    """Against observe and decide called by hand, where a reset begins a new count."""
    firsts = [True, *firsts]
    fresh = playing = begin(SCRIBE, (), WIDE, every)
    since = memory = plan = None
    for step in steps(seed, firsts):
        since, memory = (0, SCRIBE.init_state(())) if step.first else (since + 1, memory)
        memory = OBSERVE(memory, step)
        if since % every == 0:
            plan, memory = DECIDE(memory, None, every)
        action, playing = PLAY(SCRIBE, fresh, playing, step, None)
        np.testing.assert_allclose(action, plan[since % every], rtol=1e-6)


def test_play_draws_from_its_key() -> None:
    fresh = begin(SCRIBE, (), WIDE, 2)
    (step,) = steps(0, [True])
    for key in (jax.random.key(0), jax.random.key(1)):
        action, _ = play(SCRIBE, fresh, fresh, step, key)
        plan, _ = SCRIBE.decide(SCRIBE.observe(SCRIBE.init_state(()), step), key, 2)
        np.testing.assert_allclose(action, plan[0], rtol=1e-6)
    assert not np.array_equal(plan[0], play(SCRIBE, fresh, fresh, step, None)[0])


# --- policies without training ---


def test_open_loop_plays_its_list_holds_its_end_and_starts_over() -> None:
    actions = jnp.arange(12.0).reshape(3, 4)
    policy = OpenLoop(actions)
    fresh = playing = begin(policy, (), WIDE, 2)
    played = []
    for step in steps(0, [True, False, False, False, False, False, True, False]):
        action, playing = play(policy, fresh, playing, step, None)
        played.append(action)
    np.testing.assert_array_equal(played, actions[jnp.array([0, 1, 2, 2, 2, 2, 0, 1])])


@pytest.mark.parametrize("hold", [False, True])
def test_random_plans_fill_the_box_and_keep_the_memory_of_their_policy(hold: bool) -> None:
    policy = RandomPlans(learned("gru"), SPEC, hold)
    step = steps(0, [True])[0]
    step = Step(step.observation, step.reward, step.executed[:2], step.first)
    memory = policy.observe(policy.init_state(()), step)
    assert jax.tree.structure(memory) == jax.tree.structure(policy.policy.init_state(()))
    np.testing.assert_array_equal(memory.observation, step.observation)
    plans, after = jax.vmap(lambda key: policy.decide(memory, key, 8))(jax.random.split(jax.random.key(0), 500))
    np.testing.assert_array_equal(after.observation[0], step.observation)
    assert plans.shape == (500, 8, 2)
    for i, (low, high) in enumerate(zip(SPEC.low, SPEC.high, strict=True)):
        drawn = np.asarray(plans[..., i])
        assert low <= drawn.min() < low + 0.02 * (high - low)
        assert high >= drawn.max() > high - 0.02 * (high - low)
        assert abs(drawn.mean() - (low + high) / 2) < 0.1 * (high - low)  # 500 draws: 7 standard errors
    changes = np.diff(plans, axis=1) != 0
    assert not changes.any() if hold else changes.all()
    assert np.unique(plans[:, 0, 0]).size > 450  # each decision draws anew


def test_random_plans_have_no_greedy_action() -> None:
    policy = RandomPlans(SCRIBE, WIDE)
    with pytest.raises(LegatoError, match="give it a key"):
        policy.decide(policy.init_state(()), None, 4)


# --- in a control loop ---


@pytest.mark.parametrize("name", LEARNED)
def test_the_first_actions_do_not_depend_on_how_many_are_asked_for(name: str) -> None:
    player = Player(learned(name), SPEC)
    rng = np.random.default_rng(0)
    memory = player.begin()
    for _ in range(3):
        observation = rng.standard_normal(3)
        longest, after = player.act(memory, observation, 16)
        assert longest.shape == (16, 2)
        assert longest.dtype == np.float32
        assert np.all((longest > SPEC.low) & (longest < SPEC.high))
        for length in (1, 2, 5, 16):
            np.testing.assert_array_equal(player.act(memory, observation, length)[0], longest[:length])
        memory = after
    if name == "sac":
        assert not np.diff(longest, axis=0).any()  # one action, held
    else:
        assert np.diff(longest, axis=0).any(axis=1).all()


def test_memory_is_carried_by_the_caller_and_nowhere_else() -> None:
    player = Player(SCRIBE, WIDE)
    start = player.begin()
    first, after = player.act(start, np.zeros(3), 2)
    second, _ = player.act(after, np.zeros(3), 2)
    again, _ = player.act(start, np.zeros(3), 2)
    np.testing.assert_array_equal(first[:, :3], [[1, 1, 0], [1, 1, 1]])
    np.testing.assert_array_equal(second[:, :3], [[2, 2, 0], [2, 2, 1]])
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(player.begin().executed, np.zeros(4))


@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 9))
def test_a_control_loop_is_play(length: int, decisions: int, seed: int) -> None:
    """Decided every `length` steps and shown only those steps, for a policy that folds in everything it sees."""
    rng = np.random.default_rng(seed)
    player = PLAYERS["scribe"]
    memory, state = player.begin(), SCRIBE.init_state(())
    executed, reward = np.zeros(4, np.float32), 0.0
    for i in range(decisions):
        observation = rng.integers(-4, 5, 3)
        step = Step(jnp.asarray(observation, float), jnp.asarray(reward), executed, jnp.asarray(i == 0))
        expected, state = DECIDE(OBSERVE(state, step), None, length)
        actions, memory = player.act(memory, observation, length, reward=reward)
        np.testing.assert_allclose(actions, expected, rtol=1e-6)
        executed, reward = actions[-1], float(rng.integers(-4, 5))


def test_executed_overrides_the_end_of_the_last_plan() -> None:
    player = Player(learned("gru"), SPEC)
    actions, memory = player.act(player.begin(), np.ones(3), 4)
    by_default, _ = player.act(memory, np.ones(3), 4)
    stated, _ = player.act(memory, np.ones(3), 4, executed=actions[-1])
    other, _ = player.act(memory, np.ones(3), 4, executed=np.array([7, 2]))
    np.testing.assert_array_equal(stated, by_default)
    assert not np.allclose(other, by_default)
    written = Player(SCRIBE, WIDE)
    _, memory = written.act(written.begin(), np.zeros(3))
    actions, _ = written.act(memory, np.zeros(3), executed=np.array([1, 2, 3, 4]))
    assert actions[0, 3] == (32 / 64 + 16 * 10) / 64  # of the first step, and of this one


@pytest.mark.parametrize("observation", [np.zeros(2), np.zeros(4), np.zeros((1, 3)), np.float32(0)])
def test_an_observation_of_another_size_is_refused(observation: np.ndarray) -> None:
    player = Player(learned("sac"), SPEC)
    with pytest.raises(LegatoError, match="reads 3 numbers; the observation has shape"):
        player.act(player.begin(), observation)


@pytest.mark.parametrize("executed", [np.zeros(1), np.zeros(3), np.zeros((1, 2)), np.float32(0)])
def test_an_executed_action_of_another_size_is_refused(executed: np.ndarray) -> None:
    player = Player(learned("gru"), SPEC)
    with pytest.raises(LegatoError, match="has 2 numbers; the executed action has shape"):
        player.act(player.begin(), np.zeros(3), executed=executed)


@pytest.mark.parametrize("length", [0, -1])
def test_an_empty_plan_is_refused(length: int) -> None:
    player = Player(learned("sac"), SPEC)
    with pytest.raises(LegatoError, match=f"at least one action; length {length}"):
        player.act(player.begin(), np.zeros(3), length)


@pytest.mark.parametrize("name", [*LEARNED, "scribe", "open loop"])
def test_memory_does_not_grow(name: str) -> None:
    """The same leaves, shapes and types after 1000 steps as after the first, and as before it."""
    scribe, open_loop = (SCRIBE, WIDE), (OpenLoop(jnp.zeros((3, 4))), WIDE)
    policy, spec = {"scribe": scribe, "open loop": open_loop}.get(name) or (learned(name), SPEC)
    player = Player(policy, spec)
    memory = player.begin()

    def schema(memory: Any) -> list[tuple[tuple[int, ...], str, int]]:
        return [(leaf.shape, str(leaf.dtype), leaf.nbytes) for leaf in jax.tree.leaves(memory)]

    before = schema(memory)
    for i in range(1000):
        _, memory = player.act(memory, np.full(3, i), 2)
    assert schema(memory) == before

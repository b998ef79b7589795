"""The policy protocol: `play` against its definition, the policies that need no training, and the control loop."""

from __future__ import annotations

import multiprocessing
import signal
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from jax import monitoring
from tests.tiny import WIDE, Scribe

from legato import api
from legato import player as player_module
from legato.algorithms import algorithm, entries
from legato.algorithms.bc.config import BC
from legato.algorithms.decision_s4.config import DS4
from legato.algorithms.decision_transformer.config import DT, ODT
from legato.algorithms.iql.config import IQL
from legato.algorithms.sac import sac
from legato.algorithms.sac.config import SAC
from legato.algorithms.srl import srl
from legato.algorithms.srl.config import SRL
from legato.algorithms.td3.config import TD3
from legato.algorithms.trajectory_transformer.config import TT
from legato.data.dataset_statistics import DatasetStatistics
from legato.data.spec import Spec
from legato.errors import LegatoError
from legato.player import Player
from legato.policy import OpenLoop, Policy, RandomPlans, Step, begin, is_empty_command, play, return_to_go

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


def test_a_single_number_is_an_executed_action_of_one() -> None:
    player = Player(OpenLoop(jnp.ones((1, 1))), Spec.discrete(3, 3))
    _, memory = player.act(player.begin(), np.zeros(3))
    for choice in (2, 2.0, np.float32(2), np.array(2)):
        assert player.act(memory, np.zeros(3), executed=choice)[0] == 1
    with pytest.raises(LegatoError, match="there are actions 0 to 2; the executed action was 3"):
        player.act(memory, np.zeros(3), executed=3)


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


# --- readings that no policy may believe ---

SMALL: dict[str, Any] = {
    "sac": SAC(hidden=8),
    "td3": TD3(hidden=8),
    "srl": SRL(hidden=8, model_hidden=(4, 4)),
    "bc": BC(hidden=8, layers=1),
    "iql": IQL(hidden=8, layers=1),
    "dt": DT(layers=1, size=8, heads=1, context=3),
    "cache": DT(layers=1, size=8, heads=1, context=3, decoding="cache", positions="rotary"),
    "odt": ODT(layers=1, size=8, heads=1, context=3, eval_context=3),
    "ds4": DS4(layers=1, channels=4, order=4, embedding=4),
}
PAID = ("dt", "cache", "odt", "ds4")  # read rewards, and what to ask for


@pytest.fixture(scope="module")
def players() -> dict[str, Player]:
    """One of every kind, with random weights. Compiles once for all tests of them."""
    found = {}
    for name, config in SMALL.items():
        module = algorithm({"cache": "dt"}.get(name, name))
        statistics = () if name in entries("online") else (DatasetStatistics.identity(SPEC),)
        policy = module.policy(config, module.init(config, SPEC, jax.random.key(0), *statistics))
        found[name] = Player(policy, SPEC)
    return found


def same_memory(one: Any, other: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nan": ({"observation": [0.5, np.nan, 0.0]}, r"the observation\[1\] is NaN"),
    "infinite": ({"observation": np.array([0.5, 0.0, -np.inf])}, r"the observation\[2\] is infinite"),
    "infinite single": ({"observation": np.array([np.inf, 0, 0], np.float32)}, r"the observation\[0\] is infinite"),
    "beyond float32": ({"observation": [1e39, 0.0, 0.0]}, r"the observation\[0\] is infinite"),
    "reward": ({"reward": np.nan}, "the reward is NaN"),
    "reward beyond float32": ({"reward": -1e39}, "the reward is infinite"),
    "executed": ({"executed": [np.nan, 0.0]}, r"the executed action\[0\] is NaN"),
    "executed beyond float32": ({"executed": [0.0, 1e200]}, r"the executed action\[1\] is "),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", SMALL)
def test_a_reading_that_is_not_finite_leaves_the_memory_as_it_was(
    name: str, bad: str, players: dict[str, Player]
) -> None:
    """It is refused, or the action executed last is held; the next good one is answered as if it had never been."""
    player, good = players[name], np.array([0.3, -0.2, 0.1])
    plan, memory = player.act(player.begin(), good, 2)
    before = jax.tree.map(np.array, memory)
    expected, _ = player.act(memory, good, 2, reward=0.5)
    given, words = BAD[bad]
    call: dict[str, Any] = {"observation": good, "length": 2, "reward": 0.5, **given}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(LegatoError, match=words) as refused:
            player.act(memory, **call)
        held, after = player.act(memory, **call, on_invalid="hold")
    assert "\n" not in str(refused.value)
    np.testing.assert_array_equal(held, np.stack([plan[-1], plan[-1]]))
    assert after is memory
    same_memory(memory, before)
    again, _ = player.act(after, good, 2, reward=0.5)
    np.testing.assert_array_equal(again, expected)


@pytest.mark.parametrize("name", SMALL)
def test_what_overflows_inside_a_policy_is_not_remembered_either(name: str, players: dict[str, Player]) -> None:
    """Finite numbers near the end of float32: the action is within its bounds, or they are refused."""
    player, good = players[name], np.zeros(3)
    for observation, reward in ((np.array([3e38, -3e38, 3e38]), 0.0), (good, 3e38)):
        _, memory = player.act(player.begin(), good, 2)
        try:
            actions, memory = player.act(memory, observation, 2, reward=reward)
            assert np.isfinite(actions).all()
        except LegatoError as problem:
            assert "overflow" in str(problem)
        for _ in range(2):
            actions, memory = player.act(memory, good, 2)
            assert np.isfinite(actions).all()


def test_what_is_held_is_the_action_that_was_told_and_nothing_at_first() -> None:
    player = Player(learned("gru"), SPEC)
    bad = np.array([np.nan, 0, 0])
    with pytest.raises(LegatoError, match="no action yet to hold"):
        player.act(player.begin(), bad, on_invalid="hold")
    _, memory = player.act(player.begin(), np.zeros(3), 4)
    held, _ = player.act(memory, bad, 3, executed=np.array([1.0, 0.5]), on_invalid="hold")
    np.testing.assert_array_equal(held, [[1.0, 0.5]] * 3)
    with pytest.raises(LegatoError, match="on_invalid is 'raise' or 'hold'"):
        player.act(memory, np.zeros(3), on_invalid="ignore")  # type: ignore[arg-type]


def test_an_executed_action_outside_its_bounds_counts_as_at_them_and_a_choice_must_exist() -> None:
    player = Player(learned("gru"), SPEC)
    _, memory = player.act(player.begin(), np.zeros(3))
    outside, _ = player.act(memory, np.ones(3), executed=np.array([100.0, -50.0]))
    there, _ = player.act(memory, np.ones(3), executed=np.array([7.0, -1.0]))
    np.testing.assert_array_equal(outside, there)
    chooser = Player(OpenLoop(jnp.ones((1, 1))), Spec.discrete(3, 3))
    _, memory = chooser.act(chooser.begin(), np.zeros(3))
    assert chooser.act(memory, np.zeros(3), executed=np.array([2]))[0] == 1
    for choice in (3, -1, 0.5):
        with pytest.raises(LegatoError, match=f"there are actions 0 to 2; the executed action was {choice}"):
            chooser.act(memory, np.zeros(3), executed=np.array([choice]), on_invalid="hold")


# --- actions within their bounds ---


@given(st.integers(0, 10_000))
def test_float32_bounds_lie_within_the_bounds_as_near_as_can_be(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low = np.round(rng.uniform(-5, 4.9, 4), rng.integers(0, 4)) * 10.0 ** rng.integers(-30, 30, 4)
    high = low + np.abs(low) * 10.0 ** rng.uniform(-6.5, 1, 4) + 1e-30
    least, greatest = Spec(1, tuple(low), tuple(high)).float32_bounds
    assert least.dtype == greatest.dtype == np.float32
    assert np.all(least.astype(float) >= low)
    assert np.all(greatest.astype(float) <= high)
    assert np.all(np.nextafter(least, np.float32(-np.inf)).astype(float) < low)
    assert np.all(np.nextafter(greatest, np.float32(np.inf)).astype(float) > high)


def test_float32_bounds_where_there_is_no_float32_between_or_beyond() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        least, greatest = Spec(1, (0.3, 0.5, -1e300), (0.3, 0.5, 1e300)).float32_bounds
    np.testing.assert_array_equal(least[:2], np.float32([0.3, 0.5]))
    np.testing.assert_array_equal(greatest[:2], least[:2])
    assert -least[2] == greatest[2] == np.finfo(np.float32).max


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_saturated_action_lies_in_its_box(dtype: Any) -> None:
    """Of 300 boxes with bounds of one decimal, in either type, a third were left by a rounding."""
    rng = np.random.default_rng(0)
    low = np.round(rng.uniform(-5, 4.9, 300), 1).astype(dtype)
    high = np.round(low + rng.uniform(0.1, 5, 300), 1).astype(dtype)
    box = spaces.Box(low, high, dtype=dtype)  # type: ignore[arg-type]
    spec = Spec(1, tuple(low.astype(float).tolist()), tuple(high.astype(float).tolist()))
    statistics = DatasetStatistics.identity(spec)
    for end in (50.0, -50.0):
        player = Player(OpenLoop(statistics.to_action(jnp.full(300, end), None)[None]), spec)
        (action,), memory = player.act(player.begin(), np.zeros(1))
        assert box.contains(action.astype(dtype))
        np.testing.assert_array_equal(memory.executed, action)
        np.testing.assert_allclose(action, high if end > 0 else low, rtol=1e-6)


# --- what is no reading, no length and no memory of this policy ---


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"observation": "abc"}, "the policy reads 3 numbers; the observation 'abc' is none"),
        ({"observation": ["1", "2", "3"]}, "the observation .* is none"),
        ({"observation": [1, [2], 3]}, "the observation .* is none"),
        ({"observation": [1, None, 3]}, "the observation .* is none"),
        ({"observation": np.zeros(3, complex)}, "the observation .* is none"),
        ({"observation": np.array(["1", "2", "3"])}, "the observation .* is none"),
        ({"reward": "3"}, "a reward is one number; '3' was given"),
        ({"reward": np.zeros(1)}, "a reward is one number; array"),
        ({"reward": None}, "a reward is one number; None was given"),
        ({"executed": "ab"}, "an action has 2 numbers; the executed action 'ab' is none"),
        ({"executed": [None, 1]}, "the executed action .* is none"),
        ({"length": 2.5}, "a length is a whole number of actions; 2.5 was given"),
        ({"length": 2.0}, "a length is a whole number of actions; 2.0 was given"),
        ({"length": "3"}, "a length is a whole number of actions; '3' was given"),
        ({"length": True}, "a length is a whole number of actions; True was given"),
        ({"length": None}, "a length is a whole number of actions; None was given"),
        ({"length": [2]}, "a length is a whole number of actions"),
        ({"memory": None}, r"memory is what begin\(\) or act\(\) returned last; None was given"),
        ({"memory": {}}, "memory is what begin"),
        ({"memory": "m"}, "memory is what begin"),
    ],
)
def test_anything_else_is_one_line(given: dict[str, Any], words: str) -> None:
    player = PLAYERS.setdefault("gru", Player(learned("gru"), SPEC))
    call: dict[str, Any] = {"memory": player.begin(), "observation": np.zeros(3), "length": 2}
    player.act(**call)  # a length of 2.0 or True must not find what was compiled for 2 or 1
    with pytest.raises(LegatoError, match=words) as refused:
        player.act(**{**call, **given})
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 200


def test_numbers_of_other_types_are_numbers() -> None:
    player = PLAYERS.setdefault("scribe", Player(SCRIBE, WIDE))
    expected, _ = player.act(player.begin(), np.array([1.0, 0.0, 2.0]), 2, reward=3.0)
    for observation in ([1, 0, 2], (1.0, 0, 2), np.array([1, 0, 2], np.uint8), jnp.array([1.0, 0, 2])):
        for reward in (3, np.float32(3), np.array(3.0), np.int64(3), jnp.array(3.0)):
            found, _ = player.act(player.begin(), observation, np.int64(2), reward=reward)  # type: ignore[arg-type]
            np.testing.assert_array_equal(found, expected)


def test_the_memory_of_another_policy_is_refused(players: dict[str, Player]) -> None:
    memories = {name: player.begin() for name, player in players.items()}
    for name, other in (("dt", "ds4"), ("sac", "dt"), ("ds4", "cache"), ("cache", "srl")):
        with pytest.raises(LegatoError, match="this is the memory of another policy") as refused:
            players[name].act(memories[other], np.zeros(3), 2)
        assert "\n" not in str(refused.value)
    wide = Player(SCRIBE, WIDE)
    with pytest.raises(LegatoError, match="this is the memory of another policy"):
        players["sac"].act(wide.begin(), np.zeros(3), 2)


def test_a_length_that_no_plan_has_is_refused_before_it_is_allocated(players: dict[str, Player]) -> None:
    player = players["sac"]
    for length in (100_001, 10**18, 10**30):
        with pytest.raises(LegatoError, match="a plan has at most 100000 actions"):
            player.act(player.begin(), np.zeros(3), length)


def test_what_is_masked_was_not_read(players: dict[str, Player]) -> None:
    player = players["sac"]
    memory = player.begin()
    with pytest.raises(LegatoError, match=r"observation\[2\] is NaN"):
        player.act(memory, np.ma.masked_array([1.0, 0.0, 9.9], mask=[False, False, True]))
    open_mask = np.ma.masked_array([1.0, 0.0, 9.9], mask=[False] * 3)
    np.testing.assert_array_equal(player.act(memory, open_mask)[0], player.act(memory, np.array([1.0, 0, 9.9]))[0])


def test_a_forked_process_acts_by_what_was_compiled_and_compiles_nothing(tmp_path: Path) -> None:
    """JAX would wait there for threads that did not come along."""
    player = Player(learned("sac"), SPEC)
    memory = player.begin()
    expected, _ = player.act(memory, np.ones(3), 2)

    def child() -> None:
        signal.alarm(60)  # what waits for ever is killed, and has written nothing
        actions, _ = player.act(memory, np.ones(3), 2)
        words = [str(np.array_equal(actions, expected))]
        for call in (lambda: player.act(memory, np.ones(3), 3), lambda: api.load(tmp_path), lambda: api.train("sac")):
            try:
                call()
            except LegatoError as problem:
                words.append(str(problem))
        (tmp_path / "words").write_text("\n".join(words))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX's own, of forks
        forked = multiprocessing.get_context("fork").Process(target=child)
        forked.start()
    forked.join()
    acted, *refused = (tmp_path / "words").read_text().splitlines()
    assert acted == "True"
    assert len(refused) == 3
    assert all("multiprocessing.get_context('spawn')" in line for line in refused)


# --- before the loop begins ---


def compiled_by(act: Callable[[], Any]) -> int:
    """How many programs are compiled meanwhile."""
    found: list[str] = []
    monitoring.register_event_duration_secs_listener(lambda event, _, **__: found.append(event))
    try:
        act()
    finally:
        monitoring.clear_event_listeners()
    return sum("backend_compile" in event for event in found)


@pytest.mark.parametrize("name", ["sac", "ds4", "cache"])
def test_what_was_warmed_up_compiles_nothing_in_the_loop(name: str, players: dict[str, Player]) -> None:
    player = Player(players[name].policy, SPEC)
    command = () if name == "sac" else 7.0
    player.warm_up(lengths=[1, 3], command=command)
    memory = player.begin(command)

    def loop() -> None:
        nonlocal memory
        for length in (3, 1, 3, 1):
            actions, memory = player.act(memory, np.ones(3), length=length, executed=[0.0, 0.5], reward=1.0)
            assert actions.shape == (length, 2)

    assert compiled_by(loop) == 0
    assert compiled_by(lambda: player.act(memory, np.ones(3), length=2)) >= 1  # the count is one of something
    same_memory(player.begin(command), players[name].begin(command))


def test_a_length_to_warm_up_is_one_that_act_takes(players: dict[str, Player]) -> None:
    player = players["sac"]
    for length, words in (
        (0, "at least one action"),
        (100_001, "at most 100000"),
        ("8", "whole number"),
        (1.5, "whole"),
    ):
        with pytest.raises(LegatoError, match=words):
            player.warm_up([length])  # type: ignore[list-item]
    with pytest.raises(LegatoError, match="reads no target return"):
        player.warm_up(command=3.0)
    player.warm_up(4)  # type: ignore[arg-type]
    assert compiled_by(lambda: player.act(player.begin(), np.ones(3), length=4)) == 0


def test_a_compiler_option_that_is_not_known_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    known = player_module._compiler_options()
    assert known == player_module._FEWER
    monkeypatch.setattr(player_module, "_FEWER", {"xla_cpu_no_such_option": False})
    player_module._compiler_options.cache_clear()
    try:
        assert player_module._compiler_options() == {}
        player = Player(learned("sac"), SPEC)
        assert np.isfinite(player.act(player.begin(), np.ones(3), 2)[0]).all()
    finally:
        player_module._compiler_options.cache_clear()


@pytest.mark.parametrize("name", [*SMALL, "latent", "tt"])
def test_a_new_policy_is_that_of_a_new_learner(name: str) -> None:
    configs = SMALL | {"latent": SRL(hidden=8, latent=5), "tt": TT(layers=1, size=8, heads=1, bins=4)}
    config, module = configs[name], algorithm({"cache": "dt", "latent": "srl"}.get(name, name))
    key = jax.random.key(3)
    found = eqx.filter_jit(lambda: module.new_policy(config, SPEC, key))()
    expected = eqx.filter_jit(lambda: module.policy(config, module.init(config, SPEC, key)))()
    assert eqx.tree_equal(found, expected)


# --- what to ask for ---


@pytest.mark.parametrize("name", SMALL)
def test_a_command_is_read_or_refused(name: str, players: dict[str, Player]) -> None:
    player = players[name]
    if name not in PAID:
        with pytest.raises(LegatoError, match="reads no target return and no goal: begin without 3000"):
            player.begin(3000.0)
        return
    same_memory(player.begin(3000.0), player.begin(np.float64(3000)))
    assert not jax.tree.all(jax.tree.map(np.array_equal, player.begin(3000.0), player.begin()))
    for command in (np.nan, -np.inf, 1e39, "3000", None, [3000.0], (3000.0,), np.zeros(1), {}):
        with warnings.catch_warnings(), pytest.raises(LegatoError, match="a target return is one finite number"):
            warnings.simplefilter("error")
            player.begin(command)


def test_a_policy_that_was_taught_without_returns_refuses_one() -> None:
    for name in ("dt", "ds4"):
        config, module = replace(SMALL[name], returns=False), algorithm(name)
        player = Player(
            module.policy(config, module.init(config, SPEC, jax.random.key(0), DatasetStatistics.identity(SPEC))), SPEC
        )
        player.begin()
        with pytest.raises(LegatoError, match="reads no target return"):
            player.begin(3.0)


# --- what is asked for ---


def test_the_return_to_go_is_the_target_less_what_was_earned_one_step_nearer() -> None:
    def after(before: float, reward: float, first: bool, gamma: float = 1.0, delay_rewards: bool = False) -> float:
        step = Step(jnp.zeros(2), jnp.asarray(reward), jnp.zeros(1), jnp.asarray(first))
        return float(return_to_go(jnp.asarray(before), step, gamma, delay_rewards=delay_rewards))

    assert after(6.0, 0.0, True, 0.5) == 6  # what came before an episode is none of its business
    assert after(6.0, 2.0, False) == 4
    assert after(6.0, 2.0, False, 0.5) == 8
    assert after(6.0, 2.0, False, 0.5, delay_rewards=True) == 6


def test_nothing_is_asked_for_by_an_empty_tuple_alone() -> None:
    assert is_empty_command(())
    assert not any(is_empty_command(command) for command in ((1.0,), [], 0.0, None, np.zeros(0)))

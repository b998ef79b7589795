"""Rules of termination against Gymnasium's own environments, step by step and at every bound."""

from __future__ import annotations

import inspect
from typing import Any

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.envs.registration import EnvSpec, load_env_creator

from legato.envs import make, tasks
from legato.models import terminations
from legato.models.terminations import RULES, never_terminate, termination_rule

MUJOCO = [name for name in RULES if name not in ("Pendulum", "MountainCarContinuous")]
RUNNING = [f"{name}-{version}" for name in MUJOCO for version in ("v4", "v5")]
RUNNING.remove("Pusher-v4")  # needs MuJoCo before 3, which this project does not take
SIZES = {"Hopper": 11, "Walker2d": 17, "Ant": 105, "Humanoid": 348, "InvertedPendulum": 4}


def played(environment: Any, steps: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Observations, actions, next observations and terminations of random actions, in episodes of at most 200 steps."""
    rng, rows = np.random.default_rng(seed), []
    low, high = environment.action_space.low, environment.action_space.high
    observation, began = environment.reset(seed=seed)[0], 0
    for step in range(steps):
        action = rng.uniform(low, high).astype(np.float32)
        after, _, terminated, truncated, _ = environment.step(action)
        rows.append((observation, action, after, terminated))
        observation = after
        if terminated or truncated or step - began == 200:
            observation, began = environment.reset()[0], step
    return tuple(map(np.array, zip(*rows, strict=True)))


def check(environment: Any, steps: int, ends: bool, seed: int = 0) -> None:
    rule = termination_rule(environment)
    assert rule is not None
    *step, terminated = played(environment, steps, seed)
    np.testing.assert_array_equal(rule(*map(jnp.asarray, step)), terminated)
    assert terminated.any() == ends and not terminated.all()


@pytest.mark.parametrize("environment", RUNNING)
def test_rules_are_those_of_mujocos_tasks(environment: str) -> None:
    pytest.importorskip("mujoco")
    ends = RULES[environment.partition("-")[0]] is not never_terminate
    check(make(environment), 400 if ends else 60, ends)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Hopper", {"healthy_z_range": (1.1, 1.3), "exclude_current_positions_from_observation": False}),
        ("Hopper", {"healthy_state_range": (-3.0, 3.0), "healthy_angle_range": (-1.0, 1.0), "ctrl_cost_weight": 0.5}),
        ("Walker2d", {"healthy_angle_range": (-0.1, 0.1), "exclude_current_positions_from_observation": False}),
        ("Ant", {"healthy_z_range": (0.4, 0.8), "include_cfrc_ext_in_observation": False}),
        ("Ant", {"healthy_z_range": (0.4, 0.8), "exclude_current_positions_from_observation": False}),
        ("Humanoid", {"healthy_z_range": (1.3, 1.5), "exclude_current_positions_from_observation": False}),
    ],
)
def test_rules_follow_the_options_of_an_environment(name: str, options: dict[str, Any]) -> None:
    pytest.importorskip("mujoco")
    check(make(f"{name}-v5", **options), 200, True)
    check(make(f"{name}-v5", terminate_when_unhealthy=False, **options), 60, False)


def test_rules_are_those_of_classic_control() -> None:
    """A car that is pushed the way it goes arrives; slower than the goal's velocity it has not."""
    check(make("Pendulum-v1"), 60, False)
    for options in ({}, {"goal_velocity": 0.03}):
        environment = make("MountainCarContinuous-v0", **options)
        rule, rows, over = termination_rule(environment), [], False
        before = environment.reset(seed=0)[0]
        while not over:
            action = np.sign(before[1:]) + (before[1:] == 0)
            after, _, over, _, _ = environment.step(action.astype(np.float32))
            rows.append((before, action, after))
            before = after
        assert rule is not None
        found = rule(*map(jnp.asarray, map(np.array, zip(*rows, strict=True))))
        assert found[-1] and not found[:-1].any()
    slow, fast, away = jnp.array([[0.45, 0.029], [0.45, 0.031], [below(0.45), 0.05]])
    assert [bool(rule(slow, slow[:1], after)) for after in (slow, fast, away)] == [False, True, False]


def below(value: float) -> float:
    return float(np.nextafter(np.float32(value), np.float32(-np.inf)))


def above(value: float) -> float:
    return float(np.nextafter(np.float32(value), np.float32(np.inf)))


@pytest.mark.parametrize(
    ("name", "place", "lives", "ends"),
    [
        ("Hopper", 0, [above(0.7), 50.0], [0.7, below(0.7), np.nan, np.inf]),
        ("Hopper", 1, [above(-0.2), below(0.2)], [-0.2, 0.2, np.nan]),
        *(("Hopper", i, [above(-100), below(100)], [-100.0, 100.0, np.nan, np.inf]) for i in (2, 4, 5, 10)),
        ("Walker2d", 0, [above(0.8), below(2.0)], [0.8, 2.0, np.nan]),
        ("Walker2d", 1, [above(-1.0), below(1.0)], [-1.0, 1.0, np.nan]),
        ("Walker2d", 2, [-1e6, 1e6], []),
        ("Ant", 0, [0.2, 1.0], [below(0.2), above(1.0), np.nan]),
        ("Ant", 104, [-1e6, 1e6], [np.nan, np.inf]),
        ("Humanoid", 0, [above(1.0), below(2.0)], [1.0, 2.0, np.nan]),
        ("InvertedPendulum", 1, [-0.2, 0.2], [below(-0.2), above(0.2), np.nan]),
        ("InvertedPendulum", 3, [-1e6, 1e6], [np.inf, np.nan]),
    ],
)
def test_bounds(name: str, place: int, lives: list[float], ends: list[float]) -> None:
    """One number at a time, of a state that is healthy otherwise; in batches of two axes."""
    standing = {"Hopper": 1.25, "Walker2d": 1.25, "Ant": 0.5, "Humanoid": 1.4, "InvertedPendulum": 0.0}[name]
    state = np.zeros((2, len(lives + ends), SIZES[name]), np.float32)
    state[..., 0] = standing
    state[1, :, place] = lives + ends
    batch = jnp.asarray(state)
    found = RULES[name](batch, batch[..., :1], batch)
    np.testing.assert_array_equal(found, [[False] * len(lives + ends), [False] * len(lives) + [True] * len(ends)])


def test_hoppers_angle_is_a_part_of_its_state() -> None:
    state = jnp.zeros((2, 11)).at[:, 0].set(1.25).at[1, 1].set(0.1)
    found = terminations.terminate_hopper(state, state[:, :3], state, healthy_state_range=(-0.05, 0.05))
    assert found.tolist() == [False, True]


def test_the_tip_of_two_poles_must_be_above_one() -> None:
    """By the positions of the joints: with the first pole leant by u and the second by v more."""
    pytest.importorskip("mujoco")
    import mujoco

    environment: Any = make("InvertedDoublePendulum-v5").unwrapped
    environment.reset(seed=0)
    angles = np.random.default_rng(0).uniform(-1, 1, (200, 2))
    rows, heights = [], []
    for pair in angles:
        environment.set_state(np.array([0.1, *pair]), np.zeros(3))
        mujoco.mj_forward(environment.model, environment.data)
        rows.append(environment._get_obs())
        heights.append(environment.data.site_xpos[0][2])
    batch = jnp.asarray(np.array(rows))
    found = RULES["InvertedDoublePendulum"](batch, batch[:, :1], batch)
    np.testing.assert_array_equal(found, np.array(heights) <= 1)
    assert 20 < found.sum() < 180


def test_defaults_are_those_of_gymnasium() -> None:
    pytest.importorskip("mujoco")
    checked = 0
    for name in MUJOCO:
        for version in (4, 5):
            kind = load_env_creator(str(gymnasium.spec(f"{name}-v{version}").entry_point))
            theirs = inspect.signature(kind).parameters
            ours = inspect.signature(RULES[name]).parameters.values()
            for option in (option for option in ours if option.kind is option.KEYWORD_ONLY):
                assert option.default == theirs[option.name].default
                checked += 1
            known = terminations.HARMLESS | {option.name for option in ours} | {"xml_file", "kwargs"}
            assert RULES[name] is never_terminate or theirs.keys() <= known
    assert checked == 2 * (4 + 3 + 2 + 2)


def test_an_environments_own_rule_comes_first() -> None:
    environment = make(tasks.LQR)
    rule = termination_rule(environment)
    assert rule is not None and rule is environment.unwrapped.known_termination
    assert termination_rule(tasks.LinearQuadratic()) is rule
    assert termination_rule(wrappers.FlattenObservation(environment)) is None


def test_where_a_rule_is_not_known_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    pendulum = gymnasium.make("Pendulum-v1")
    assert termination_rule(pendulum) is never_terminate
    assert termination_rule(pendulum.unwrapped.__class__()) is None  # with options that nobody tells
    assert termination_rule(wrappers.FrameStackObservation(pendulum, 2)) is None
    for name in ("CartPole-v1", tasks.POINT_MASS):
        assert termination_rule(make(name)) is None
    for name, kind in (("mine/Pendulum-v1", pendulum.unwrapped.__class__), ("Pendulum-v7", tasks.PointMass)):
        monkeypatch.setitem(gymnasium.registry, name, EnvSpec(name, kind))
        assert termination_rule(make(name)) is None  # somebody else's
    pytest.importorskip("mujoco")
    other = make("Hopper-v5", xml_file="walker2d_v5.xml")
    assert termination_rule(other) is None
    spared = make("Hopper-v5", xml_file="walker2d_v5.xml", terminate_when_unhealthy=False)
    assert termination_rule(spared) is never_terminate

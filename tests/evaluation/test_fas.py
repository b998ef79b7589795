"""The Frequency-Averaged Score against closed forms and against the trapezoid rules of NumPy and SciPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.integrate import trapezoid

from legato.envs import tasks
from legato.errors import LegatoError
from legato.evaluation.fas import GRID, OWN, REFERENCES, FASReference, family, fas, reference, weights

MODERATE = st.floats(-1e5, 1e5)
GRIDS = st.lists(st.integers(1, 200), min_size=2, max_size=20, unique=True).map(sorted)


def test_grid_and_weights() -> None:
    assert list(GRID) == [1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30]
    np.testing.assert_array_equal(weights(), [0.5, 1.5, *[2.0] * 13, 1.0])
    assert weights().sum() == 29


@settings(deadline=None)
@given(st.data())
def test_any_grid_is_the_trapezoid_rule(data: st.DataObject) -> None:
    grid = data.draw(GRIDS)
    batch = data.draw(array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4) | st.just(()))
    returns = data.draw(arrays(np.float64, (*batch, len(grid)), elements=MODERATE))
    max_return, offset = data.draw(st.floats(1.0, 1e4)), data.draw(st.floats(-1e3, 1e3))
    scores = fas(returns, max_return, offset, grid)
    for rule in (np.trapezoid, trapezoid):
        area = rule(returns + offset, np.asarray(grid, np.float64), axis=-1)
        np.testing.assert_allclose(scores, area / (grid[-1] * max_return), rtol=1e-9, atol=1e-9)
    assert np.shape(scores) == batch
    assert scores.dtype == np.float64


@pytest.mark.parametrize("name", REFERENCES)
def test_closed_forms_hold_on_every_scale(name: str) -> None:
    max_return, offset = REFERENCES[name].max_return, REFERENCES[name].offset
    lengths = np.asarray(GRID, np.float64)
    perfect = np.full(16, max_return - offset)
    only_first = np.where(lengths == 1, max_return, 0.0) - offset
    falling = max_return * (30 - lengths) / 29 - offset
    scores = fas([perfect, only_first, falling], max_return, offset)
    np.testing.assert_allclose(scores, [29 / 30, 0.5 / 30, 14.5 / 30], rtol=1e-12)


@pytest.mark.parametrize(("environment_id", "worst"), [("Pendulum-v1", -1550.0), ("Reacher-v2", -65.0)])
def test_worst_return_of_an_offset_environment_scores_zero(environment_id: str, worst: float) -> None:
    scale = reference(environment_id)
    assert scale is not None
    assert fas([worst] * 16, scale.max_return, scale.offset) == 0


def test_row_measured_with_the_official_learner() -> None:
    """SAC-1, one seed, 6 000 steps of Pendulum-v1; R(ASL) in the order of the grid."""
    returns = [-166.8, -167.9, -175.0, -573.9, -682.2, -749.0, -833.4, -895.7]
    returns += [-938.4, -999.0, -1062.2, -1059.9, -1025.6, -1043.8, -1176.9, -1231.9]
    assert fas(returns, 1350.0, 1550.0) == pytest.approx(0.517, abs=5e-4)


def test_nothing_is_clipped() -> None:
    np.testing.assert_allclose(fas([[-60.0] * 16, [300.0] * 16], 100.0), [-0.58, 2.9])


def test_a_missing_return_leaves_that_score_missing() -> None:
    returns = np.zeros((2, 16))
    returns[0, 7] = np.nan
    np.testing.assert_array_equal(fas(returns, 1.0), [np.nan, 0.0])


def test_integers_score_in_float64_and_are_left_alone() -> None:
    returns = np.full((3, 16), 7, np.int32)
    returns.setflags(write=False)
    np.testing.assert_allclose(fas(returns, 7), np.full(3, 29 / 30))


@pytest.mark.parametrize(
    ("environment_id", "expected"),
    [
        ("Pendulum-v1", FASReference(1350.0, 1550.0)),
        ("Pendulum", FASReference(1350.0, 1550.0)),
        ("LunarLanderContinuous-v3", FASReference(300.0, 0.0)),
        ("InvertedDoublePendulum-v12", FASReference(9400.0, 0.0)),
        ("Reacher-v5", FASReference(60.0, 65.0)),
        ("gymnasium.envs.mujoco:Hopper-v5", FASReference(3600.0, 0.0)),
        ("LunarLander-v3", None),
        ("pendulum-v1", None),
        ("Pendulum-vx", None),
        ("mine/Pendulum-v1", None),
        ("package:mine/Pendulum-v1", None),
        ("", None),
    ],
)
def test_reference_by_environment_id(environment_id: str, expected: FASReference | None) -> None:
    assert reference(environment_id) == expected


def controlled(environment: Any, act: Callable[[Any], Any], episodes: int) -> float:
    """The mean return of a controller that knows the task."""
    total = 0.0
    for seed in range(episodes):
        environment.reset(seed=seed)
        ended = False
        while not ended:
            _, reward, terminated, truncated, _ = environment.step(act(environment))
            total += reward
            ended = terminated or truncated
    return total / episodes


def test_the_scale_of_our_own_tasks_is_what_their_best_policies_earn() -> None:
    known = {name for name in gymnasium.registry if name.startswith("legato/")}
    assert {f"{name}-v0" for name in OWN} == known
    away = tasks.distances()[: tasks.GOAL]
    shortest = reference(tasks.SHORTEST_PATH)
    assert shortest is not None and shortest.max_return - shortest.offset == pytest.approx(-away.mean())
    mass = reference(tasks.POINT_MASS)
    earned = controlled(tasks.PointMass(), lambda mass: [np.clip(-7 * mass.x - 2.8 * mass.v, -1, 1)], 200)
    starts = np.abs([tasks.PointMass().reset(seed=seed)[0][0] for seed in range(200)])
    spread = 4 * np.std(starts) * 4 / 200**0.5  # of the mean over so many starts: a start twice as far costs about 13
    assert mass is not None and mass.max_return - 0.3 - spread < earned < mass.max_return + spread
    assert controlled(tasks.Recall(), lambda task: task.expert(), 5) == reference(tasks.RECALLS[100]).max_return  # type: ignore[union-attr]


def test_a_family_is_the_name_without_version_and_module() -> None:
    ids = ("Hopper-v5", "Hopper", "gymnasium.envs.mujoco:Hopper-v12", "ns/Hopper-v5", "Hopper-vx")
    assert [family(name) for name in ids] == ["Hopper", "Hopper", "Hopper", "ns/Hopper", "Hopper-vx"]


def test_the_eleven_environments_of_table_2() -> None:
    scales = {name: (scale.max_return, scale.offset) for name, scale in REFERENCES.items()}
    assert scales == {
        "Pendulum": (1350, 1550),
        "LunarLanderContinuous": (300, 0),
        "Hopper": (3600, 0),
        "Walker2d": (5000, 0),
        "Ant": (6500, 0),
        "HalfCheetah": (17000, 0),
        "Humanoid": (10500, 0),
        "InvertedPendulum": (1000, 0),
        "InvertedDoublePendulum": (9400, 0),
        "Reacher": (60, 65),
        "Swimmer": (350, 0),
    }


@pytest.mark.parametrize("shape", [(), (15,), (17,), (16, 3), (0,)])
def test_returns_that_do_not_fit_the_grid_are_refused_in_one_line(shape: tuple[int, ...]) -> None:
    with pytest.raises(LegatoError, match="16 action sequence lengths 1 to 30") as caught:
        fas(np.zeros(shape), 1.0)
    assert str(shape) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("grid", [(), (1,), (2, 1), (1, 1), (0, 1), (-2, 1), (1, float("nan")), ((1, 2), (3, 4))])
def test_bad_grids_are_refused(grid: tuple) -> None:
    with pytest.raises(LegatoError, match="strictly increasing"):
        weights(grid)


@pytest.mark.parametrize("max_return", [0.0, -1.0, float("nan")])
def test_a_scale_must_be_positive(max_return: float) -> None:
    with pytest.raises(LegatoError, match="max_return"):
        fas(np.zeros(16), max_return)

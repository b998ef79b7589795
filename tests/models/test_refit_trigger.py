"""When a model is refitted: intervals and volumes that are known, sampling noise, bounds, and state that is a value."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from legato.errors import LegatoError
from legato.models import refit_trigger
from legato.models.refit_trigger import TriggerOptions, TriggerState

CUBE = np.stack(np.meshgrid(*3 * [[0.0, 1.0]]), axis=-1).reshape(8, 3)
SQUARE = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
ERRORS = (0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
VARIANTS = ("paper", "release", "error", "cusum", "fixed")


def rotation(size: int, seed: int = 0) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


def grow(first: np.ndarray, *new: np.ndarray, **options: Any) -> list[float]:
    """Coverage ratios after each of the new sets."""
    chosen = TriggerOptions(**options)
    state, found = refit_trigger.start(chosen, first), []
    for rows in new:
        state, _ = refit_trigger.check(chosen, state, rows)
        found.append(refit_trigger.coverage_ratio(state))
    return found


def interval(options: TriggerOptions, error: float) -> int:
    """Steps until a refit, where the model is always as wrong as this."""
    state, due = refit_trigger.start(options, CUBE), False
    while not due:
        state = refit_trigger.observe_error(refit_trigger.count_steps(state, 1), error)
        state, due = refit_trigger.check(options, state)
    return int(state.steps)


# --- the rule ---


@pytest.mark.parametrize(
    ("check_every", "threshold", "error", "steps"),
    [
        *((20, 1.2, *row) for row in zip(ERRORS, (500, 500, 260, 150, 150, 150, 150), strict=True)),
        *((50, 2.0, *row) for row in zip(ERRORS, (500, 500, 500, 500, 400, 250, 150), strict=True)),
    ],
)
def test_a_constant_error_is_answered_after_a_known_time(
    check_every: int, threshold: float, error: float, steps: int
) -> None:
    options = TriggerOptions(variant="error", check_every=check_every, threshold=threshold)
    assert interval(options, error) == steps
    checks = np.ceil(threshold / np.log1p(error))  # the first for which (tau / F) log(1 + e) >= alpha
    assert steps == np.clip(check_every * checks, 150, 500)


@pytest.mark.parametrize(("error", "steps"), [(2.0, 150), (1.0, 169), (0.5, 269), (0.25, 463), (0.1, 500)])
def test_intervals_of_the_published_setting(error: float, steps: int) -> None:
    """To within one check, for the setting of HalfCheetah."""
    assert abs(interval(TriggerOptions(variant="error", check_every=50, threshold=2.0), error) - steps) <= 50


def test_the_sum_is_of_ratio_times_mean_error() -> None:
    options = TriggerOptions(check_every=10, offset=0.7)
    state = refit_trigger.start(options, CUBE)
    shift = errors = 0.0
    for i, size in enumerate((1.0, 2.0, 1.5, 3.0)):
        state = refit_trigger.observe_error(refit_trigger.count_steps(state, 10), np.full(10, 0.1 * (i + 1)))
        state, _ = refit_trigger.check(options, state, size * CUBE)
        errors += 0.1 * (i + 1)
        shift += np.log((1, 8, 8, 27)[i] * errors / (i + 1) + 0.7)  # a hull never shrinks; the mean is of all errors
        assert float(state.shift) == pytest.approx(shift, rel=1e-5)
        assert refit_trigger.mean_error(state) == pytest.approx(errors / (i + 1), rel=1e-6)
    assert int(state.checks) == 4


@pytest.mark.parametrize(
    ("expected", "error", "checks"),
    [(0.1, 0.2, None), (0.1, 0.4, 2), (0.1, 0.8, 1), (0.001, 0.06, None), (0.001, 0.24, 1), (0.0, 0.12, 2)],
)
def test_a_cumulative_sum_answers_a_rise_at_once_and_a_level_never(
    expected: float, error: float, checks: int | None
) -> None:
    """An error that is twice as large as expected, or as 0.03, is no change; log 2 a check is of one of four times."""
    options = TriggerOptions(variant="cusum", threshold=1.2)
    state = refit_trigger.expect_error(refit_trigger.start(options, CUBE), np.full(2, expected))
    rise = np.log(error / max(expected, 0.03)) - np.log(2)
    for step in range(1, 281):
        now = error if step > 200 else max(expected, 0.03)
        state = refit_trigger.observe_error(refit_trigger.count_steps(state, 1), now)
        state, due = refit_trigger.check(options, state)
        if step <= 200:
            assert state.shift == 0 and not due
        elif step % options.check_every == 0:
            assert float(state.shift) == pytest.approx(max(rise, 0) * (step - 200) / 20, abs=1e-5)
        if due:
            break
    assert step == (280 if checks is None else 200 + 20 * checks)


def test_turns_of_many_steps_count_as_many_checks() -> None:
    options = TriggerOptions(variant="error")
    one = two = refit_trigger.observe_error(refit_trigger.start(options, CUBE), 0.1)
    for steps in (1, 39, 5, 95, 60, 50):
        one = refit_trigger.count_steps(one, steps)
        one, due = refit_trigger.check(options, one)
        assert due == (one.steps >= 250 and one.checks >= 13)
    two, _ = refit_trigger.check(options, refit_trigger.count_steps(two, 250))
    assert two.checks == one.checks == 12
    assert float(two.shift) == pytest.approx(12 * np.log(1.1), rel=1e-5)
    assert float(one.shift) == pytest.approx(12 * np.log(1.1), rel=1e-5)


def test_a_check_is_needed_every_so_many_steps() -> None:
    options = TriggerOptions(variant="error", check_every=20, shortest=30, longest=70)
    state = refit_trigger.start(options, CUBE)
    needed = []
    for step in range(1, 75):
        state = refit_trigger.count_steps(state, 1)
        if refit_trigger.needs_check(options, state):
            needed.append(step)
            state, _ = refit_trigger.check(options, state)
    assert needed == [20, 40, 60, 70, 71, 72, 73, 74]  # until the refit that is due is made


@pytest.mark.parametrize("variant", VARIANTS)
def test_refits_keep_their_distance(variant: Any) -> None:
    """Whatever the errors and the coverage are, and a refit that is due stays due."""
    options = TriggerOptions(variant=variant, check_every=7, shortest=15, longest=50, threshold=1.0, sample=20)
    rng = np.random.default_rng(0)
    replay = rng.normal(size=(40, 3))
    state, gaps = refit_trigger.start(options, replay), []
    for step in range(600):
        error = rng.exponential() * (10.0, 0.0, 0.3)[step // 200]
        state = refit_trigger.observe_error(refit_trigger.count_steps(state, 1), error)
        new = rng.normal(size=(1, 3)) * rng.exponential()
        replay = np.concatenate([replay, new])[-200:]
        state, due = refit_trigger.check(options, state, {"new": new, "replay": replay}.get(options.reads))
        if due:
            gaps.append(int(state.steps))
            state = refit_trigger.expect_error(refit_trigger.restart(options, state, replay), 0.1)
    assert int(state.refits) == len(gaps)
    if variant == "fixed":
        assert gaps == [50] * 12
    else:
        assert min(gaps) == 15
        assert max(gaps) == 50
        assert len({*gaps}) > 2


# --- coverage ---


def test_the_hull_of_points_in_a_cube_fills_it() -> None:
    rng = np.random.default_rng(0)
    volumes = [refit_trigger.convex_hull(rng.random((n, 3)))[0] for n in (100, 1_000, 30_000)]
    assert volumes == sorted(volumes)
    assert 0.99 < volumes[-1] < 1
    assert refit_trigger.convex_hull(CUBE)[0] == pytest.approx(1)
    state = refit_trigger.start(TriggerOptions(), CUBE @ np.diag([1, 20, 3]))
    assert np.exp(state.log_volume) == pytest.approx(60, rel=1e-5)


def test_new_observations_only_add_to_coverage() -> None:
    rng = np.random.default_rng(0)
    new = [rng.normal(size=(20, 5)) for _ in range(30)]
    ratios = grow(rng.normal(size=(200, 5)), *new)
    assert ratios[0] >= 1
    assert ratios == sorted(ratios)
    assert ratios[-1] > 1.2
    assert grow(CUBE, 0.5 + 0.4 * (CUBE - 0.5), 2 * CUBE, CUBE) == pytest.approx([1, 8, 8], rel=1e-5)


def test_coverage_is_the_same_in_any_basis_and_any_unit() -> None:
    rng = np.random.default_rng(0)
    first, new = rng.normal(size=(300, 6)), 1.5 * rng.normal(size=(50, 6))
    first, new, turn = first * [5, 3, 2, 0.3, 0.2, 0.1], new * [5, 3, 2, 0.3, 0.2, 0.1], rotation(6)
    expected = grow(first, new)
    assert expected[0] > 1.05
    assert grow(first @ turn, new @ turn) == pytest.approx(expected, rel=1e-4)
    assert grow(1e-8 * first, 1e-8 * new) == pytest.approx(expected, rel=1e-4)
    assert grow(1e8 * first + 1e9, 1e8 * new + 1e9) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("size", "ratio"), [(1, 2), (2, 4), (3, 8)])
def test_fewer_than_three_numbers_have_areas_and_ranges(size: int, ratio: float) -> None:
    corners = CUBE[:, :size]
    assert grow(corners, corners, 2 * corners) == pytest.approx([1, ratio], rel=1e-5)
    assert grow(CUBE * [3, 2, 1], 2 * CUBE * [3, 2, 1], axes=size) == pytest.approx([ratio], rel=1e-5)


@pytest.mark.parametrize("turned", [False, True])
def test_flat_sets_are_compared_by_area_or_length(turned: bool) -> None:
    basis = np.pad(np.eye(3), ((0, 0), (0, 2))) @ (rotation(5) if turned else np.eye(5))
    square = SQUARE @ basis
    assert grow(square, square, 2 * square) == pytest.approx([1, 4], rel=1e-4)
    line = square[:2]
    assert grow(line, line, 3 * line) == pytest.approx([1, 3], rel=1e-4)
    assert grow(line[:1], line[:1], square) == [1, 1]  # one point has no extent to compare with
    assert grow(SQUARE, SQUARE + np.array([0, 0, 0.1]))[0] > 1e4  # a dimension that nothing was known of


def test_where_no_volume_is_found_ranges_stand_in() -> None:
    volume, corners = refit_trigger.convex_hull(SQUARE * [4, 1, 1])
    assert volume == pytest.approx(4 * 1 * 4e-6)
    assert {*map(tuple, corners)} == {*map(tuple, SQUARE * [4, 1, 1])}
    assert refit_trigger.convex_hull(CUBE[:2])[0] == pytest.approx(np.prod([1e-6, 1e-6, 1]))
    assert refit_trigger.convex_hull(CUBE[[3, 3]])[0] == 0


def test_a_hull_of_too_many_corners_loses_little() -> None:
    rng = np.random.default_rng(0)
    sphere = rng.normal(size=(9_000, 3))
    sphere /= np.linalg.norm(sphere, axis=1)[:, None]
    first, *new = np.split(sphere, [5_000, 6_000, 7_000, 8_000])
    state = refit_trigger.start(TriggerOptions(), first)
    volume = np.exp(state.log_volume)
    assert volume == pytest.approx(4 / 3 * np.pi, rel=0.02)
    unit = 1 / np.linalg.norm(state.basis[:, 0])
    assert refit_trigger.convex_hull(state.vertices)[0] * unit**3 == pytest.approx(volume, rel=1e-5)
    ratios = grow(first, *new)
    assert ratios == sorted(ratios)
    assert 1 <= ratios[0] <= ratios[-1] < 1.01
    outlier = np.insert(first, 2_501, [0, 0, 9], axis=0)
    exact = refit_trigger.convex_hull(outlier)[0]
    assert np.exp(refit_trigger.start(TriggerOptions(), outlier).log_volume) == pytest.approx(exact, rel=0.02)


def test_independent_subsets_are_noise_and_a_growing_hull_is_not() -> None:
    """A replay whose distribution never changes, of Student's t with 4 degrees of freedom: the ratio should be 1."""
    rng = np.random.default_rng(0)
    replay = rng.standard_t(4, size=(20_000, 4))
    found = {}
    for variant in ("release", "paper"):
        options = TriggerOptions(variant=variant)
        state, ratios = refit_trigger.start(options, replay), []
        for _ in range(150):
            new = replay if variant == "release" else rng.standard_t(4, size=(20, 4))
            state, _ = refit_trigger.check(options, refit_trigger.count_steps(state, 20), new)
            ratios.append(refit_trigger.coverage_ratio(state))
        found[variant] = np.mean(ratios), np.std(ratios)
    assert found["release"] == (pytest.approx(1.15, abs=0.1), pytest.approx(0.63, abs=0.15))
    assert found["paper"] == (pytest.approx(1.05, abs=0.1), pytest.approx(0, abs=0.1))


def test_subsets_are_compared_with_those_of_the_check_before() -> None:
    options = TriggerOptions(variant="release", sample=10)  # all of them
    state = refit_trigger.start(options, CUBE)
    for size, ratio in ((2, 8), (1, 1 / 8), (3, 27)):
        state = refit_trigger.count_steps(state, 20)
        state, _ = refit_trigger.check(options, state, size * CUBE)
        assert refit_trigger.coverage_ratio(state) == pytest.approx(ratio, rel=1e-5)
        same, _ = refit_trigger.check(options, refit_trigger.count_steps(state, 5), 9 * CUBE)  # between two checks
        assert same._replace(steps=state.steps) == state


# --- errors ---


def test_errors_count_in_how_much_observations_change() -> None:
    rng = np.random.default_rng(0)
    s, change = rng.normal(size=(500, 3)), rng.normal(size=(500, 3)) * [1, 0.01, 100]
    change[:, 2] = 0
    unit = refit_trigger.change_unit(s, s + change)
    np.testing.assert_allclose(unit, [np.sqrt(np.mean(change[:, 0] ** 2)), np.sqrt(np.mean(change[:, 1] ** 2)), 1])
    prediction = s + change + unit * [0.3, 0.4, 0]
    error = refit_trigger.unit_free_error(prediction, s + change, unit)
    np.testing.assert_allclose(error, 0.5 / np.sqrt(3))
    still = refit_trigger.unit_free_error(s[:, :2], (s + change)[:, :2], unit[:2])
    assert np.sqrt(np.mean(still**2)) == pytest.approx(1)  # of a model that predicts no change
    scaled = refit_trigger.unit_free_error(50 * prediction, 50 * (s + change), 50 * unit)
    np.testing.assert_allclose(scaled, error)
    raw = refit_trigger.prediction_error(TriggerOptions(scale="raw"), prediction, s + change, unit)
    np.testing.assert_allclose(raw, np.linalg.norm(unit * [0.3, 0.4, 0]))
    members = np.stack([prediction, s + change])
    both = refit_trigger.prediction_error(TriggerOptions(), members, s + change, unit)
    np.testing.assert_allclose(both, np.stack([error, 0 * error]))
    state = refit_trigger.observe_error(refit_trigger.start(TriggerOptions(), CUBE), both)
    assert refit_trigger.mean_error(state) == pytest.approx(error.mean() / 2)


# --- what is refused, what is left out ---


def test_rows_that_are_not_finite_are_left_out() -> None:
    broken = np.array([[np.nan, 0, 0], [0, np.inf, 0], [0, 0, -1e35], [5, 5, np.nan]])
    for variant in ("paper", "release"):
        options = TriggerOptions(variant=variant)
        one = refit_trigger.start(options, np.concatenate([CUBE, broken]))
        two = refit_trigger.start(options, CUBE)
        np.testing.assert_allclose(one.log_volume, two.log_volume, atol=1e-6)
        one = refit_trigger.count_steps(one, 20)
        state, _ = refit_trigger.check(options, one, broken)
        assert refit_trigger.coverage_ratio(state) == 1
        with pytest.raises(LegatoError, match="no row of 4 observations is finite"):
            refit_trigger.start(options, broken)
    rows = np.concatenate([CUBE, broken]).astype(np.float32)
    assert refit_trigger.change_unit(rows, rows + 2).tolist() == [2, 2, 2]
    with pytest.raises(LegatoError, match="of 4 rows, of which none is finite"):
        refit_trigger.change_unit(broken, broken)


@pytest.mark.parametrize("error", [np.nan, np.inf, -0.1, np.array([0.1, np.nan])])
def test_errors_that_are_none_are_refused(error: Any) -> None:
    state = refit_trigger.start(TriggerOptions(), CUBE)
    with pytest.raises(LegatoError, match=r"must be finite and not negative; (nan|inf|-0\.1) was given"):
        refit_trigger.observe_error(state, error)


def test_diverged_predictions_have_an_error_that_is_not_finite() -> None:
    wrong = np.array([[1e200, 0.0, 0.0], [np.nan, 0, 0], [np.inf, 0, 0]])
    assert not np.isfinite(refit_trigger.unit_free_error(wrong, 0 * CUBE[:3], np.ones(3))).any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shortest": 600}, "`shortest` must be at most `longest`; 600 and 500 were given"),
        ({"variant": "cusum", "scale": "raw"}, "`variant=cusum` counts unit-free errors"),
        ({"threshold": 0.0}, "threshold must be positive; 0.0 was given"),
        ({"offset": 0.0}, "offset must be positive"),
        ({"axes": 4}, "axes must be at most 3; 4 was given"),
        ({"check_every": 0}, "check_every must be at least 1"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(LegatoError, match=words):
        TriggerOptions(**options)


def test_a_clock_may_be_faster_than_events() -> None:
    assert interval(TriggerOptions(variant="fixed", longest=100), 0.1) == 100


def test_observations_that_do_not_fit_are_refused() -> None:
    options = TriggerOptions()
    state = refit_trigger.start(options, CUBE)
    with pytest.raises(LegatoError, match=r"shape \(8, 2\) do not fit a trigger of rows of 3 numbers"):
        refit_trigger.check(options, state, CUBE[:, :2])
    with pytest.raises(LegatoError, match=r"shape \(8, 2\)"):
        refit_trigger.restart(options, state, CUBE[:, :2])
    with pytest.raises(LegatoError, match="variant='paper' needs observations at a check"):
        refit_trigger.check(options, state)
    with pytest.raises(LegatoError, match=r"seed must lie in \[0, 2\^31\); -1 was given"):
        refit_trigger.start(options, CUBE, seed=-1)


# --- the state is a value ---


def run(options: TriggerOptions, state: TriggerState, steps: range) -> tuple[TriggerState, list[int]]:
    """Go on, with numbers that follow from the step; the steps of refits."""
    refits = []
    for step in steps:
        rng = np.random.default_rng(step)
        rows = rng.normal(size=(30, 4))
        state = refit_trigger.observe_error(refit_trigger.count_steps(state, 10), rng.random(10))
        state, due = refit_trigger.check(options, state, rows)
        if due:
            refits.append(step)
            state = refit_trigger.restart(options, state, rows)
    return state, refits


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("way", ["file", "device"])
def test_a_state_goes_on_as_it_was_saved(variant: Any, way: str, tmp_path: Path) -> None:
    options = TriggerOptions(variant=variant, sample=15, threshold=4.0, longest=300)
    begin = refit_trigger.start(options, np.random.default_rng(9).normal(size=(50, 4)), seed=3)
    first, early = run(options, begin, range(40))
    if way == "file":
        np.savez(tmp_path / "state.npz", **first._asdict())
        with np.load(tmp_path / "state.npz", allow_pickle=False) as file:
            restored = TriggerState(**file)
    else:  # as a part of a learner: nothing may change its type there
        restored = TriggerState(*(np.asarray(jnp.asarray(leaf)) for leaf in first))
    ends = [run(options, state, range(40, 80)) for state in (first, restored)]
    assert early
    assert ends[0][1] == ends[1][1] != []
    for name, start, one, two in zip(TriggerState._fields, begin, ends[0][0], ends[1][0], strict=True):
        np.testing.assert_array_equal(one, two, err_msg=name)
        assert isinstance(one, np.ndarray), name
        assert (start.shape, start.dtype) == (one.shape, one.dtype), name
        assert np.isfinite(one).all(), name


def test_subsets_follow_from_the_seed() -> None:
    options = TriggerOptions(variant="release", sample=20)
    replay = np.random.default_rng(0).normal(size=(500, 3))
    volumes = [float(refit_trigger.start(options, replay, seed=seed).log_volume) for seed in (0, 0, 1)]
    assert volumes[0] == volumes[1] != volumes[2]
    state = refit_trigger.start(options, replay)
    assert refit_trigger.restart(options, state, replay).log_volume != state.log_volume


def test_a_state_is_never_changed() -> None:
    options = TriggerOptions()
    state = refit_trigger.start(options, CUBE)
    before = [leaf.copy() for leaf in state]
    later = refit_trigger.observe_error(refit_trigger.count_steps(state, 500), 1.0)
    later, due = refit_trigger.check(options, later, 3 * CUBE)
    assert due
    refit_trigger.restart(options, later, CUBE)
    for one, two in zip(before, state, strict=True):
        np.testing.assert_array_equal(one, two)


def test_it_needs_no_jax() -> None:
    code = "import sys; from legato.models import refit_trigger; print({'jax', 'scipy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n", done.stderr

"""Foretelling: the measure by hand, its bounds, and models whose samples are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.tiny import new_policy, swings

from legato.algorithms.trajectory_transformer import sampler as sampling
from legato.algorithms.trajectory_transformer import trajectory_transformer as tt
from legato.algorithms.trajectory_transformer.config import TT
from legato.data import masking
from legato.data.spec import Spec
from legato.data.trajectories import About, Trajectories, trajectories
from legato.errors import LegatoError
from legato.evaluation import prediction
from legato.evaluation.prediction import (
    EnsembleBaseline,
    HistogramBins,
    Prediction,
    PredictionReport,
    Samples,
    likelihood,
    measure,
    references,
)

TWO = HistogramBins(np.array([0.0, -1.0]), np.array([4.0, 1.0]), 4)  # bins of width 1 and 1/2


def states(*rows: tuple[float, float]) -> np.ndarray:
    return np.array(rows, np.float32)


# --- the measure ---


def test_likelihood_by_hand() -> None:
    """Three samples and a quarter of one in each bin."""
    samples = states((0.5, 0.9), (0.2, -0.9), (3.9, -0.8))
    found = likelihood(samples, states((0.7, -0.6), (2.5, 0.9)), TWO)
    first = np.log((2 + 0.25) / 4 / 1.0) + np.log((2 + 0.25) / 4 / 0.5)
    second = np.log(0.25 / 4 / 1.0) + np.log((1 + 0.25) / 4 / 0.5)
    np.testing.assert_allclose(found, [first, second])


def test_what_is_missing_is_no_sample_and_what_is_outside_is_in_no_bin() -> None:
    nothing = np.nan
    found = likelihood(states((0.5, nothing), (9.0, 0.1)), states((0.5, 0.1), (-3.0, 7.0)), TWO)
    np.testing.assert_allclose(found[0], np.log(1.25 / 3) + np.log(1.25 / 2 / 0.5))
    np.testing.assert_allclose(found[1], np.log(0.25 / 3) + np.log(0.25 / 2 / 0.5))
    gone = likelihood(states((nothing, nothing)), states((0.5, 0.1)), TWO)
    np.testing.assert_allclose(gone, np.log(1 / 4) + np.log(1 / 2))  # all bins alike: a density of the whole range


def test_no_model_exceeds_the_oracle_and_one_that_is_always_right_comes_to_it() -> None:
    assert TWO.oracle == pytest.approx(np.log(4 / 4) + np.log(4 / 2))
    right = likelihood(np.tile(states((1.5, 0.2)), (100_000, 1)), states((1.2, 0.4)), TWO)
    assert right[0] < TWO.oracle and right[0] == pytest.approx(TWO.oracle, abs=1e-4)


def test_edges_belong_to_the_bins_and_constants_are_not_measured() -> None:
    bins = HistogramBins(np.array([0.0, 5.0]), np.array([1.0, 5.0]), 10)
    np.testing.assert_array_equal(bins.place(states((0, 5), (1, 5), (0.1, 5)))[:, 0], [0, 9, 1])
    np.testing.assert_array_equal(bins.place(states((-0.1, 5), (1.1, 5)))[:, 0], [-1, -1])
    assert bins.oracle == pytest.approx(np.log(10))
    assert likelihood(states((0.5, 5)), states((0.5, 9)), bins)[0] == pytest.approx(np.log(1.1 / 2 * 10))


def test_a_better_model_measures_better_at_every_step() -> None:
    rng = np.random.default_rng(0)
    walk = lambda n: np.cumsum(rng.normal(0.1, 0.05, (n, 6, 2)), axis=1).astype(np.float32)  # noqa: E731
    real, bins = walk(50), HistogramBins(np.zeros(2) - 0.3, np.ones(2), 20)
    good = measure("good", Samples(walk(400)), real, bins)
    drifting = measure("drifting", Samples(walk(400) + 0.05 * np.arange(1, 7)[:, None]), real, bins)
    assert (good.likelihood[1:] > drifting.likelihood[1:]).all() and (good.error < drifting.error).all()
    assert (good.likelihood < bins.oracle).all() and (good.alive == 1).all()
    deviation = real.std(axis=(0, 1))
    np.testing.assert_allclose(
        measure("real", Samples(real), real, bins).error, np.sqrt((real.std(axis=0) / deviation) ** 2 @ [0.5, 0.5]),
        rtol=1e-4,
    )  # fmt: skip


def test_trajectories_that_end_are_counted_out() -> None:
    real = np.full((5, 3, 2), 0.5, np.float32)
    samples = np.full((4, 3, 2), 0.5, np.float32)
    samples[0, 1:], samples[1, 2:] = np.nan, np.nan
    found = measure("ending", Samples(samples), real, TWO)
    np.testing.assert_allclose(found.alive, [1, 0.75, 0.5])
    for t, n in enumerate((4, 3, 2)):
        assert found.likelihood[t] == pytest.approx(2 * np.log((n + 0.25) / (n + 1)) - np.log(0.5))
    np.testing.assert_allclose(found.error, 0, atol=1e-6)


def test_references_are_episodes_that_are_long_enough() -> None:
    data = swings()  # 3 to 14 steps
    found = references(data, 8)
    assert found.shape == (6, 9, 3)  # of 9 to 14 steps
    np.testing.assert_array_equal(found[0], data.observations[data.episode(6)])
    assert len(references(data, 8, 2)) == 2
    ends = np.full((12, 3), 7.0)
    longer = references(swings(final_observations=ends), 8)
    assert len(longer) == 7 and (longer[0, -1] == 7).all() and (longer[1, -1] != 7).all()
    with pytest.raises(LegatoError, match=r"^no episode of swings has 14 steps; the longest has 14$"):
        references(data, 14)


# --- who predicts ---


def counting(episodes: int = 60, length: int = 12) -> Trajectories:
    """A number that grows by what is done: 0.25, or -0.25."""
    rng = np.random.default_rng(0)
    a = rng.choice([-0.25, 0.25], (episodes, length, 1))
    s = np.cumsum(np.pad(a, ((0, 0), (1, 0), (0, 0))), axis=1) + rng.normal(0, 0.01, (episodes, length + 1, 1))
    over = np.tile(np.arange(length) == length - 1, episodes)
    return trajectories(
        s[:, :-1].reshape(-1, 1), a.reshape(-1, 1), None, 0 * over, over, final_observations=s[:, -1],
        about=About("counting", low=(-1.0,), high=(1.0,)),
    )  # fmt: skip


SPEC = Spec(1, (-1.0,), (1.0,))


@pytest.fixture(scope="module")
def baseline() -> EnsembleBaseline:
    found = prediction.fit_baseline(counting(), SPEC, updates=600, hidden=(32, 32))
    assert found.behaviour.outputs.mean.size == 1 and found.dynamics.inputs.mean.size == 2
    return found


def test_an_ensemble_that_is_told_what_was_done_does_what_it_does(baseline: EnsembleBaseline) -> None:
    starts, actions = np.array([[0.0], [0.5]], np.float32), np.full((2, 6, 1), 0.25, np.float32)
    actions[1] *= -1
    for mixed in (False, True):
        found = prediction.of_ensemble(baseline, starts, 7, 6, actions=actions, mixed=mixed).states
        expected = starts[[0, 1, 0, 1, 0, 1, 0]][:, None] + np.cumsum(actions, axis=1)[[0, 1, 0, 1, 0, 1, 0]]
        assert np.abs(found - expected).mean() < 0.15
        np.testing.assert_allclose(found[:, 0], expected[:, 0], atol=0.08)


def test_without_it_fills_in_what_the_data_did(baseline: EnsembleBaseline) -> None:
    """As many steps up as down: the mean stays, the spread grows with the root of the steps."""
    found = prediction.of_ensemble(baseline, np.zeros((1, 1), np.float32), 1500, 9).states[..., 0]
    assert abs(found[:, -1].mean()) < 0.25
    np.testing.assert_allclose(found[:, 0].std(), 0.25, rtol=0.25)
    np.testing.assert_allclose(found[:, 8].std() / found[:, 0].std(), 3, rtol=0.3)


@pytest.fixture(scope="module")
def policy() -> tt.Planning:
    """Of random weights."""
    data = counting()
    config = TT(bins=20, edges="uniform", window=3, context=2, layers=1, heads=1, size=8, returns=False, penalty=None,
                search="likelihood", dropout=0.0)  # fmt: skip
    statistics, _ = tt.prepare(config, SPEC, data, None, "")
    return new_policy(tt, config, SPEC, jax.random.key(0), statistics)


def sampler(policy: tt.Planning) -> sampling.Sampler:
    return sampling.trajectories(TT(), policy)


def test_samples_of_a_transformer_are_numbers_of_its_bins(policy: tt.Planning) -> None:
    data = counting()
    starts = references(data, 4)[:, 0]
    found = prediction.of_model(sampler(policy), starts, 60, 4).states
    assert found.shape == (60, 4, 1)
    low, high = data.observations.min(), data.observations.max()
    there = found[~np.isnan(found)]
    assert len(there) > 100 and (there >= low).all() and (there <= high).all()
    width = (high - low) / 20
    assert np.ptp((there - low) % width) > 0.8 * width  # anywhere in a bin, not its middle
    ended = np.isnan(found[..., 0])
    assert (np.diff(ended.astype(int), axis=1) >= 0).all()
    again = prediction.of_model(sampler(policy), starts, 20, 4).states
    np.testing.assert_array_equal(again, found[:20])  # more samples are more of the same
    assert not np.array_equal(prediction.of_model(sampler(policy), starts, 20, 4, seed=1).states, again, equal_nan=True)


def test_contexts_and_goals_that_cannot_be(policy: tt.Planning) -> None:
    for context in (1, 4):
        with pytest.raises(LegatoError, match=f"^the model reads 2 to 3 steps; a context of {context} was given$"):
            prediction.of_model(sampler(policy), np.zeros((1, 1), np.float32), 1, 1, context=context)


def test_marks_are_missing_numbers(policy: tt.Planning) -> None:
    """A mask whose marks lie above the lowest of the bins: what falls there is no sample."""
    edges = np.asarray(policy.observed.edges)[0]
    low, mark = jnp.asarray(edges[6:7]), jnp.asarray(edges[4:5])  # half-way: edge 5
    mask = masking.Mask(low, mark, jnp.zeros(1), 0.5)
    found = prediction.of_model(sampler(policy), np.full((1, 1), edges[10], np.float32), 100, 6, mask=mask).states
    assert np.isnan(found).mean() > 0.1
    assert np.nanmin(found) >= edges[5]


# --- what came of it ---


def test_a_table_and_a_file_say_what_came_of_it() -> None:
    one = Prediction("TT", np.linspace(9, 7, 12), np.linspace(0, 1, 12), np.linspace(1, 0.5, 12))
    report = PredictionReport("Hopper-v5", (one, replace(one, label="ensemble", alive=np.ones(12))), 10.5, 20, 30, True)
    assert prediction.shown(12) == [1, 5, 10, 12] and prediction.shown(100) == [1, 5, 10, 20, 50, 100]
    table = prediction.table(report)
    cells: list[Any] = [list(column.cells) for column in table.columns]
    assert cells[0] == ["TT", "ensemble", "error: TT", "error: ensemble", "not ended, %: TT"]
    assert [column[0] for column in cells[1:]] == ["9.0", "8.3", "7.4", "7.0"]
    assert [column[4] for column in cells[1:]] == ["100", "82", "59", "50"]
    body = json.loads(json.dumps(report.to_json()))
    assert body["oracle"] == 10.5 and body["predictions"][1]["likelihood"][-1] == 7


def test_the_figure_names_its_curves_and_the_bound(tmp_path: Path) -> None:
    from legato.evaluation.figures import Curve, prediction_curve

    x = np.arange(1, 11)
    curves = [Curve("TT", x, 30 - x[None]), Curve("ensemble", x, 30 - 5 * x[None])]
    path = prediction_curve(curves, tmp_path / "p.svg", title="predicted states", oracle=40.0, episodes=7)
    text = path.read_text()
    assert 'id="oracle"' in text and 'id="curve-1"' in text
    assert 'id="oracle"' not in prediction_curve(curves, tmp_path / "q.svg", title="t").read_text()

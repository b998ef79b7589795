"""What is imagined in a learnt model: who steps a row, when it ends, what counts as lost. Members are lines by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from legato.data.normaliser import Normaliser, none
from legato.models import environment_model
from legato.models.dynamics import TerminationModel
from legato.models.ensemble import Ensemble
from legato.models.environment_model import RUNAWAY, EnvironmentModel, Imagined, targets
from legato.nn.mlp import Linear

ELITES = (3, 1, 0)
SHIFT = np.array([0.5, 1.0, 8.0, 0.25], np.float32)
"""s' - s of each member, beside a tenth of the action; its reward is ten times that"""


def lines(shift: np.ndarray, inputs: Normaliser | None = None) -> Ensemble:
    """Members that are linear in (s, a), without noise."""
    k = len(shift)
    layer = Linear(2, 4, key=jax.random.key(0))
    weight, bias = np.zeros((k, 2, 4), np.float32), np.zeros((k, 4), np.float32)
    weight[:, 1, 0], bias[:, 0], bias[:, 1] = 0.1, shift, 10 * shift
    layer = eqx.tree_at(lambda node: (node.weight, node.bias), layer, (jnp.asarray(weight), jnp.asarray(bias)))
    return Ensemble(layer, jnp.full(2, -60.0), jnp.full(2, -70.0), inputs or none(2), none(2))


def above(s: Any, a: Any, s_next: Any) -> Any:
    """Ends beyond 3."""
    return s_next[..., 0] > 3


def priced(s: Any, a: Any, s_next: Any) -> Any:
    return s[..., 0] - a[..., 0] + 100 * s_next[..., 0]


MODEL = EnvironmentModel(lines(SHIFT), jnp.asarray(ELITES, jnp.int32), rule=above)
ONE = EnvironmentModel(lines(SHIFT), jnp.asarray([1], jnp.int32), rule=above)
"""of one elite, which adds 1"""

step = jax.jit(EnvironmentModel.step)
mean_step = jax.jit(EnvironmentModel.mean_step)
traced: list[int] = []


@partial(jax.jit, static_argnums=(3,))
def roll_out(model: EnvironmentModel, s: Any, steps: Any, longest: int, key: Any, move: Any = 0.0) -> Imagined:
    """Of a policy that does a number between 0 and `move`."""
    traced.append(longest)
    act = lambda s, key: move * jax.random.uniform(key, s.shape)  # noqa: E731
    return environment_model.roll_out(model, act, s, steps, longest, key)


def column(*numbers: float) -> jax.Array:
    return jnp.asarray(numbers, jnp.float32)[:, None]


# --- one step ---


@pytest.mark.parametrize("rows", [30, 31])
def test_each_row_is_stepped_by_one_elite_and_they_share_equally(rows: int) -> None:
    s, a = jnp.arange(rows, dtype=jnp.float32)[:, None], jnp.ones((rows, 1))
    s_next, r, goes_on = (np.asarray(part) for part in step(MODEL, s, a, jax.random.key(0))[:3])
    shift = (s_next - s)[:, 0] - 0.1
    by = np.abs(shift[:, None] - SHIFT).argmin(axis=1)
    np.testing.assert_allclose(shift, SHIFT[by], atol=1e-4)
    np.testing.assert_allclose(r, 10 * SHIFT[by], rtol=1e-5)
    np.testing.assert_array_equal(goes_on, s_next[:, 0] <= 3)
    counts = [int(np.sum(by == k)) for k in ELITES]
    assert sum(counts) == rows
    assert counts == [10, 10, 10] if rows == 30 else max(counts) == 11 and min(counts) >= 9
    if rows == 30:
        again, other = (np.asarray(step(MODEL, s, a, jax.random.key(k))[0]) for k in (0, 1))
        np.testing.assert_array_equal(again, s_next)
        assert 5 < np.sum(other != s_next) <= 30  # others get other rows


def test_many_rows_are_stepped_in_pieces_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal shares up to what fills the pieces."""
    monkeypatch.setattr(environment_model, "CACHED", 4)
    s, a = jnp.arange(35, dtype=jnp.float32)[:, None], jnp.ones((35, 1))
    s_next, r, _ = (np.asarray(part) for part in step(MODEL, s, a, jax.random.key(0))[:3])
    by = np.abs((s_next - s)[:, :1] - 0.1 - SHIFT).argmin(axis=1)
    np.testing.assert_allclose((s_next - s)[:, 0] - 0.1, SHIFT[by], atol=1e-4)
    np.testing.assert_allclose(r, 10 * SHIFT[by], rtol=1e-5)
    counts = [int(np.sum(by == k)) for k in ELITES]
    assert sum(counts) == 35 and max(counts) == 12 and min(counts) >= 11


def test_noise_is_that_of_the_elite() -> None:
    louder = replace(MODEL, ensemble=replace(MODEL.ensemble, low=jnp.full(2, np.log(0.04)), high=jnp.full(2, 9.0)))
    louder = eqx.tree_at(lambda m: m.ensemble.members.bias, louder, louder.ensemble.members.bias.at[:, 2:].set(-50.0))
    s = jnp.zeros((3_000, 1))
    found = np.asarray(step(louder, s, s, jax.random.key(3))[0])[:, 0]
    assert np.std(found) == pytest.approx(np.sqrt(0.04 + np.var(SHIFT[list(ELITES)])), rel=0.05)


def test_the_mean_step_is_the_mean_of_the_elites_means() -> None:
    s, a = column(0, 2.5, -1), column(1, 0, -2)
    s_next, r, goes_on, _ = mean_step(MODEL, s, a)
    mean = SHIFT[list(ELITES)].mean()
    np.testing.assert_allclose(s_next, np.asarray(s) + mean + 0.1 * np.asarray(a), rtol=1e-5)
    np.testing.assert_allclose(r, np.full(3, 10 * mean), rtol=1e-5)
    np.testing.assert_array_equal(goes_on, [1, 0, 1])


def test_a_reward_that_is_known_is_not_learnt() -> None:
    s, a, r = column(0, 2), column(1, -1), jnp.asarray([5.0, 6.0])
    np.testing.assert_array_equal(targets(s, r, a, rewards=True), [[1, 5], [-3, 6]])
    np.testing.assert_array_equal(targets(s, r, a, rewards=False), [[1], [-3]])
    s_next, found, _, _ = mean_step(replace(ONE, reward=priced), s, a)
    np.testing.assert_allclose(found, priced(np.asarray(s), np.asarray(a), np.asarray(s_next)), rtol=1e-6)


# --- roll-outs ---


def test_a_row_is_stepped_until_it_ends_and_no_more() -> None:
    """s + 1 at each step: the end is beyond 3, and the row that leads there is the last one."""
    starts, key = (0.0, 1.5, 2.5, -7.0), jax.random.key(0)
    found = roll_out(ONE, column(*starts), 4, 4, key)
    for leaf in jax.tree.leaves(found):
        assert leaf.shape[:2] == (4, 4)
    for i, start in enumerate(starts):
        ends = max(1, int(np.floor(3 - start)) + 1)
        steps = min(4, ends)
        assert np.asarray(found.alive)[:, i].tolist() == [t < steps for t in range(4)]
        np.testing.assert_allclose(found.observation[:steps, i, 0], start + np.arange(steps), rtol=1e-6)
        np.testing.assert_allclose(found.next_observation[:steps, i, 0], start + 1 + np.arange(steps), rtol=1e-6)
        assert np.asarray(found.continues)[:steps, i].tolist() == [t + 1 < ends for t in range(steps)]
    assert not found.lost.any()


def test_fewer_steps_than_the_longest_are_not_compiled_anew() -> None:
    s, key = column(0.0, 1.5, 2.5, -7.0), jax.random.key(0)
    whole = roll_out(ONE, s, 4, 4, key)
    before = len(traced)
    for steps in (1, 2, 9):
        found = roll_out(ONE, s, steps, 4, key)
        kept = min(steps, 4)
        np.testing.assert_array_equal(found.alive[:kept], whole.alive[:kept])
        np.testing.assert_array_equal(found.observation[:kept], whole.observation[:kept])
        assert not found.alive[kept:].any()
    assert len(traced) == before


def test_what_is_not_finite_or_far_from_the_data_is_stopped_and_counted() -> None:
    """Also where the reward is no number. A row that had ended before is not lost."""
    far = RUNAWAY - 0.5  # the first step leaves the range, of inputs of mean 0 and deviation 1
    endless = replace(ONE, rule=None)
    found = roll_out(endless, column(far, np.nan, 0.0, far - 1), 4, 4, jax.random.key(0))
    assert np.asarray(found.alive).T.tolist() == [[False] * 4, [False] * 4, [True] * 4, [True, False, False, False]]
    assert np.asarray(found.lost).sum(axis=0).tolist() == [1, 1, 0, 1]
    unpaid = replace(endless, reward=lambda s, a, s_next: jnp.where(s[..., 0] > 1.5, jnp.nan, 1.0))
    found = roll_out(unpaid, column(0.0, 2.0, -5.0, -5.0), 4, 4, jax.random.key(0))
    assert np.asarray(found.alive).sum(axis=0).tolist() == [2, 0, 4, 4]
    assert np.isfinite(np.asarray(found.reward)[np.asarray(found.alive)]).all()
    shifted = replace(endless, ensemble=lines(SHIFT, Normaliser(jnp.array([100.0, 0.0]), jnp.array([2.0, 1.0]))))
    found = roll_out(shifted, column(100 - 41, 100 - 42, 100 + 38.5, 100 + 39.5), 4, 4, jax.random.key(0))
    assert np.asarray(found.alive)[0].tolist() == [True, False, True, False]


def test_the_policy_draws_anew_at_every_step() -> None:
    s, key = jnp.zeros((4, 1)), jax.random.key(0)
    one, other = (roll_out(ONE, s, 4, 4, k, 1.0) for k in (key, jax.random.key(1)))
    assert len(np.unique(np.asarray(one.action)[np.asarray(one.alive)])) == np.asarray(one.alive).sum()
    assert not np.array_equal(one.action, other.action)
    np.testing.assert_array_equal(one.action, roll_out(ONE, s, 4, 4, key, 1.0).action)


# --- a classifier of ends ---


def test_a_classifier_learns_where_episodes_end_and_a_rule_goes_before_it() -> None:
    """From rows of which those beyond the count say the opposite."""
    rng = np.random.default_rng(0)
    s, s_next = (rng.uniform(0, 6, (400, 1)).astype(np.float32) for _ in range(2))
    continues = (s_next[:, 0] <= 3).astype(np.float32)
    continues[300:] = 1 - continues[300:]
    model = jax.jit(lambda key: TerminationModel(1, 1, (16, 16), key=key))(jax.random.key(0))
    rows = (jnp.asarray(part) for part in (s, np.zeros_like(s), s_next, continues))
    given = jnp.asarray(300), jnp.asarray(1e-2), jax.random.key(1)
    fitted = environment_model.fit_termination(model, 500, 32, *rows, *given)
    learnt = replace(ONE, rule=None, termination=fitted)
    starts = column(0.0, 1.4, 2.6, 1.2)
    by_rule, by_classifier = (roll_out(m, starts, 4, 4, jax.random.key(0)) for m in (ONE, learnt))
    np.testing.assert_array_equal(by_rule.alive, by_classifier.alive)
    alive = np.asarray(by_rule.alive)
    np.testing.assert_array_equal(np.asarray(by_rule.continues)[alive], np.asarray(by_classifier.continues)[alive])
    _, _, goes_on, _ = mean_step(learnt, column(-1.0, 1.9, 4.0), column(0.0, 0.0, 0.0))
    assert goes_on[0] > 0.95 and goes_on[0] > goes_on[1] > goes_on[2] and goes_on[2] < 0.05
    both = replace(learnt, rule=lambda s, a, s_next: s_next[..., 0] > 100)
    np.testing.assert_array_equal(mean_step(both, starts, starts)[2], np.ones(4))

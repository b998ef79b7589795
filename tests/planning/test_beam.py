"""Beam search: filters, worth, and plans that are those of a search that reads every window anew, token by token."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.data.dataset_statistics import DatasetStatistics
from legato.data.spec import Spec
from legato.data.tokens import Discretiser, Layout
from legato.models.q_functions import QFunction, critics
from legato.models.trajectory import TrajectoryModel
from legato.planning import beam
from legato.planning.beam import REMOVED, Filter, Search, worth

BINS = 5
PAIRS = Layout(2, 2)
GREEDY = Filter(k=1)

# Compiled once for all tests.
called = eqx.filter_jit(lambda function, *args: function(*args))
best_return, likeliest = eqx.filter_jit(beam.best_return), eqx.filter_jit(beam.likeliest)


@cache
def model(layout: Layout = PAIRS, bins: int = BINS, layers: int = 1, goals: bool = False) -> TrajectoryModel:
    """A model with opinions: its heads are scaled up, so that probabilities lie far apart."""

    @eqx.filter_jit
    def made(key: jax.Array) -> TrajectoryModel:
        sizes = {"window": 5, "layers": layers, "heads": 2, "size": 16}
        made = TrajectoryModel(layout, bins, goals=goals, key=key, **sizes)
        positions = 0.3 * jax.random.normal(jax.random.key(1), made.positions.shape)
        scaled = (positions, 20 * made.table.weights, 6 * made.heads)
        return eqx.tree_at(lambda m: (m.positions, m.table.weights, m.heads), made, scaled)

    return made(jax.random.key(0))


def discretiser(layout: Layout = PAIRS, bins: int = BINS) -> Discretiser:
    edges = np.tile(np.linspace(-1, 1, bins + 1, dtype=np.float32), (layout.width, 1))
    edges += np.arange(layout.width, dtype=np.float32)[:, None] / 10
    return Discretiser(jnp.asarray(edges), jnp.asarray((edges[:, 1:] + edges[:, :-1]) / 2))


class Anew:
    """The model as the official planner reads it: the whole window for every token, cut to `context` steps."""

    def __init__(self, network: TrajectoryModel, context: int, goal: np.ndarray | None = None):
        self.network, self.context, self.goal = network, context, goal
        self.longest = network.layout.width * context - 1

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Logits after the last token of each row, which begins with a step's first."""
        width = self.network.layout.width
        over = max(rows.shape[1] - self.longest, 0)
        rows = rows[:, -(-over // width) * width :]
        padded = np.zeros((len(rows), self.longest), np.int32)  # to the right, where nothing looks: one compilation
        padded[:, : rows.shape[1]] = rows
        goal = () if self.goal is None else (jnp.asarray(np.tile(self.goal[None], (len(rows), 1))),)
        return np.array(called(self.network, jnp.asarray(padded), *goal))[:, rows.shape[1] - 1]


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def planned_anew(
    network: TrajectoryModel, bins: Discretiser, search: Search, context: int, history: np.ndarray, newest: np.ndarray
) -> tuple[np.ndarray, float]:
    """The search for return as the specification has it, greedy in every token."""
    layout, read = network.layout, Anew(network, context)
    centres = np.asarray(bins.centres)
    rows = np.tile(np.concatenate([history.ravel(), newest]).astype(np.int32), (search.beams, 1))
    gathered = np.zeros((search.beams, search.horizon + 1))

    def append(rows: np.ndarray, count: int, live: bool) -> tuple[np.ndarray, np.ndarray]:
        for _ in range(count):
            logits = read(rows)
            if live:
                logits[:, -1] = -np.inf
            rows = np.concatenate([rows, logits.argmax(axis=-1)[:, None]], axis=1)
        return rows, logits  # type: ignore[return-value]

    for t in range(search.horizon):
        rows, gathered = (np.repeat(x, search.expand, axis=0) for x in (rows, gathered))
        rows, _ = append(rows, layout.actions, t == 0)
        rows, of_reward = append(rows, 1, False)
        rows, of_value = append(rows, 1, False)
        gathered[:, t] = softmax(of_reward)[:, :-1] @ centres[-2]
        gathered[:, t + 1] = softmax(of_value)[:, :-1] @ centres[-1]
        score = gathered @ search.gamma ** np.arange(search.horizon + 1)
        order = np.argsort(-score, kind="stable")[: search.beams]
        rows, gathered, score = rows[order], gathered[order], score[order]
        if t < search.horizon - 1:
            rows, _ = append(rows, layout.observations, False)
    return rows[0, -search.horizon * layout.width :].reshape(search.horizon, -1), score[0]


def window_of(history: np.ndarray, steps: int, width: int) -> tuple[jax.Array, jax.Array]:
    """The past as policies keep it: the last steps, to the right."""
    kept = history[-steps:] if len(history) else history
    past = np.zeros((steps, width), np.int32)
    past[steps - len(kept) :] = kept
    return jnp.asarray(past), jnp.asarray(len(kept))


# --- filters ---


def test_the_head_of_a_distribution_stays() -> None:
    logits = jnp.log(jnp.array([0.4, 0.3, 0.15, 0.1, 0.05]))
    left = np.asarray(Filter(cdf=0.6)(logits)) > REMOVED
    assert left.tolist() == [True, True, False, False, False]


def by_sorting(logits: np.ndarray, k: int | None, cdf: float | None) -> np.ndarray:
    """Which tokens stay: as the official code says it, one row at a time."""
    stays = np.ones(len(logits), bool)
    p = softmax(logits.astype(np.float64))
    if cdf is not None:
        ascending = np.sort(p)
        inside = ascending[np.cumsum(ascending) < cdf]
        if len(inside):
            stays &= p > inside.max()
    if k is not None:
        left = np.where(stays, logits, REMOVED)
        stays &= left >= np.sort(left)[-min(k, len(left))]
    return stays


LOGITS = st.sampled_from([-3.0, -1.0, 0.0, 0.5, 2.0, 3.7, 9.0])


@given(
    st.sampled_from([2, 7]).flatmap(lambda size: st.lists(LOGITS, min_size=size, max_size=size)),
    st.one_of(st.none(), st.integers(1, 9)),
    st.one_of(st.none(), st.sampled_from([0.05, 0.31, 0.57, 0.83])),
)
def test_filters_are_sorting_and_cutting(numbers: list[float], k: int | None, cdf: float | None) -> None:
    """Ties included. A sum that meets `cdf` to the last digit may fall to either side, and is left out here."""
    logits = np.array(numbers, np.float32)
    if cdf is not None and np.abs(np.cumsum(np.sort(softmax(logits.astype(np.float64)))) - cdf).min() < 1e-5:
        return
    found = np.asarray(Filter(k, cdf)(jnp.asarray(logits)))
    stays = by_sorting(logits, k, cdf)
    if stays.any():
        np.testing.assert_array_equal(found > REMOVED, stays)
        np.testing.assert_array_equal(found[stays], logits[stays])
    else:
        assert (found == REMOVED).all()  # where all would go, all are alike again


def test_the_temperature_comes_first_and_picks_are_of_what_is_left() -> None:
    logits = jnp.log(jnp.array([0.5, 0.3, 0.2]))
    np.testing.assert_allclose(Filter(temperature=0.5)(logits), 2 * logits, rtol=1e-6)
    keys = jax.random.split(jax.random.key(0), 4000)
    picks = np.asarray(jax.jit(jax.vmap(lambda key: Filter(k=2).pick(logits, key)))(keys))
    share = np.bincount(picks, minlength=3) / len(picks)
    np.testing.assert_allclose(share, [0.625, 0.375, 0], atol=0.03)
    assert int(GREEDY.pick(logits, keys[0])) == 0


# --- worth ---


def test_the_stop_is_worth_nothing_and_percentiles_are_of_the_bins() -> None:
    centres = jnp.array([-3.4, 1.0, 2.0])
    logits = jnp.log(jnp.array([[0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 1.0, 0.0]]))
    np.testing.assert_allclose(worth(logits, centres), [(-3.4 + 1 + 2) / 4, 2.0], rtol=1e-5)
    for share, expected in ((0.0, -3.4), (0.3, -3.4), (0.34, 1.0), (0.6, 1.0), (0.7, 2.0), (0.999, 2.0)):
        assert float(worth(logits, centres, share)[0]) == pytest.approx(expected)


# --- plans ---


@pytest.mark.parametrize(("context", "horizon"), [(2, 1), (4, 6)])
def test_plans_are_those_of_windows_read_anew(context: int, horizon: int) -> None:
    """From no history to one longer than the window, one step ahead and past the window's move."""
    network, bins = model(layers=2), discretiser()
    rng = np.random.default_rng(0)
    distinct = set()
    search = Search(horizon, beams=3, expand=2, gamma=0.9, actions=GREEDY)
    for before in (0, 1, context - 1, context + 1):
        history, newest = rng.integers(0, BINS, (before, 6)), rng.integers(0, BINS, 2)
        past = window_of(history, context - 1, 6)
        plan = best_return(network, bins, search, *past, jnp.asarray(newest), jax.random.key(0))
        tokens, score = planned_anew(network, bins, search, context, history, newest)
        np.testing.assert_array_equal(np.asarray(plan.tokens)[0], tokens)
        assert float(np.asarray(plan.score)[0]) == pytest.approx(score, abs=1e-4)
        distinct.add(tokens.tobytes())
    assert len(distinct) > 2  # the model tells histories apart


@pytest.mark.parametrize("by_critic", [False, True])
def test_with_room_for_everything_the_best_plan_is_found(by_critic: bool) -> None:
    """Two bins, one action and two steps: few sequences, and beams that hold each of them many times."""
    layout = Layout(1, 1)
    network, bins = model(layout, bins=2), discretiser(layout, 2)
    # Nothing is left out on the way, and hardly anything is too unlikely to be drawn.
    search = Search(2, beams=128, expand=1, gamma=0.8, actions=Filter(temperature=30.0))
    newest = np.array([1])
    centres = np.asarray(bins.centres)
    spec = Spec(1, (-2.0,), (2.0,))
    statistics = replace(DatasetStatistics.identity(spec), scale=jnp.asarray(2.0))
    critic = eqx.filter_jit(critics)(spec, 8, 1, key=jax.random.key(7))
    q_function = QFunction(critic, statistics, 0.7, shift=-0.5) if by_critic else None

    def judged(actions: tuple[int, int]) -> tuple[float, np.ndarray]:
        """What the model expects of these actions, everything else being the likeliest."""
        read, rows, total = Anew(network, 4), newest[None].astype(np.int32), 0.0
        for t, action in enumerate(actions):
            rows = np.append(rows, [[action]], axis=1)
            of_reward = read(rows)
            rows = np.append(rows, of_reward.argmax(-1)[:, None], axis=1)
            of_value = read(rows)
            rows = np.append(rows, of_value.argmax(-1)[:, None], axis=1)
            reward = float(softmax(of_reward)[0, :-1] @ centres[-2])
            if q_function is not None and t == 1:
                s, a = (centres[i, min(token, 1)] for i, token in enumerate(rows[0, -4:-2]))
                q = min(float(q) for q in called(critic, jnp.asarray([s]), jnp.asarray([a / 2])))
                return total + 0.7 * q, rows
            total += reward / 2 - 0.5 if q_function is not None else search.gamma**t * reward
            promised = search.gamma ** (t + 1) * float(softmax(of_value)[0, :-1] @ centres[-1])
            if t == 0:
                rows = np.append(rows, read(rows).argmax(-1)[:, None], axis=1)
        return total + promised, rows

    # The stop as an action of the second step is one more choice.
    every = {actions: judged(actions) for actions in itertools.product((0, 1), (0, 1, 2))}
    score, tokens = max(every.values(), key=lambda item: item[0])
    past = window_of(np.zeros((0, 4), int), 3, 4)
    plan = best_return(network, bins, search, *past, jnp.asarray(newest), jax.random.key(1), q_function)
    assert float(np.asarray(plan.score)[0]) == pytest.approx(score, abs=1e-5)
    np.testing.assert_array_equal(np.asarray(plan.tokens)[0].ravel(), tokens[0])
    choices = 4 if by_critic else 6  # a critic reads the stop as the last bin
    assert len({round(value, 4) for value, _ in every.values()}) == choices


def test_scores_are_discounted_sums_of_what_was_read() -> None:
    """A model that foresees reward 1 and value 10 whatever is done: 1 + g + g^2 + g^3 10 after three steps."""
    layout = Layout(1, 1)
    network = model(layout, bins=2)
    heads = np.zeros_like(network.heads)
    heads[2, :, 1] = heads[3, :, 0] = 9.0
    changed = [jnp.asarray(array, jnp.float32) for array in (heads, np.ones(16), np.zeros(16))]
    network = eqx.tree_at(lambda n: (n.heads, n.trunk.norm.shift, n.trunk.norm.scale), network, changed)
    centres = jnp.asarray([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [10.0, 0.0]])
    bins = Discretiser(jnp.asarray(np.tile(np.arange(3, dtype=np.float32), (4, 1))), centres)
    past = window_of(np.zeros((0, 4), int), 1, 4)
    search = Search(3, beams=2, expand=2, gamma=0.5)
    plan = best_return(network, bins, search, *past, jnp.asarray([0]), jax.random.key(0))
    assert float(np.asarray(plan.score)[0]) == pytest.approx(1.75 + 0.125 * 10, rel=1e-5)


def test_a_plan_follows_from_its_key_and_wider_beams_score_no_worse() -> None:
    network, bins = model(), discretiser()
    past = window_of(np.zeros((0, 6), int), 3, 6)

    def plan(beams: int, key: int) -> beam.Plans:
        search = Search(4, beams=beams, expand=2, actions=Filter())
        found = best_return(network, bins, search, *past, jnp.asarray([1, 2]), jax.random.key(key))
        return jax.tree.map(np.asarray, found)

    once, again = plan(4, 0), plan(4, 0)
    np.testing.assert_array_equal(once.tokens[0], again.tokens[0])
    assert any((once.tokens[0] != plan(4, key).tokens[0]).any() for key in range(1, 5))
    narrow, wide = (np.mean([float(plan(beams, key).score[0]) for key in range(8)]) for beams in (1, 4))
    assert wide > narrow


def test_environments_side_by_side_are_planned_for_as_alone() -> None:
    """Also with networks side by side, one for each seed."""
    networks = [model(), eqx.tree_at(lambda m: m.heads, model(), 0.5 * np.asarray(model().heads))]
    stacked = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *networks)
    bins, search = discretiser(), Search(3, beams=4, expand=2, actions=Filter())
    rng = np.random.default_rng(3)
    past, count = rng.integers(0, BINS, (3, 3, 6)), np.array([0, 2, 3])
    newest, keys = rng.integers(0, BINS, (3, 2)), jax.random.split(jax.random.key(0), 3)

    def one(network: TrajectoryModel, *args: jax.Array) -> jax.Array:
        return beam.best_return(network, bins, search, *args).tokens[0]

    together = eqx.filter_jit(
        eqx.filter_vmap(eqx.filter_vmap(one, in_axes=(None, 0, 0, 0, 0)), in_axes=(0, *[None] * 4))
    )
    found = np.asarray(together(stacked, *map(jnp.asarray, (past, count, newest)), keys))
    alone = eqx.filter_jit(one)
    for seed, network in enumerate(networks):
        for i in range(3):
            given = [jnp.asarray(array[i]) for array in (past, count, newest)]
            np.testing.assert_array_equal(found[seed, i], alone(jax.tree.map(jnp.asarray, network), *given, keys[i]))


def test_the_first_step_of_a_plan_never_stops() -> None:
    """However sure the model is that the episode is over: there is an observation, so there is an action."""
    network, bins = model(), discretiser()
    heads = np.array(network.heads)
    heads[..., -1] = 50 * heads[..., 0]
    changed = [jnp.asarray(array, jnp.float32) for array in (heads, np.zeros(16), heads[2, :, 0])]
    louder = eqx.tree_at(lambda n: (n.heads, n.trunk.norm.scale, n.trunk.norm.shift), network, changed)
    given = *window_of(np.zeros((0, 6), int), 3, 6), jnp.asarray([1, 2])
    search = Search(2, beams=3, expand=2)
    for plans in (
        best_return(louder, bins, search, *given, jax.random.key(0)),
        likeliest(louder, search, *given),
    ):
        tokens = np.asarray(plans.tokens)[0]
        assert (tokens[0, 2:4] < BINS).all() and (tokens[1, 2:4] == BINS).any()


# --- by likelihood ---


@pytest.mark.parametrize("goals", [False, True])
def test_with_room_for_everything_the_likeliest_plan_is_found(goals: bool) -> None:
    """Against the probability of every sequence there is: one step of two actions, then two steps of one."""
    goal = np.array([2]) if goals else None
    sizes = [(Layout(1, 1, False, False), 2, 3), (Layout(1, 2, False, False), 1, 4)]
    for layout, horizon, bins in sizes[:1] if goals else sizes:  # a goal is read alike whatever a step holds
        network = model(layout, bins=bins, goals=goals)
        history, newest = np.array([[1] * layout.width]), np.array([2])
        free = layout.width * horizon - 1
        every = np.array(list(itertools.product(range(bins + 1), repeat=free)))
        every = every[(every[:, : layout.actions] < bins).all(axis=1)]  # the first action is no stop
        rows = np.concatenate([np.tile(np.append(history.ravel(), newest), (len(every), 1)), every], axis=1)
        read, score = Anew(network, 3, goal), np.zeros(len(every))
        start = rows.shape[1] - free
        for place in range(start, rows.shape[1]):
            logits = read(rows[:, :place])
            if place < start + layout.actions:
                logits[:, -1] = -1e9
            score += np.log(softmax(logits.astype(np.float64))[np.arange(len(rows)), rows[:, place]])
        past = window_of(history, 2, layout.width)
        aim = None if goal is None else jnp.asarray(goal)
        search = Search(horizon, beams=len(every) * 2, actions=Filter(), observations=Filter())
        plans = jax.tree.map(np.asarray, likeliest(network, search, *past, jnp.asarray(newest), aim))
        order = np.argsort(-score)
        np.testing.assert_array_equal(plans.tokens[:3].reshape(3, -1), rows[order[:3], layout.width :])
        np.testing.assert_allclose(plans.score[: len(order)], score[order], atol=1e-4)


def test_one_beam_is_the_likeliest_token_again_and_again() -> None:
    """Over the window's move too; and with more beams the sequence is likelier, never less."""
    network, layout = model(), Layout(2, 2)
    history, newest = np.random.default_rng(5).integers(0, BINS, (2, 6)), np.array([0, 3])
    past = window_of(history, 3, 6)

    def searched(beams: int) -> beam.Plans:
        search = Search(5, beams, actions=Filter(), observations=Filter())
        return jax.tree.map(np.asarray, likeliest(network, search, *past, jnp.asarray(newest)))

    read, rows, score = Anew(network, 4), np.append(history.ravel(), newest)[None].astype(np.int32), 0.0
    for i in range(5 * layout.width - 2):
        logits = read(rows)
        if i < layout.actions:
            logits[:, -1] = -np.inf
        token = logits.argmax(-1)
        score += float(np.log(softmax(logits)[0, token[0]]))
        rows = np.append(rows, token[:, None], axis=1)
    alone = searched(1)
    np.testing.assert_array_equal(alone.tokens.ravel(), rows[0, 12:])
    assert float(alone.score[0]) == pytest.approx(score, abs=1e-3)
    assert float(searched(12).score[0]) >= score - 1e-4

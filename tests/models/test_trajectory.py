"""The model of trajectories: sizes, what sees what, the beginning, and token by token as at once."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from legato.algorithms.trajectory_transformer import trajectory_transformer as tt
from legato.algorithms.trajectory_transformer.config import TT
from legato.data.spec import Spec
from legato.data.tokens import Layout, Windows
from legato.models.trajectory import TrajectoryModel, cosine_basis

BINS = 7
PAIRS = Layout(2, 2)


def model(layout: Layout = PAIRS, goals: bool = False, window: int = 4, **changes) -> TrajectoryModel:
    """A small one whose every parameter matters: positions begin as zero, and are given numbers here."""
    sizes = {"layers": 2, "heads": 2, "size": 16, **changes}
    made = TrajectoryModel(layout, BINS, window=window, goals=goals, key=jax.random.key(0), **sizes)
    positions = 0.1 * jax.random.normal(jax.random.key(1), made.positions.shape)
    louder = jax.tree.map(lambda leaf: 4 * leaf, (made.table, made.heads, made.goal))
    return eqx.tree_at(
        lambda m: (m.positions, m.table, m.heads, m.goal), made, (positions, *louder), is_leaf=lambda x: x is None
    )


def random_tokens(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, BINS + 1, shape)


run = eqx.filter_jit(lambda network, *args: network(*args))


@pytest.mark.parametrize(
    ("observations", "actions", "count"), [(11, 3, 1_225_472), (17, 6, 1_468_544), (27, 8, 1_792_640)]
)
def test_at_the_papers_size_it_has_the_papers_parameters(observations: int, actions: int, count: int) -> None:
    """Hopper, HalfCheetah and Walker2d, Ant: those of the official code, counted there."""
    spec = Spec(observations, (-1.0,) * actions, (1.0,) * actions)
    network = jax.eval_shape(lambda key: tt.init(TT(), spec, key).network, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(network)) == count


@pytest.mark.parametrize(("observations", "actions", "weighted"), [(11, 3, (8.3, 8.4)), (17, 6, (9.3, 9.45))])
def test_at_first_it_knows_nothing(observations: int, actions: int, weighted: tuple[float, float]) -> None:
    """The losses that the official code begins with, on random tokens of its sizes."""
    layout = Layout(observations, actions)
    network = TrajectoryModel(layout, 100, window=10, layers=4, heads=4, size=128, key=jax.random.key(0))
    found = np.random.default_rng(0).integers(0, 100, (8, 10, layout.width))
    batch = Windows(jnp.asarray(found), jnp.ones((8, 10), bool), jnp.zeros((8, observations), jnp.int32))
    value, metrics = eqx.filter_jit(tt.loss)(network, batch)
    assert 4.75 < metrics["cross_entropy"] < 4.8
    assert weighted[0] < value < weighted[1]


@pytest.mark.parametrize("layout", [Layout(2, 2), Layout(2, 2, False, False), Layout(1, 1, True, False)])
def test_nothing_depends_on_what_comes_later(layout: Layout) -> None:
    network, width = model(layout), layout.width
    places = 4 * width - 1
    before = random_tokens((1, places))
    logits = np.asarray(run(network, jnp.asarray(before)))
    for place in range(places):
        after = before.copy()
        after[0, place] = (after[0, place] + 1) % (BINS + 1)
        changed = np.abs(np.asarray(run(network, jnp.asarray(after))) - logits)[0].max(axis=-1) > 0
        assert not changed[:place].any() and changed[place]
        if place % width == layout.value:  # a value is read by nobody but the position it stands at
            assert changed.sum() == 1
        else:
            assert changed[place:].all()


def test_what_a_goal_changes() -> None:
    network, layout = model(goals=True), PAIRS
    found = jnp.asarray(random_tokens((1, 3 * layout.width)))
    goals = np.array([[1, 5]])
    logits = run(network, found, jnp.asarray(goals))
    assert logits.shape == (1, 3 * layout.width, BINS + 1)
    for which in (0, 1):
        other = goals.copy()
        other[0, which] += 1
        assert (np.abs(run(network, found, jnp.asarray(other)) - logits).max(axis=-1) > 0).all()
    # The values that are hidden are the values still, whatever stands in front.
    for place in range(2 * layout.width):
        changed = np.abs(run(network, found.at[0, place].add(-1), jnp.asarray(goals)) - logits)[0].max(axis=-1) > 0
        assert (changed.sum() == 1) == (place % layout.width == layout.value)


@pytest.mark.parametrize("goals", [False, True])
@pytest.mark.parametrize("layout", [Layout(2, 2), Layout(2, 1, False, False), Layout(1, 1, True, False)])
def test_from_what_is_attended_to_follow_the_logits(layout: Layout, goals: bool) -> None:
    """Rows sum to 1; no later token and no value is attended to, everything else is; a goal stands in front."""
    network, width = model(layout, goals), layout.width
    found = jnp.asarray(random_tokens((2, 3 * width)))
    aim = jnp.asarray(random_tokens((2, layout.observations), 5) % BINS) if goals else None
    front, places = layout.observations * goals, 3 * width
    weights = np.asarray(eqx.filter_jit(lambda n, *args: n.attention(*args))(network, found, aim))
    assert weights.shape == (2, 2, 2, front + places, front + places)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)
    key = np.arange(front + places)
    value = np.isin(key, front + np.arange(3) * width + layout.value) if layout.value is not None else key < 0
    seen = (key <= key[:, None]) & ~value
    assert ((weights > 0) == seen).all()
    column = np.arange(places) % width

    def rebuilt(network: TrajectoryModel, weights: jax.Array) -> jax.Array:
        x = network.embed(found, jnp.asarray(column)) + network.positions[:places]
        x = x if aim is None else jnp.concatenate([network.goal_embeddings(aim), x], axis=1)
        for i, block in enumerate(network.trunk.blocks):
            _, _, v = block.project(x)
            x = block.after(x, jnp.einsum("bhqk,bkhd->bqhd", weights[:, i], v).reshape(x.shape))
        h = network.trunk.norm(x)[:, front:]
        return jnp.stack([network.logits(h[:, i], int(c + 1) % width) for i, c in enumerate(column)], axis=1)

    want = run(network, found, aim) if goals else run(network, found)
    np.testing.assert_allclose(eqx.filter_jit(rebuilt)(network, jnp.asarray(weights)), want, atol=2e-5)


def test_stops_of_all_columns_are_one_and_tokens_are_not() -> None:
    network = model()
    column = jnp.arange(6)
    assert (np.ptp(network.embed(jnp.full(6, BINS), column), axis=0) == 0).all()
    found = network.embed(jnp.arange(BINS)[:, None], column).reshape(-1, 16)
    assert len(np.unique(found, axis=0)) == BINS * 6


@pytest.mark.parametrize("goals", [False, True])
@pytest.mark.parametrize("layout", [Layout(2, 2), Layout(2, 1, False, False), Layout(1, 1, True, False)])
def test_token_by_token_is_the_whole_window(layout: Layout, goals: bool) -> None:
    """From any number of past steps, with and without a beginning of the present one, several beams to a row."""
    network, width, rows, steps = model(layout, goals), layout.width, 3, 3
    aim = jnp.asarray(random_tokens((rows, layout.observations), 5) % BINS) if goals else None
    past, present = random_tokens((rows, steps, width), 1), random_tokens((rows, 2, width), 2)
    last = width - 1  # what the last token leads to is read with the next window
    step = eqx.filter_jit(lambda *args: network.step(*args))
    prime = eqx.filter_jit(lambda *args: network.prime(*args))
    for count in range(steps + 1):
        flat = past[:, steps - count :].reshape(rows, -1)
        for new in (0, layout.observations) if count else (layout.observations,):
            newest = jnp.asarray(present[:, 0, :new]) if new else None
            read, now, h = prime(jnp.asarray(past), jnp.asarray(count), newest, aim)
            now = jax.tree.map(lambda x: jnp.broadcast_to(x, (*x.shape[:2], 2, *x.shape[3:])), now)
            whole = np.concatenate([np.repeat(flat[:, None], 2, axis=1), present], axis=2)
            whole[:, :, flat.shape[1] : flat.shape[1] + new] = present[:, :1, :new]  # which the beams have in common
            want = run(
                network,
                jnp.asarray(whole[:, :, : flat.shape[1] + last].reshape(2 * rows, -1)),
                None if aim is None else jnp.repeat(aim, 2, axis=0),
            ).reshape(rows, 2, -1, BINS + 1)
            first = flat.shape[1] + new
            found = [np.repeat(network.logits(h, new % width)[:, None], 2, axis=1)]
            for column in range(new, last):
                token = jnp.asarray(whole[:, :, flat.shape[1] + column])
                now, h_next = step(read, now, token, jnp.asarray(column))
                found.append(network.logits(h_next, (column + 1) % width))
            np.testing.assert_allclose(np.stack(found, axis=2), want[:, :, first - 1 :], atol=2e-5)


def test_embeddings_may_be_alike_for_bins_that_are_near() -> None:
    """Sums of cosines; worked out, the model is the same; and any table can be written so."""
    bins, size = 40, 64
    made = model(Layout(2, 1), goals=True, cosine_embeddings=True)
    tokens, goals = jnp.asarray(random_tokens((2, 7))), jnp.array([[1, 2], [3, 6]])
    plain = made.materialise()
    assert made.table.cosine_embeddings and not plain.table.cosine_embeddings
    read = eqx.filter_jit(lambda n, *args: n(*args))
    np.testing.assert_array_equal(read(made, tokens, goals), read(plain, tokens, goals))
    made = TrajectoryModel(
        Layout(2, 1),
        bins,
        window=2,
        layers=1,
        heads=2,
        size=size,
        goals=True,
        cosine_embeddings=True,
        key=jax.random.key(0),
    )
    assert made.goal is not None
    for table in (made.table.rows()[:-1], made.goal.rows()):
        columns = np.asarray(table).reshape(-1, bins, size)
        assert columns.std() == pytest.approx(0.02, rel=0.1)
        unit = columns / np.linalg.norm(columns, axis=-1, keepdims=True)
        alike = [
            np.mean([np.sum(unit[:, i] * unit[:, i + by]) / len(unit) for i in range(bins - by)]) for by in (1, 3, 20)
        ]
        assert alike[0] > 0.85 > alike[1] > 0.3 > abs(alike[2])
        assert abs(np.mean(unit[0] * unit[1])) < 0.05  # columns have nothing to do with each other
    np.testing.assert_array_equal(made.table.rows()[-1], made.table.weights[-1])  # the stop
    assert np.linalg.matrix_rank(np.asarray(cosine_basis(bins), np.float64)) == bins

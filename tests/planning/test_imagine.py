"""Sampled and mean trajectories: those of windows read anew for every token, and the frequencies of a known source."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.planning.test_beam import BINS, Anew, discretiser, model, softmax, window_of

from legato.data.tokens import Layout
from legato.models.trajectory import TrajectoryModel
from legato.planning.beam import Filter
from legato.planning.imagine import expected, imagine

sampled = eqx.filter_jit(lambda *args: imagine(*args))


def imagined_anew(
    network: TrajectoryModel, context: int, history: np.ndarray, newest: np.ndarray, keys: jax.Array, horizon: int
) -> np.ndarray:
    """Token by token, each from the whole window, by the same keys."""
    layout, stop = network.layout, network.bins
    found = np.zeros((len(newest), horizon, layout.width), int)
    read = Anew(network, context)
    for i in range(len(newest)):
        row, ended = np.concatenate([history[i].ravel(), newest[i]]).astype(np.int32), False
        for t in range(horizon):
            for column in range(layout.observations if t == 0 else 0, layout.width):
                logits = read(row[None])[0]
                if column > 0:
                    logits[stop] = -np.inf
                key = jax.random.fold_in(jax.random.fold_in(keys[i], t), column)
                token = stop if ended else int(jax.random.categorical(key, jnp.asarray(logits)))
                ended |= token == stop
                row = np.append(row, np.int32(token))
        found[i] = row[history[i].size :].reshape(horizon, -1)
    return found


@pytest.mark.parametrize("context", [2, 4])
@pytest.mark.parametrize("layout", [Layout(2, 1), Layout(1, 1, False, False)])
def test_samples_are_those_of_windows_read_anew(layout: Layout, context: int) -> None:
    """From no history and from one longer than the window, past the window's move; the same keys, the same tokens."""
    network, rng = model(layout, layers=2), np.random.default_rng(0)
    for held in (0, context + 1):
        history = rng.integers(0, BINS, (2, held, layout.width))
        newest = rng.integers(0, BINS, (2, layout.observations))
        windows = [window_of(history[i], context - 1, layout.width) for i in range(2)]
        past, count = jnp.stack([past for past, _ in windows]), windows[0][1]
        keys = jax.random.split(jax.random.key(held), 2)
        found = np.asarray(sampled(network, past, count, jnp.asarray(newest), keys, 5))
        shortened = history[:, -(context - 1) :] if held else history
        want = imagined_anew(network, context, shortened, newest, keys, 5)
        np.testing.assert_array_equal(found, want)
        np.testing.assert_array_equal(found[:, 0, : layout.observations], newest)


def source(chain: np.ndarray) -> TrajectoryModel:
    """A network whose observation follows from the last action alone, p(s' | a), and whose action repeats it."""
    layout, bins = Layout(1, 1, False, False), len(chain)
    made = TrajectoryModel(layout, bins, window=4, layers=1, heads=1, size=2 * bins, key=jax.random.key(0))
    blocks = jax.tree.map(jnp.zeros_like, made.trunk.blocks)  # nothing is read: h is the token itself
    table = jnp.concatenate([jnp.eye(2 * bins), jnp.zeros((1, 2 * bins))])
    with np.errstate(divide="ignore"):
        next_state = np.maximum(np.log(np.pad(chain, ((bins, 0), (0, 1)))), -50)  # rows: the token before
    repeated = np.where(np.pad(np.eye(bins), ((0, bins), (0, 1))) == 1, 0.0, -50.0)
    # The last norm turns a one of n into sqrt(n - 1), and the zeros into -1 / sqrt(n - 1).
    n = 2 * bins
    gain, shift = (n - 1) ** 0.5 + 1 / (n - 1) ** 0.5, -1 / (n - 1) ** 0.5
    scale, offset = jnp.full(n, 1 / gain), jnp.full(n, -shift / gain)
    heads = jnp.asarray(np.stack([next_state, repeated]), jnp.float32)
    return eqx.tree_at(
        lambda m: (m.table.weights, m.heads, m.trunk.blocks, m.trunk.norm.scale, m.trunk.norm.shift),
        made,
        (table, heads, blocks, scale, offset),
    )


def test_frequencies_are_those_of_a_known_chain() -> None:
    """A Markov chain of three states, sampled: shares at each step, and of each move."""
    chain = np.array([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3], [0.0, 0.1, 0.9]])
    rows = 3000
    keys = jax.random.split(jax.random.key(0), rows)
    past, zero = jnp.zeros((rows, 1, 2), jnp.int32), jnp.zeros((), jnp.int32)
    found = np.asarray(sampled(source(chain), past, zero, jnp.zeros((rows, 1), jnp.int32), keys, 5))
    np.testing.assert_array_equal(found[..., 0], found[..., 1])  # what is done repeats what is seen
    share = np.array([1.0, 0, 0])
    for t in range(5):
        np.testing.assert_allclose(np.bincount(found[:, t, 0], minlength=3) / rows, share, atol=0.03)
        share = share @ chain
    moves = np.zeros((3, 3))
    np.add.at(moves, (found[:, :-1, 0], found[:, 1:, 0]), 1)
    np.testing.assert_allclose(moves / moves.sum(axis=1, keepdims=True), chain, atol=0.02)


def test_an_episode_ends_between_steps_and_stays_ended() -> None:
    network = model(Layout(1, 2, False, False))
    often = eqx.tree_at(lambda m: m.heads, network, network.heads.at[..., -1].add(2 * network.heads[..., 0]))
    rows = 64
    keys = jax.random.split(jax.random.key(0), rows)
    newest = jnp.asarray(np.arange(rows)[:, None] % BINS)
    past, zero = jnp.zeros((rows, 2, 3), jnp.int32), jnp.zeros((), jnp.int32)
    stops = np.asarray(sampled(often, past, zero, newest, keys, 8)) == BINS
    assert 0.1 < stops[:, -1].all(axis=-1).mean() < 0.95
    assert (stops.any(axis=-1) == stops.all(axis=-1)).all()
    assert not stops[:, 0].any()
    assert (np.diff(stops[..., 0].astype(int), axis=1) >= 0).all()


def test_rows_follow_from_their_keys_whoever_is_beside_them() -> None:
    network = model()
    keys = jax.random.split(jax.random.key(0), 4)
    past, newest, count = jnp.ones((4, 3, 6), jnp.int32), jnp.ones((4, 2), jnp.int32), jnp.asarray(2)
    together = np.asarray(sampled(network, past, count, newest, keys, 3))
    alone = np.asarray(sampled(network, past[1:2], count, newest[1:2], keys[1:2], 3))
    np.testing.assert_array_equal(together[1], alone[0])
    assert (together != together[:1]).any()
    coldest = np.asarray(sampled(network, past, count, newest, keys, 3, Filter(k=1)))
    assert (coldest == coldest[:1]).all()


@pytest.mark.parametrize("choice", [None, 2])
@pytest.mark.parametrize("layout", [Layout(2, 1), Layout(2, 2, False, False)])
def test_means_are_those_of_windows_read_anew(layout: Layout, choice: int | None) -> None:
    """Every number the mean of its distribution, which the next one reads as a token; a choice is the likeliest."""
    network, bins, context = model(layout, layers=2), discretiser(layout), 3
    edges, centres = np.asarray(bins.edges), np.asarray(bins.centres)
    found_by = eqx.filter_jit(lambda *args: expected(*args, choice=choice))
    rng = np.random.default_rng(3)
    for held in (0, context + 1):
        history = rng.integers(0, BINS, (held, layout.width))
        newest = rng.integers(0, BINS, layout.observations)
        past, count = window_of(history, context - 1, layout.width)
        found = np.asarray(found_by(network, bins, 4, past, count, jnp.asarray(newest)))
        read = Anew(network, context)
        row = np.concatenate([history[-(context - 1) :].ravel() if held else history.ravel(), newest]).astype(np.int32)
        want = [centres[i, token] for i, token in enumerate(newest)]
        for place in range(layout.observations, 4 * layout.width):
            column = place % layout.width
            p = softmax(read(row[None])[0, :-1])
            number = centres[column, p.argmax()] if column == choice else p @ centres[column]
            want.append(number)
            token = np.clip(np.searchsorted(edges[column], number, side="right") - 1, 0, BINS - 1)
            row = np.append(row, np.int32(token))
        np.testing.assert_allclose(found, np.reshape(want, (4, -1)), rtol=1e-4, atol=1e-5)

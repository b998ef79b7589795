"""The causal transformer against its equations in NumPy, and its cache against the transformer."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from legato.nn.layers import LayerNorm
from legato.nn.transformer import Block, Transformer, rotate

SIZE, HEADS, LAYERS = 8, 2, 3
POSITIONS = pytest.mark.parametrize("positions", ["none", "learned", "rotary"])


def made(positions: Any = "none", band: int | None = None, **options: Any) -> Transformer:
    it = Transformer(SIZE, LAYERS, HEADS, positions=positions, length=64, band=band, key=jax.random.key(0), **options)

    def grown(leaf: jax.Array) -> jax.Array:
        return jnp.asarray(leaf + 0.4 * np.random.default_rng(leaf.size).normal(size=leaf.shape), leaf.dtype)

    # Larger weights than at the beginning, so that attention is far from even.
    return jax.tree.map(grown, jax.tree.map(np.asarray, it))


def tokens(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).normal(size=(*shape, SIZE)), float)


forward = jax.jit(Transformer.__call__)


def transcription(it: Transformer, x: np.ndarray, band: int) -> np.ndarray:
    """One sequence, one token and one head at a time."""

    def norm(layer: LayerNorm, x: np.ndarray) -> np.ndarray:
        return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * np.asarray(layer.scale) + np.asarray(layer.shift)

    def linear(layer: Any, x: np.ndarray) -> np.ndarray:
        return x @ np.asarray(layer.weight) + np.asarray(layer.bias)

    def turned(x: np.ndarray, position: int) -> np.ndarray:
        half = len(x) // 2
        angle = [position * 10_000 ** (-2 * i / len(x)) for i in range(half)]
        pairs = [(x[i] + 1j * x[i + half]) * np.exp(1j * angle[i]) for i in range(half)]
        return np.array([p.real for p in pairs] + [p.imag for p in pairs])

    x = np.asarray(x, np.float64)
    if it.table is not None:
        x = x + np.asarray(it.table)[: len(x)]
    for block in it.blocks:
        q, k, v = np.split(np.stack([linear(block.qkv, norm(block.before, row)) for row in x]), 3, axis=1)
        q, k, v = (part.reshape(len(x), block.heads, -1) for part in (q, k, v))
        if block.rotary:
            q, k = (np.array([[turned(h, t) for h in part[t]] for t in range(len(x))]) for part in (q, k))
        rows = []
        for t in range(len(x)):
            first = max(0, t - band + 1)
            heads = []
            for h in range(block.heads):
                weight = softmax(k[first : t + 1, h] @ q[t, h] / np.sqrt(q.shape[-1]))
                heads.append(weight @ v[first : t + 1, h])
            row = x[t] + linear(block.out, np.concatenate(heads))
            rows.append(row + linear(block.down, np.maximum(linear(block.up, norm(block.between, row)), 0)))
        x = np.stack(rows)
    return np.stack([norm(it.norm, row) for row in x])


@pytest.mark.usefixtures("x64")
@POSITIONS
@pytest.mark.parametrize("band", [None, 3])
def test_it_is_its_equations(positions: Any, band: int | None) -> None:
    it, x = made(positions, band, activation="relu"), tokens(2, 7)
    found = forward(it, x)
    for i in range(2):
        np.testing.assert_allclose(found[i], transcription(it, np.asarray(x[i]), band or 7), atol=1e-6)


@POSITIONS
@pytest.mark.parametrize("band", [None, 4])
def test_no_token_sees_a_later_one(positions: Any, band: int | None) -> None:
    it, x = made(positions, band), np.array(tokens(9))
    moved = np.concatenate([x[:5], -x[5:]])
    before, after = (np.asarray(forward(it, jnp.asarray(each))) for each in (x, moved))
    np.testing.assert_array_equal(before[:5], after[:5])
    assert np.abs(before[5:] - after[5:]).max(axis=1).min() > 0.01


def test_it_sees_as_far_back_as_its_layers_reach() -> None:
    it, x = made(band=3), tokens(12)
    moved = np.abs(forward(it, x) - forward(it, x.at[0].multiply(-1))).max(axis=1) > 1e-6
    assert moved.tolist() == [True] * (1 + LAYERS * (3 - 1)) + [False] * (11 - LAYERS * (3 - 1))


@POSITIONS
def test_padding_is_not_seen_wherever_it_lies(positions: Any) -> None:
    it, x = made(positions), np.asarray(tokens(2, 9))
    valid = np.ones((2, 9), bool)
    valid[0, 6:] = valid[1, :3] = False
    other = np.where(valid[..., None], x, 100 * x[::-1])
    a, b = (np.asarray(forward(it, jnp.asarray(each), jnp.asarray(valid))) for each in (x, other))
    np.testing.assert_array_equal(a[valid], b[valid])
    assert np.isfinite(a).all()
    np.testing.assert_allclose(a[0, :6], forward(it, jnp.asarray(x[0, :6])), atol=1e-5)
    if positions != "learned":  # nothing or only the distance between tokens tells where one is
        np.testing.assert_allclose(a[1, 3:], forward(it, jnp.asarray(x[1, 3:])), atol=1e-5)


@pytest.mark.parametrize(
    ("positions", "band", "padded"), [("none", None, False), ("learned", 4, False), ("rotary", None, True)]
)
def test_from_what_is_attended_to_follows_what_comes_out(positions: Any, band: int | None, padded: bool) -> None:
    """Weights `[layers, heads, queries, keys]`, of windows that are padded, or that hold hidden tokens."""
    it, x = made(positions, band), tokens(9)
    valid, hidden = np.arange(9) < (7 if padded else 9), ~np.array(padded) & (np.arange(9) % 4 == 3)
    options = (jnp.asarray(valid), None) if padded else (None, jnp.asarray(hidden))
    weights = np.asarray(jax.jit(lambda it, x, v, h: it.attention(x, v, hidden=h))(it, x, *options))
    assert weights.shape == (LAYERS, HEADS, 9, 9)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)
    back = np.arange(9)[:, None] - np.arange(9)
    sees = (back >= 0) & (back < (band or 9)) & ~hidden & (valid | (back == 0))
    np.testing.assert_array_equal(weights > 0, np.broadcast_to(sees, weights.shape))

    def rebuilt(it: Transformer, x: jax.Array, weights: jax.Array) -> jax.Array:
        x = x if it.table is None else x + it.table[:9]
        for block, weight in zip(it.blocks, weights, strict=True):
            _, _, v = block.project(x, jnp.arange(9))
            x = block.after(x, jnp.einsum("hqk,khd->qhd", weight, v).reshape(x.shape))
        return it.norm(x)

    want = jax.jit(lambda it, x, v, h: it(x, v, hidden=h))(it, x, *options)
    np.testing.assert_allclose(jax.jit(rebuilt)(it, x, jnp.asarray(weights)), want, atol=2e-5)


@pytest.mark.parametrize("read", [slice(1, None, 3), slice(-1, None), slice(0, 2)])
def test_reading_some_outputs_is_reading_them_of_all(read: slice) -> None:
    it, x, valid = made("rotary", band=4), tokens(2, 9), np.ones((2, 9), bool)
    valid[0, 7:] = False
    found = jax.jit(lambda it, x, valid: it(x, valid, read=read))(it, x, jnp.asarray(valid))
    np.testing.assert_allclose(found, np.asarray(forward(it, x, jnp.asarray(valid)))[:, read], atol=1e-6)


def test_reading_less_computes_less() -> None:
    it, x = made(), tokens(2, 30)
    flops = [
        jax.jit(lambda it, x, read=read: it(x, read=read)).lower(it, x).cost_analysis()["flops"]
        for read in (None, slice(-1, None))
    ]
    assert flops[1] < 0.8 * flops[0]


@POSITIONS
@pytest.mark.parametrize("chunks", [[1] * 20, [3] * 6, [1, 2, 4, 1, 3, 2, 6]])
def test_the_cache_is_the_transformer(positions: Any, chunks: list[int]) -> None:
    """Also long after the band has slid."""
    it, x = made(positions, band=5), np.asarray(tokens(sum(chunks)))
    step, cache, found, at = jax.jit(Transformer.step), it.start(), [], 0
    for n in chunks:
        cache, y = step(it, cache, jnp.asarray(x[at : at + n]))
        found.append(y)
        at += n
    np.testing.assert_allclose(np.concatenate(found), forward(it, jnp.asarray(x)), atol=2e-5)
    assert int(cache.seen) == sum(chunks)
    assert cache.keys.shape == (LAYERS, 5, HEADS, SIZE // HEADS)


def test_without_a_band_there_is_no_cache() -> None:
    with pytest.raises(ValueError, match="without a band"):
        made().start()
    with pytest.raises(ValueError, match="has a length"):
        Transformer(SIZE, 1, 1, positions="learned", key=jax.random.key(0))


def test_rotary_positions_tell_distances_only() -> None:
    q, k = tokens(2, 1, HEADS).reshape(2, 1, HEADS, -1)

    def score(i: int, j: int) -> np.ndarray:
        return np.sum(rotate(q, jnp.array([i])) * rotate(k, jnp.array([j])), axis=-1)

    np.testing.assert_allclose(score(3, 1), score(103, 101), atol=1e-4)
    assert np.abs(score(3, 1) - score(3, 2)).max() > 1e-2
    np.testing.assert_allclose(np.linalg.norm(rotate(q, jnp.array([7]))), np.linalg.norm(q), rtol=1e-6)


def test_dropout_needs_a_key() -> None:
    it, y = made(dropout=0.3), tokens(4)
    a, b = (forward(it, y, key=jax.random.key(seed)) for seed in (0, 1))
    assert not np.allclose(a, b)
    np.testing.assert_array_equal(forward(it, y), forward(made(dropout=0.0), y))


def test_sizes_and_the_beginning() -> None:
    """The trunk of the Decision Transformer: 3 layers of 128."""
    it = Transformer(128, 3, 1, key=jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(it)) == 3 * 198_272 + 256
    block: Block = it.blocks[0]
    assert np.std(block.qkv.weight) == pytest.approx(0.02, rel=0.02)
    assert not np.any(block.up.bias)

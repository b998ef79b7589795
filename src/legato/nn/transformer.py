"""A causal transformer, and the same one token at a time from a cache of keys and values.

Pre-norm blocks, x <- x + attention(norm(x)), x <- x + MLP(norm(x)), and a last norm (Radford et al. 2019). A token sees
itself and the `band - 1` tokens before it; what is deeper sees further back, as far as the layers together reach. The
cache is a shift register of that width, so stepping computes exactly what was trained.
"""

from __future__ import annotations

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from legato.nn.layers import LayerNorm, drop, dropout_bits
from legato.nn.mlp import Linear, apply_rows

Positions = Literal["none", "learned", "rotary"]
Activation = Literal["relu", "gelu"]


class Block(eqx.Module):
    """Attention and MLP, each on the normalised input and added to it."""

    before: LayerNorm
    qkv: Linear
    out: Linear
    between: LayerNorm
    up: Linear
    down: Linear
    heads: int = eqx.field(static=True)
    activation: Activation = eqx.field(static=True)
    rotary: bool = eqx.field(static=True)
    dropout: float = eqx.field(static=True)

    def __init__(
        self,
        size: int,
        heads: int,
        hidden: int,
        *,
        activation: Activation,
        rotary: bool,
        dropout: float,
        key: PRNGKeyArray,
    ):
        k1, k2, k3, k4 = jax.random.split(key, 4)
        self.before, self.between = LayerNorm(size), LayerNorm(size)
        self.qkv = Linear.normal(size, 3 * size, 0.02, key=k1)
        self.out = Linear.normal(size, size, 0.02, key=k2)
        self.up = Linear.normal(size, hidden, 0.02, key=k3)
        self.down = Linear.normal(hidden, size, 0.02, key=k4)
        self.heads, self.activation, self.rotary, self.dropout = heads, activation, rotary, dropout

    def project(
        self, x: Float[Array, "*batch tokens size"], position: Int[Array, "*#batch tokens"] | None = None
    ) -> tuple[Array, Array, Array]:
        """Queries, keys and values `[*batch, tokens, heads, size / heads]`; `position` is for rotary ones."""
        q, k, v = jnp.split(apply_rows(self.qkv, self.before(x)), 3, axis=-1)
        q, k, v = (part.reshape(*part.shape[:-1], self.heads, -1) for part in (q, k, v))
        if not self.rotary:
            return q, k, v
        assert position is not None
        return rotate(q, position), rotate(k, position), v

    def weigh(
        self, q: Array, k: Array, sees: Bool[Array, "*#batch queries keys"]
    ) -> Float[Array, "*batch heads queries keys"]:
        """How much each query attends to each key: rows sum to 1, and what is not seen has 0."""
        score = jnp.einsum("...qhd,...khd->...hqk", q * q.shape[-1] ** -0.5, k)
        return jax.nn.softmax(jnp.where(sees[..., None, :, :], score, -jnp.inf), axis=-1)

    def attend(
        self,
        x: Array,
        q: Array,
        k: Array,
        v: Array,
        sees: Bool[Array, "*#batch queries keys"],
        bits: tuple[Array, Array, Array] | None,
    ) -> Float[Array, "*batch queries size"]:
        """The block's output at the tokens `x` whose queries are `q`; `bits` is dropout of weights and both sums."""
        of_weight, of_out, of_mlp = bits or (None,) * 3
        weight = self.weigh(q, k, sees)
        read = jnp.einsum("...hqk,...khd->...qhd", drop(weight, self.dropout, of_weight), v)
        return self.after(x, read.reshape(x.shape), of_out, of_mlp)

    def after(
        self, x: Array, read: Array, of_out: Array | None = None, of_mlp: Array | None = None
    ) -> Float[Array, "*batch size"]:
        """What becomes of the tokens `x` once their queries have `read`."""
        x = x + drop(apply_rows(self.out, read), self.dropout, of_out)
        h = apply_rows(self.up, self.between(x))
        h = jax.nn.relu(h) if self.activation == "relu" else gelu(h)
        return x + drop(apply_rows(self.down, h), self.dropout, of_mlp)


class Cache(eqx.Module):
    """The keys and values of the newest `band` tokens, oldest first, for each layer; zeros where there were none."""

    keys: Float[Array, "layers band heads each"]
    values: Float[Array, "layers band heads each"]
    seen: Int[Array, ""]
    """how many tokens there were"""


class Transformer(eqx.Module):
    """`layers` blocks and a norm. Matrices begin as N(0, 0.02^2), biases as zero.

    `positions`: none of its own, a learnt table of `length` rows added to the tokens, or rotary. `band`: how many
    tokens a token sees, itself included; None is all of them, which has no cache.
    """

    table: Float[Array, "length size"] | None
    blocks: tuple[Block, ...]
    norm: LayerNorm
    band: int | None = eqx.field(static=True)

    def __init__(
        self,
        size: int,
        layers: int,
        heads: int,
        *,
        hidden: int | None = None,
        activation: Activation = "gelu",
        positions: Positions = "none",
        length: int | None = None,
        band: int | None = None,
        dropout: float = 0.0,
        key: PRNGKeyArray,
    ):
        k_table, *keys = jax.random.split(key, 1 + layers)
        if positions == "learned":
            if length is None:
                raise ValueError("a table of positions has a length")
            self.table = 0.02 * jax.random.normal(k_table, (length, size))
        else:
            self.table = None
        rotary, hidden = positions == "rotary", hidden or 4 * size
        self.blocks = tuple(
            Block(size, heads, hidden, activation=activation, rotary=rotary, dropout=dropout, key=k) for k in keys
        )
        self.norm = LayerNorm(size)
        self.band = band

    def __call__(
        self,
        x: Float[Array, "*batch tokens size"],
        valid: Bool[Array, "*batch tokens"] | None = None,
        *,
        hidden: Bool[Array, " tokens"] | None = None,
        read: slice | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "*batch read size"]:
        """The outputs at all tokens, or at those that `read` takes: the last block then computes no others.

        Tokens that are not `valid` are seen by themselves only, `hidden` ones not even by themselves (the first token
        is none of them). With a `key` dropout is on.
        """
        tokens = jnp.arange(x.shape[-2])
        sees = self._sees(len(tokens), valid, hidden)
        bits = None if key is None or not self.blocks[0].dropout else self._dropout_bits(key, x.shape)
        x = x if self.table is None else x + self.table[: len(tokens)]
        last = len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            q, k, v = block.project(x, tokens)
            of_block = None if bits is None else jax.tree.map(lambda leaf, i=i: leaf[i], bits)
            if i == last and read is not None:
                x, q, sees = x[..., read, :], q[..., read, :, :], sees[..., read, :]
                of_block = jax.tree.map(lambda leaf: leaf[..., read, :], of_block)
            x = block.attend(x, q, k, v, sees, of_block)
        return self.norm(x)

    def attention(
        self,
        x: Float[Array, "*batch tokens size"],
        valid: Bool[Array, "*batch tokens"] | None = None,
        *,
        hidden: Bool[Array, " tokens"] | None = None,
    ) -> Float[Array, "*batch layers heads tokens tokens"]:
        """How much each token (the last axis but one) attends to each other in every layer, without dropout."""
        tokens = jnp.arange(x.shape[-2])
        sees = self._sees(len(tokens), valid, hidden)
        x = x if self.table is None else x + self.table[: len(tokens)]
        found = []
        for block in self.blocks:
            q, k, v = block.project(x, tokens)
            found.append(block.weigh(q, k, sees))
            x = block.attend(x, q, k, v, sees, None)
        return jnp.stack(found, axis=-4)

    def _sees(
        self, count: int, valid: Bool[Array, "*batch tokens"] | None, hidden: Bool[Array, " tokens"] | None
    ) -> Bool[Array, "*batch tokens tokens"]:
        """Which of so many tokens each sees."""
        tokens = jnp.arange(count)
        back = tokens[:, None] - tokens
        sees = (back >= 0) & (back < (self.band or count))
        if hidden is not None:
            sees = sees & ~hidden
        if valid is not None:
            sees = sees & valid[..., None, :] | (back == 0)
        return sees

    def _dropout_bits(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> tuple[Array, Array, Array]:
        """Dropout of every block, in two draws: a generator takes longer to compile than a block."""
        *batch, tokens, size = shape
        k_weight, k_sum = jax.random.split(key)
        layers = len(self.blocks)
        sums = dropout_bits(k_sum, (2, layers, *batch, tokens, size))
        return dropout_bits(k_weight, (layers, *batch, self.blocks[0].heads, tokens, tokens)), sums[0], sums[1]

    def start(self) -> Cache:
        """A cache that has seen nothing."""
        if self.band is None:
            raise ValueError("a transformer without a band has no cache: it would grow with every token")
        block = self.blocks[0]
        size = self.norm.scale.size
        shape = (len(self.blocks), self.band, block.heads, size // block.heads)
        return Cache(jnp.zeros(shape), jnp.zeros(shape), jnp.zeros((), jnp.int32))

    def step(self, cache: Cache, x: Float[Array, "new size"]) -> tuple[Cache, Float[Array, "new size"]]:
        """The next tokens of one sequence, after those that the cache has seen.

        Where a cache begins at a negative `seen`, the first tokens are there for their shape only: nothing sees them.
        """
        band, new = cache.keys.shape[1], len(x)
        index = jnp.arange(band + new) - band  # 0 is the first new token
        position = cache.seen + index
        back = index[band:, None] - index
        sees = (back >= 0) & (back < band) & (position >= 0) | (back == 0)
        if self.table is not None:
            x = x + self.table[position[band:]]
        kept_keys, kept_values = [], []
        for block, old_keys, old_values in zip(self.blocks, cache.keys, cache.values, strict=True):
            q, k, v = block.project(x, position[band:])
            k, v = jnp.concatenate([old_keys, k]), jnp.concatenate([old_values, v])
            x = block.attend(x, q, k, v, sees, None)
            kept_keys.append(k[new:])
            kept_values.append(v[new:])
        return Cache(jnp.stack(kept_keys), jnp.stack(kept_values), cache.seen + new), self.norm(x)


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x times the normal distribution function (Hendrycks & Gimpel 2016), by erf, which is cheaper than JAX's erfc.

    Where it is nearly 0, far below zero, it is so to 1e-7 instead of to its own last digit.
    """
    return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))


def rotate(
    x: Float[Array, "*batch tokens heads each"], position: Int[Array, "*#batch tokens"]
) -> Float[Array, "*batch tokens heads each"]:
    """Rotary positions (Su et al. 2021): pairs (x_i, x_{i + d/2}) turned by position * 10000^(-2i/d)."""
    half = x.shape[-1] // 2
    angle = position[..., None, None] * 10_000.0 ** (-jnp.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    turned = [a * jnp.cos(angle) - b * jnp.sin(angle), a * jnp.sin(angle) + b * jnp.cos(angle)]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)

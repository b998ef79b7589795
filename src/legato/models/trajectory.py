"""A model of trajectories, token by token: the GPT of the Trajectory Transformer (Janner et al., arXiv 2106.02039).

    x_i = table[token_i + bins * column_i] + position_i        one row more for the stop that all columns share
    h   = transformer(x)                                       values are masked as keys: they only lead to the next s^1
    p(token_{i+1} | token_0 ... token_i) = softmax(head_{column_{i+1}} h_i)      bins and the stop

Planning reads a window of C steps. Within one step the window does not move, so keys and values are kept; when it
moves, positions shift, and they are computed once anew: `prime`, then `step` for every token. What comes out is exactly
what reading the whole window for each token gives.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from legato.data.tokens import Layout
from legato.nn.layers import drop, dropout_bits
from legato.nn.transformer import Transformer


class Past(eqx.Module):
    """Keys and values of goal and of the steps before the present one, laid out as single queries read them."""

    keys: tuple[Float[Array, "rows heads each tokens"], ...]
    """of each layer"""
    values: tuple[Float[Array, "rows heads tokens each"], ...]
    sees: Bool[Array, " tokens"]
    steps: Int[Array, ""]
    """how many of the window's steps there are"""


class Now(eqx.Module):
    """Keys and values of the present step's tokens so far; `beams` rows share the past of one."""

    keys: tuple[Float[Array, "rows heads beams each columns"], ...]
    """of each layer: a loop writes into these in place, and would copy one array of all layers"""
    values: tuple[Float[Array, "rows heads beams columns each"], ...]


class Table(eqx.Module):
    """Embeddings of columns of `bins` tokens each, and of tokens behind these (the stop).

    Those of a table of `cosine_embeddings` are sums of `cosine_basis`, and the weights say of which.
    """

    weights: Float[Array, "tokens size"]
    bins: int = eqx.field(static=True)
    cosine_embeddings: bool = eqx.field(static=True, default=False)

    def rows(self) -> Float[Array, "tokens size"]:
        """The embeddings."""
        if not self.cosine_embeddings:
            return self.weights
        last = len(self.weights) // self.bins * self.bins
        columns = self.weights[:last].reshape(-1, self.bins, self.weights.shape[-1])
        return jnp.concatenate([(cosine_basis(self.bins) @ columns).reshape(last, -1), self.weights[last:]])

    def materialise(self) -> Table:
        """The same embeddings, worked out."""
        return Table(self.rows(), self.bins)


class TrajectoryModel(eqx.Module):
    """The network. `window` is the number of steps that it was made to read at once, L."""

    table: Table
    goal: Table | None
    positions: Float[Array, "places size"]
    trunk: Transformer
    heads: Float[Array, "columns size outputs"]
    layout: Layout = eqx.field(static=True)
    bins: int = eqx.field(static=True)
    window: int = eqx.field(static=True)
    dropout: float = eqx.field(static=True)

    def __init__(
        self,
        layout: Layout,
        bins: int,
        *,
        window: int,
        layers: int,
        heads: int,
        size: int,
        dropout: float = 0.0,
        goals: bool = False,
        cosine_embeddings: bool = False,
        key: PRNGKeyArray,
    ):
        k_table, k_goal, k_trunk, k_heads = jax.random.split(key, 4)
        width = layout.width
        self.table = Table(0.02 * jax.random.normal(k_table, (width * bins + 1, size)), bins, cosine_embeddings)
        aims = layout.observations * bins
        self.goal = Table(0.02 * jax.random.normal(k_goal, (aims, size)), bins, cosine_embeddings) if goals else None
        self.positions = jnp.zeros((window * width - 1, size))
        self.trunk = Transformer(size, layers, heads, dropout=dropout, key=k_trunk)
        self.heads = jax.random.uniform(k_heads, (width, size, bins + 1), minval=-1, maxval=1) * size**-0.5
        self.layout, self.bins, self.window, self.dropout = layout, bins, window, dropout

    # --- whole windows ---

    def __call__(
        self,
        tokens: Int[Array, "batch places"],
        goals: Int[Array, "batch obs"] | None = None,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "batch places outputs"]:
        """Logits of the token after each of `tokens`, which begin with a step's first. With a `key` dropout is on."""
        k_embed, k_trunk = (None, None) if key is None else jax.random.split(key)
        width, places = self.layout.width, tokens.shape[-1]
        x, hidden = self._embed_window(tokens, goals)
        x = x if k_embed is None else drop(x, self.dropout, dropout_bits(k_embed, x.shape))
        h = self.trunk(x, hidden=hidden, key=k_trunk)[..., x.shape[-2] - places :, :]
        # Each column's positions together, so that its head is one product.
        h = jnp.pad(h, ((0, 0), (0, -places % width), (0, 0))).reshape(len(h), -1, width, h.shape[-1])
        logits = jnp.einsum("blcs,cso->blco", h, jnp.roll(self.heads, -1, axis=0))
        return logits.reshape(len(h), -1, logits.shape[-1])[:, :places]

    def attention(
        self, tokens: Int[Array, "batch places"], goals: Int[Array, "batch obs"] | None = None
    ) -> Float[Array, "batch layers heads queries keys"]:
        """How much each of `tokens`, which begin with a step's first, attends to each other in every layer.

        Rows sum to 1; values are masked as keys. A goal's tokens stand in front, among queries and keys.
        """
        x, hidden = self._embed_window(tokens, goals)
        return self.trunk.attention(x, hidden=hidden)

    def _embed_window(
        self, tokens: Int[Array, "batch places"], goals: Int[Array, "batch obs"] | None
    ) -> tuple[Float[Array, "batch all size"], Bool[Array, " all"] | None]:
        """What the trunk reads, the goal in front, and which of it is masked as a key."""
        places = tokens.shape[-1]
        column = jnp.arange(places) % self.layout.width
        x = self.embed(tokens, column) + self.positions[:places]
        hidden = column == self.layout.value if self.layout.values else None
        if self.goal is not None:
            assert goals is not None
            x = jnp.concatenate([self.goal_embeddings(goals), x], axis=-2)
            hidden = None if hidden is None else jnp.concatenate([jnp.zeros(goals.shape[-1], bool), hidden])
        return x, hidden

    def embed(self, tokens: Int[Array, "*#batch"], column: Int[Array, "*#batch"]) -> Float[Array, "*batch size"]:
        """Tokens of these columns, without their positions."""
        table = self.table.rows()
        return table[jnp.where(tokens >= self.bins, len(table) - 1, tokens + self.bins * column)]

    def goal_embeddings(self, goals: Int[Array, "*batch obs"]) -> Float[Array, "*batch obs size"]:
        """The tokens of an observation to be reached; they have no positions."""
        assert self.goal is not None
        return self.goal.rows()[goals + self.bins * jnp.arange(goals.shape[-1])]

    def materialise(self) -> TrajectoryModel:
        """The same model with its embeddings worked out, for those who only read it."""
        goal = None if self.goal is None else self.goal.materialise()
        return eqx.tree_at(
            lambda m: (m.table, m.goal), self, (self.table.materialise(), goal), is_leaf=lambda x: x is None
        )

    # --- token by token ---

    def prime(
        self,
        past: Int[Array, "rows steps columns"],
        count: Int[Array, ""],
        newest: Int[Array, "rows new"] | None = None,
        goals: Int[Array, "rows obs"] | None = None,
    ) -> tuple[Past, Now, Float[Array, "rows size"]]:
        """Read a window at once: the last `count` of the `past` steps and the `newest` tokens of the present step.

        Returns what later tokens read, and the network's output at the last token.
        """
        rows, steps, width = past.shape
        places = steps * width
        slot = jnp.arange(places)
        column = slot % width
        position = slot - (steps - count) * width
        x = self.embed(past.reshape(rows, places), column) + self.positions[jnp.maximum(position, 0)]
        there = position >= 0
        seen = there & (column != self.layout.value) if self.layout.values else there
        new = 0
        if newest is not None:
            new = newest.shape[-1]
            present = self.embed(newest, jnp.arange(new)) + self.positions[count * width + jnp.arange(new)]
            x = jnp.concatenate([x, present], axis=-2)
        aims = 0
        if self.goal is not None:
            assert goals is not None
            aims = goals.shape[-1]
            x = jnp.concatenate([jnp.broadcast_to(self.goal_embeddings(goals), (rows, aims, x.shape[-1])), x], axis=-2)
        sees_past = jnp.concatenate([jnp.ones(aims, bool), seen])
        valid = jnp.concatenate([jnp.ones(aims, bool), there, jnp.ones(new, bool)])
        index = jnp.arange(aims + places + new)
        # A missing step attends to itself, so that its softmax is defined; nothing else attends to it.
        sees = (index[:, None] >= index) & jnp.concatenate([sees_past, jnp.ones(new, bool)])
        sees = sees | ((index[:, None] == index) & ~valid)
        split = aims + places
        # A value is never a key within its own step.
        room = (0, width - new - self.layout.values)
        kept = []
        for i, block in enumerate(self.trunk.blocks):
            q, k, v = block.project(x)
            q, keys, values = q.transpose(0, 2, 1, 3), k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)
            now_keys = jnp.pad(keys[:, :, None, :, split:], ((0, 0),) * 4 + (room,))
            now_values = jnp.pad(values[:, :, None, split:], ((0, 0),) * 3 + (room, (0, 0)))
            kept.append((keys[..., :split], values[..., :split, :], now_keys, now_values))
            if i == len(self.trunk.blocks) - 1:
                x, q, sees = x[:, -1:], q[:, :, -1:], sees[-1:]
            score = jnp.where(sees, (q * q.shape[-1] ** -0.5) @ keys, -jnp.inf)
            read = jax.nn.softmax(score, axis=-1) @ values
            x = block.after(x, read.transpose(0, 2, 1, 3).reshape(x.shape))
        keys, values, now_keys, now_values = zip(*kept, strict=True)
        return Past(keys, values, sees_past, count), Now(now_keys, now_values), self.trunk.norm(x[:, -1])

    def step(
        self, past: Past, now: Now, token: Int[Array, "rows beams"], column: Int[Array, ""]
    ) -> tuple[Now, Float[Array, "rows beams size"]]:
        """One more token of the present step, in this column: what was kept, and the network's output at it."""
        x = self.embed(token, column) + self.positions[past.steps * self.layout.width + column]
        sees = jnp.arange(now.keys[0].shape[-1]) <= column
        kept = []
        layers = zip(self.trunk.blocks, past.keys, past.values, now.keys, now.values, strict=True)
        for block, past_keys, past_values, keys, values in layers:
            q, k, v = (part.swapaxes(1, 2) for part in block.project(x))  # [rows, heads, beams, each]
            keys = jax.lax.dynamic_update_slice_in_dim(keys, k[..., None], column, axis=-1)
            values = jax.lax.dynamic_update_slice_in_dim(values, v[..., None, :], column, axis=-2)
            kept.append((keys, values))
            q = q * q.shape[-1] ** -0.5
            far = jnp.where(past.sees, _batched_matvec(q, past_keys[:, :, None]), -jnp.inf)
            near = jnp.where(sees, _batched_matvec(q, keys), -jnp.inf)
            top = jnp.concatenate([far, near], axis=-1).max(-1, keepdims=True)
            far, near = jnp.exp(far - top), jnp.exp(near - top)
            total = far.sum(-1, keepdims=True) + near.sum(-1, keepdims=True)
            read = _batched_matvec(far, past_values[:, :, None]) + _batched_matvec(near, values)
            x = block.after(x, (read / total).swapaxes(1, 2).reshape(x.shape))
        keys, values = zip(*kept, strict=True)
        return Now(keys, values), self.trunk.norm(x)

    def logits(self, h: Float[Array, "*batch size"], column: Int[Array, ""] | int) -> Float[Array, "*batch outputs"]:
        """Of the token in this column, from the network's output at the token before."""
        return h @ self.heads[column]


def cosine_basis(bins: int) -> Float[Array, "bins waves"]:
    """What the embeddings of bins with `cosine_embeddings` are sums of: cosines over a column, the shorter the weaker.

    Bins that are near are then alike, at first and after few updates, and what is learnt of one holds for its
    neighbours; nothing that a plain table can hold is out of reach. Each row is of length 1.
    """
    k = jnp.arange(bins)
    found = jnp.cos(jnp.pi * k * (jnp.arange(bins)[:, None] + 0.5) / bins) / (1 + (k / 8) ** 2)
    return found / jnp.linalg.norm(found, axis=-1, keepdims=True)


def _batched_matvec(
    x: Float[Array, "rows heads beams inner"], of: Float[Array, "rows heads #beams inner outer"]
) -> Float[Array, "rows heads beams outer"]:
    """Each vector of x times its own matrix, by what XLA's CPU backend is fast at: sums, or products of single rows.

    Rows and heads are one axis meanwhile: of arrays of seven axes, as come of it under `vmap`, that backend cannot make
    sums (JAX 0.10 crashes).
    """
    rows, heads, beams, inner = x.shape
    x, of = x.reshape(rows * heads, beams, inner), of.reshape(rows * heads, *of.shape[2:])
    if beams == 1:
        found = jnp.einsum("ni,nio->no", x[:, 0], of[:, 0])
    else:
        found = jnp.sum(x[..., None] * of, axis=-2)
    return found.reshape(rows, heads, beams, -1)

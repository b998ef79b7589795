"""Steps of gradient descent and of target networks."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from legato.errors import LegatoError
from legato.nn.mlp import Linear

if TYPE_CHECKING:
    import optax
    import optax.contrib
else:

    class _Optax:
        """Optax from the first time that something is asked of it: a policy that only acts does not need it."""

        def __getattr__(self, name: str) -> Any:
            importlib.import_module("optax.contrib")
            return getattr(importlib.import_module("optax"), name)

    optax = _Optax()

Network = TypeVar("Network")

CACHED = 1300
"""Tokens of a sequence model whose activations stay near a core: about so many go forth and back at a time on a CPU."""

FLOOR = 1 / 20
"""The least share of a step size that is left."""


def linear_decay(learning_rate: float, over: int, updates: Int[Array, ""]) -> float | Float[Array, ""]:
    """The step size of an update: on a line to zero over `over` updates, never below `FLOOR` of itself; 0: constant.

    Raises `LegatoError` for -1, which `training.online.start` replaces by a number.
    """
    if over < 0:
        raise LegatoError("anneal_over = -1 stands for the whole run, which only a training run knows")
    if over == 0:
        return learning_rate
    fall = optax.linear_schedule(learning_rate, FLOOR * learning_rate, max(1, round((1 - FLOOR) * over)))
    return cast(Array, fall(updates))


def adamw(rate: optax.Schedule, decay: float, clip: float) -> optax.GradientTransformation:
    """AdamW on a gradient of global norm `clip` at most."""
    return optax.chain(optax.clip_by_global_norm(clip), optax.adamw(rate, weight_decay=decay))


def warmup_schedule(learning_rate: float, over: int, anneal_over: int = 0) -> optax.Schedule:
    """The step size of the i-th update: min(1, (i + 1) / over) of what `linear_decay` leaves of `learning_rate`."""
    return lambda i: linear_decay(learning_rate, anneal_over, jnp.asarray(i)) * jnp.minimum(1.0, (i + 1) / max(over, 1))


def linear_weights(network: Any, yes: Any, no: Any) -> Any:
    """A tree like the network: `yes` for every weight of a linear layer, `no` for all other parameters."""

    def of(node: Any) -> Any:
        if isinstance(node, Linear):
            return eqx.tree_at(lambda layer: (layer.weight, layer.bias), node, (yes, no))
        return no

    return jax.tree.map(of, network, is_leaf=lambda node: isinstance(node, Linear))


def muon(rate: optax.Schedule, decay: float, b2: float = 0.999) -> optax.GradientTransformation:
    """Muon for the weights of linear layers, Adam with Nesterov's momentum for all other parameters.

    Muon steps along the nearest orthogonal matrix to the gradient's average (Jordan 2024), scaled to the size of Adam's
    steps (Liu et al. 2025, arXiv 2502.16982). What it steps in decays, the rest does not.
    """
    matrix = optax.contrib.MuonDimensionNumbers()
    return optax.contrib.muon(
        rate,
        weight_decay=decay,
        adam_b2=b2,
        muon_weight_dimension_numbers=lambda network: linear_weights(network, matrix, None),
        consistent_rms=0.2,
    )


def mean_gradient(
    of: Callable[[Network, Any, PRNGKeyArray], tuple[Float[Array, ""], Any]],
    network: Network,
    batch: Any,
    counts: Int[Array, " rows"],
    key: PRNGKeyArray,
    tokens: int,
) -> tuple[tuple[Float[Array, ""], Any], Network]:
    """Value, further means and gradient of a mean over a batch, as `jax.value_and_grad` with `has_aux` gives them.

    `of(network, batch, key)` is a mean over what counts, of which each row has `counts`, and is `tokens` wide. On a CPU
    the batch is gone through in groups of rows, each forth and back while what it needs is in the processor's cache;
    the gradient is that of the whole batch but for rounding (and each group's own draw of dropout).
    """
    rows = len(counts)
    groups = _groups(rows, tokens) if jax.default_backend() == "cpu" else 1
    each = jax.value_and_grad(of, has_aux=True)
    if groups == 1:
        return each(network, batch, key)

    def turn(total: Any, group: tuple[Any, Array, Array]) -> tuple[Any, None]:
        part, count, key = group
        share = count.sum() / counts.sum()
        return jax.tree.map(lambda whole, of_part: whole + share * of_part, total, each(network, part, key)), None

    split = jax.tree.map(lambda leaf: leaf.reshape(groups, rows // groups, *leaf.shape[1:]), (batch, counts))
    begin = jax.tree.map(jnp.zeros_like, jax.eval_shape(each, network, batch, key))
    return jax.lax.scan(turn, begin, (*split, jax.random.split(key, groups)))[0]


def _groups(rows: int, tokens: int) -> int:
    """The equal parts of a batch whose size is nearest, as a ratio, to `CACHED` tokens; a prime batch stays whole."""
    divisors = (n for n in range(1, rows + 1) if rows % n == 0)
    return min(divisors, key=lambda n: abs(math.log(rows // n * tokens / CACHED)))


def descend(
    optimiser: optax.GradientTransformation, network: Network, gradient: Any, state: optax.OptState
) -> tuple[Network, optax.OptState]:
    """One step of an optimiser: the changed network and the optimiser's new state."""
    change, state = optimiser.update(gradient, state, cast(Any, network))
    return cast(Network, optax.apply_updates(cast(Any, network), change)), state


def polyak(target: Network, online: Network, tau: float | Array) -> Network:
    """target <- (1 - tau) target + tau online, leaf by leaf."""
    return jax.tree.map(lambda t, o: t + tau * (o - t), target, online)

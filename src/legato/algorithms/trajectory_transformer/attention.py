"""What a Trajectory Transformer attends to: every number of a step is predicted at the token before it."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from legato.algorithms.protocol import Attention, AttentionWeights, Token
from legato.algorithms.trajectory_transformer.config import TT as Config
from legato.algorithms.trajectory_transformer.trajectory_transformer import Planning
from legato.data import tokens as encoding
from legato.data.tokens import Layout
from legato.data.trajectories import Trajectories


def attention(config: Config, policy: Planning) -> Attention:
    """Of the policy's network."""
    return Attention(policy.context, policy.network.window, lambda episode, at: _weights(config, policy, episode, at))


def _weights(config: Config, policy: Planning, episode: Trajectories, at: slice) -> AttentionWeights:
    network, discretiser = policy.network, policy.statistics.discretiser
    layout, steps = network.layout, at.stop - at.start
    rows = encoding.table(episode, layout, config.gamma, config.penalty)[at]
    read = encoding.encode(discretiser, rows).astype(np.int32).reshape(1, -1)[:, :-1]  # the last leads to nothing here
    tokens, goals = _places(layout, steps), None
    if network.goal is not None:
        end = episode.observations[-1:] if episode.final_observations is None else episode.final_observations
        goals = encoding.encode(discretiser.columns(slice(0, layout.observations)), end).astype(np.int32)
    front = () if goals is None else tuple(Token("g", i + 1, None) for i in range(layout.observations))
    weights = np.asarray(_network_weights(network, jnp.asarray(read), None if goals is None else jnp.asarray(goals)))
    keys, queries = (*front, *tokens[:-1]), np.arange(len(front), len(front) + read.shape[1])
    sees = (np.arange(len(keys)) <= queries[:, None]) & np.array([token.kind != "V" for token in keys])
    return AttentionWeights(weights[0, :, :, len(front) :], sees, tokens[1:], keys)


_network_weights = eqx.filter_jit(lambda network, tokens, goals: network.attention(tokens, goals))


def _places(layout: Layout, steps: int) -> tuple[Token, ...]:
    """The tokens of so many steps."""
    one = [("s", i + 1) for i in range(layout.observations)] + [("a", i + 1) for i in range(layout.actions)]
    one += [("r", None)] * layout.rewards + [("V", None)] * layout.values
    return tuple(Token(kind, number, step) for step in range(steps) for kind, number in one)

"""What a Decision Transformer attends to: the action of a step is predicted at its observation's token."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from legato.algorithms.decision_transformer.config import DT as Config
from legato.algorithms.decision_transformer.decision_transformer import Caching, Network, Reencoding
from legato.algorithms.protocol import Attention, AttentionWeights, Token
from legato.data import trajectories as logs
from legato.data import windows
from legato.data.trajectories import Trajectories


def attention(config: Config, policy: Reencoding | Caching) -> Attention:
    """Of the policy's network."""
    if isinstance(policy, Reencoding):
        reads = most = policy.context
    else:
        band = policy.acting.network.trunk.band
        assert band is not None  # of what has a cache
        reads, most = band // 3, 2 * band // 3
    return Attention(reads, most, lambda episode, at: _weights(policy, episode, at))


def _weights(policy: Reencoding | Caching, episode: Trajectories, at: slice) -> AttentionWeights:
    acting, steps = policy.acting, at.stop - at.start
    if acting.delay_rewards:
        episode = logs.delay_rewards(episode)
    if acting.network.returns:
        logs.rewards(episode)
    window = windows.window(windows.episodes(episode, acting.gamma), jnp.asarray(at.start), steps)
    weights = np.asarray(_network_weights(acting.network, acting.statistics, window))
    tokens = tuple(Token(kind, None, step) for step in range(steps) for kind in "Rsa")[
        :-1
    ]  # nothing attends to the last
    back = np.arange(1, 3 * steps, 3)[:, None] - np.arange(len(tokens))
    sees = (back >= 0) & (back < (acting.network.trunk.band or 3 * steps))
    predicted = tuple(Token("a", None, step) for step in range(steps))
    return AttentionWeights(weights[:, :, 1::3, :-1], sees, predicted, tokens)


@eqx.filter_jit
def _network_weights(network: Network, statistics: Any, window: windows.Window) -> Any:
    given = (
        statistics.scale_return(window.returns_to_go),
        statistics.normaliser(window.observations),
        statistics.normalise_actions(window.actions),
    )
    return network.attention(*given, window.timesteps, window.mask)

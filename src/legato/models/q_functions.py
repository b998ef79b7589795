"""What is still to be earned: V(s), and Q(s, a) by two critics, over observations and actions as they were logged.

Any algorithm that learns them from logs keeps `critic`, `value` and `statistics` in its policy, and others search by
them: `min_q(loaded.policy.critic, loaded.policy.statistics, s, a)`.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from legato.data.dataset_statistics import DatasetStatistics
from legato.data.spec import Spec
from legato.nn.ensembles import TwinCritic
from legato.nn.mlp import MLP


def critics(spec: Spec, hidden: int, layers: int, *, key: PRNGKeyArray) -> TwinCritic:
    """Q_1 and Q_2, untrained; of a choice they read which it is, one-hot."""
    return TwinCritic(spec.observation_size, spec.choices or spec.action_size, [hidden] * layers, key=key)


def q_values(
    critic: TwinCritic,
    statistics: DatasetStatistics,
    s: Float[Array, "*batch obs"],
    a: Float[Array, "*batch act"] | Int[Array, "*batch"],
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """Q_1(s, a) and Q_2(s, a). Actions are in the environment's units; choices are numbers."""
    read = (
        statistics.normalise_actions(a)
        if statistics.spec.choices is None
        else jax.nn.one_hot(a, statistics.spec.choices)
    )
    return critic(statistics.normaliser(s), read)


def min_q(
    critic: TwinCritic,
    statistics: DatasetStatistics,
    s: Float[Array, "*batch obs"],
    a: Float[Array, "*batch act"] | Int[Array, "*batch"],
) -> Float[Array, "*batch"]:
    """min_i Q_i(s, a)."""
    return jnp.minimum(*q_values(critic, statistics, s, a))


class QFunction(eqx.Module):
    """What an action is worth, to whoever searches: min_i Q_i, in the critics' own units.

    Rewards of the environment are r / `statistics.scale` + `shift` in these.
    """

    critic: TwinCritic
    statistics: DatasetStatistics
    gamma: float = eqx.field(static=True)
    """discount per primitive step"""
    shift: float = eqx.field(static=True)

    def scale_reward(self, reward: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Rewards in the critics' units."""
        return self.statistics.scale_return(reward) + self.shift

    def __call__(self, s: Float[Array, "*batch obs"], a: Float[Array, "*batch act"]) -> Float[Array, "*batch"]:
        """min_i Q_i(s, a)."""
        return min_q(
            self.critic, self.statistics, s, a if self.statistics.spec.choices is None else a[..., 0].astype(int)
        )


def state_value(value: MLP, statistics: DatasetStatistics, s: Float[Array, "*batch obs"]) -> Float[Array, "*batch"]:
    """V(s)."""
    return value(statistics.normaliser(s))[..., 0]

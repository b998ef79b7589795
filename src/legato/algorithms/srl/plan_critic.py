"""Critics of SRL that know an action's place in a plan (`critic = "time_aware"`)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from legato.algorithms.srl.config import SRL as Config
from legato.data.replay import Sequences
from legato.losses import soft
from legato.losses.means import masked_mean
from legato.losses.temporal_difference import td_target, twin_error
from legato.models import dynamics
from legato.nn.ensembles import TwinCritic


def plan_critic_loss(
    critic: TwinCritic,
    learner: Any,
    config: Config,
    batch: Sequences,
    noise: Float[Array, "J batch act"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The same for critics that know an action's place k in a plan, and see what the model makes of the state there.

        y_k = r_k + m_k gamma (min_i Qbar_i(s_{k+1}, 0, a') - alpha log pi(a'))

    with a' the first action of a plan made in s_{k+1}.
    """
    steps, j = batch.steps, len(batch.steps.action)
    z = dynamics.unroll(learner.target_model, steps.observation[0], steps.action)
    a_next, log_pi = learner.actor.sample(steps.next_observation, steps.action, noise[None])
    q_next = learner.target_critic(with_step_index(steps.next_observation, jnp.zeros((j, 1)), config), a_next[0])
    y = td_target(steps.reward, steps.continues, config.gamma, soft.state_value(q_next, log_pi[0], learner.alpha))
    q = critic(with_step_index(z, jnp.arange(j)[:, None], config), steps.action)
    valid = batch.valid > 0
    return masked_mean(twin_error(q, y), valid), masked_mean(q[0], valid)


def with_step_index(z: Float[Array, "J batch obs"], k: Array, config: Config) -> Float[Array, "J batch in"]:
    """States as critics read them: with the place k in the plan beside them, in units of J, where they know it."""
    if config.critic == "one_step":
        return z
    return jnp.concatenate([z, jnp.broadcast_to(k / config.horizon, z.shape[:-1])[..., None]], axis=-1)

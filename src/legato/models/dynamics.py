"""A deterministic one-step model of an environment: s' = m(s, a).

The model that SRL learns from (Patel & Siegelmann, arXiv 2410.08979): an MLP that predicts the absolute next
observation, trained by mean-squared error on real transitions. No reward head, no termination head. Or, beside the
paper, one that predicts how the observation changes, in units of how much it usually does; one that learns from its own
predictions, several steps ahead; and a second network for where episodes end.
"""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from legato.nn.mlp import MLP
from legato.nn.optimisation import optax

RATE = 0.01  # at which the size of changes is averaged


class Dynamics(eqx.Module):
    """m(s, a) -> s', in the units of the observations."""

    mlp: MLP
    mean_square_delta: Float[Array, " obs"] | None = None
    """the mean square of s' - s; None for a model that predicts s' itself"""

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        hidden: Sequence[int],
        *,
        differences: bool = False,
        key: PRNGKeyArray,
    ):
        self.mlp = MLP((observation_size + action_size, *hidden, observation_size), key=key)
        self.mean_square_delta = jnp.ones(observation_size) if differences else None

    def __call__(self, s: Float[Array, "*batch obs"], a: Float[Array, "*batch act"]) -> Float[Array, "*batch obs"]:
        out = self.mlp(jnp.concatenate([s, a], axis=-1))
        return out if self.mean_square_delta is None else s + self.scale * out

    @property
    def scale(self) -> Float[Array, " obs"] | float:
        """What errors count in: the observations' own units, or how much they usually change."""
        return 1.0 if self.mean_square_delta is None else jnp.sqrt(jax.lax.stop_gradient(self.mean_square_delta)) + 1e-6

    def update_delta_scale(
        self, s: Float[Array, "batch obs"], s_next: Float[Array, "batch obs"], updates: Int[Array, ""]
    ) -> Dynamics:
        """The model after it has seen how much observations change; one that predicts s' itself is as it was."""
        if self.mean_square_delta is None:
            return self
        rate = jnp.maximum(RATE, 1 / (updates + 1))  # at first the mean of all batches
        change = self.mean_square_delta + rate * (jnp.mean((s_next - s) ** 2, axis=0) - self.mean_square_delta)
        return eqx.tree_at(lambda model: model.mean_square_delta, self, change)


def mean_prediction(
    models: Dynamics, s: Float[Array, "*batch obs"], a: Float[Array, "*batch act"]
) -> Float[Array, "*batch obs"]:
    """mean_e m_e(s, a), of models that are stacked along a leading axis."""
    return jax.vmap(lambda model: model(s, a))(models).mean(axis=0)


def multi_step_loss(
    model: Dynamics,
    s: Float[Array, "batch obs"],
    actions: Float[Array, "steps batch act"],
    ahead: Float[Array, "steps batch obs"],
    valid: Float[Array, "steps batch"],
    decay: float,
) -> Float[Array, ""]:
    """sum_k decay^k MSE(m^{k+1}(s, a_0 ... a_k), s_{k+1}) / sum_k decay^k, of predictions that feed on predictions.

    `ahead` holds s_1, s_2, ...; those whose `valid` is 0 do not count. Squared errors are means over
    the observation's dimensions.
    """

    def predict(z: Array, at: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        a, s_next, counts = at
        z = model(z, a)
        wrong = jnp.mean(((z - s_next) / model.scale) ** 2, axis=-1)
        return z, jnp.sum(counts * wrong) / jnp.maximum(counts.sum(), 1)

    _, wrong = jax.lax.scan(predict, s, (actions, ahead, valid))
    weights = decay ** jnp.arange(len(actions))
    return jnp.sum(weights * wrong) / weights.sum()


class TerminationModel(eqx.Module):
    """How likely an episode goes on after (s, a, s'), learnt from where it truly terminated."""

    mlp: MLP

    def __init__(self, observation_size: int, action_size: int, hidden: Sequence[int], *, key: PRNGKeyArray):
        self.mlp = MLP((2 * observation_size + action_size, *hidden, 1), key=key)

    def __call__(
        self, s: Float[Array, "*batch obs"], a: Float[Array, "*batch act"], s_next: Float[Array, "*batch obs"]
    ) -> Float[Array, "*batch"]:
        """The logarithm of the odds that it goes on."""
        return self.mlp(jnp.concatenate([s, a, s_next], axis=-1))[..., 0]

    def reach_probability(
        self, states: Float[Array, "steps *batch obs"], actions: Float[Array, "steps *batch act"]
    ) -> Float[Array, "steps *batch"]:
        """How likely each of an unrolled model's states is reached before the episode ends: 1, then products."""
        goes_on = jax.nn.sigmoid(self(states[:-1], actions[:-1], states[1:]))
        return jnp.concatenate([jnp.ones((1, *goes_on.shape[1:])), jnp.cumprod(goes_on, axis=0)])


def termination_loss(
    model: TerminationModel,
    s: Float[Array, "batch obs"],
    a: Float[Array, "batch act"],
    s_next: Float[Array, "batch obs"],
    continues: Float[Array, " batch"],
) -> Float[Array, ""]:
    """Mean cross-entropy, in nats."""
    return optax.sigmoid_binary_cross_entropy(model(s, a, s_next), continues).mean()


def unroll(
    model: Dynamics,
    s: Float[Array, "*batch obs"],
    actions: Float[Array, "steps *batch act"],
    *,
    through: bool = False,
) -> Float[Array, "steps *batch obs"]:
    """The states in which the actions are taken: s itself, then the model's predictions.

    No gradient reaches the model's weights, and none the actions before, unless it is to go `through` the predictions.
    The last action is taken in the last state, so the model is asked one time less than there are actions.
    """
    model = jax.lax.stop_gradient(model)
    s, actions = (s, actions) if through else jax.lax.stop_gradient((s, actions))

    def predict(s: Array, a: Array) -> tuple[Array, Array]:
        s_next = model(s, a)
        return s_next, s_next

    _, predicted = jax.lax.scan(predict, s, actions[:-1])
    return jnp.concatenate([s[None], predicted])

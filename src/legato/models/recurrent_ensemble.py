"""Several convolutional LSTMs of a periodic field, as a model of an environment that remembers (`nn/conv_lstm.py`).

    u_{t+1} = u_t + m + d D_k(h_{t+1}^k),   h^k, c^k the memory of member k,   m, d the mean and deviation of changes

Members predict no spread, as published (Werner & Peitz 2023, arXiv 2302.07160): where they differ is all that is said
of uncertainty. Each advances its own memory with every action, whoever's prediction a roll-out takes.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from legato.data import normaliser
from legato.data.normaliser import Normaliser
from legato.models.ensemble import single_forcings
from legato.nn.circulant import Forcing
from legato.nn.conv_lstm import ConvLSTM, Memory, check_grid


class RecurrentEnsemble(eqx.Module):
    """K networks, stacked along a leading axis, between two changes of units; those of all points are the same."""

    members: ConvLSTM
    inputs: Normaliser
    """of a field with an action, `[points + act]`; actions stay as they are"""
    outputs: Normaliser
    """of a field's change"""

    @property
    def count(self) -> int:
        """K."""
        return len(self.members.of_hidden.weight)

    def normalise(self, s: Float[Array, "*batch points"]) -> Float[Array, "*batch points"]:
        """A field in the members' units."""
        points = s.shape[-1]
        return Normaliser(self.inputs.mean[:points], self.inputs.deviation[:points])(s)

    def recall(self, s: Float[Array, "*batch points"]) -> Memory:
        """The members' memories where nothing was seen before s."""
        h = jax.vmap(lambda member: member.encode(self.normalise(s)))(self.members)
        return Memory(h, jnp.zeros_like(h))

    def warm_up(
        self,
        fields: Float[Array, "frames *batch points"],
        actions: Float[Array, "frames *batch act"],
        shown: Float[Array, "frames *batch"],
        s: Float[Array, "*batch points"],
    ) -> Memory:
        """The members' memories in s after these frames, of which those that are not `shown` (0) are left out."""
        h, seen = self.recall(s).h, self.normalise(fields)
        return Memory(h, jax.vmap(lambda member: member.warm_up(seen, actions, shown))(self.members))

    def advance(
        self, memory: Memory, s: Float[Array, "*batch points"], a: Float[Array, "*batch act"]
    ) -> tuple[Float[Array, "members *batch points"], Memory]:
        """The field's change as each member predicts it, and the memories after it.

        s is in the memory already, and not read: what has memory is asked as what has none.
        """
        memory = jax.vmap(lambda member, memory: member.advance(memory, member.drive(a)))(self.members, memory)
        change = jax.vmap(lambda member, h: member.decode(h))(self.members, memory.h)
        return self.outputs.mean + self.outputs.deviation * change, memory


def init(
    points: int, actions: int, forcing: Forcing, members: int = 3, *, norm: bool = False, key: PRNGKeyArray
) -> RecurrentEnsemble:
    """An ensemble before its first update, for a field whose actions force it so.

    Raises `LegatoError` where the forcing is not one number for each point, and for a grid that cannot be halved twice.
    """
    check_grid(points)
    unit = float(np.abs(single_forcings(points, actions, forcing)).max()) or 1.0
    networks = jax.vmap(lambda k: ConvLSTM(points, forcing, unit, norm=norm, key=k))(jax.random.split(key, members))
    return RecurrentEnsemble(networks, normaliser.none(points + actions), normaliser.none(points))

"""Networks that read images: an encoder, and a network that reads the vector which it gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from legato.data.spec import Spec
from legato.nn.images import FEATURES, PatchEncoder


class ImageNetwork(eqx.Module):
    """`network(encoder(s), ...)`."""

    encoder: PatchEncoder
    network: Any

    def __call__(self, s: UInt8[Array, "*batch obs"] | Float[Array, "*batch obs"], *rest: Any) -> Any:
        return self.network(self.encoder(s), *rest)

    @property
    def spec(self) -> Spec:
        """Of the network, whose observations are vectors."""
        return self.network.spec


def with_encoder(build: Callable[..., Any], spec: Spec, *, key: PRNGKeyArray) -> Any:
    """`build(spec, key=key)`, or where observations are images the same behind an encoder of its own."""
    if spec.shape is None:
        return build(spec, key=key)
    k_encoder, k_network = jax.random.split(key)
    return ImageNetwork(PatchEncoder(spec.shape, key=k_encoder), build(spec.with_vector(FEATURES), key=k_network))

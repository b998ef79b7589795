"""What the arrays of a layer are to an optimiser."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax

from legato.nn.ssm.diagonal import S4D, S5
from legato.nn.ssm.low_rank import S4


def groups(tree: Any) -> Any:
    """What each array of a network is to an optimiser: "core" (A, B, P, dt) and "readout" (C, D) of a layer, or "rest".

    For `optax.multi_transform(transforms, groups)`: the function, not its result, because optax would call a network of
    labels that has a `__call__`. Whatever is not an array becomes None, as `eqx.filter(tree, eqx.is_array)` leaves it.
    """

    def label(path: tuple[Any, ...], leaf: Any) -> str | None:
        if not eqx.is_array(leaf):
            return None
        return "readout" if path[0].name in ("c", "d") else "core"

    def of(node: Any) -> Any:
        if isinstance(node, S4D | S5 | S4):
            return jax.tree_util.tree_map_with_path(label, node)
        return "rest" if eqx.is_array(node) else None

    return jax.tree.map(of, tree, is_leaf=lambda node: isinstance(node, S4D | S5 | S4))

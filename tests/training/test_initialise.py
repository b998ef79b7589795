"""How training begins: with what each seed would know alone. (With one trace of an update: `tests/conformance`.)"""

from __future__ import annotations

from functools import partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tests.learners import same

from legato.algorithms.sac import sac
from legato.data.spec import Spec
from legato.training.initialise import init_learners

SPEC = Spec(3, (-2.0,), (2.0,))
CONFIG = sac.Config(hidden=8)


def test_every_seed_begins_as_it_would_alone() -> None:
    keys = jax.random.split(jax.random.key(0), 2)
    found = init_learners(sac, (CONFIG, SPEC), (keys,))
    for i, key in enumerate(keys):
        assert same(jax.tree.map(lambda leaf, i=i: leaf[i], found), jax.jit(partial(sac.init, CONFIG, SPEC))(key))


def test_own_is_told_from_shared_and_equal_configurations_share_a_program() -> None:
    traced = []

    def init(config: sac.Config, own: Any, shared: Any) -> Any:
        traced.append(config.hidden)
        return own * config.hidden + shared.sum()

    module = ModuleType("module")
    module.init = init  # type: ignore[attr-defined]
    for hidden in (2, 2, 3):
        found = init_learners(module, (sac.Config(hidden=hidden),), (jnp.arange(3.0),), (jnp.ones(3),))
        np.testing.assert_array_equal(found, hidden * np.arange(3) + 3)
    assert traced == [2, 3]

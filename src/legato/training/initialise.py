"""Initialises the learners of all seeds in one program, compiled with little effort, as it runs once."""

from __future__ import annotations

from functools import partial
from types import ModuleType
from typing import Any

import jax

# Compiling is nearly all that it costs; one level of optimisation leaves its numbers the same to the bit.
# Who asked for less than that gets less.
LEAST = jax.config.values.get("jax_disable_most_optimizations", False)
OPTIONS = {} if LEAST else {"xla_backend_optimization_level": 1}


@partial(jax.jit, static_argnums=(0, 1), compiler_options=OPTIONS)
def init_learners(module: ModuleType, how: tuple[Any, ...], each: tuple[Any, ...], shared: tuple[Any, ...] = ()) -> Any:
    """`module.init(*how, *each, *shared)` of every seed, where the leaves of `each` are `[seeds, ...]`.

    What `how` holds must be hashable: it is compiled in, once in a process.
    """
    return jax.vmap(lambda *own: module.init(*how, *own, *shared))(*each)

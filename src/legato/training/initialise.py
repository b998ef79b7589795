"""What all seeds do in one program: their learners are initialised, which is compiled with little effort, as it runs
once, and what a loop calls now and then.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
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


@lru_cache(64)
def over_seeds(
    function: Callable[..., Any],
    how: tuple[Any, ...] = (),
    *,
    axes: int | tuple[int | None, ...] = 0,
    size: int | None = None,
) -> Callable[..., Any]:
    """`function(*how, ...)` of every seed in one program, which the later runs of a process find compiled.

    `axes` are `jax.vmap`'s, and `size` is the number of seeds where no argument tells it. What `how` holds must be
    hashable.
    """
    return jax.jit(jax.vmap(partial(function, *how), in_axes=axes, axis_size=size))

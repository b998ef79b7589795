"""A search for return that stops when its time is over, with the best plan so far.

The beam deepens one step at a time; a step is begun only if it will be done in time, to judge by the slowest so far. If
there is time for all steps, the plan is that of `best_return`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from legato.data.tokens import Discretiser
from legato.errors import LegatoError
from legato.models.q_functions import QFunction
from legato.models.trajectory import TrajectoryModel
from legato.planning import beam
from legato.planning.beam import Beam, Search

Known = tuple[TrajectoryModel, Discretiser, QFunction | None]


class InTime(NamedTuple):
    """The best plan that was found in time."""

    tokens: np.ndarray
    """`[steps, columns]`, as many steps as there was time for"""
    score: float
    """the return from now on that is expected of it"""
    milliseconds: float
    """that it took"""
    late: bool
    """was even a plan of one step more than the time allowed?"""


class Anytime:
    """Searches of one kind, each within its own budget.

    Making one compiles the search and times its parts, so that the first call already knows them. A plan has one step
    at least: a budget too small for that is overrun, and the result says so. A `q_function` is a critic to search by,
    as for `best_return`. `clock` gives seconds.
    """

    def __init__(
        self,
        model: TrajectoryModel,
        discretiser: Discretiser,
        search: Search,
        context: int,
        *,
        q_function: QFunction | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        if not 2 <= context <= model.window:
            raise LegatoError(f"a planner reads from 2 to {model.window} steps in this model, not {context}")
        self.search, self.clock = search, clock
        self._known = (model, discretiser, q_function)

        def begin(known: Known, past: Array, count: Array, newest: Array, key: PRNGKeyArray) -> Beam:
            model, discretiser, q_function = known
            return beam.begin(model, discretiser, search, past, count, newest, key, q_function)

        def extend(known: Known, found: Beam, key: PRNGKeyArray) -> Beam:
            model, discretiser, q_function = known
            return beam.extend(model, discretiser, search, found, key, q_function)

        self._begin, self._extend = jax.jit(begin), jax.jit(extend)
        past = np.zeros((context - 1, model.layout.width), np.int32)
        newest = np.zeros(model.layout.observations, np.int32)
        for _ in range(2):  # the first time it is compiled
            self.slowest = 0.0
            self(past, np.zeros((), np.int32), newest, jax.random.key(0), np.inf)

    def __call__(
        self,
        past: Int[Array | np.ndarray, "steps columns"],
        count: Int[Array | np.ndarray, ""],
        newest: Int[Array | np.ndarray, " obs"],
        key: PRNGKeyArray,
        milliseconds: float,
    ) -> InTime:
        """A plan after the last `count` of the `past` steps, from the `newest` observation, in so many milliseconds.

        Raises `LegatoError` for a budget that is not positive.
        """
        if not milliseconds > 0:
            raise LegatoError(f"a plan takes time; a budget of {milliseconds:g} ms was given")
        started = self.clock()
        k_first, k_rest = jax.random.split(key)
        found: Beam = jax.block_until_ready(self._begin(self._known, past, count, newest, k_first))
        late = 1000 * (self.clock() - started) > milliseconds
        steps = 1
        for k_step in jax.random.split(k_rest, self.search.horizon - 1):
            before = self.clock()
            if 1000 * (before - started + self.slowest) > milliseconds:
                break
            found = jax.block_until_ready(self._extend(self._known, found, k_step))
            self.slowest = max(self.slowest, self.clock() - before)
            steps += 1
        tokens, score = np.asarray(found.tokens[0, :steps]), float(found.score[0])
        return InTime(tokens, score, 1000 * (self.clock() - started), late)

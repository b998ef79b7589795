"""Metrics of many updates on their way from the device to a row of metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import jax
import numpy as np
from jaxtyping import Array, Float

from legato.errors import LegatoError


class Averages:
    """Means per seed since the last row. Nothing waits for the device before `read`."""

    def __init__(self, seeds: Sequence[int], unit: Literal["step", "update"]):
        self.seeds, self.unit = seeds, unit
        self.sums: dict[str, np.ndarray] = {}  # of what was read since the last row, [seeds]
        self.count = 0
        self.unread: list[tuple[int, dict[str, Array], int]] = []

    def add(self, step: int, metrics: dict[str, Float[Array, " seeds"]], count: int = 1) -> None:
        """The sums of `count` values each, which are there by `step`."""
        self.unread.append((step, metrics, count))

    def read(self, saved: Sequence[int]) -> None:
        """Fetch what was added.

        Raises `LegatoError` for a value that is not finite: which, of which seed, and the newest checkpoint `saved`.
        """
        for step, metrics, count in self.unread:
            for name, values in jax.device_get(metrics).items():
                if not np.isfinite(values).all():
                    place = int(np.flatnonzero(~np.isfinite(values))[0])
                    kept = (
                        f"the checkpoint of {self.unit} {saved[-1]} is kept" if saved else "there was no checkpoint yet"
                    )
                    raise LegatoError(
                        f"{name} of seed {self.seeds[place]} became {values[place]} by {self.unit} {step}; {kept}"
                    )
                self.sums[name] = self.sums.get(name, np.zeros(len(self.seeds))) + values
            self.count += count
        self.unread = []

    def mean(self, name: str) -> float:
        """Of what was read since the last row, over all seeds."""
        return float(np.mean(self.sums[name]) / self.count)

    def take(self) -> list[dict[str, float]]:
        """Each seed's means of what was read since the last row. The next row begins with nothing."""
        rows = [
            {name: float(total[i] / self.count) for name, total in self.sums.items()} for i in range(len(self.seeds))
        ]
        self.sums, self.count = {}, 0
        return rows

    def state(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(count, sums) as a checkpoint keeps them."""
        return np.array(self.count), {name: total.copy() for name, total in self.sums.items()}

    def restore(self, count: np.ndarray, sums: dict[str, np.ndarray]) -> None:
        self.count, self.sums = int(count), {name: total.copy() for name, total in sums.items()}

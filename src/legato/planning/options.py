"""How planners look for a plan: their options. Imports no JAX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from legato.errors import LegatoError
from legato.options import AtLeast, Count, NonNegative, Rate, Steps, validate


@dataclass(frozen=True)
class Shooting:
    """How a plan is looked for."""

    horizon: Steps = 5
    """actions of a plan, H"""
    samples: Count = 64
    """sequences that are drawn in each iteration, proposals not counted"""
    iterations: Annotated[int, AtLeast(1, most=10_000)] = 3
    """times that the distribution is drawn from and moved"""
    elites: Count = 8
    """the best so many of them say where it moves"""
    temperature: NonNegative = 0.5
    """how much more the better of these count, per unit of J; 0: all alike (CEM)"""
    deviation: Rate = 1.0
    """of the first iteration's draws, in units of the bounds; TD-MPC2 has 2"""
    least: Rate = 0.05
    """what the deviation never falls below"""

    def __post_init__(self) -> None:
        validate(self)
        if self.elites > self.samples:
            raise LegatoError(f"{self.elites} elites cannot be chosen from {self.samples} samples")
        if self.least > self.deviation:
            raise LegatoError(f"0 < least <= deviation must hold; {self.least} and {self.deviation} were given")

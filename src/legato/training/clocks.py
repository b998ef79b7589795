"""When the policies of an algorithm are asked: while collecting, and as in training."""

from __future__ import annotations

from typing import Any, Literal

from legato.algorithms import entry
from legato.errors import LegatoError
from legato.policy import LONGEST
from legato.rollout import Clock

Every = int | Literal["policy"]
"""primitive steps per decision, or as many as the policy says"""


def policy_clock(algorithm: str, config: Any) -> Clock | None:
    """Decisions when the policies themselves say; None for policies that do not."""
    found = entry(algorithm)
    if "policy_interval" not in found.offers:
        return None
    return Clock(found.function("policy_interval")(config), by="policy")


def training_clock(algorithm: str, config: Any) -> Clock:
    """Decisions as they are made in training: when the policies say, or after a whole plan."""
    return policy_clock(algorithm, config) or Clock(entry(algorithm).load().plan_length(config))


def collecting(algorithm: str, config: Any) -> Clock:
    """Decisions while collecting: as in training, unless the algorithm says otherwise."""
    found = entry(algorithm)
    if "collect_interval" in found.offers:
        return Clock(found.function("collect_interval")(config))
    return training_clock(algorithm, config)


def clock_of(algorithm: str, config: Any, every: Every | None, delay: int = 0) -> Clock:
    """Decisions `every` so many primitive steps, when the policy says, or (None) as in training; `delay` steps late.

    Raises `LegatoError` where the policy is to say and does not, and beyond `LONGEST`.
    """
    if every is not None and every != "policy":
        if every > LONGEST:
            raise LegatoError(f"a decision for {every} steps is not made: `every` is at most {LONGEST}")
        return Clock(every, delay)
    clock = training_clock(algorithm, config)
    if every == "policy" and clock.by != "policy":
        raise LegatoError(
            f"policies of {algorithm} do not say when they decide again: let `every` be a number of steps"
        )
    return Clock(clock.every, delay, by=clock.by)

"""Sweeps of one set of policies over the clock: decisions every n steps, at random intervals, and late.

Episodes are greedy and come from the `test` stream of seeds, which neither training nor the choice of the best
checkpoint has seen; the same episodes' starts are used at every point of a sweep, so its points are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from legato.data.spec import Spec
from legato.envs import Environments
from legato.errors import LegatoError
from legato.evaluation import fas as fas_score
from legato.evaluation.fas import FASReference
from legato.evaluation.latency import Latency
from legato.evaluation.normalised import NormalisationScores
from legato.evaluation.prompts import Prompts
from legato.evaluation.statistics import Interval, bootstrap
from legato.policy import LONGEST, Policy
from legato.rollout import Clock, Episode, episodes
from legato.training import files

INTERVALS = (1, 2, 4, 8, 16, 30)  # upper limits of random decision intervals, drawn from U{1..limit}
LARGEST = 1e100  # return
PLAN_LENGTHS = (
    1,
    2,
    4,
    8,
    16,
    32,
)  # plans are asked for in these lengths, so that a sweep compiles six times at most


@dataclass(frozen=True)
class Sweep:
    """Returns along one axis of time."""

    x: tuple[int, ...]
    returns: np.ndarray  # [seeds, points, episodes], undiscounted

    @property
    def means(self) -> np.ndarray:
        """`[seeds, points]`."""
        return self.returns.mean(axis=-1)

    def at(self, x: int) -> Interval:
        """Mean return at one point, with its interval over seeds."""
        if x not in self.x:
            raise LegatoError(f"{x} was not measured; the sweep has {', '.join(map(str, self.x))}")
        return bootstrap(self.means[:, self.x.index(x)])


@dataclass(frozen=True)
class OwnIntervals:
    """What a policy earns that says itself when it decides again, and how often it does."""

    bounds: tuple[int, int]  # primitive steps between its decisions, at least and at most
    returns: np.ndarray  # [seeds, episodes], undiscounted
    decisions: np.ndarray  # [seeds, episodes]

    @property
    def mean_return(self) -> Interval:
        """With its interval over seeds."""
        return bootstrap(self.returns.mean(axis=-1))

    @property
    def decisions_per_episode(self) -> Interval:
        """With its interval over seeds."""
        return bootstrap(self.decisions.mean(axis=-1))


@dataclass(frozen=True)
class Evaluation:
    """Everything measured of one algorithm's policies, one per seed, on one environment."""

    label: str
    environment: str
    which: str  # 'last' or 'best' policy of training
    seeds: tuple[int, ...]
    trained_length: int  # primitive steps per decision in training
    step_seconds: float | None
    asl: Sweep  # over action sequence length
    intervals: Sweep | None = None  # over the upper limit of random decision intervals
    delay: Sweep | None = None  # over delay in primitive steps, deciding every `trained_length`
    reference: FASReference | None = None
    latency: Latency | None = None
    latency_single: Latency | None = field(default=None)
    prompts: Prompts | None = None  # over the return that is asked for
    levels: NormalisationScores | None = None  # of normalised scores
    steps: tuple[int, ...] | None = None  # of training (primitive steps, or updates) behind the policy of each seed
    optimum: tuple[float, ...] | None = None  # mean return of the best policy at each point of `asl`, where it is known
    own: OwnIntervals | None = None  # where the policy itself says when it decides again

    @property
    def fas_per_seed(self) -> np.ndarray | None:
        """FAS of each seed; None without reference values or on another grid than the metric's."""
        if self.reference is None or self.asl.x != fas_score.GRID:
            return None
        return fas_score.fas(self.asl.means, self.reference.max_return, self.reference.offset)

    @property
    def fas(self) -> Interval | None:
        """FAS with its interval over seeds."""
        return None if self.fas_per_seed is None else bootstrap(self.fas_per_seed)

    @property
    def fas_of_oracle(self) -> Interval | None:
        """What FAS would be if nothing were lost by deciding rarely: with the return of one step at every length.

        Where nothing is random this is the score of the same policies unrolled in a copy of the environment, which does
        then what the environment is going to do.
        """
        if self.fas_per_seed is None or self.reference is None:
            return None
        everywhere = np.repeat(self.asl.means[:, :1], len(self.asl.x), axis=1)
        return bootstrap(fas_score.fas(everywhere, self.reference.max_return, self.reference.offset))

    @property
    def as_trained(self) -> Interval | None:
        """Mean return when deciding as in training, and asked for a policy's own target where it reads one."""
        if self.own is not None:
            return self.own.mean_return
        if self.trained_length in self.asl.x:
            return self.asl.at(self.trained_length)
        return None if self.delay is None else self.delay.at(0)

    def optimum_at(self, length: int) -> float | None:
        """Mean return of the best policy that decides every so many steps; None where unknown or not measured."""
        return self.optimum[self.asl.x.index(length)] if self.optimum and length in self.asl.x else None

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, complete: `from_json` gives the same evaluation back."""
        body = asdict(self)
        for name in ("asl", "intervals", "delay", "prompts"):
            if body[name] is not None:
                body[name]["returns"] = body[name]["returns"].tolist()
        if body["own"] is not None:
            body["own"] |= {name: body["own"][name].tolist() for name in ("returns", "decisions")}
        fas = self.fas
        body["fas"] = None if fas is None else {"per_seed": self.fas_per_seed.tolist(), **asdict(fas)}  # type: ignore[union-attr]
        return {**body, "digest": files.digest(body)}

    @classmethod
    def from_json(cls, body: Any, source: str = "this") -> Evaluation:
        """The inverse of `to_json`. Raises `LegatoError`, naming the `source`, for anything else."""
        try:
            if not isinstance(body, dict):
                raise files.Unfit("it holds no named values")
            digest = body.get("digest")  # older files have none
            body = {name: value for name, value in body.items() if name != "digest"}
            found = files.instance(cls, {name: value for name, value in body.items() if name != "fas"}, "it")
            _consistent(found)
            if digest is not None and digest != files.digest(body):
                raise files.Unfit("its numbers were changed since they were measured")
            return found
        except files.Unfit as problem:
            raise LegatoError(
                f"{source} is not an evaluation that legato wrote ({problem}); move it away to evaluate anew"
            ) from problem


NAME = 500  # characters of a label, an environment with its options, or what a search is called


def _consistent(found: Evaluation) -> None:
    """Refuse numbers that do not belong together, or that cannot have been measured."""
    if not found.seeds:
        raise files.Unfit("it has no seeds")
    for name in ("label", "environment", "which"):
        if len(getattr(found, name)) > NAME:  # it is drawn and tabulated
            raise files.Unfit(f"its {name} is longer than {NAME} characters")
    swept = {"asl": found.asl, "intervals": found.intervals, "delay": found.delay}
    points = {name: (s.x, s.returns) for name, s in swept.items() if s is not None}
    if found.prompts is not None:
        points["prompts"] = found.prompts.asked, found.prompts.returns
        _within("prompts.target", found.prompts.target, -LARGEST, LARGEST)
        _within("prompts.data", found.prompts.data[0], -LARGEST, found.prompts.data[1])
        _within("prompts.data", found.prompts.data[1], found.prompts.data[0], LARGEST)
    for name, (x, returns) in points.items():
        if returns.ndim != 3 or returns.shape[:2] != (len(found.seeds), len(x)) or returns.size == 0:
            wanted = f"[{len(found.seeds)} seeds, {len(x)} points, episodes]"
            raise files.Unfit(f"{name}.returns has shape {list(returns.shape)}, expected {wanted}")
        if not all(a < b for a, b in pairwise(x)):
            raise files.Unfit(f"the points of {name} do not increase")
        least, most = (-LARGEST, LARGEST) if name == "prompts" else (0 if name == "delay" else 1, LONGEST)
        _within(f"a point of {name}", x[0], least, most)
        _within(f"a point of {name}", x[-1], least, most)
        _within(f"a return of {name}", float(abs(returns).max()), 0, LARGEST)
    if found.optimum is not None:
        if len(found.optimum) != len(found.asl.x):
            raise files.Unfit(f"optimum has {len(found.optimum)} numbers for {len(found.asl.x)} points of asl")
        for level in found.optimum:
            _within("optimum", level, -LARGEST, LARGEST)
    if found.steps is not None and len(found.steps) != len(found.seeds):
        raise files.Unfit(f"steps has {len(found.steps)} numbers for {len(found.seeds)} seeds")
    if found.own is not None:
        _consistent_intervals(found.own, len(found.seeds))
    _within("trained_length", found.trained_length, 1, LONGEST)
    if found.step_seconds is not None:
        _within("step_seconds", found.step_seconds, 1e-9, 1e9)
    if found.reference is not None:
        _within("reference.max_return", found.reference.max_return, 1 / LARGEST, LARGEST)
        _within("reference.offset", found.reference.offset, -LARGEST, LARGEST)
    if found.levels is not None:
        _within("levels.expert - levels.random", found.levels.expert - found.levels.random, 1 / LARGEST, LARGEST)
    for cost in (found.latency, found.latency_single):
        for name, value in asdict(cost).items() if cost is not None else ():
            _within(f"latency.{name}", value, 0, LARGEST)


def _consistent_intervals(own: OwnIntervals, seeds: int) -> None:
    """The same of intervals that a policy chose."""
    for name, values, low, high in (
        ("returns", own.returns, -LARGEST, LARGEST),
        ("decisions", own.decisions, 1, LARGEST),
    ):
        if values.ndim != 2 or values.shape != own.returns.shape or len(values) != seeds or values.size == 0:
            raise files.Unfit(f"own.{name} has shape {list(values.shape)}, expected [{seeds} seeds, episodes]")
        _within(f"own.{name}", float(values.min()), low, high)
        _within(f"own.{name}", float(values.max()), low, high)
    _within("own.bounds", own.bounds[0], 1, own.bounds[1])
    _within("own.bounds", own.bounds[1], own.bounds[0], LONGEST)


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise files.Unfit(f"{name} must lie between {low:g} and {high:g}; {value:g} was given")


def sweep(
    policies: Policy[Any],
    environments: Environments,
    spec: Spec,
    seeds: Sequence[int],
    x: Sequence[int],
    clock: Callable[[int], Clock],
    *,
    command: Any = (),
    prepared: Callable[[Policy[Any], Clock], Policy[Any]] = lambda policies, clock: policies,
    on_point: Callable[[int], None] = lambda done: None,
) -> Sweep:
    """Play every policy at every point of `x` with the clock that belongs to it, `prepared` for that clock.

    `policies` is stacked over seeds and `environments` holds `seeds x episodes` members. `on_point(done)` is called
    after each point.
    """
    returns = []
    for done, value in enumerate(x, start=1):
        returns.append(
            episodes(
                prepared(policies, clock(value)),
                environments,
                spec,
                clock(value),
                list(seeds),
                "test",
                command=command,
                length=_asked(clock(value)),
            )
        )
        on_point(done)
    return Sweep(tuple(x), np.stack(returns, axis=1))


def own_intervals(
    policies: Policy[Any], environments: Environments, spec: Spec, seeds: Sequence[int], clock: Clock
) -> OwnIntervals:
    """Play every policy as often as it decides itself, on the episodes of `sweep`."""
    decisions = np.zeros(environments.count)

    def count(episode: Episode) -> None:
        decisions[episode.member] = episode.decisions

    returns = episodes(policies, environments, spec, clock, list(seeds), "test", length=_asked(clock), on_episode=count)
    return OwnIntervals(clock.interval, returns, decisions.reshape(returns.shape))


def _asked(clock: Clock) -> int:
    """How long plans are asked for."""
    return next((n for n in PLAN_LENGTHS if n >= clock.plan_length), clock.plan_length)


def asl_clock(length: int) -> Clock:
    """Decide every `length` primitive steps."""
    return Clock(length)


def interval_clock(limit: int) -> Clock:
    """Decide after U{1..limit} primitive steps, drawn anew at each decision."""
    return Clock((1, limit))


def delays(every: int) -> tuple[int, ...]:
    """Delays worth measuring when deciding every so many steps: from none to a whole interval."""
    return tuple(d for d in (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32) if d <= every)

"""Hyper-parameters and settings as data: which values an option may have stands in its annotation.

    gamma: Annotated[float, Interval("[0, 1]")] = 0.99
    hidden: Size = 256

`validate` checks them all; what several options must fulfil together is checked by their dataclass itself. Imports no
JAX.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import math
import textwrap
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypeVar

from legato.errors import LegatoError, unknown

Config = TypeVar("Config")


class Rule(Protocol):
    """What one number must fulfil."""

    @property
    def range(self) -> str:
        """The same in a few characters, for help texts, where a line may break at spaces: `in [0,1)`, `≥1`."""
        ...

    def problem(self, value: float) -> str | None:
        """What is wrong with it, such as "must be positive"; None where nothing is."""
        ...


@dataclass(frozen=True)
class Interval:
    """Between two ends, which belong to it or not: `Interval("[0, 1)")`."""

    ends: str

    @property
    def range(self) -> str:
        return f"in {self.ends.replace(' ', '')}"

    def problem(self, value: float) -> str | None:
        low, high = map(float, self.ends[1:-1].split(","))
        above = value >= low if self.ends[0] == "[" else value > low
        below = value <= high if self.ends[-1] == "]" else value < high
        return None if above and below else f"must lie in {self.ends}"


COUNTED = 10**15
"""what no loop counts to, and no file's whole number passes"""


@dataclass(frozen=True)
class AtLeast:
    """Finite, and no less than this; above `most` lies what no machine can hold."""

    low: float
    most: float = math.inf
    otherwise: tuple[float, str] | None = None
    """a value below that has a meaning, and which"""

    @property
    def range(self) -> str:
        return f"≥{self.low:g}" + _or_value(self.otherwise)

    def problem(self, value: float) -> str | None:
        if self.otherwise is not None and value == self.otherwise[0]:
            return None
        most = min(self.most, COUNTED) if isinstance(value, int) else self.most
        if value > most:
            return f"must be at most {most:.0f}"
        if value >= self.low and math.isfinite(value):
            return None
        finite = " and finite" if isinstance(value, float) else ""
        return f"must be at least {self.low:g}{finite}" + _or(self.otherwise)


@dataclass(frozen=True)
class Positive:
    """Finite and above 0."""

    otherwise: tuple[float, str] | None = None
    """a value that is not and has a meaning, and which"""

    @property
    def range(self) -> str:
        return ">0" + _or_value(self.otherwise)

    def problem(self, value: float) -> str | None:
        if self.otherwise is not None and value == self.otherwise[0]:
            return None
        return None if 0 < value < math.inf else "must be positive" + _or(self.otherwise)


@dataclass(frozen=True)
class Finite:
    """Any number but infinity and NaN."""

    @property
    def range(self) -> str:
        return "finite"

    def problem(self, value: float) -> str | None:
        return None if math.isfinite(value) else "must be finite"


def _or_value(otherwise: tuple[float, str] | None) -> str:
    return "" if otherwise is None else f" or {otherwise[0]:g}"


def _or(otherwise: tuple[float, str] | None) -> str:
    return "" if otherwise is None else f", or {otherwise[0]:g} for {otherwise[1]}"


@dataclass(frozen=True)
class WholeRun:
    """Marks a number of updates that may be -1: as many as the run makes."""


# What options are called now, after what they were called once. Files that name them as they were called then are read;
# whoever types such a name, or writes it in Python, is told today's. One line for each dataclass that had it.
RENAMED = (
    ("above", "pivot_deviations"),
    ("ahead", "target_increment"),
    ("anchor", "regularisation_weight"),
    ("anchor_at", "regularise_towards"),
    ("blur", "label_smoothing_bins"),
    ("delayed", "delay_rewards"),
    ("drop", "regression_tolerance"),
    ("edge", "action_clip"),
    ("elite", "elite_fraction"),
    ("logged", "offline_steps"),
    ("logs", "offline_episodes"),
    ("memory", "decoding"),
    ("memory", "replay_gib"),
    ("mppi", "plan_temperature"),
    ("ordered", "cosine_embeddings"),
    ("prompt", "collect_target_scale"),
    ("reads", "eval_context"),
    ("recall_ends", "predict_terminations"),
    ("regret", "termination_penalty"),
    ("shortest", "min_regularisation_scale"),
    ("spread", "exploration_scale"),
    ("variation", "target_variation"),
)


def renamed(name: str, known: Collection[str]) -> str | None:
    """What an option is called now, among those that are `known`; None where it was never called otherwise."""
    if name in known:
        return None
    return next((now for old, now in RENAMED if old == name and now in known), None)


def with_present_names(values: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Values by the names that options have now. A name that is given beside its old one counts."""
    present = {renamed(name, known) or name: value for name, value in values.items()}
    return {**present, **{name: value for name, value in values.items() if name in known}}


def unknown_option(kind: str, name: str, known: Collection[str]) -> LegatoError:
    """An error for an option that there is not: what it is called now, or the nearest name."""
    if (now := renamed(name, known)) is not None:
        return LegatoError(f"`{name}` is called `{now}` now")
    return unknown(kind, name, known)


Size = Annotated[int, AtLeast(1, most=10**6)]
"""widths, batch sizes and other numbers of things"""
Layers = Annotated[int, AtLeast(1, most=1_000)]
Steps = Annotated[int, AtLeast(1, most=10**5)]
"""steps of a plan, a window or a sum of rewards"""
Heads = Annotated[int, AtLeast(1, most=10_000)]
Count = Annotated[int, AtLeast(1)]
Whole = Annotated[int, AtLeast(0)]
"""a number of updates or steps, or none"""
Annealing = Annotated[int, AtLeast(-1), WholeRun()]
"""updates over which a step size falls; 0: never, -1: the run"""
Rate = Annotated[float, Positive()]
NonNegative = Annotated[float, AtLeast(0)]
Share = Annotated[float, Interval("[0, 1]")]
PositiveShare = Annotated[float, Interval("(0, 1]")]
ShareBelowOne = Annotated[float, Interval("[0, 1)")]


@functools.cache
def hints(kind: type) -> dict[str, Any]:
    """The annotations of a dataclass's fields, with what is marked in them."""
    found = typing.get_type_hints(kind, include_extras=True)
    return {field.name: found[field.name] for field in dataclasses.fields(kind)}


@functools.cache
def rules(kind: type) -> dict[str, tuple[Rule, ...]]:
    """The rules of those fields of a dataclass that have any."""
    marked = {name: getattr(hint, "__metadata__", ()) for name, hint in hints(kind).items()}
    found = {name: tuple(mark for mark in marks if hasattr(mark, "problem")) for name, marks in marked.items()}
    return {name: of_field for name, of_field in found.items() if of_field}


def validate(config: Any) -> None:
    """Raises `LegatoError` for the first option whose value breaks a rule. Of tuples every number is checked."""
    for name, of_field in rules(type(config)).items():
        value = getattr(config, name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue  # of another type, which is found where files and arguments come in
            for rule in of_field:
                if (problem := rule.problem(number)) is not None:
                    raise LegatoError(f"{name} {problem}; {value} was given")


def for_run(config: Config, updates: int) -> Config:
    """The hyper-parameters with -1 replaced where that means as many updates as the run makes."""
    whole = [
        name
        for name, hint in hints(type(config)).items()
        if any(isinstance(mark, WholeRun) for mark in getattr(hint, "__metadata__", ()))
    ]
    changes = {name: updates for name in whole if getattr(config, name) == -1}
    return dataclasses.replace(config, **changes) if changes else config  # type: ignore[type-var]


def types(kind: type) -> dict[str, type]:
    """The plain types of a dataclass's fields."""
    return typing.get_type_hints(kind)


def require_types(known: Mapping[str, type], given: Mapping[str, Any], what: str) -> None:
    """Raises `LegatoError` for a name that is not known, with the nearest, and for a value of another type."""
    for name, value in given.items():
        if name not in known:
            raise unknown_option(f"option of a {what}", name, known)
        kind = known[name]
        if not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool) != (kind is bool):
            raise LegatoError(f"{name} of a {what} is of type {kind.__name__}; {value!r} was given")


@functools.cache
def documentation(kind: type) -> dict[str, str]:
    """The docstring below each field of a dataclass; empty where there is none."""
    found: dict[str, str] = {}
    for base in kind.__bases__:  # whose fields come first
        found |= documentation(base) if dataclasses.is_dataclass(base) else {}
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    known = {field.name for field in dataclasses.fields(kind)}
    for node, after in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id in known:
            text = after.value if isinstance(after, ast.Expr) else None
            found[node.target.id] = " ".join(str(text.value).split()) if isinstance(text, ast.Constant) else ""
    return found

"""When to refit a model: after an event instead of on a clock.

CMLO (Ji et al., "When to Update Your Model: Constrained Model-based Reinforcement Learning", NeurIPS 2022,
arXiv 2210.08349) bounds how much a new model may differ from the one before and estimates, every F steps, how far they
have come apart since the last refit:

    S = sum_{i = 1 ... tau / F} log(vol(D_t + dD_i) / vol(D_t) * e_i + beta),     refit where S >= alpha

tau steps after it. D_t are the observations at the last refit, dD_i those that have come since, vol the volume of
their convex hull along the first three principal axes, e_i the mean one-step error of the model on dD_i. Two refits lie
at least `shortest` and at most `longest` steps apart, as in the authors' code. With a ratio of 1 and a constant error e
this is (tau / F) log(e + beta) >= alpha. (The paper's sum has a term i = 0 as well, of no new observations.)

The sum is slow where errors are small: an error that rises from 0 to 0.1 is answered after 13 terms, or more, as e_i is
a mean over all steps since the last refit. The variant `cusum` is Page's cumulative sum (Biometrika 41, 1954) of how
many times larger the error of the newest F steps is than the refitted model's, e_0, was on the data:

    S <- max(0, S + log(e_i / max(e_0, 0.03)) - log 2),     refit where S >= alpha

    state = start(options, observations)                       at the first fit, which the loop decides on
    state = count_steps(state, n)                              with every turn
    state = observe_error(state, prediction_error(options, means, next_observations, unit))
    state, due = check(options, state, observations)           with every turn, or where `needs_check`
    state = restart(options, state, observations)              after a refit
    state = expect_error(state, errors)                        of the model as fitted, after either; `cusum` needs it

The state is a value: arrays of fixed shapes, in types that JAX keeps as they are. Everything is computed on the host.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Real

from legato.errors import LegatoError
from legato.models.convex_hull import FLAT, VERTICES, convex_hull, extremes
from legato.options import AtLeast, Count, Rate, validate

LARGEST = 1e30
"""numbers beyond are left out as infinity is: their volume is none that a float32 can hold"""
CHUNK = 1 << 16  # rows read at once, so that a replay is not copied as a whole
MATERIAL = 0.03
"""unit-free error below which a model counts as exact"""
SLACK = float(np.log(2.0))
"""by which a logarithm of errors' ratio may exceed 0 at every check and is no change"""
FAR = 1e9  # ranges from the centre; what lies beyond counts as there


@dataclass(frozen=True)
class TriggerOptions:
    """How the shift is estimated, and how much of it asks for a refit."""

    variant: Literal["paper", "release", "error", "cusum", "fixed"] = "paper"
    """`paper`: the hull of all observations at the last refit, to which new ones are added, so the ratio is at least 1;
    `release`: as in the authors' code, two random subsets of the replay, each along its own axes, at this check and the
    one before; `error`: a ratio of 1; `cusum`: a cumulative sum of how much larger errors have become since the last
    refit, which has no coverage; `fixed`: the clock alone, every `longest` steps"""
    scale: Literal["unit-free", "raw"] = "unit-free"
    """what errors count in: how much observations usually change, or their own units, as in the authors' code"""
    check_every: Count = 20
    """F, steps between two terms of the sum; the authors' code has 20 or 50, by task"""
    threshold: Rate = 1.2
    """alpha; the authors' code has 1.2 to 3, by task, for raw errors"""
    offset: Rate = 1.0
    """beta; 1 in the authors' code"""
    shortest: Count = 150
    """steps after a refit before which there is no other; `fixed` does not read it"""
    longest: Count = 500
    """steps after a refit at which there is another in any case"""
    axes: Annotated[int, AtLeast(1, most=3)] = 3
    """principal axes along which volumes are measured; fewer where observations have fewer numbers. They are found in
    the units that observations are given in, and what changes across them is not seen"""
    sample: Annotated[int, AtLeast(10)] = 1000
    """observations in a random subset of `release`"""

    def __post_init__(self) -> None:
        validate(self)
        if self.shortest > self.longest and self.variant != "fixed":
            raise LegatoError(f"`shortest` must be at most `longest`; {self.shortest} and {self.longest} were given")
        if self.variant == "cusum" and self.scale == "raw":
            raise LegatoError("`variant=cusum` counts unit-free errors: leave out `scale=raw`")

    @property
    def reads(self) -> Literal["new", "replay", "nothing"]:
        """What `check` is given: the observations that it has not seen yet, the whole replay, or none."""
        if self.variant == "paper":
            return "new"
        return "replay" if self.variant == "release" else "nothing"


class TriggerState(NamedTuple):
    """What has happened since the last refit. k is the smaller of `axes` and the size of an observation."""

    steps: Int[np.ndarray, ""]
    """tau, since the last refit"""
    checks: Int[np.ndarray, ""]
    """terms that the sum has"""
    refits: Int[np.ndarray, ""]
    """restarts so far"""
    seed: Int[np.ndarray, ""]
    shift: Float[np.ndarray, ""]
    """S, in nats"""
    error_sum: Float[np.ndarray, ""]
    error_count: Int[np.ndarray, ""]
    recent_sum: Float[np.ndarray, ""]
    """of the errors since the last check"""
    recent_count: Int[np.ndarray, ""]
    expected_error: Float[np.ndarray, ""]
    """e_0, of the model as it was fitted"""
    centre: Float[np.ndarray, " obs"]
    """the mean observation at the last refit"""
    basis: Float[np.ndarray, "obs k"]
    """principal axes, over the largest extent of the observations along one of them"""
    thickness: Float[np.ndarray, " k"]
    """by how much observations are moved to either side along an axis that has no extent; 0 along others"""
    vertices: Float[np.ndarray, "corners k"]
    """the hull's corners, along these axes; a corner is repeated in the places that are left"""
    log_reference: Float[np.ndarray, ""]
    """log vol(D_t); of `release` that of the check before. -inf where observations are all the same"""
    log_volume: Float[np.ndarray, ""]
    """at the last check"""


def start(options: TriggerOptions, observations: Real[np.ndarray, "rows obs"], seed: int = 0) -> TriggerState:
    """The state at the first fit, on these observations. `seed` is that of `release`'s subsets.

    Raises `LegatoError` where volumes are measured and no row is finite, and for a seed below 0 or of 2^31 and more.
    """
    if not 0 <= seed < 2**31:
        raise LegatoError(f"a seed must lie in [0, 2^31); {seed} was given")
    return _begin(options, observations, seed, 0)


def restart(options: TriggerOptions, state: TriggerState, observations: Real[np.ndarray, "rows obs"]) -> TriggerState:
    """The state after a refit, whose replay holds these observations. Raises `LegatoError` as `start` does."""
    _check_shape(state, observations)
    return _begin(options, observations, int(state.seed), int(state.refits) + 1)


def count_steps(state: TriggerState, steps: int) -> TriggerState:
    """After so many more steps in the environment."""
    return state._replace(steps=np.asarray(state.steps + steps, np.int32))


def observe_error(state: TriggerState, errors: Float[np.ndarray, "*any"] | float) -> TriggerState:
    """After the errors of these predictions, one for each transition, or one for each and each member of an ensemble.

    Their mean since the last refit is the e of the rule. Raises `LegatoError` for one that is negative or not finite.
    """
    errors = _checked(errors)
    return state._replace(
        error_sum=np.asarray(state.error_sum + errors.sum(), np.float32),
        error_count=np.asarray(state.error_count + errors.size, np.int32),
        recent_sum=np.asarray(state.recent_sum + errors.sum(), np.float32),
        recent_count=np.asarray(state.recent_count + errors.size, np.int32),
    )


def expect_error(state: TriggerState, errors: Float[np.ndarray, "*any"] | float) -> TriggerState:
    """After a fit, with the errors of the model on data that it knows: their mean is e_0. Raises as `observe_error`."""
    return state._replace(expected_error=np.asarray(_checked(errors).mean(), np.float32))


def _checked(errors: Float[np.ndarray, "*any"] | float) -> Float[np.ndarray, "*any"]:
    errors = np.asarray(errors, np.float64)
    wrong = errors[~((errors >= 0) & (errors <= LARGEST))]
    if wrong.size:
        raise LegatoError(f"a model's error must be finite and not negative; {wrong[0]} was given: its fit diverged")
    return errors


def needs_check(options: TriggerOptions, state: TriggerState) -> bool:
    """Has the next check's time come? Before it `check` adds nothing to the sum."""
    return int(state.steps) // options.check_every > int(state.checks) or needs_refit(options, state)


def check(
    options: TriggerOptions, state: TriggerState, observations: Real[np.ndarray, "rows obs"] | None = None
) -> tuple[TriggerState, bool]:
    """Add what the steps since the last check are worth to the sum, and say whether a refit is due.

    `observations` are what the variant `reads`: of `paper` those that have come since the last call, of `release` the
    whole replay; the others need none. Rows that are not finite are left out. Where several checks have been passed at
    once, the term counts as often. Raises `LegatoError` where observations are missing or of another size.
    """
    passed = int(state.steps) // options.check_every - int(state.checks)
    if options.reads != "nothing":
        if observations is None:
            raise LegatoError(f"variant='{options.variant}' needs observations at a check; none were given")
        _check_shape(state, observations)
        if options.variant == "paper":
            state = _grow(state, observations)
        elif passed > 0:
            state = _measure_anew(options, state, observations)
    if passed > 0 and options.variant == "cusum":
        now = float(state.recent_sum) / max(int(state.recent_count), 1)
        term = np.log(max(now, 1 / LARGEST) / max(float(state.expected_error), MATERIAL)) - SLACK
        state = state._replace(shift=np.asarray(max(state.shift + passed * term, 0.0), np.float32))
    elif passed > 0 and options.variant != "fixed":
        term = np.log(coverage_ratio(state) * mean_error(state) + options.offset)
        state = state._replace(shift=np.asarray(state.shift + passed * term, np.float32))
    if passed > 0:
        state = state._replace(recent_sum=np.zeros((), np.float32), recent_count=np.zeros((), np.int32))
    state = state._replace(checks=np.asarray(state.checks + max(passed, 0), np.int32))
    return state, needs_refit(options, state)


def needs_refit(options: TriggerOptions, state: TriggerState) -> bool:
    """S >= alpha and at least `shortest` steps, or `longest` steps in any case."""
    steps = int(state.steps)
    if options.variant == "fixed":
        return steps >= options.longest
    # To within rounding: a sum of float32 may end a hair below what it is in exact numbers.
    enough = float(state.shift) >= options.threshold * (1 - 1e-6)
    return steps >= options.longest or (steps >= options.shortest and enough)


def mean_error(state: TriggerState) -> float:
    """The e of the rule: the mean of all errors since the last refit; 0 before the first."""
    return float(state.error_sum) / max(int(state.error_count), 1)


def coverage_ratio(state: TriggerState) -> float:
    """By how much the hull has grown; 1 where one of its volumes is 0."""
    before, now = float(state.log_reference), float(state.log_volume)
    return float(np.exp(now - before)) if np.isfinite(before) and np.isfinite(now) else 1.0


# --- errors ---


def change_unit(
    observation: Real[np.ndarray, "rows obs"], next_observation: Real[np.ndarray, "rows obs"]
) -> Float[np.ndarray, " obs"]:
    """The root mean square of s' - s, number by number: how much observations usually change.

    It is 1 for a number that never changes, or by rounding only. Rows that are not finite are left out. Raises
    `LegatoError` where there is no other.
    """
    both = np.concatenate([observation, next_observation], axis=1)
    s, s_next = np.split(np.concatenate([both[:0].astype(np.float64), *_finite(both)]), 2, axis=1)
    if len(s) == 0:
        raise LegatoError(f"how much observations change cannot be said of {len(both)} rows, of which none is finite")
    unit, size = (np.sqrt(np.mean(x**2, axis=0)) for x in (s_next - s, s))
    return np.where(unit > FLAT * size, unit, 1.0)


def unit_free_error(
    mean_prediction: Real[np.ndarray, "*batch obs"],
    next_observation: Real[np.ndarray, "... obs"],
    unit: Float[np.ndarray, " obs"],
) -> Float[np.ndarray, "*batch"]:
    """The root mean square over an observation's numbers of (prediction - s') / unit, a pure number.

    0 is a perfect model, and about 1 one that predicts no change. `unit` is that of `change_unit`. Predictions may have
    members of an ensemble in front. They should be means: a draw from a model adds the environment's own randomness.
    """
    return _distance(mean_prediction, next_observation, unit * np.sqrt(len(unit)))


def prediction_error(
    options: TriggerOptions,
    mean_prediction: Real[np.ndarray, "*batch obs"],
    next_observation: Real[np.ndarray, "... obs"],
    unit: Float[np.ndarray, " obs"],
) -> Float[np.ndarray, "*batch"]:
    """What `scale` says: the unit-free error, or the Euclidean distance in the observations' own units."""
    if options.scale == "unit-free":
        return unit_free_error(mean_prediction, next_observation, unit)
    return _distance(mean_prediction, next_observation, np.ones(1))


def _distance(a: np.ndarray, b: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Euclidean; of numbers that are not finite, or too large to be squared, it is not finite either."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.sqrt(np.sum(((a.astype(np.float64) - b) / unit) ** 2, axis=-1))


# --- volumes ---


def _begin(options: TriggerOptions, observations: np.ndarray, seed: int, refits: int) -> TriggerState:
    size = observations.shape[1]
    k = min(options.axes, size)
    zero, none = np.zeros((), np.int32), np.zeros((), np.float32)
    state = TriggerState(
        steps=zero, checks=zero, refits=np.asarray(refits, np.int32), seed=np.asarray(seed, np.int32),
        shift=none, error_sum=none, error_count=zero, recent_sum=none, recent_count=zero, expected_error=none,
        centre=np.zeros(size, np.float32), basis=np.zeros((size, k), np.float32), thickness=np.zeros(k, np.float32),
        vertices=np.zeros((VERTICES, k), np.float32), log_reference=none, log_volume=none,
    )  # fmt: skip
    if options.reads == "nothing":
        return state
    if options.variant == "release":
        observations = _draw(options, state, observations)
    state = _with_axes(state, observations)
    return state._replace(log_reference=state.log_volume)


def _with_axes(state: TriggerState, observations: np.ndarray) -> TriggerState:
    """Principal axes of these observations, and their hull along them. Raises `LegatoError` where no row is finite."""
    count = sum(len(rows) for rows in _finite(observations))
    if count == 0:
        raise LegatoError(f"no row of {len(observations)} observations is finite: there is no coverage to measure")
    centre = np.asarray(sum(rows.sum(axis=0) for rows in _finite(observations))) / count
    moments = sum((rows - centre).T @ (rows - centre) for rows in _finite(observations))
    k = len(state.thickness)
    axes = np.linalg.eigh(np.asarray(moments))[1][:, ::-1][:, :k]  # by falling variance
    along = np.concatenate([(rows - centre) @ axes for rows in _finite(observations)])
    ranges = np.ptp(along, axis=0)
    widest = ranges.max() if ranges.max() > 1 / LARGEST else 0.0
    # A constant set has nothing to be measured in, and no volume whatever comes.
    basis = axes / widest if widest else np.zeros_like(axes)
    thickness = np.where(ranges < FLAT * widest, FLAT / 2, 0.0)
    arrays = {"centre": centre, "basis": basis, "thickness": thickness}
    state = state._replace(**{name: array.astype(np.float32) for name, array in arrays.items()})
    return _with_hull(state, _project(state, observations))


def _grow(state: TriggerState, new: np.ndarray) -> TriggerState:
    """The hull with new observations added to it, along the axes that it has."""
    points = _project(state, new)
    if len(points) == 0:
        return state
    grown = _with_hull(state, np.concatenate([state.vertices, points]))
    return grown._replace(log_volume=np.asarray(np.maximum(state.log_volume, grown.log_volume)))


def _measure_anew(options: TriggerOptions, state: TriggerState, replay: np.ndarray) -> TriggerState:
    """Another random subset along axes of its own, to be compared with the one before."""
    before, drawn = state.log_volume, _draw(options, state, replay)
    if any(len(rows) for rows in _finite(drawn)):
        state = _with_axes(state, drawn)
    return state._replace(log_reference=before)


def _draw(options: TriggerOptions, state: TriggerState, replay: np.ndarray) -> np.ndarray:
    """A random subset of the rows, which derives from the seed and the numbers of refits and steps."""
    rng = np.random.default_rng([int(state.seed), int(state.refits), int(state.steps)])
    return replay[rng.choice(len(replay), min(options.sample, len(replay)), replace=False)]


def _with_hull(state: TriggerState, points: np.ndarray) -> TriggerState:
    """The hull of these points, and its volume in the observations' units."""
    volume, corners = convex_hull(points)
    if len(corners) > VERTICES:
        corners = extremes(corners)
        volume, corners = convex_hull(corners)
    vertices = np.concatenate([corners, np.repeat(corners[:1], VERTICES - len(corners), axis=0)])
    log_volume = -np.inf
    if volume > 0:
        log_volume = np.log(volume) - len(state.thickness) * np.log(np.linalg.norm(state.basis[:, 0]))
    return state._replace(vertices=vertices, log_volume=np.asarray(log_volume, np.float32))


def _project(state: TriggerState, observations: np.ndarray) -> np.ndarray:
    """Along the axes, `[points, k]`, in float32, in which corners are kept.

    An axis along which the set had no extent when the axes were found is given a little: every point stands there
    twice, moved to either side. So the hull of a flat set is a thin plate, and the ratio of two that of their areas.
    """
    centre, basis = state.centre.astype(np.float64), state.basis.astype(np.float64)
    parts = [np.clip((rows - centre) @ basis, -FAR, FAR).astype(np.float32) for rows in _finite(observations)]
    points = np.concatenate([np.zeros((0, basis.shape[1]), np.float32), *parts])
    for axis in np.flatnonzero(state.thickness):
        move = np.zeros_like(state.thickness)
        move[axis] = state.thickness[axis]
        points = np.concatenate([points - move, points + move])
    return points


def _finite(observations: np.ndarray) -> Iterator[np.ndarray]:
    """The rows whose numbers are finite and no larger than `LARGEST`, some at a time, in float64."""
    for first in range(0, len(observations), CHUNK):
        rows = observations[first : first + CHUNK].astype(np.float64)
        yield rows[(np.abs(rows) <= LARGEST).all(axis=1)]


def _check_shape(state: TriggerState, observations: np.ndarray) -> None:
    if observations.ndim != 2 or observations.shape[1] != len(state.centre):
        raise LegatoError(
            f"observations of shape {observations.shape} do not fit a trigger of rows of {len(state.centre)} numbers"
        )

"""A run's policies, measured: at every decision frequency, at random intervals, late, and asked for several returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from legato.algorithms import algorithm as algorithm_module
from legato.algorithms import entry
from legato.data import dataset_statistics
from legato.envs import Env, EnvironmentConfig, make_vec
from legato.errors import LegatoError
from legato.evaluation import prompts, store, sweeps
from legato.evaluation.environment import environment_of
from legato.evaluation.fas import GRID, FASReference, family
from legato.evaluation.latency import latency
from legato.evaluation.normalised import NormalisationScores, normalisation_scores
from legato.evaluation.prompts import Prompts
from legato.evaluation.sweeps import LARGEST, Evaluation, Sweep
from legato.loading import describe_search, load
from legato.policy import Policy, guard_computation
from legato.rollout import Clock, stack
from legato.training.clocks import policy_clock
from legato.training.progress import Progress
from legato.training.run import Run, Which


@guard_computation
def evaluate(
    run: Run | str | Path,
    *,
    which: Which = "last",
    episodes: int = 10,
    max_return: float | None = None,
    offset: float = 0.0,
    clocks: bool = True,
    sweep: bool = True,
    targets: Sequence[float] | None = None,
    env: Env | EnvironmentConfig | None = None,
    env_options: Mapping[str, Any] | None = None,
    max_episode_steps: int | None = None,
    critic: str | Path | None = None,
    search: Mapping[str, Any] | None = None,
    predict_delay: bool = False,
    quiet: bool = False,
) -> Evaluation:
    """Measure a run's policies over the 16 action sequence lengths, random intervals and delays, and time a decision.

    The result is also kept in the run's `evaluation.json`, with figures. FAS needs reference values: known for the
    environments of Patel & Siegelmann (2025), otherwise given as `max_return` (and `offset`), which are kept.
    `clocks=False` leaves random intervals and delays out.

    Policies that say themselves when they decide again are also played so, and their decisions counted (`own`).

    Policies that read a target return are also asked for `targets`, by default for deciles of their data's returns and
    for their own target, which is what everything else asks for. `sweep=False` measures only that; sweeps of the very
    same policies that were kept before stay. `env` names the environment where the run has none, or another one;
    `env_options` and `max_episode_steps` replace the run's (see `train`).

    With a `critic` or another `search` (see `load`) the result is kept beside the others: `last+q=<the critic's
    folder>`, `last+beams=32`. So is what is found where plans that take effect late begin where the policy's model
    predicts to be by then (`predict_delay`), `last+predict_delay`.
    """
    run = run if isinstance(run, Run) else Run(run)
    if episodes < 1:
        raise LegatoError(f"an evaluation needs at least one episode; {episodes} was given")
    if max_return is not None and not max_return > 0:
        raise LegatoError(f"max_return must be positive; {max_return} was given")
    if max_return is not None and not 1 / LARGEST <= max_return <= LARGEST:
        raise LegatoError(f"max_return must lie between {1 / LARGEST:g} and {LARGEST:g}; {max_return} was given")
    if not abs(offset) <= LARGEST:
        raise LegatoError(f"offset must be finite, at most {LARGEST:g}; {offset} was given")
    if not run.conditioned and (targets or not sweep):
        left_out = "targets" if targets else "no-sweep (in Python sweep=False)"
        raise LegatoError(f"the policies of '{run.place}' ({run.label}) read no target return: leave out {left_out}")
    store.read_entries(run)  # what could not be added to in the end is refused now
    loaded = [load(run.path, seed, which, critic=critic, search=search) for seed in run.seeds]
    if predict_delay and loaded[0].policy.with_delay(1, 2) is None:
        plans = "planner" in entry(run.algorithm).play
        instead = ", or plan in the run's model with the search planner=unrolled" if plans else ""
        told = f"the policies of '{run.place}' ({run.label}) act without a model"
        raise LegatoError(f"{told}: leave out `predict_delay`{instead}")
    options = [*describe_search(None, search), *(["predict_delay"] if predict_delay else [])]
    different = [*describe_search(critic, None), *options]
    kept_as = "+".join([which, *([f"q={Path(critic).resolve().name}"] if critic is not None else []), *options])
    environment = environment_of(run, env, env_options, max_episode_steps)
    label = environment.label
    scale = store.known_scale(run, label, kept_as) if max_return is None else FASReference(max_return, offset)
    policies = stack([player.policy for player in loaded])
    length = algorithm_module(run.algorithm).plan_length(run.config)
    statistics = prompts.statistics_of(loaded[0].policy) if run.conditioned else None
    asked = () if statistics is None else prompts.to_ask(statistics, targets)
    if statistics is not None:
        # What a fine-tuning came to ask for itself needs no warning.
        strange = [t for t in asked if run.method is None or t != float(statistics.target)]
        dataset_statistics.warn_of_targets(strange, *prompts.supported_returns(statistics))
    axes, by_policy = _axes(length, clocks=clocks, sweep=sweep), policy_clock(run.algorithm, run.config)
    played = make_vec(environment, len(loaded) * episodes)
    answers = own = None
    total = len(asked) + sum(len(x) for x, _ in axes.values()) + (by_policy is not None)
    with Progress(f"{run.label} in its environment", total, quiet=quiet, unit="point") as progress:
        if statistics is not None:
            returns = prompts.sweep(policies, played, run.spec, run.seeds, asked, Clock(length), on_point=progress.step)
            answers = Prompts(asked, returns, float(statistics.target), prompts.supported_returns(statistics))
        prepared = _predicting if predict_delay else lambda policies, clock: policies
        found = _sweep(policies, played, run, axes, prepared, lambda done: progress.step(len(asked) + done))
        if by_policy is not None:
            own = sweeps.own_intervals(policies, played, run.spec, run.seeds, by_policy)
            progress.step(total)
    result = Evaluation(
        label=f"{run.label} (+{', '.join(different)})" if different else run.label,
        environment=label,
        which=kept_as,
        seeds=tuple(run.seeds),
        trained_length=length,
        step_seconds=played.step_seconds,
        reference=scale,
        latency=latency(loaded[0], length),
        latency_single=latency(loaded[0], 1),
        prompts=answers,
        levels=_levels(run, label),
        steps=store.trained_steps([player.card for player in loaded]),
        optimum=played.known_returns(axes["asl"][0]),
        own=own,
        **found,
    )
    played.close()
    if not sweep:
        result = store.with_kept_sweeps(run, result)
    store.keep(run, result)
    return result


Axes = dict[str, tuple[Sequence[int], Callable[[int], Clock]]]
"""what is swept, by the name of its part of an evaluation: its points, and the clock at each"""


def _axes(length: int, *, clocks: bool, sweep: bool) -> Axes:
    found: Axes = {"asl": (GRID if sweep else (length,), sweeps.asl_clock)}
    if clocks and sweep:
        found["intervals"] = (sweeps.INTERVALS, sweeps.interval_clock)
        found["delay"] = (sweeps.delays(length), lambda delay: Clock(length, delay))
    return found


def _predicting(policies: Policy[Any], clock: Clock) -> Policy[Any]:
    found = policies.with_delay(clock.delay, clock.plan_length)
    assert found is not None
    return found


def _sweep(
    policies: Policy[Any],
    played: Any,
    run: Run,
    axes: Axes,
    prepared: Callable[[Policy[Any], Clock], Policy[Any]],
    on_point: Callable[[int], None],
) -> dict[str, Sweep]:
    """One axis after another; `on_point(done)` counts the points of all."""
    found, before = {}, 0
    for name, (x, clock) in axes.items():
        found[name] = sweeps.sweep(
            policies,
            played,
            run.spec,
            run.seeds,
            x,
            clock,
            prepared=prepared,
            on_point=lambda done, before=before: on_point(before + done),
        )
        before += len(x)
    return found


def _levels(run: Run, env: str) -> NormalisationScores | None:
    """Of normalised scores; those of the data hold in the environment that they belong to."""
    elsewhere = run.environment is not None and family(run.environment) != family(env)
    return normalisation_scores(env, None if elsewhere else (run.data or {}).get("reference"))

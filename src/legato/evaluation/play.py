"""Greedy test episodes of a run's policy, one at a time: filmed, or on the way to goals and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from legato.data import dataset_statistics
from legato.envs import Env, EnvironmentConfig, SpaceTime, make
from legato.errors import LegatoError
from legato.evaluation import prompts
from legato.evaluation.environment import environment_of
from legato.evaluation.episodes import PlayedEpisode, play_episode
from legato.evaluation.goals import GoalEpisode, floor, play_goal_episode
from legato.evaluation.video import FORMATS
from legato.loading import describe_search, load
from legato.policy import guard_computation
from legato.training.clocks import Every, clock_of
from legato.training.policy_file import LoadedPolicy
from legato.training.run import Run, Which


@dataclass(frozen=True)
class PlayReport:
    """What came of `play`."""

    label: str
    """of the policy: `SRL-8`"""
    environment: str
    """where it was played, with what is different in it: `Pendulum-v1 (g=5.0)`"""
    episodes: tuple[PlayedEpisode, ...] | tuple[GoalEpisode, ...]
    """one after another; on the way to a goal each has its places too, its goal and whether it arrived"""
    target: float | None = None
    """the return that the policy was asked for, where it reads one"""
    out: Path | None = None
    """the film or drawing"""

    @property
    def mean_return(self) -> float:
        """Undiscounted, the mean over the episodes."""
        return float(np.mean([episode.episode_return for episode in self.episodes]))

    @property
    def steps(self) -> int:
        """Primitive steps of all episodes."""
        return sum(episode.steps for episode in self.episodes)

    @property
    def decisions(self) -> int:
        """Decisions in all episodes."""
        return sum(episode.decisions for episode in self.episodes)


@guard_computation
def play(
    run: Run | str | Path,
    out: str | Path | None = None,
    *,
    every: Every | None = None,
    delay: int = 0,
    seed: int | None = None,
    which: Which = "last",
    episode: int = 0,
    episodes: int = 1,
    env: Env | None = None,
    env_options: Mapping[str, Any] | None = None,
    max_episode_steps: int | None = None,
    target: float | None = None,
    critic: str | Path | None = None,
    search: Mapping[str, Any] | None = None,
    start: Sequence[float] | None = None,
    goal: Sequence[float] | None = None,
) -> PlayReport:
    """Play one greedy test episode of a run's policy, film it to `out`, and say how it went.

    It is the test episode of this number, `episode`, of the policy of `seed`, by default the run's first. The policy
    decides every `every` primitive steps, or with "policy" when it says, by default as in training, and each decision
    takes effect `delay` steps later. It is asked for a `target` return, by default one that its data supports, if it
    reads any. `env`, `env_options` and `max_episode_steps` replace the run's (see `train`), `critic` and `search` how
    it looks for its plans (see `load`).

    A policy that is told goals is told the environment's, or this `goal`, of the shape of an observation, `[obs]`; its
    episode may begin at a `start`. Then so many `episodes` are played, and `out` is not a film (.gif, .mp4) but a
    drawing of their paths (.png, .svg, .pdf). An environment that has a `picture` of its episode, a
    `legato.envs.SpaceTime`, is filmed or drawn.

        report = legato.play("runs/srl-8-Pendulum-v1-0-1", every=16)
        print(report.mean_return, report.steps, report.decisions)

    Raises `LegatoError` for what does not fit the policy or the environment, and where `out` exists.
    """
    path = run.path if isinstance(run, Run) else run
    run = run if isinstance(run, Run) else Run(run)
    out = None if out is None else Path(out)
    policy = load(path, seed, which, critic=critic, search=search)
    different = describe_search(critic, search)
    label = f"{run.label} (+{', '.join(different)})" if different else run.label
    clock = clock_of(run.algorithm, run.config, every, delay)
    seed = run.known_seed(seed)
    if target is not None and not run.conditioned:
        raise LegatoError(f"the policies of '{run.place}' ({run.label}) read no target return: leave out target")
    if goal is not None and not run.goals:
        raise LegatoError(f"the policies of '{run.place}' ({run.label}) are told no goal: leave out goal")
    asked = _target(policy, target) if run.conditioned else None
    environment = environment_of(run, env, env_options, max_episode_steps)
    command = () if asked is None else asked
    drawing = out is not None and out.suffix not in FORMATS
    if out is not None and drawing:
        _check_drawing(out)
    pictured = drawing and not run.goals and start is None and episodes == 1 and has_picture(environment)
    if not pictured and (run.goals or start is not None or drawing or episodes != 1):
        if out is not None and not drawing:
            raise LegatoError(f"journeys to a goal are drawn, not filmed: `out={out.with_suffix('.png')}`")
        if episodes < 1:
            raise LegatoError(f"at least one episode is played; {episodes} was given")
        if start is not None and goal is not None and episodes > 1:
            raise LegatoError("from one start to one goal all episodes are the same: leave out episodes")
        plan = None if out is None else floor(environment)
        options = {"start": start, "goal": goal, "command": None if run.goals else command}
        numbers = range(episode, episode + episodes)
        found = tuple(
            play_goal_episode(policy.policy, environment, run.spec, clock, seed, n, **options) for n in numbers
        )
        if out is not None and plan is not None:
            from legato.evaluation.figures import floor_plans

            floor_plans.paths(found, plan, out, title=f"{label} on {environment.label}")
        return PlayReport(label, environment.label, found, asked, out)
    pictures: list[SpaceTime] = []
    keep = (lambda made: pictures.append(made.unwrapped.picture())) if pictured else None
    film = None if pictured else out
    played = play_episode(policy.policy, environment, run.spec, clock, seed, episode, film, command, keep)
    if out is not None and pictured:
        from legato.evaluation.figures import space_time

        title = f"{label} on {environment.label}"
        space_time.space_time(pictures[0], out, title=title, note=f"return {played.episode_return:.1f}")
    return PlayReport(label, environment.label, (played,), asked, out)


def has_picture(environment: EnvironmentConfig) -> bool:
    """Does the environment have a picture of its episode?"""
    made = make(environment)
    made.close()
    return callable(getattr(made.unwrapped, "picture", None))


def _target(policy: LoadedPolicy, target: float | None) -> float:
    """The return to ask for; a warning says where the data does not support it."""
    known = prompts.statistics_of(policy.policy)
    (asked,) = prompts.to_ask(known, [float(known.target) if target is None else target])
    dataset_statistics.warn_of_targets([asked], *prompts.supported_returns(known))
    return asked


def _check_drawing(figure: Path) -> None:
    """Raise `LegatoError` for what cannot be drawn, or would be overwritten."""
    from legato.evaluation.figures import METADATA

    if figure.suffix not in METADATA:
        kinds = f"a film ends in {' or '.join(FORMATS)}, a drawing in {', '.join(METADATA)}"
        raise LegatoError(f"{kinds}; '{figure}' was given")
    if figure.exists():
        raise LegatoError(f"'{figure}' exists and is not overwritten; choose another `out`")

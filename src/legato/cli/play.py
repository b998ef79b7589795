"""`legato play`: watch one episode."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from legato.cli.options import EnvOption, parse_every, parse_search, values
from legato.cli.parsing import Positional, call
from legato.errors import plain

if TYPE_CHECKING:
    from legato.evaluation.play import PlayReport


def play(
    run: Annotated[str, Positional],
    out: Path | None = None,
    every: str | None = None,
    delay: int = 0,
    seed: int | None = None,
    which: Literal["last", "best", "start"] = "last",
    episode: int = 0,
    env: str | None = None,
    env_option: EnvOption = (),
    max_episode_steps: int | None = None,
    target: float | None = None,
    critic: str | None = None,
    search: tuple[str, ...] = (),
    start: tuple[float, ...] | None = None,
    goal: tuple[float, ...] | None = None,
    episodes: int = 1,
) -> None:
    """Play one greedy episode of a run's policy and say how it went; --out films it.

    A policy with goals is told the environment's, or --goal; it plays --episodes of
    them, and --out draws its paths.

    Args:
        run: the run folder
        out: a new film (.gif, or .mp4 with the extra `video`) or, of ways to goals and of fields in space and time, a
            drawing (.png, .svg or .pdf)
        every: primitive steps per decision, or `policy` for as many as it says; by default as in training
        delay: primitive steps until a decision takes effect
        seed: which of the run's seeds; by default the first
        which: the policy at the end of training, the one that evaluated best on the way, or what a fine-tuning began
            with
        episode: number of the test episode
        env: the environment to play in; by default the run's own
        env_option: an argument of the environment's constructor, instead of the run's; once for each
        max_episode_steps: primitive steps after which an episode is truncated; by default the run's
        target: the return to ask for; by default one that the data supports
        critic: a run of iql on the same data, by whose Q a search for return looks instead of by its own values
        search: how a policy that plans is to search instead of as it was trained to: horizon=5 beams=32; or how the
            actor is to plan in its run's model (see `legato evaluate --help`): planner=unrolled
        start: where to begin, in an environment that has goals; by default as the episode does
        goal: the observation to be reached; by default the environment's goal
        episodes: test episodes to play from --episode on, in an environment that has goals
    """
    from legato import api

    report = api.play(
        run,
        out,
        every=parse_every(every),
        delay=delay,
        seed=seed,
        which=which,
        episode=episode,
        episodes=episodes,
        env=env,
        env_options=values(env_option),
        max_episode_steps=max_episode_steps,
        target=target,
        critic=critic,
        search=parse_search(run, search),
        start=start,
        goal=goal,
    )
    for line in lines(report):
        print(plain(line))


def lines(report: PlayReport) -> list[str]:
    """What is printed: how each episode went, how many arrived of several on the way to goals, and where it is seen."""
    from legato.evaluation.goals import GoalEpisode

    asked = "" if report.target is None else f" of {report.target:.1f} asked for"
    found, arrived = [], 0
    for episode in report.episodes:
        if isinstance(episode, GoalEpisode):
            arrived += episode.arrived
            start, goal = (f"({', '.join(f'{x:.3g}' for x in place)})" for place in (episode.places[0], episode.goal))
            how = f"from {start} to {goal}, {'arrives' if episode.arrived else 'does not arrive'} in"
        else:
            how = f"return {episode.episode_return:.1f}{asked} in"
        text = f"{how} {episode.steps} steps with {episode.decisions} decisions"
        found.append(f"{report.label} on {report.environment}: {text}")
    if len(report.episodes) > 1:
        found.append(f"{arrived} of {len(report.episodes)} arrive")
    return found if report.out is None else [*found, str(report.out)]


def run(args: list[str]) -> None:
    call(play, args, "legato play")

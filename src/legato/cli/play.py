"""`legato play`: watch one episode."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from legato.cli.evaluate import assigned
from legato.cli.options import EnvOption, values
from legato.errors import plain

if TYPE_CHECKING:
    from legato.envs import World
    from legato.rollout import Clock
    from legato.training.policy_file import LoadedPolicy
    from legato.training.run import Run


def play(
    run: Annotated[str, tyro.conf.Positional],
    out: Path | None = None,
    every: int | None = None,
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
    them, and --out draws its ways.

    Args:
        run: the run folder
        out: a new film (.gif, or .mp4 with the extra `video`) or, of ways to goals, a drawing (.png, .svg or .pdf)
        every: primitive steps per decision; by default as in training
        delay: primitive steps until a decision takes effect
        seed: which of the run's seeds; by default the first
        which: the policy at the end of training, or the one that evaluated best on the way
        episode: number of the test episode
        env: the environment to play in; by default where the run's policies belong
        env_option: an argument of the environment's constructor, instead of the run's; once for each
        max_episode_steps: primitive steps after which an episode is truncated; by default the run's
        target: the return to ask for; by default one that the data supports
        critic: a run of iql on the same data, by whose Q a search for return looks instead of by its own values
        search: how a policy that plans is to search instead of as it was trained to: horizon=5 beams=32
        start: where to begin, in an environment that has goals; by default as the episode does
        goal: the observation to be reached; by default the environment's goal
        episodes: test episodes to play from --episode on, in an environment that has goals
    """
    from legato import api
    from legato.algorithms import algorithm
    from legato.data.facts import warn
    from legato.errors import LegatoError
    from legato.evaluation import prompts
    from legato.evaluation import video as films
    from legato.rollout import Clock
    from legato.training.run import Run

    found = Run(run)
    policy = api.load(run, seed, which, critic=critic, search=assigned(run, search))
    clock = Clock(every if every is not None else algorithm(found.algorithm).plan_length(found.config), delay)
    seed = found.seeds[0] if seed is None else seed
    if target is not None and not found.conditioned:
        raise LegatoError(f"the policies of '{run}' ({found.label}) read no target return: leave out target")
    if goal is not None and not found.goals:
        raise LegatoError(f"the policies of '{run}' ({found.label}) are told no goal: leave out goal")
    asked = None
    if found.conditioned:
        known = prompts.facts(policy.policy)
        (asked,) = prompts.to_ask(known, [float(known.target) if target is None else target])
        warn([asked], *prompts.supported(known))
    world = api.world_of(found, env, values(env_option), max_episode_steps)
    command = () if asked is None else asked
    drawing = out is not None and out.suffix not in films.FORMATS
    if found.goals or start is not None or drawing or episodes != 1:
        if out is not None and not drawing:
            raise LegatoError(f"journeys to a goal are drawn, not filmed: --out {out.with_suffix('.png')}")
        if episodes < 1:
            raise LegatoError(f"at least one episode is played; {episodes} was given")
        if start is not None and goal is not None and episodes > 1:
            raise LegatoError("from one start to one goal all episodes are the same: leave out episodes")
        told = {"start": start, "goal": goal, "command": None if found.goals else command}
        _travel(found, policy, world, clock, seed, range(episode, episode + episodes), told, out)
        return
    ret, steps, decisions = films.play(policy.policy, world, found.spec, clock, seed, episode, out, command)
    wanted = "" if asked is None else f" of {asked:.1f} asked for"
    how = f"return {ret:.1f}{wanted} in {steps} steps with {decisions} decisions"
    print(plain(f"{found.label} on {world.label}: {how}"))
    if out is not None:
        print(plain(out))


def _travel(
    found: Run,
    policy: LoadedPolicy,
    world: World,
    clock: Clock,
    seed: int,
    episodes: range,
    told: dict[str, Any],
    figure: Path | None,
) -> None:
    """Play journeys, say how they went, and draw them."""
    from legato.errors import LegatoError
    from legato.evaluation.figures import METADATA, floor_plans
    from legato.evaluation.paths import floor, journey
    from legato.evaluation.video import FORMATS

    plan = None
    if figure is not None:
        if figure.suffix not in METADATA:
            kinds = f"a film ends in {' or '.join(FORMATS)}, a drawing in {', '.join(METADATA)}"
            raise LegatoError(f"{kinds}; '{figure}' was given")
        if figure.exists():
            raise LegatoError(f"'{figure}' exists and is not overwritten; choose another --out")
        plan = floor(world)
    went = [journey(policy.policy, world, found.spec, clock, seed, number, **told) for number in episodes]
    for way in went:
        a, b = (f"({', '.join(f'{x:.3g}' for x in place)})" for place in (way.places[0], way.goal))
        how = "arrives" if way.arrived else "does not arrive"
        went_on = f"{way.steps} steps with {way.decisions} decisions"
        print(plain(f"{found.label} on {world.label}: from {a} to {b}, {how} in {went_on}"))
    if len(went) > 1:
        print(f"{sum(way.arrived for way in went)} of {len(went)} arrive")
    if figure is not None and plan is not None:
        print(plain(floor_plans.paths(went, plan, figure, title=f"{found.label} on {world.label}")))


def run(args: list[str]) -> None:
    tyro.cli(play, args=args, prog="legato play")

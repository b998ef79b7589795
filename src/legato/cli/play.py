"""`legato play`: watch one episode."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro


def play(
    run: Annotated[str, tyro.conf.Positional],
    video: Path | None = None,
    every: int | None = None,
    delay: int = 0,
    seed: int | None = None,
    which: Literal["last", "best"] = "last",
    episode: int = 0,
    env: str | None = None,
    target: float | None = None,
    critic: str | None = None,
) -> None:
    """Play one greedy episode of a run's policy and say how it went; film it with --video.

    Args:
        run: the run folder
        video: a film to write (.gif, or .mp4 with the extra `video`); an existing file is not overwritten
        every: primitive steps per decision; by default as in training
        delay: primitive steps until a decision takes effect
        seed: which of the run's seeds; by default the first
        which: the policy at the end of training, or the one that evaluated best on the way
        episode: number of the test episode
        env: the environment to play in; by default where the run's policies belong
        target: the return to ask for; by default one that the data supports
        critic: a run of iql on the same data, by whose Q a search for return looks instead of by its own values
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
    policy = api.load(run, seed, which, critic=critic)
    clock = Clock(every if every is not None else algorithm(found.algorithm).plan_length(found.config), delay)
    seed = found.seeds[0] if seed is None else seed
    if target is not None and not found.conditioned:
        raise LegatoError(f"the policies of '{run}' ({found.label}) read no target return: leave out target")
    asked = None
    if found.conditioned:
        known = prompts.facts(policy.policy)
        (asked,) = prompts.to_ask(known, [float(known.target) if target is None else target])
        warn([asked], *prompts.supported(known))
    env = api.world_of(found, env)
    command = () if asked is None else asked
    ret, steps, decisions = films.play(policy.policy, env, found.spec, clock, seed, episode, video, command)
    wanted = "" if asked is None else f" of {asked:.1f} asked for"
    print(f"{found.label} on {env}: return {ret:.1f}{wanted} in {steps} steps with {decisions} decisions")
    if video is not None:
        print(video)


def run(args: list[str]) -> None:
    tyro.cli(play, args=args, prog="legato play")

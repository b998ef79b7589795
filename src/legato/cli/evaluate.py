"""`legato evaluate`: one run at every decision frequency."""

from __future__ import annotations

from typing import Annotated, Literal

from legato.cli.options import EnvOption, parse_search, values
from legato.cli.parsing import Positional, call
from legato.errors import plain


def evaluate(
    run: Annotated[str, Positional],
    which: Literal["last", "best", "start"] = "last",
    episodes: int = 10,
    max_return: float | None = None,
    offset: float = 0.0,
    clocks: bool = True,
    sweep: bool = True,
    targets: tuple[float, ...] = (),
    dataset: str | None = None,
    env: str | None = None,
    env_option: EnvOption = (),
    max_episode_steps: int | None = None,
    critic: str | None = None,
    search: tuple[str, ...] = (),
    predict_delay: bool = False,
    quiet: bool = False,
) -> None:
    """Measure a run over 16 action sequence lengths, random intervals and delays; print its table, keep the figures.

    A policy that reads a target return is also asked for several.

    Args:
        run: the run folder
        which: the policy at the end of training, the one that evaluated best on the way, or what a fine-tuning began
            with
        episodes: greedy test episodes per seed and point
        max_return: the return that counts as 1 in FAS, for an environment without published reference
        offset: added to every return before scoring, so that a useless policy scores about 0
        clocks: measure random intervals and delays too
        sweep: measure over decision frequencies; without, only what a policy achieves when asked
            for several returns
        targets: returns to ask for; by default deciles of the data's returns and the policy's own target
        dataset: instead of playing, report how far off the policies are from the actions in these
            episodes, which they did not learn from
        env: the environment to play in; by default the run's own
        env_option: an argument of the environment's constructor, instead of the run's; once for each
        max_episode_steps: primitive steps after which an episode is truncated; by default the run's
        critic: a run of iql on the same data, by whose Q a search for return looks instead of by its own values
        search: how a policy that plans is to search instead of as it was trained to: horizon=5 beams=32; or how the
            actor of an SRL, USAC, MBPO, CMLO or MOPO run is to plan in the run's model: planner=unrolled, or
            planner=mppi (or cem) samples=64
        predict_delay: where a plan takes effect late, begin it where the policy's model predicts to be by then
        quiet: show no progress
    """
    from legato import api
    from legato.evaluation import report

    if dataset is not None:
        from rich.console import Console

        from legato.evaluation import imitation

        found = api.action_errors(run, dataset, which=which)
        Console().print(imitation.table(found))
        print(f"off by {found.share} of the logged deviation")
        return
    result = api.evaluate(
        run,
        which=which,
        episodes=episodes,
        max_return=max_return,
        offset=offset,
        clocks=clocks,
        sweep=sweep,
        targets=targets,
        env=env,
        env_options=values(env_option),
        max_episode_steps=max_episode_steps,
        critic=critic,
        search=parse_search(run, search),
        predict_delay=predict_delay,
        quiet=quiet,
    )
    report.show([result])
    print(plain(f"kept in {run}/evaluation.json and {run}/figures"))


def run(args: list[str]) -> None:
    call(evaluate, args, "legato evaluate")

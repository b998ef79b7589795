"""`legato compare`: several runs in one table and one figure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from legato.cli.options import EnvOption, next_free_path, values
from legato.cli.parsing import Positional, call
from legato.errors import plain


def compare(
    runs: Annotated[tuple[str, ...], Positional],
    which: Literal["last", "best", "start"] = "last",
    out: Path | None = None,
    env: str | None = None,
    env_option: EnvOption = (),
    max_episode_steps: int | None = None,
    searches: bool = False,
    quiet: bool = False,
) -> None:
    """Compare runs on one environment; a run that was not evaluated yet is measured first.

    Args:
        runs: run folders
        which: the policy at the end of training, the one that evaluated best on the way, or what a fine-tuning began
            with
        out: where to draw the curves (.png, .svg or .pdf), a new file; by default the first free comparison.png,
            comparison-2.png, ...
        env: the environment to play in; by default the runs' own
        env_option: an argument of the environment's constructor, instead of the runs'; once for each
        max_episode_steps: primitive steps after which an episode is truncated; by default each run's own
        searches: also the searches that `legato evaluate RUN --search` has measured of them
        quiet: show no progress
    """
    figure = next_free_path(out, "comparison.png")

    from legato import api
    from legato.evaluation import report

    found = api.compare(
        runs,
        figure,
        which=which,
        env=env,
        env_options=values(env_option),
        max_episode_steps=max_episode_steps,
        searches=searches,
        quiet=quiet,
    )
    report.show(found)
    print(plain(f"drawn in {figure}"))


def run(args: list[str]) -> None:
    call(compare, args, "legato compare")

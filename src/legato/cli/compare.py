"""`legato compare`: several runs in one table and one figure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from legato.errors import LegatoError, plain


def compare(
    runs: Annotated[tuple[str, ...], tyro.conf.Positional],
    which: Literal["last", "best", "start"] = "last",
    figure: Path = Path("comparison.png"),
    env: str | None = None,
    searches: bool = False,
    quiet: bool = False,
) -> None:
    """Compare runs on one environment; a run that was not evaluated yet is measured first.

    Args:
        runs: run folders
        which: the policy at the end of training, or the one that evaluated best on the way
        figure: where to draw the curves (.png, .svg or .pdf); an existing file is not overwritten
        env: the environment to play in; by default where the runs' policies belong
        searches: also the searches that `legato evaluate RUN --search` has measured of them
        quiet: show no progress
    """
    if not runs:
        raise LegatoError("compare needs at least one run folder")
    if figure.exists():
        raise LegatoError(f"'{figure}' exists and is not overwritten; choose another --figure")

    from legato import api
    from legato.evaluation import report

    report.show(api.compare(runs, figure, which=which, env=env, searches=searches, quiet=quiet))
    print(plain(f"drawn in {figure}"))


def run(args: list[str]) -> None:
    tyro.cli(compare, args=args, prog="legato compare")

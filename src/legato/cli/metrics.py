"""`legato metrics`: what runs measured while they were trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from legato.cli.options import next_free_path
from legato.cli.parsing import Positional, call
from legato.errors import plain


def metrics(
    runs: Annotated[tuple[str, ...], Positional],
    names: tuple[str, ...] = (),
    seed: int | None = None,
    out: Path | None = None,
) -> None:
    """Print the last values of what runs measured while they were trained, and draw
    all of them against the steps of training.

    Args:
        runs: run folders
        names: the columns of metrics.csv to show; by default all
        seed: only this one of each run's seeds; by default the mean of all and their range
        out: where to draw them (.png, .svg or .pdf), a new file; by default the first free metrics.png,
            metrics-2.png, ...
    """
    figure = next_free_path(out, "metrics.png")

    from legato import api
    from legato.evaluation.metrics import table
    from legato.evaluation.report import table_console

    found = api.metrics(runs, figure, names=names, seed=seed)
    table_console().print(table(found))
    print(plain(f"drawn in {figure}"))


def run(args: list[str]) -> None:
    call(metrics, args, "legato metrics")

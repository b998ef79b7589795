"""Evaluations as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from legato.evaluation.sweeps import Evaluation

SHOWN = (1, 4, 8, 16, 30)  # action sequence lengths in the table


def table(evaluations: Sequence[Evaluation]) -> Any:
    """A rich table: one row per evaluation, FAS, return at several action sequence lengths, cost of a decision."""
    from rich.table import Table

    first = evaluations[0]
    seeds = "seed" if len(first.seeds) == 1 else "seeds"
    episodes = first.asl.returns.shape[-1]
    result = Table(
        title=f"{first.environment} · {first.which} policy · {len(first.seeds)} {seeds} x {episodes} episodes",
        caption="R(n): mean return when deciding every n primitive steps; [95 % bootstrap interval over seeds]",
        title_style="bold",
        caption_style="dim",
    )
    result.add_column("policy", style="bold", no_wrap=True)
    result.add_column("FAS", justify="right", no_wrap=True)
    shown = [n for n in SHOWN if n in first.asl.x]
    for n in shown:
        result.add_column(f"R({n})", justify="right", no_wrap=True)
    result.add_column("decisions/s", justify="right")
    result.add_column("ms/decision", justify="right")
    best = max((e.fas.mean for e in evaluations if e.fas), default=None)
    for e in evaluations:
        fas = "unknown" if e.fas is None else _interval(e.fas.mean, e.fas.low, e.fas.high, e.fas.count, 3)
        if e.fas is not None and e.fas.mean == best and len(evaluations) > 1:
            fas = f"[bold green]{fas}[/]"
        returns = [f"{e.asl.at(n).mean:.0f}" if n in e.asl.x else "" for n in shown]
        rate = f"{1 / (e.step_seconds * e.trained_length):.3g}" if e.step_seconds else ""
        cost = f"{e.latency.p50:.2f}" if e.latency else ""
        result.add_row(e.label, fas, *returns, rate, cost)
    return result


def clocks(evaluation: Evaluation) -> Any:
    """A rich table of one evaluation's returns at random decision intervals and at delays."""
    from rich.table import Table

    result = Table(
        title=f"{evaluation.label}: other clocks",
        caption=f"delays when deciding every {evaluation.trained_length} steps; [95 % bootstrap interval over seeds]",
        title_style="bold",
        caption_style="dim",
    )
    result.add_column("clock", no_wrap=True)
    result.add_column("return", justify="right", no_wrap=True)
    for sweep, words in (
        (evaluation.intervals, "decides at random, every 1 to {} steps"),
        (evaluation.delay, "acts {} steps late"),
    ):
        for x in sweep.x if sweep else ():
            found = sweep.at(x)  # type: ignore[union-attr]
            result.add_row(words.format(x), _interval(found.mean, found.low, found.high, found.count, 0))
    return result


def _interval(mean: float, low: float, high: float, count: int, digits: int) -> str:
    text = f"{mean:.{digits}f}"
    return text if count == 1 else f"{text} \\[{low:.{digits}f}, {high:.{digits}f}]"


def show(evaluations: Sequence[Evaluation]) -> None:
    """Print the table (and of a single evaluation the other clocks), wide enough where no terminal tells a width."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    console.print(table(evaluations))
    if len(evaluations) == 1 and (evaluations[0].intervals or evaluations[0].delay):
        console.print(clocks(evaluations[0]))
    if any(e.reference is None for e in evaluations):
        console.print(f"FAS needs reference values for {evaluations[0].environment}: give --max-return and --offset")

"""Evaluations as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from legato.errors import escape_markup, quantity
from legato.evaluation.fas import GRID
from legato.evaluation.sweeps import Evaluation

SHOWN = (1, 4, 8, 16, 30)  # action sequence lengths in the table
WIDE = 112  # columns that all numbers of a scored table and a short name take, with lines between


def table(evaluations: Sequence[Evaluation], width: int = WIDE) -> Any:
    """A rich table: one row per evaluation, FAS, return at several action sequence lengths, cost of a decision.

    In less than `WIDE` columns it has no lines, and intervals stand below the numbers they belong to.
    """
    from rich import box
    from rich.table import Table

    first = evaluations[0]
    seeds = "seed" if len(first.seeds) == 1 else "seeds"
    episodes = first.asl.returns.shape[-1]
    several = "1 episode" if episodes == 1 else f"{episodes} episodes"
    caption = "R(n): mean return when deciding every n primitive steps" + _explain_interval(evaluations, "; ")
    scored = any(e.levels for e in evaluations)
    which = first.which.partition("+")[0]  # a search, which follows the plus, is in the label
    narrow = width < WIDE
    result = Table(
        title=f"{escape_markup(f'{first.environment} · {which}')} policy · {len(first.seeds)} {seeds} x {several}",
        caption=f"{caption}\n{_levels(evaluations)}, deciding as in training" if scored else caption,
        title_style="bold",
        caption_style="dim",
        box=None if narrow else box.HEAVY_HEAD,
        padding=(0, 0, 0, 1) if narrow else (0, 1),
        pad_edge=not narrow,
    )
    result.add_column("policy", style="bold", overflow="fold")  # alone may be long, so it alone wraps
    result.add_column("FAS", justify="right", no_wrap=True)
    swept = [n for n in SHOWN if n in first.asl.x]
    for n in swept:
        result.add_column(f"R({n})", justify="right", no_wrap=True)
    if scored:
        result.add_column("score", justify="right", no_wrap=True)
    result.add_column("decisions\nper s", justify="right", no_wrap=True)
    result.add_column("ms per\ndecision", justify="right", no_wrap=True)
    known = next((e for e in evaluations if e.optimum), first)
    optimum = {n: known.optimum_at(n) for n in swept}
    measured = [e.asl.at(n).mean for e in evaluations for n in swept if n in e.asl.x]
    digits = _digits([*measured, *(level for level in optimum.values() if level is not None)])
    last = evaluations[-1] if known.optimum else None  # before a line
    best = max((e.fas.mean for e in evaluations if e.fas), default=None)
    for e in evaluations:
        missing = "unknown" if e.asl.x == GRID else "not swept"
        fas = missing if e.fas is None else _interval(e.fas.mean, e.fas.low, e.fas.high, e.fas.count, 3)
        fas = fas.replace(" ", "\n", 1) if narrow and e.fas else fas
        if e.fas is not None and e.fas.mean == best and len(evaluations) > 1:
            fas = f"[bold green]{fas}[/]"
        returns = [f"{e.asl.at(n).mean:.{digits}f}" if n in e.asl.x else "" for n in swept]
        if scored:
            returns.append(f"{e.levels.score(e.as_trained.mean):.1f}" if e.levels and e.as_trained else "")
        rate = f"{1 / (e.step_seconds * e.trained_length):.3g}" if e.step_seconds else ""
        cost = f"{e.latency.p50:.2f}" if e.latency else ""
        result.add_row(escape_markup(e.label), fas, *returns, rate, cost, end_section=e is last)
    if known.optimum:
        levels = ["" if level is None else f"{level:.{digits}f}" for level in optimum.values()]
        result.add_row("known optimum", "", *levels, style="dim")
    return result


def clocks(evaluation: Evaluation) -> Any:
    """A rich table of one evaluation's returns at random decision intervals and at delays."""
    from rich.table import Table

    result = Table(
        title=f"{escape_markup(evaluation.label)}: random intervals and delays",
        caption=f"delays when deciding every {quantity(evaluation.trained_length, 'step')}"
        + _explain_interval([evaluation], "; "),
        title_style="bold",
        caption_style="dim",
    )
    result.add_column("clock", no_wrap=True)
    result.add_column("return", justify="right", no_wrap=True)
    swept = [sweep.means.ravel() for sweep in (evaluation.intervals, evaluation.delay) if sweep]
    digits = _digits(np.concatenate(swept).tolist())
    at_random = lambda n: f"decides at random intervals of 1 to {n} steps" if n > 1 else "decides at every step"  # noqa: E731
    late = lambda d: f"acts {quantity(d, 'step')} late"  # noqa: E731
    for sweep, words in ((evaluation.intervals, at_random), (evaluation.delay, late)):
        for x in sweep.x if sweep else ():
            found = sweep.at(x)  # type: ignore[union-attr]
            result.add_row(words(x), _interval(found.mean, found.low, found.high, found.count, digits))
    return result


def own_intervals(evaluations: Sequence[Evaluation]) -> Any:
    """A rich table of what policies earn that say themselves when they decide again, and of their decisions."""
    from rich.table import Table

    found = [(e.label, e.own) for e in evaluations if e.own is not None]
    measured = [value for _, own in found for value in own.returns.mean(axis=-1).ravel()]
    digits, explained = _digits(measured), _explain_interval(evaluations)
    result = Table(title="policies that say when they decide", title_style="bold", caption=explained or None)
    result.caption_style = "dim"
    result.add_column("policy", style="bold", overflow="fold")
    result.add_column("decides every", no_wrap=True)
    result.add_column("return", justify="right", no_wrap=True)
    result.add_column("decisions\nper episode", justify="right", no_wrap=True)
    for label, own in found:
        ret, count = own.mean_return, own.decisions_per_episode
        row = [escape_markup(label), f"{own.bounds[0]} to {quantity(own.bounds[1], 'step')}"]
        row += [_interval(ret.mean, ret.low, ret.high, ret.count, digits)]
        result.add_row(*row, _interval(count.mean, count.low, count.high, count.count, 1))
    return result


def answers(evaluations: Sequence[Evaluation]) -> Any:
    """A rich table of what policies achieve when they are asked for several returns."""
    from rich.table import Table

    several, scored = len(evaluations) > 1, any(e.levels for e in evaluations)
    first = evaluations[0]
    caption = _explain_interval(evaluations)
    result = Table(
        title=f"{escape_markup(first.environment if several else first.label)}: the return asked for and achieved",
        caption="; ".join(filter(None, (_levels(evaluations) if scored else "", caption))),
        title_style="bold",
        caption_style="dim",
    )
    if several:
        result.add_column("policy", style="bold", no_wrap=True)
    result.add_column("asked", justify="right", no_wrap=True)
    result.add_column("achieved", justify="right", no_wrap=True)
    if scored:
        result.add_column("score", justify="right", no_wrap=True)
    result.add_column("in the data's returns")
    for e in evaluations:
        if (found := e.prompts) is None:
            continue
        digits = _digits([*found.asked, *found.means.ravel()])
        low, high = (f"{end:.{digits}f}" for end in found.data)
        for i, asked in enumerate(found.asked):
            achieved = found.at(asked)
            row = [escape_markup(e.label) if i == 0 else ""] if several else []
            row += [f"{'(default) ' if asked == found.target else ''}{asked:.{digits}f}"]
            row += [_interval(achieved.mean, achieved.low, achieved.high, achieved.count, digits)]
            if scored:
                row += [f"{e.levels.score(achieved.mean):.1f}" if e.levels else ""]
            where = "yes" if found.supports(asked) else "[yellow]no[/]"
            result.add_row(*row, f"{where}, {low} to {high}", end_section=several and i == len(found.asked) - 1)
    return result


def _explain_interval(evaluations: Sequence[Evaluation], before: str = "") -> str:
    """What the numbers in brackets are, where there are any."""
    several = any(len(e.seeds) > 1 for e in evaluations)
    return f"{before}[95 % bootstrap interval over seeds]" if several else ""


def _levels(evaluations: Sequence[Evaluation]) -> str:
    sources = sorted({e.levels.source for e in evaluations if e.levels})
    return f"score: 0 is a random, 100 an expert policy's return ({escape_markup(', '.join(sources))})"


def _digits(values: Sequence[float]) -> int:
    """Decimals for returns of this size: none for hundreds, three for fractions; one where hundreds stand by ones."""
    sizes = [abs(value) for value in values if value]
    largest = max(sizes, default=0.0)
    if 100 <= largest < 1000 and min(sizes) < 10:
        return 1
    return next((digits for digits, size in enumerate((100, 10, 1)) if largest >= size), 3)


def _interval(mean: float, low: float, high: float, count: int, digits: int) -> str:
    text = f"{mean:.{digits}f}"
    return text if count == 1 else f"{text} \\[{low:.{digits}f}, {high:.{digits}f}]"


def table_console() -> Any:
    """Rich's console, wide enough for tables where no terminal tells a width."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=120)


def show(evaluations: Sequence[Evaluation]) -> None:
    """Print the tables. Random intervals and delays are those of a single evaluation only."""
    console = table_console()
    console.print(table(evaluations, console.width))
    if len(evaluations) == 1 and (evaluations[0].intervals or evaluations[0].delay):
        console.print(clocks(evaluations[0]))
    if any(e.own for e in evaluations):
        console.print(own_intervals(evaluations))
    if asked := [e for e in evaluations if e.prompts]:
        console.print(answers(asked))
    if any(e.reference is None and e.asl.x == GRID for e in evaluations):
        where = escape_markup(evaluations[0].environment)
        console.print(f"FAS needs reference values for {where}: evaluate it with max_return and offset")

"""`legato data`: look at logged episodes, check them, bring them from one format into another, and make some."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from legato.errors import LegatoError, escape_markup, plain, unknown

if TYPE_CHECKING:
    from legato.data.trajectories import Trajectories

Source = Annotated[str, tyro.conf.Positional]
Sources = Annotated[tuple[str, ...], tyro.conf.Positional]


def info(source: Source, clip_actions: bool = False, download: bool = False) -> None:
    """Say what a dataset holds: episodes, sizes, bounds, lengths and returns.

    Args:
        source: a .npz or .hdf5 file, an .arrays folder, or the id of a Minari dataset
        clip_actions: move actions that lie outside their bounds to them
        download: fetch a Minari dataset that is not here
    """
    from rich.console import Console
    from rich.table import Table

    from legato.data.formats import load

    data = load(source, clip_actions=clip_actions, download=download)
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in facts(data):
        table.add_row(name, escape_markup(value))
    console = Console()
    console.print(table)
    ranges = Table("", "least", "most", "mean", "deviation", "", box=None, pad_edge=False)
    for row in dimensions(data):
        ranges.add_row(*row)
    console.print()
    console.print(ranges)


def check(sources: Sources, clip_actions: bool = False) -> None:
    """Read datasets as training would, which refuses what cannot be learnt from and names the place.

    Args:
        sources: .npz or .hdf5 files, .arrays folders, or ids of Minari datasets
        clip_actions: move actions that lie outside their bounds to them
    """
    from legato.data.formats import load

    if not sources:
        raise LegatoError("check needs at least one dataset")
    for source in sources:
        data = load(source, clip_actions=clip_actions)
        rewards = "" if data.rewards is not None else ", no rewards: it can be imitated only"
        print(plain(f"{source}: {count(len(data), 'episode')}, {count(data.steps, 'step')}{rewards}"))


def convert(source: Source, target: Source, clip_actions: bool = False, download: bool = False) -> None:
    """Write a dataset in another format. The source is only read; an existing target is not overwritten.

    Args:
        source: a .npz or .hdf5 file, an .arrays folder, or the id of a Minari dataset
        target: a new .npz or .hdf5 file, .arrays folder (mapped instead of read), or Minari id such as mine/hopper-v0
        clip_actions: move actions that lie outside their bounds to them
        download: fetch a Minari dataset that is not here
    """
    from legato.data.formats import free, load

    free(target)
    _write(load(source, clip_actions=clip_actions, download=download), target)


def bring(
    source: Source,
    target: Source,
    observations: tuple[str, ...] = (),
    actions: tuple[str, ...] = (),
    reward: str | None = None,
    terminal: str | None = None,
    episode: str | None = None,
    episode_length: int | None = None,
    time: str | None = None,
    gap: str | None = None,
    low: tuple[float, ...] = (),
    high: tuple[float, ...] = (),
    choices: int | None = None,
    start: int = 0,
    missing: Literal["error", "drop", "hold"] = "error",
    environment: str | None = None,
    ends: Literal["marked", "terminated", "truncated"] = "marked",
    late_ends: bool = False,
    layout: Literal["ogbench"] | None = None,
    clip_actions: bool = False,
    download: bool = False,
) -> None:
    """Bring logs of another layout into ours, and say what was decided on the way. The source is only read.

    Tables (.csv, .tsv, .parquet) and LeRobot folders need to be told which column is what. Of files of arrays (.npz,
    .hdf5) the names of d3rlpy, Stable-Baselines3, imitation, NeoRL and robomimic are known.

    Args:
        source: a .csv, .tsv or .parquet table, LeRobot folder, .npz or .hdf5 file, .arrays folder, or Minari id
        target: a new .npz or .hdf5 file, .arrays folder (mapped instead of read), or Minari id such as mine/hopper-v0
        observations: columns of the observation, such as level flow 'temp_*'; of robomimic the parts of it
        actions: columns of the action
        reward: column of what was paid for the row's action; without one the logs can be imitated only
        terminal: column that is 1 where the row's action ended the episode by itself
        episode: column that changes where an episode begins
        episode_length: rows of an episode, where nothing marks them
        time: column of seconds, or of dates and times, that shows whether rows are missing
        gap: a row so long after the one before begins an episode: 60, 60s, 5min, 2h
        low: lower bounds of the actions, one for all or one for each
        high: upper bounds
        choices: how many discrete actions there are
        start: the number of the first of them
        missing: rows of a table with empty cells: refuse, drop, or hold the value before
        environment: Gymnasium id of the environment that the logs are of
        ends: what the ends of episodes are, where marks of arrays do not say it
        late_ends: ends are marked one row late
        layout: ogbench: 'terminals' mark rows of final states, in which nothing is done
        clip_actions: move actions that lie outside their bounds to them
        download: fetch a Minari dataset that is not here
    """
    from legato.data import importing
    from legato.data.formats import free
    from legato.data.tables import Columns
    from legato.data.tables.columns import seconds

    free(target)
    columns = Columns(
        observations=observations,
        actions=actions,
        reward=reward,
        terminal=terminal,
        episode=episode,
        episode_length=episode_length,
        time=time,
        gap=None if gap is None else seconds(gap),
        low=low,
        high=high,
        choices=choices,
        start=start,
        missing=missing,
        environment=environment,
    )
    data, said = importing.read(
        source,
        columns,
        ends=ends,
        late_ends=late_ends,
        layout=layout,
        clip_actions=clip_actions,
        download=download,
    )
    for sentence in said:
        print(plain(sentence))
    _write(data, target)


def merge(sources: Sources, out: str, clip_actions: bool = False) -> None:
    """Put all episodes of several datasets into a new one.

    Args:
        sources: .npz or .hdf5 files, .arrays folders, or ids of Minari datasets
        out: a new .npz or .hdf5 file, .arrays folder, or Minari id
        clip_actions: move actions that lie outside their bounds to them
    """
    from legato.data import sets
    from legato.data.formats import free, load

    if not sources:
        raise LegatoError("merge needs at least one dataset")
    free(out)
    _write(sets.merge([load(source, clip_actions=clip_actions) for source in sources], out), out)


def split(source: Source, out: tuple[str, str], fraction: float = 0.9, seed: int = 0) -> None:
    """Deal the episodes of a dataset to two new ones.

    Args:
        source: a .npz or .hdf5 file, an .arrays folder, or the id of a Minari dataset
        out: two new .npz or .hdf5 files, .arrays folders, or Minari ids
        fraction: how many of the episodes the first one gets
        seed: which ones
    """
    from legato.data import sets
    from legato.data.formats import free, load

    if out[0] == out[1]:
        raise LegatoError(f"'{out[0]}' cannot take both parts; name two")
    for target in out:
        free(target)
    for target, data in zip(out, sets.split(load(source), fraction, seed), strict=True):
        _write(data, target)


def make(task: Source, out: str, episodes: int = 1000, seed: int = 0) -> None:
    """Record episodes of one of legato's own tasks: random walks, random moves through rooms, or an expert's recalls.

    Args:
        task: id of the environment, such as legato/KeyToDoor-v0 ('legato list envs --match legato/' names them)
        out: a new .npz or .hdf5 file, or a new Minari id
        episodes: how many
        seed: of starts and actions; the same seed makes the same set
    """
    from legato.data.formats import free
    from legato.envs import tasks

    free(out)
    _write(tasks.generate(task, episodes, seed), out)


def _write(data: Trajectories, target: str) -> None:
    """Save, and say what was saved."""
    import legato.envs  # noqa: F401  Minari looks up the environment that a set names, which may be one of ours
    from legato.data.formats import save

    save(data, target)
    print(plain(f"{target}: {count(len(data), 'episode')}, {count(data.steps, 'step')}"))


def facts(data: Trajectories) -> list[tuple[str, str]]:
    """What `info` prints, line by line."""

    from legato.data import normaliser, trajectories
    from legato.data.facts import NEAREST, support
    from legato.evaluation.normalised import Levels

    about = data.about
    said = [
        ("dataset", about.name),
        ("environment", about.environment or "not recorded"),
        (
            "episodes",
            f"{len(data)} ({int(data.terminations.sum())} terminated, {int(data.truncations.sum())} truncated)",
        ),
        ("steps", str(data.steps)),
        ("steps per episode", _spread(data.lengths)),
        ("observation", count(data.observations.shape[1], "number")),
    ]
    if still := normaliser.constant_numbers(data.observations):
        said.append(("never change", f"of the observation, {_numbers(still)}: nothing is learnt of what they do"))
    if about.choices is not None:
        counted = f", {about.start} to {about.start + about.choices - 1}" if about.start else ""
        said.append(("action", f"one of {about.choices}{counted}"))
    else:
        low, high = sorted(set(about.low or ())), sorted(set(about.high or ()))
        bounds = f"{low[0]:g} to {high[0]:g}" if len(low) == len(high) == 1 else "bounds differ by number"
        bounds = bounds if low and high else "bounds not recorded"
        said.append(("action", f"{count(data.actions.shape[1], 'number')}, {bounds}"))
        said.append(("actions used", f"{data.actions.min():.3g} to {data.actions.max():.3g}"))
    if data.rewards is None:
        return [*said, ("rewards", "none: it can be imitated only")]
    earned = trajectories.returns(data)
    said.append(("return", _spread(earned)))
    found = support(data, data.observations[data.offsets[:-1]])
    assert found.near is not None
    best = found.near[:, 2]
    said.append(
        ("ask for", f"{found.target:.5g} by default, the mean of the best episodes that hold a tenth of the steps")
    )
    said.append(
        (
            "by start",
            f"of the {count(min(NEAREST, len(data)), 'episode')} begun nearest to a start, the best earned "
            f"{best.min():.5g} to {best.max():.5g}",
        )
    )
    if about.reference is not None:
        low, high = about.reference
        said.append(("reference returns", f"{low:.6g} (random), {high:.6g} (expert)"))
        if low < high:
            score = Levels(low, high, "the dataset").score(earned).mean()
            said.append(("normalised return", f"{score:.1f} on average"))
    return said


MOST = 60  # numbers of an observation or action that are listed


def dimensions(data: Trajectories) -> list[tuple[str, ...]]:
    """Range, mean and deviation of every number of observations and actions, and what is notable about it."""
    import numpy as np

    from legato.data.normaliser import constant_numbers

    about = data.about
    still = set(constant_numbers(data.observations))
    tables = [("observation", data.observations, {i: "constant" for i in still})]
    if about.choices is None:
        used: dict[int, str] = {}
        if about.low is not None and about.high is not None:
            halves = (np.array(about.high) - np.array(about.low)) / 2
            share = np.asarray(data.actions, np.float64).std(axis=0) / np.maximum(halves, 1e-12)
            used = {i: f"deviation {part:.1%} of half its bounds" for i, part in enumerate(share)}
        tables.append(("action", data.actions, used))
    found: list[tuple[str, ...]] = []
    for name, array, remarks in tables:
        size = array.shape[1]
        for i in range(min(size, MOST)):
            column = np.asarray(array[:, i], np.float64)
            numbers = (f"{x:.4g}" for x in (column.min(), column.max(), column.mean(), column.std()))
            found.append((f"{name} {i}", *numbers, remarks.get(i, "")))
        if size > MOST:
            found.append((f"and {size - MOST} more", "", "", "", "", ""))
    return found


def _spread(values: Any) -> str:
    import numpy as np

    least, quarter, middle, three, most = (f"{x:.5g}" for x in np.quantile(values, [0, 0.25, 0.5, 0.75, 1]))
    return f"mean {np.mean(values):.5g}, median {middle}, from {least} to {most}, half of them {quarter} to {three}"


def _numbers(which: list[int], most: int = 10) -> str:
    """`number 3`, `numbers 3 and 5`, `numbers 0, 1, ... and 20 more`."""
    said, more = [str(i) for i in which[:most]], len(which) - most
    if more > 0:
        return f"numbers {', '.join(said)} and {more} more"
    return f"number{'s' if which[1:] else ''} {' and '.join(filter(None, (', '.join(said[:-1]), said[-1])))}"


def count(n: int, thing: str) -> str:
    return f"{n} {thing}{'' if n == 1 else 's'}"


COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "info": (info, "what a dataset holds"),
    "check": (check, "whether it can be learnt from, and if not, where not"),
    "import": (
        bring,
        "read tables and others' layouts: legato data import log.csv log.npz --observations a b --actions u",
    ),
    "export": (convert, "write a dataset to a file or folder: legato data export mine/logs-v0 logs.npz"),
    "merge": (merge, "put several into one: legato data merge a.npz b.npz --out both.npz"),
    "split": (split, "deal one to two: legato data split a.npz --out train.npz test.npz"),
    "make": (make, "record a set in one of legato's tasks: legato data make legato/KeyToDoor-v0 --out keys.npz"),
}


USAGE = """usage: legato data COMMAND [options]

Logged episodes: .npz and .hdf5 files, .arrays folders of .npy files, which may be larger than memory, and Minari
datasets by their id.

commands:
{commands}

arrays of a file, one row a step:
  observations, actions            numbers, [steps, numbers]; discrete actions [steps]
  rewards                          may be missing: then it can be imitated only
  terminals or terminations        where an episode ended by itself
  timeouts or truncations          where it was cut, or 'offsets': where each episode begins, and the number of steps
  next_observations                after each step, or 'ends': after each episode's last one
and of one value or one per number of an action:
  choices, start                   how many discrete actions there are, and the number of the first of them (0)
  low, high                        bounds of continuous actions (-1 and 1 if all lie there)
  environment, reference           Gymnasium id, and the returns of a random and an expert policy

'legato data COMMAND --help' explains a command
"""


def run(args: list[str]) -> None:
    if not args or args[0] in ("-h", "--help"):
        print(USAGE.format(commands="\n".join(f"  {name:<7} {text}" for name, (_, text) in COMMANDS.items())), end="")
        return
    command, *rest = args
    if command not in COMMANDS:
        raise unknown("data command", command, COMMANDS)
    tyro.cli(COMMANDS[command][0], args=rest, prog=f"legato data {command}")

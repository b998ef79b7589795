"""`legato data`: look at logged episodes, check them, bring them from one format into another, and make some."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from legato.cli import listing, spell
from legato.cli.parsing import Positional, call
from legato.errors import escape_markup, plain, quantity, unknown

if TYPE_CHECKING:
    from legato.data.trajectories import Trajectories

Source = Annotated[str, Positional]
Sources = Annotated[tuple[str, ...], Positional]


def info(source: Source, clip_actions: bool = False, download: bool = False) -> None:
    """Say what a dataset holds: episodes, sizes, bounds, lengths and returns.

    Args:
        source: a .npz or .hdf5 file, an .arrays folder, or the id of a Minari dataset
        clip_actions: move actions that lie outside their bounds to them
        download: fetch a Minari dataset that is not here
    """
    from rich.console import Console
    from rich.table import Table

    from legato.data import report

    found = report.info(source, clip_actions=clip_actions, download=download)
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in found.summary:
        table.add_row(name, escape_markup(value))
    console = Console()
    console.print(table)
    ranges = Table("", "least", "most", "mean", "deviation", "", box=None, pad_edge=False)
    for row in found.ranges:
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

    for source in sources:
        data = load(source, clip_actions=clip_actions)
        rewards = "" if data.rewards is not None else ", no rewards: it can be imitated only"
        print(plain(f"{source}: {quantity(len(data), 'episode')}, {quantity(data.steps, 'step')}{rewards}"))


def convert(source: Source, target: Source, clip_actions: bool = False, download: bool = False) -> None:
    """Write a dataset in another format. The source is only read; an existing target is not overwritten.

    Args:
        source: a .npz or .hdf5 file, an .arrays folder, or the id of a Minari dataset
        target: a new .npz or .hdf5 file, .arrays folder (mapped instead of read), or Minari id such as mine/hopper-v0
        clip_actions: move actions that lie outside their bounds to them
        download: fetch a Minari dataset that is not here
    """
    _say(_operations().convert(source, target, clip_actions=clip_actions, download=download), target)


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
    from legato.data.tables import Columns
    from legato.data.tables.columns import seconds

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
    data, decisions = _operations().import_logs(
        source,
        target,
        columns,
        ends=ends,
        late_ends=late_ends,
        layout=layout,
        clip_actions=clip_actions,
        download=download,
    )
    for decision in decisions:
        print(plain(spell(decision)))
    _say(data, target)


def merge(sources: Sources, out: str, clip_actions: bool = False) -> None:
    """Put all episodes of several datasets into a new one.

    Args:
        sources: .npz or .hdf5 files, .arrays folders, or ids of Minari datasets
        out: a new .npz or .hdf5 file, .arrays folder, or Minari id
        clip_actions: move actions that lie outside their bounds to them
    """
    _say(_operations().merge(sources, out, clip_actions=clip_actions), out)


def split(source: Source, out: tuple[str, str], fraction: float = 0.9, seed: int = 0) -> None:
    """Deal the episodes of a dataset to two new ones.

    Args:
        source: a .npz or .hdf5 file, an .arrays folder, or the id of a Minari dataset
        out: two new .npz or .hdf5 files, .arrays folders, or Minari ids
        fraction: how many of the episodes the first one gets
        seed: which ones
    """
    for target, data in zip(out, _operations().split(source, out, fraction=fraction, seed=seed), strict=True):
        _say(data, target)


def make(task: Source, out: str, episodes: int = 1000, seed: int = 0) -> None:
    """Record episodes of one of legato's own tasks: random walks, random moves through rooms, or an expert's recalls.

    Args:
        task: id of the environment, such as legato/KeyToDoor-v0 ('legato list envs --match legato/' names them)
        out: a new .npz or .hdf5 file, or a new Minari id
        episodes: how many
        seed: of starts and actions; the same seed makes the same set
    """
    from legato.data.formats import check_writable, save
    from legato.envs import tasks

    check_writable(out)
    data = tasks.generate(task, episodes, seed)
    save(data, out)
    _say(data, out)


def _operations() -> Any:
    """What writes files from files. Minari looks up the environment that a set names, which may be one of ours."""
    import legato.envs  # noqa: F401  registers them
    from legato.data import operations

    return operations


def _say(data: Trajectories, target: str) -> None:
    """What was saved, in a line."""
    print(plain(f"{target}: {quantity(len(data), 'episode')}, {quantity(data.steps, 'step')}"))


COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "info": (info, "what a dataset holds"),
    "check": (check, "whether it can be learnt from, and if not, where not"),
    "import": (
        bring,
        "read tables and others' layouts: legato data import log.csv log.npz --observations a b --actions u",
    ),
    "export": (convert, "write a dataset to a file or folder: legato data export mine/logs-v0 logs.npz"),
    "merge": (merge, "put several into one: legato data merge a.npz b.npz --out both.npz"),
    "split": (split, "divide one into two: legato data split a.npz --out train.npz test.npz"),
    "make": (make, "record a set in one of legato's tasks: legato data make legato/KeyToDoor-v0 --out keys.npz"),
}


USAGE = """usage: legato data COMMAND [options]

Logged episodes: .npz and .hdf5 files, .arrays folders of .npy files, which may
be larger than memory, and Minari datasets by their id.

commands:
{commands}

arrays of a file, one row a step:
  observations, actions       [steps, numbers]; discrete actions [steps]
  rewards                     may be missing: then it can be imitated only
  terminals or terminations   where an episode ended by itself
  timeouts or truncations     where it was cut, or 'offsets': where each episode
                              begins, and the number of steps
  next_observations           after each step, or 'ends': after each episode's
                              last one
and of one value or one per number of an action:
  choices, start              how many discrete actions there are, and the
                              number of the first of them (0)
  low, high                   bounds of continuous actions (-1 and 1 if all lie
                              there)
  environment, reference      Gymnasium id, and the returns of a random and an
                              expert policy

'legato data COMMAND --help' explains a command
"""


def run(args: list[str]) -> None:
    if not args or args[0] in ("-h", "--help"):
        print(USAGE.format(commands=listing({name: text for name, (_, text) in COMMANDS.items()})), end="")
        return
    command, *rest = args
    if command not in COMMANDS:
        raise unknown("data command", command, COMMANDS)
    call(COMMANDS[command][0], rest, f"legato data {command}")

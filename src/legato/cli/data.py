"""`legato data`: look at logged episodes, check them, bring them from one format into another, and make some."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

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

    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in facts(load(source, clip_actions=clip_actions, download=download)):
        table.add_row(name, escape_markup(value))
    Console().print(table)


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


def merge(sources: Sources, out: str, clip_actions: bool = False) -> None:
    """Put all episodes of several datasets into a new one.

    Args:
        sources: .npz or .hdf5 files, .arrays folders, or ids of Minari datasets
        out: a new .npz or .hdf5 file, .arrays folder, or Minari id
        clip_actions: move actions that lie outside their bounds to them
    """
    from legato.data import trajectories
    from legato.data.formats import free, load

    if not sources:
        raise LegatoError("merge needs at least one dataset")
    free(out)
    _write(trajectories.merge([load(source, clip_actions=clip_actions) for source in sources], out), out)


def split(source: Source, out: tuple[str, str], fraction: float = 0.9, seed: int = 0) -> None:
    """Deal the episodes of a dataset to two new ones.

    Args:
        source: a .npz or .hdf5 file, an .arrays folder, or the id of a Minari dataset
        out: two new .npz or .hdf5 files, .arrays folders, or Minari ids
        fraction: how many of the episodes the first one gets
        seed: which ones
    """
    from legato.data import trajectories
    from legato.data.formats import free, load

    if out[0] == out[1]:
        raise LegatoError(f"'{out[0]}' cannot take both parts; name two")
    for target in out:
        free(target)
    for target, data in zip(out, trajectories.split(load(source), fraction, seed), strict=True):
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
    "import": (convert, "bring a file into Minari: legato data import logs.hdf5 mine/logs-v0"),
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

"""Datasets from files to files: converted, imported, merged and split. A source is only read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from legato.data import importing, layouts, sets
from legato.data.formats import check_writable, load, save
from legato.data.tables import Columns
from legato.data.trajectories import Trajectories
from legato.errors import LegatoError


def convert(
    source: str | Path, target: str | Path, *, clip_actions: bool = False, download: bool = False
) -> Trajectories:
    """Write a dataset in another format: to a new `.npz` or `.hdf5` file, `.arrays` folder or Minari id.

    Minari looks up the environment that a set names: of one of Legato's own tasks, import `legato.envs` first. The
    same holds for `import_logs`, `merge` and `split`. Raises `LegatoError` for what `load` and `save` refuse.
    """
    check_writable(target)
    data = load(source, clip_actions=clip_actions, download=download)
    save(data, target)
    return data


def import_logs(
    source: str | Path,
    target: str | Path,
    columns: Columns | None = None,
    *,
    ends: layouts.Cause = "marked",
    late_ends: bool = False,
    layout: Literal["ogbench"] | None = None,
    clip_actions: bool = False,
    download: bool = False,
) -> tuple[Trajectories, list[str]]:
    """Write logs of another layout as a dataset, and return what was decided on the way, in sentences.

    Tables (`.csv`, `.tsv`, `.parquet`) and LeRobot folders are read by `columns`; of files of arrays the names of
    d3rlpy, Stable-Baselines3, imitation, NeoRL and robomimic are known. `ends` makes all ends of episodes terminations
    or truncations; `late_ends` moves their marks one row up. Raises `LegatoError` for what is not understood.
    """
    check_writable(target)
    data, decisions = importing.read(
        source,
        columns,
        ends=ends,
        late_ends=late_ends,
        layout=layout,
        clip_actions=clip_actions,
        download=download,
    )
    save(data, target)
    return data, decisions


def merge(sources: Sequence[str | Path], target: str | Path, *, clip_actions: bool = False) -> Trajectories:
    """Put all episodes of several datasets into a new one. Raises `LegatoError` where they differ in shape or kind."""
    if not sources:
        raise LegatoError("merge needs at least one dataset")
    check_writable(target)
    data = sets.merge([load(source, clip_actions=clip_actions) for source in sources], str(target))
    save(data, target)
    return data


def split(
    source: str | Path, targets: tuple[str | Path, str | Path], *, fraction: float = 0.9, seed: int = 0
) -> tuple[Trajectories, Trajectories]:
    """Deal the episodes of a dataset to two new ones, `fraction` of them to the first, drawn by `seed`.

    Raises `LegatoError` where one of them would have none.
    """
    if targets[0] == targets[1]:
        raise LegatoError(f"'{targets[0]}' cannot take both parts; name two")
    for target in targets:
        check_writable(target)
    parts = sets.split(load(source), fraction, seed)
    for target, data in zip(targets, parts, strict=True):
        save(data, target)
    return parts

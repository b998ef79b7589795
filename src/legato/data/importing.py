"""Logs as others keep them, into trajectories: which reader takes which file, and what the user says beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from legato.data import arrays, formats, layouts, lerobot, storage, tables
from legato.data.tables import Columns
from legato.data.trajectories import Trajectories
from legato.errors import LegatoError, unknown


def read(
    source: str | Path,
    columns: Columns | None = None,
    *,
    ends: layouts.Cause = "marked",
    late_ends: bool = False,
    layout: Literal["ogbench"] | None = None,
    clip_actions: bool = False,
    download: bool = False,
) -> tuple[Trajectories, list[str]]:
    """The trajectories in a file or folder of any known layout, and what was decided about them in sentences.

    Tables (`.csv`, `.tsv`, `.txt`, `.parquet`) and LeRobot folders are read by `columns`; of other files these say
    bounds, choices, the environment and the length of episodes. `ends` makes all ends of episodes terminations or
    truncations; `late_ends` moves their marks one row up. Raises `LegatoError` for what is not understood.
    """
    columns, path = columns or Columns(), Path(source)
    for name, given, known in (("end", ends, get_args(layouts.Cause)), ("layout", layout, ("ogbench", None))):
        if given not in known:
            raise unknown(name, str(given), [word for word in known if word])
    if path.suffix.lower() in tables.SUFFIXES or lerobot.is_one(path):
        if late_ends or ends != "marked" or layout is not None:
            raise LegatoError("ends, late_ends and layout are of files of arrays; a table's ends are given by columns")
        reader = lerobot if lerobot.is_one(path) else tables
        return reader.read(path, replace(columns, clip_actions=clip_actions))
    given = [name for name in ("reward", "terminal", "episode", "time", "gap") if getattr(columns, name) is not None]
    given += ["actions"] if columns.actions else []
    if given:
        raise LegatoError(f"{', '.join(given)} name columns of a table, and '{source}' is none")
    given = [name for name in ("choices", "episode_length", "environment") if getattr(columns, name) is not None]
    given += [name for name in ("low", "observations") if getattr(columns, name)]
    given += [name for name, said in (("ends", ends != "marked"), ("late_ends", late_ends), ("layout", layout)) if said]
    if columns.missing != "error":
        raise LegatoError(f"missing is of tables, and '{source}' is none")
    if path.suffix not in (".npz", *formats.HDF5):
        if given:
            raise LegatoError(f"{', '.join(given)}: of .npz and .hdf5 files only, and '{source}' is none")
        return formats.load(source, clip_actions=clip_actions, download=download), []
    found = layouts.read(path, observe=columns.observations, layout=layout, length=columns.episode_length)
    if late_ends:
        found = layouts.earlier(found)
    found = layouts.with_cause(found, ends)
    stated = {"environment": columns.environment, "choices": columns.choices, "start": columns.start or None}
    size = np.shape(found.arrays["actions"])[1:] or (1,)
    for name in ("low", "high"):
        bound = getattr(columns, name)
        stated[name] = bound * size[0] if len(bound) == 1 else bound or None
    found.arrays |= {name: np.asarray(value) for name, value in stated.items() if value is not None}
    data = arrays.from_arrays(path, found.arrays, clip_actions=clip_actions)
    unused = [f"not used: {storage.some(found.unused)}"] if found.unused else []
    return data, [*found.decisions, *unused]

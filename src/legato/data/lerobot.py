"""LeRobot datasets of versions 2.1 and 3, as folders: their Parquet files of numbers, read by pyarrow alone.

A row holds what was observed, the action taken upon it, and, where there is a reward, what was paid for it. There is no
observation after the last action of an episode. Videos are not read.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from legato.data import storage
from legato.data.storage import some
from legato.data.tables.cells import concatenate
from legato.data.tables.columns import Columns, Table
from legato.data.tables.episodes import from_rows
from legato.data.tables.files import read_parquet
from legato.data.trajectories import Trajectories
from legato.errors import LegatoError

INFO = 10 << 20  # bytes of meta/info.json at most
STATES = ("observation.state", "observation.environment_state")
REWARDS = ("next.reward", "reward")
VERSIONS = ("v2.0", "v2.1", "v3.0")


def is_one(path: Path) -> bool:
    """Whether this folder is a LeRobot dataset."""
    return (path / "meta" / "info.json").is_file()


def read(path: Path, columns: Columns) -> tuple[Trajectories, list[str]]:
    """The episodes of a LeRobot folder, and what was decided.

    By default an observation is its `observation.state` (and `observation.environment_state`), an action its `action`,
    a reward its `next.reward` or `reward`. Episodes count as truncated, but for those that `columns.terminal` marks:
    `next.done` may say success, failure or the end of the recording. Raises `LegatoError` for what is no such folder.
    """
    for name in ("episode", "episode_length", "time", "gap"):
        if getattr(columns, name) is not None:
            raise LegatoError(f"{name} is of tables: '{path}' says itself where its episodes end and how fast it is")
    info = storage.json_object(path / "meta" / "info.json", INFO)
    version, features = info.get("codebase_version"), info.get("features")
    if version not in VERSIONS or not isinstance(features, dict):
        raise LegatoError(f"'{path}' is of LeRobot's version {str(version)[:20]}; read are {', '.join(VERSIONS)}")
    files = sorted((path / "data").glob("chunk-*/*.parquet"))
    if not files:
        raise LegatoError(f"'{path}' has no data/chunk-*/*.parquet")
    said = [f"LeRobot {version}, {len(files)} files"]
    columns = replace(
        columns,
        observations=columns.observations or tuple(name for name in STATES if name in features),
        actions=columns.actions or ("action",),
        reward=columns.reward or next((name for name in REWARDS if name in features), None),
        episode="episode_index",
    )
    if not columns.observations:
        raise LegatoError(f"'{path}' has no {STATES[0]}: give `observations` some of: {some(list(features))}")
    order = replace(columns, time="frame_index")  # read beside the others, and sorted by
    parts = [read_parquet(file, order) for file in files]
    if len({tuple(part.header) for part in parts}) > 1:
        raise LegatoError(f"the files of '{path}' differ in their columns")
    joined = {name: concatenate(str(path), name, [p.columns[name] for p in parts]) for name in parts[0].columns}
    for name in ("frame_index", "episode_index"):
        if joined[name].dtype.kind not in "fiu" or joined[name].ndim != 1:
            raise LegatoError(f"'{path}': {name} holds no numbers")
    by = np.lexsort((joined["frame_index"], joined["episode_index"]))
    frames, episodes = joined["frame_index"][by], joined["episode_index"][by]
    first = np.append(True, np.diff(episodes) != 0)
    if (np.diff(frames)[~first[1:]] != 1).any() or (frames[first] != 0).any():
        raise LegatoError(f"'{path}' lacks frames: frame_index does not count 0, 1, 2, ... in every episode")
    if isinstance(fps := info.get("fps"), int | float) and 0 < fps < 1e9:
        said.append(f"{fps:g} frames a second: a step is {1 / fps:g} s")
    if videos := [name for name, kind in features.items() if isinstance(kind, dict) and kind.get("dtype") == "video"]:
        said.append(f"videos are not read: {some(videos, 5)}")
    kept = {name: array[by] for name, array in joined.items()}
    data, more = from_rows(Table(str(path), parts[0].header, kept), columns)
    return data, [*said, *more]

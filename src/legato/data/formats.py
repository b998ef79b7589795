"""Trajectories in and out of files: Minari datasets, D4RL-style HDF5, npz and folders of npy. Nothing is unpickled.

What is read is only read; what is written is written to a new place, under another name until it is whole.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np

from legato.data import hdf5, layouts, npy, storage
from legato.data.arrays import NAMES, check_clipped, from_arrays, to_arrays
from legato.data.layouts.names import FOREIGN_ENDS
from legato.data.minari import load_minari, minari_folder, save_minari
from legato.data.trajectories import Trajectories
from legato.errors import LegatoError, LegatoWarning

HDF5 = (".hdf5", ".h5")
ARRAYS = ".arrays"
OVERHEAD = 1 << 16  # bytes of an HDF5 file beside its arrays, at most
IGNORED = {"infos", "metadata"}  # groups of D4RL's files
MINARI_ID = re.compile(r"^([\w-]+/)*[\w.-]+-v\d+$")


def load(
    source: str | Path, *, clip_actions: bool = False, download: bool = False, environment: str | None = None
) -> Trajectories:
    """Read trajectories from a file (`.npz`, `.hdf5`, `.h5`), a folder of arrays, or the Minari dataset of this id.

    A folder of arrays ends in `.arrays` or holds an `observations.npy`. Its arrays are mapped, not read: a set may be
    larger than memory, if observations, actions and rewards are float32 (choices int32) and flags bool; others are
    converted in memory.

    Files hold flat arrays `observations`, `actions` and, but for imitation, `rewards`; `terminals` or `terminations`
    and `timeouts` or `truncations` mark the ends of episodes, unless `offsets` do. `next_observations` give the
    observation after each step: where they contradict the next row, an episode ends. `choices` says that actions are
    discrete, and how many there are, `start` from which number they are counted (0); `low` and `high` bound others.
    `ends` are the observations after episodes' last steps, `environment` the id of the environment and `reference` the
    returns of a random and an expert policy. D4RL's unfinished tail becomes a truncated episode.

    `download` fetches a Minari dataset that is not here. Whoever names the `environment` will learn from it whether
    whole numbers are choices (`bounds.as_choices`); otherwise the file must say so.

    Raises `LegatoError` for what is not there, cannot be read or is refused by `trajectories`. A `LegatoWarning` says
    what is doubtful about the ends of episodes.
    """
    path = Path(source)
    arrays = held = None
    if path.suffix == ".npz":
        arrays, held = npy.npz(path, NAMES)
    elif path.suffix in HDF5:
        arrays, held = hdf5.read_arrays(path, NAMES)
    elif path.suffix == ARRAYS or (path / "observations.npy").is_file():
        arrays, held = npy.folder(path, NAMES)
    if arrays is not None and held is not None:
        _refuse_foreign(path, arrays, held)
        return from_arrays(path, arrays, clip_actions, environment)
    if path.exists():
        table = path.is_dir() or path.suffix in (".csv", ".tsv", ".txt", ".parquet")
        advice = f": legato data import {source} logs.npz makes one of tables and folders" if table else ""
        kinds = ", ".join((".npz", *HDF5, ARRAYS))
        raise LegatoError(f"'{source}' is none of the kinds that are read: {kinds}, or a Minari id{advice}")
    data = load_minari(str(source), clip_actions, download)
    return check_clipped(data, clip_actions, environment)


def save(data: Trajectories, target: str | Path) -> None:
    """Write trajectories to a new `.npz` or `.hdf5` file, `.arrays` folder, or Minari dataset of this id.

    Raises `LegatoError` when the target exists, and for Minari when an episode's last observation is not known.
    """
    check_writable(target)
    path = Path(target)
    if path.suffix in _WRITERS:
        arrays = to_arrays(data)
        _whole(path, lambda temporary: _WRITERS[path.suffix](temporary, arrays))
    else:
        save_minari(data, str(target))


def check_writable(target: str | Path) -> None:
    """Raises `LegatoError` when `save` could not write to this target: it exists, or is of no known kind."""
    path = Path(target)
    if path.suffix in _WRITERS:
        if path.exists():
            raise LegatoError(f"'{target}' exists and is not overwritten")
    elif MINARI_ID.match(str(target)):
        folder = minari_folder(str(target))
        if (folder / "data" / "metadata.json").exists():
            raise LegatoError(f"the Minari dataset '{target}' exists and is not overwritten")
        if folder.exists():
            raise LegatoError(f"'{folder}', where the Minari dataset '{target}' would lie, holds none: delete it")
        for above in folder.parents:
            if (above / "data" / "metadata.json").exists():
                raise LegatoError(f"'{target}' would lie within the Minari dataset in '{above}'; choose another id")
    else:
        raise LegatoError(
            f"'{target}' is no .npz or .hdf5 file, no .arrays folder and no Minari id such as 'mine/hopper/medium-v0'"
        )


def _refuse_foreign(path: Path, arrays: dict[str, np.ndarray], held: list[str]) -> None:
    """Refuse names that are not ours, and warn of arrays that are not read."""
    missing = [name for name in ("observations", "actions") if name not in arrays]
    if missing:
        raise LegatoError(
            f"'{path}' has no {' and no '.join(missing)}; it holds {storage.some(held)}: 'legato data import' reads "
            "other names"
        )
    layouts.refuse_states(path, held)
    if foreign := sorted(FOREIGN_ENDS & set(held)):
        raise LegatoError(
            f"'{path}' marks ends of episodes in '{foreign[0]}', as others do: 'legato data import {path} NEW.npz' "
            "reads it"
        )
    if unused := sorted(set(held) - set(arrays) - IGNORED):
        warnings.warn(f"'{path}': not read: {storage.some(unused)}", LegatoWarning, stacklevel=3)


def _write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:
        np.savez(file, **cast(dict[str, Any], arrays))


def _write_hdf5(path: Path, arrays: dict[str, np.ndarray]) -> None:
    import h5py

    names = {"terminations": "terminals", "truncations": "timeouts"}  # D4RL's
    if hasattr(os, "posix_fallocate"):  # a disk without this room is found out here: HDF5 crashes on one
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, sum(value.nbytes for value in arrays.values()) + OVERHEAD)
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            text = value.dtype.kind == "U"
            file.create_dataset(names.get(name, name), data=str(value) if text else value)


def _write_folder(path: Path, arrays: dict[str, np.ndarray]) -> None:
    path.mkdir()
    for name, value in arrays.items():
        np.save(path / f"{name}.npy", value, allow_pickle=False)


_WRITERS = {".npz": _write_npz, **dict.fromkeys(HDF5, _write_hdf5), ARRAYS: _write_folder}


def _whole(path: Path, write: Callable[[Path], None]) -> None:
    """Write under another name, and give the file its own when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        write(temporary)
        os.replace(temporary, path)
    except OSError as problem:
        raise LegatoError(f"'{path}' could not be written: {problem}") from None
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        with suppress(FileNotFoundError):
            temporary.unlink()

"""Trajectories in and out of files: Minari datasets, D4RL-style HDF5, npz and folders of npy. Nothing is unpickled.

What is read is only read; what is written is written to a new place, under another name until it is whole.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import uuid
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from legato.data.trajectories import About, Trajectories, from_episodes, trajectories
from legato.errors import LegatoError, LegatoWarning, unknown

HDF5 = (".hdf5", ".h5")
ARRAYS = ".arrays"
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
    whole numbers are choices (`trajectories.chosen`); otherwise the file must say so.

    Raises `LegatoError` for what is not there, cannot be read or is refused by `trajectories`. A `LegatoWarning` says
    what is doubtful about the ends of episodes.
    """
    path = Path(source)
    if path.suffix == ".npz":
        return _from_arrays(path, _read_npz(path), clip_actions, environment)
    if path.suffix in HDF5:
        return _from_arrays(path, _read_hdf5(path), clip_actions, environment)
    if path.suffix == ARRAYS or (path / "observations.npy").is_file():
        return _from_arrays(path, _read_folder(path), clip_actions, environment)
    if path.exists():
        raise LegatoError(
            f"'{source}' is none of the kinds that are read: {', '.join(('.npz', *HDF5, ARRAYS))}, or a Minari id"
        )
    return _load_minari(str(source), clip_actions, download)


def save(data: Trajectories, target: str | Path) -> None:
    """Write trajectories to a new `.npz` or `.hdf5` file, `.arrays` folder, or Minari dataset of this id.

    Raises `LegatoError` when the target exists, and for Minari when an episode's last observation is not known.
    """
    free(target)
    path = Path(target)
    if path.suffix in _WRITERS:
        arrays = _arrays(data)
        _whole(path, lambda temporary: _WRITERS[path.suffix](temporary, arrays))
    else:
        _save_minari(data, str(target))


def free(target: str | Path) -> None:
    """Raises `LegatoError` when `save` could not write to this target: it exists, or is of no known kind."""
    path = Path(target)
    if path.suffix in _WRITERS:
        if path.exists():
            raise LegatoError(f"'{target}' exists and is not overwritten")
    elif MINARI_ID.match(str(target)):
        import minari

        if str(target) in minari.list_local_datasets():
            raise LegatoError(f"the Minari dataset '{target}' exists and is not overwritten")
    else:
        raise LegatoError(
            f"'{target}' is no .npz or .hdf5 file, no .arrays folder and no Minari id such as 'mine/hopper/medium-v0'"
        )


# --- flat arrays ---


def _from_arrays(
    path: Path, arrays: dict[str, np.ndarray], clip_actions: bool, environment: str | None
) -> Trajectories:
    missing = [name for name in ("observations", "actions") if name not in arrays]
    if missing:
        raise LegatoError(
            f"'{path}' has no {' and no '.join(missing)}; it holds {', '.join(sorted(arrays)) or 'nothing'}"
        )

    def flags(*names: str) -> np.ndarray | None:
        return next((arrays[name] for name in names if name in arrays), None)

    steps = np.shape(arrays["observations"])[:1]
    offsets, terminations, truncations = (
        arrays.get("offsets"),
        flags("terminations", "terminals"),
        flags("truncations", "timeouts"),
    )
    if offsets is None and terminations is None and truncations is None:
        raise LegatoError(f"'{path}' does not say where episodes end: it has no terminals, timeouts or offsets")
    none = np.zeros(steps, bool)
    try:
        about = About(path.stem, **_about(arrays))
    except (TypeError, ValueError) as problem:
        raise LegatoError(
            f"'{path}': environment, reference, low, high, choices or start is malformed: {_line(problem)}"
        ) from None
    actions = arrays["actions"]
    if actions.dtype.kind in "iu" and environment is None and about.choices is None and about.low is None:
        raise LegatoError(
            f"'{path}' has whole numbers ({actions.dtype}) for actions: add an array 'choices', how many discrete ones "
            "there are, or 'low' and 'high' if they are continuous, or name the environment with --env"
        )
    data = trajectories(
        arrays["observations"],
        actions,
        arrays.get("rewards"),
        none if terminations is None else terminations,
        none if truncations is None else truncations,
        offsets,
        arrays.get("ends"),
        about,
        following=arrays.get("next_observations"),
        clip_actions=clip_actions,
        start=about.start,
    )
    if "ends" not in arrays:
        data = _without_next_starts(data)
    if about.environment is not None:
        import gymnasium

        warn_of_length(data, about.environment, gymnasium.registry.get(about.environment))
    return data


def _without_next_starts(data: Trajectories) -> Trajectories:
    """The same without `ends`, where these are what the next episode began with: their recorder reset before it looked.

    Only truncated episodes are asked, and only where the next one begins elsewhere than they did.
    """
    begun, cut = data.observations[data.offsets[:-1]], data.truncations[data.offsets[1:-1] - 1]
    cut &= (begun[1:] != begun[:-1]).any(axis=1)
    if data.ends is None or not cut.any() or not (data.ends[:-1][cut] == begun[1:][cut]).all():
        return data
    warnings.warn(
        f"{data.about.name}: after truncated episodes, next_observations hold the next episode's first observation: "
        "they count as unknown there",
        LegatoWarning,
        stacklevel=2,
    )
    return replace(data, ends=None)


def warn_of_length(data: Trajectories, name: str, spec: Any) -> None:
    """Warn where an episode has more steps than the environment `name` allows by its `spec`."""
    limit, longest = getattr(spec, "max_episode_steps", None), int(data.lengths.max())
    if limit is not None and longest > limit:
        warnings.warn(
            f"{data.about.name} has an episode of {longest} steps, and '{name}' ends them after {limit}: are all ends "
            "marked?",
            LegatoWarning,
            stacklevel=2,
        )


def _about(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    known: dict[str, Any] = {}
    if "environment" in arrays:
        known["environment"] = str(arrays["environment"])
    for name in ("reference", "low", "high"):
        if name in arrays:
            known[name] = tuple(float(x) for x in np.ravel(arrays[name]))
    if len(known.get("reference", (0, 0))) != 2:
        raise ValueError("reference holds two returns")
    for name in ("choices", "start"):
        if name in arrays:
            known[name] = int(arrays[name])
    return known


def _arrays(data: Trajectories) -> dict[str, np.ndarray]:
    names = ("observations", "actions", "rewards", "terminations", "truncations", "offsets", "ends")
    about = {name: value for name, value in asdict(data.about).items() if name != "name"}
    found = {**{name: getattr(data, name) for name in names}, **about}
    if data.about.start:
        found["actions"] = data.actions + data.about.start
    else:
        del found["start"]
    return {name: np.asarray(value) for name, value in found.items() if value is not None}


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise LegatoError(f"there is no file '{path}'") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as problem:
        raise LegatoError(f"'{path}' cannot be read, it is cut or no npz file of plain arrays: {problem}") from None


def _write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:
        np.savez(file, **cast(dict[str, Any], arrays))


def _read_hdf5(path: Path) -> dict[str, np.ndarray]:
    import h5py

    if not path.exists():
        raise LegatoError(f"there is no file '{path}'")
    try:
        with h5py.File(path, "r") as file:
            datasets = {name: value for name, value in file.items() if isinstance(value, h5py.Dataset)}
            return {
                name: np.asarray(value.asstr()[()]) if h5py.check_string_dtype(value.dtype) else np.asarray(value)
                for name, value in datasets.items()
            }
    except (OSError, RuntimeError, KeyError) as problem:
        raise LegatoError(f"'{path}' cannot be read, it is cut or no HDF5 file: {problem}") from None


def _write_hdf5(path: Path, arrays: dict[str, np.ndarray]) -> None:
    import h5py

    names = {"terminations": "terminals", "truncations": "timeouts"}  # D4RL's
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            text = value.dtype.kind == "U"
            file.create_dataset(names.get(name, name), data=str(value) if text else value)


def _read_folder(path: Path) -> dict[str, np.ndarray]:
    if not path.is_dir():
        raise LegatoError(f"there is no folder '{path}'")
    arrays: dict[str, np.ndarray] = {}
    for file in sorted(path.glob("*.npy")):
        try:  # np.load would also open an npz file of this name, and leave it open
            arrays[file.stem] = np.lib.format.open_memmap(file, mode="r")
        except (OSError, ValueError, EOFError) as problem:
            raise LegatoError(f"'{file}' cannot be read, it is cut or no plain array: {_line(problem)}") from None
    return arrays


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


# --- Minari ---


def _load_minari(name: str, clip_actions: bool, download: bool) -> Trajectories:
    import gymnasium
    import minari

    local = list(minari.list_local_datasets())
    if name not in local and not download:
        raise unknown(
            "dataset", name, local, "no file and no local Minari dataset has this name; --download fetches it"
        )
    try:
        if name not in local:
            minari.download_dataset(name)
        _refuse_making(name)
        dataset = minari.load_dataset(name)
        env, actions, observations = dataset.env_spec, dataset.action_space, dataset.observation_space
        metadata = dataset.storage.metadata
        episodes = [
            {field: getattr(episode, field) for field in ("observations", *_STEPWISE)}
            for episode in dataset.iterate_episodes()
        ]
    except LegatoError:
        raise
    except Exception as problem:  # whatever the network, the storage or a cut file makes of it
        raise LegatoError(f"the Minari dataset '{name}' cannot be read: {_line(problem)}") from None
    if not isinstance(observations, gymnasium.spaces.Box) or len(observations.shape) != 1:
        raise LegatoError(f"'{name}' observes {_space(observations)}; flat boxes of numbers are read")
    about = About(name, environment=None if env is None else env.id)
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    if low is not None and high is not None:
        about = replace(about, reference=(float(low), float(high)))
    if isinstance(actions, gymnasium.spaces.Discrete):
        about = replace(about, choices=int(actions.n), start=int(actions.start))
    elif isinstance(actions, gymnasium.spaces.Box) and len(actions.shape) == 1:
        about = replace(about, low=tuple(map(float, actions.low)), high=tuple(map(float, actions.high)))
    else:
        raise LegatoError(f"'{name}' has actions in {_space(actions)}; flat boxes and discrete actions are read")
    return from_episodes(episodes, about, clip_actions=clip_actions, start=about.start)


def _refuse_making(name: str) -> None:
    """Where a set leaves out its spaces, Minari would make the environment as the file describes it: any call at all.

    Raises `LegatoError` for such a set. Minari itself writes both spaces since its version 0.5.
    """
    from minari.dataset.minari_storage import MinariStorage
    from minari.storage.datasets_root_dir import get_dataset_path

    metadata = MinariStorage.read_raw_metadata(get_dataset_path(name) / "data")
    missing = [space for space in ("observation_space", "action_space") if space not in metadata]
    if missing:
        raise LegatoError(
            f"the Minari dataset '{name}' has no {' and no '.join(missing)}; environments are not made as a file "
            "describes them: write the spaces into its metadata.json"
        )


_STEPWISE = ("actions", "rewards", "terminations", "truncations")


def _save_minari(data: Trajectories, name: str) -> None:
    import gymnasium
    import minari
    from minari.data_collector import EpisodeBuffer

    about = data.about
    if data.ends is None:
        raise LegatoError(
            f"Minari keeps the observation after an episode's last step, which {about.name} does not have"
        )
    if data.rewards is None:
        raise LegatoError(f"Minari keeps rewards, which {about.name} does not have")
    if about.choices is not None:
        actions = gymnasium.spaces.Discrete(about.choices, start=about.start)
    elif about.low is None or about.high is None:
        raise LegatoError(f"Minari keeps the bounds of actions, which {about.name} does not have")
    else:
        actions = gymnasium.spaces.Box(np.array(about.low, np.float32), np.array(about.high, np.float32))
    specification = None if about.environment is None else _specification(about.environment)
    size = data.observations.shape[1]
    observations = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
    buffers = []
    for i in range(len(data)):
        at = data.episode(i)
        steps = {field: getattr(data, field)[at] for field in _STEPWISE}
        steps["actions"] = steps["actions"] + about.start if about.start else steps["actions"]
        seen: Any = np.vstack([data.observations[at], data.ends[i]])
        buffers.append(EpisodeBuffer(id=None, observations=seen, infos={}, **steps))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that no author and no link to code are given
            dataset = minari.create_dataset_from_buffers(
                name,
                buffers,
                env=None,  # a name, which may come from a file: with it Minari would import its module
                action_space=actions,
                observation_space=observations,
            )
        if specification is not None:
            dataset.storage.update_metadata({"env_spec": specification})
        if about.reference is not None:  # given here, Minari would need an environment with them
            dataset.storage.update_metadata(dict(zip(("ref_min_score", "ref_max_score"), about.reference, strict=True)))
    except Exception as problem:
        raise LegatoError(f"the Minari dataset '{name}' could not be written: {_line(problem)}") from None


def _specification(environment: str) -> str:
    """What Minari keeps of an environment: what Gymnasium's registry has of it, or its name alone."""
    from gymnasium import error, registry
    from gymnasium.envs.registration import EnvSpec

    module, colon, name = environment.partition(":")
    found = registry.get(name if colon and module in sys.modules else environment)
    with suppress(ValueError, TypeError):  # of what cannot be written, such as a function
        if found is not None:
            return found.to_json()
    try:
        return EnvSpec(environment).to_json()
    except error.Error as problem:
        raise LegatoError(f"'{environment}' is no name that Minari keeps: {_line(problem)}") from None


def _space(space: Any) -> str:
    return f"{type(space).__name__}{getattr(space, 'shape', None) or ''}"


def _line(problem: Exception) -> str:
    return " ".join(str(problem).split()) or type(problem).__name__

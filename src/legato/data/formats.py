"""Trajectories in and out of files: Minari datasets, D4RL-style HDF5, npz and folders of npy. Nothing is unpickled.

What is read is only read; what is written is written to a new place, under another name until it is whole.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import uuid
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from legato.data import layouts, storage
from legato.data.spec import UNBOUNDED
from legato.data.trajectories import About, Trajectories, from_episodes, trajectories
from legato.errors import LegatoError, LegatoWarning, unknown

HDF5 = (".hdf5", ".h5")
ARRAYS = ".arrays"
CHOICES = 1 << 16  # discrete actions at most
OVERHEAD = 1 << 16  # bytes of an HDF5 file beside its arrays, at most
NUMBERS = 100_000  # of an action at most
LARGEST = float(np.finfo(np.float32).max)
FLAGS = ("terminations", "terminals", "truncations", "timeouts")
NAMES = ("observations", "actions", "rewards", *FLAGS, "offsets", "next_observations", "ends")
NAMES += ("environment", "reference", "low", "high", "choices", "start")
MANY = 50  # steps: shorter episodes of one length are common
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
    whole numbers are choices (`trajectories.as_choices`); otherwise the file must say so.

    Raises `LegatoError` for what is not there, cannot be read or is refused by `trajectories`. A `LegatoWarning` says
    what is doubtful about the ends of episodes.
    """
    path = Path(source)
    arrays = held = None
    if path.suffix == ".npz":
        arrays, held = storage.npz(path, NAMES)
    elif path.suffix in HDF5:
        arrays, held = storage.hdf5(path, NAMES)
    elif path.suffix == ARRAYS or (path / "observations.npy").is_file():
        arrays, held = storage.folder(path, NAMES)
    if arrays is not None and held is not None:
        _refuse_foreign(path, arrays, held)
        return from_arrays(path, arrays, clip_actions, environment)
    if path.exists():
        table = path.is_dir() or path.suffix in (".csv", ".tsv", ".txt", ".parquet")
        advice = f": legato data import {source} logs.npz makes one of tables and folders" if table else ""
        kinds = ", ".join((".npz", *HDF5, ARRAYS))
        raise LegatoError(f"'{source}' is none of the kinds that are read: {kinds}, or a Minari id{advice}")
    data = _load_minari(str(source), clip_actions, download)
    return _clipped(data, clip_actions, environment)


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
        folder = _minari_folder(str(target))
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


# --- flat arrays ---


def from_arrays(
    path: Path,
    arrays: dict[str, np.ndarray],
    clip_actions: bool = False,
    environment: str | None = None,
) -> Trajectories:
    """Trajectories of arrays under our names, out of a file or folder (see `load`)."""

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
    except (TypeError, ValueError, OverflowError) as problem:
        raise LegatoError(
            f"'{path}': environment, reference, low, high, choices or start is malformed: {storage.line(problem)}"
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
    elif environment is None:
        _warn_of_equal_ends(data)
    return _clipped(data, clip_actions, environment)


def _warn_of_equal_ends(data: Trajectories) -> None:
    """Warn where every episode terminates after the same many steps: that looks like a time limit."""
    over, length = data.terminations[data.offsets[1:] - 1], int(data.lengths[0])
    if len(data) > 1 and length >= MANY and over.all() and (data.lengths == length).all():
        warnings.warn(
            f"{data.about.name}: all {len(data)} episodes terminate after {length} steps: if a time limit cut them, "
            "they are truncated ('legato data import --ends truncated')",
            LegatoWarning,
            stacklevel=3,
        )


def _refuse_foreign(path: Path, arrays: dict[str, np.ndarray], held: list[str]) -> None:
    """Refuse names that are not ours, and warn of arrays that are not read."""
    missing = [name for name in ("observations", "actions") if name not in arrays]
    if missing:
        raise LegatoError(
            f"'{path}' has no {' and no '.join(missing)}; it holds {layouts.some(held)}: 'legato data import' reads "
            "other names"
        )
    layouts.refuse_states(path, held)
    if foreign := sorted(layouts.FOREIGN_ENDS & set(held)):
        raise LegatoError(
            f"'{path}' marks ends of episodes in '{foreign[0]}', as others do: 'legato data import {path} NEW.npz' "
            "reads it"
        )
    if unused := sorted(set(held) - set(arrays) - IGNORED):
        warnings.warn(f"'{path}': not read: {layouts.some(unused)}", LegatoWarning, stacklevel=3)


def _clipped(data: Trajectories, clip_actions: bool, environment: str | None) -> Trajectories:
    """The data, whose actions were to be clipped; refused where there is nothing to clip them to."""
    if clip_actions and environment is None and data.about.choices is None and data.about.low is None:
        raise LegatoError(
            f"{data.about.name} does not say how its actions are bounded, so that there is nothing to clip them to: "
            "add arrays 'low' and 'high', or 'legato data import --low ... --high ...'"
        )
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
    """Warn where an episode has more steps than the environment `name` allows by its `spec`, or terminates there."""
    limit, longest = getattr(spec, "max_episode_steps", None), int(data.lengths.max())
    over = data.terminations[data.offsets[1:] - 1]
    cut = int((over & (data.lengths == limit)).sum())
    if cut > 1 and cut == over.sum():  # none of them terminates earlier
        warnings.warn(
            f"{data.about.name}: {cut} of {len(data)} episodes terminate after {limit} steps, the time limit of "
            f"'{name}': if it cut them, they are truncated ('legato data import --ends truncated')",
            LegatoWarning,
            stacklevel=2,
        )
    if limit is not None and longest > limit:
        warnings.warn(
            f"{data.about.name} has an episode of {longest} steps, and '{name}' ends them after {limit}: are all ends "
            "marked?",
            LegatoWarning,
            stacklevel=2,
        )


def _about(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """What `arrays` say beside the steps. Raises `ValueError`, `TypeError` or `OverflowError` for what is no such."""
    known: dict[str, Any] = {}
    if "environment" in arrays:
        known["environment"] = _text(arrays["environment"])
    for name in ("reference", "low", "high"):
        if name in arrays:
            known[name] = _several(arrays[name], name)
    if len(known.get("reference", (0, 0))) != 2:
        raise ValueError("reference holds two returns")
    if len(known.get("low", ())) != len(known.get("high", ())):
        raise ValueError("there are as many upper bounds as lower ones")
    if any(a > b for a, b in zip(known.get("low", ()), known.get("high", ()), strict=True)):
        raise ValueError("a lower bound lies above its upper one")
    if any(abs(bound) > UNBOUNDED for bound in (*known.get("low", ()), *known.get("high", ()))):
        raise ValueError(f"a bound beyond {UNBOUNDED:g} is none")
    for name, least, most in (("choices", 1, CHOICES), ("start", -(2**31) + CHOICES, 2**31 - 1 - CHOICES)):
        if name in arrays:
            number = _several(arrays[name], name)
            if len(number) != 1 or not least <= number[0] <= most or number[0] != int(number[0]):
                raise ValueError(f"{name} is a whole number from {least} to {most}")
            known[name] = int(number[0])
    return known


def _text(array: np.ndarray) -> str:
    """A name in printable characters."""
    value = array.item() if array.size == 1 else None
    text = value.decode() if isinstance(value, bytes) else value
    if not isinstance(text, str) or not text.isprintable() or len(text) > 200:
        raise ValueError("environment is an id of printable characters")
    return text


def _several(array: np.ndarray, name: str) -> tuple[float, ...]:
    """Finite numbers, one or a few."""
    if array.dtype.kind not in "biuf" or array.size > NUMBERS:
        raise ValueError(f"{name} holds a few numbers, not {array.size} of type {array.dtype}")
    numbers = tuple(float(x) for x in np.ravel(array))
    if not all(abs(x) <= LARGEST for x in numbers):
        raise ValueError(f"{name} holds numbers that float32 has no place for")
    return numbers


def _arrays(data: Trajectories) -> dict[str, np.ndarray]:
    names = ("observations", "actions", "rewards", "terminations", "truncations", "offsets", "ends")
    about = {name: value for name, value in asdict(data.about).items() if name != "name"}
    found = {**{name: getattr(data, name) for name in names}, **about}
    if data.about.start:
        found["actions"] = data.actions + data.about.start
    else:
        del found["start"]
    return {name: np.asarray(value) for name, value in found.items() if value is not None}


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


# --- Minari ---


def _load_minari(name: str, clip_actions: bool, download: bool) -> Trajectories:
    hint = "no file and no local Minari dataset has this name; --download fetches it"
    try:
        data = _minari_folder(name) / "data"
    except LegatoError:
        raise unknown("dataset", name, _local_minari(), hint) from None
    if not data.exists() and download:
        import minari

        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # what goes wrong is raised, and said once
        try:
            minari.download_dataset(name)
        except Exception as problem:  # whatever the network makes of it
            raise LegatoError(f"the Minari dataset '{name}' cannot be had: {storage.line(problem)}") from None
    if not data.exists():
        raise unknown("dataset", name, _local_minari(), hint)
    try:
        about, start = _minari_about(name, storage.json_object(data / "metadata.json", METADATA))
        episodes = storage.episodes(data / "main_data.hdf5", about.pop("episodes"), ("observations", *_STEPWISE))
    except LegatoError as problem:
        raise LegatoError(f"the Minari dataset '{name}' cannot be read: {problem}") from None
    return from_episodes(episodes, About(name, **about), clip_actions=clip_actions, start=start)


def _minari_folder(name: str) -> Path:
    """Where Minari keeps the dataset of this id. Raises `LegatoError` for what Minari takes for no id."""
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.storage.datasets_root_dir import get_dataset_path

    try:
        parse_dataset_id(name)
    except (ValueError, TypeError):
        raise LegatoError(
            f"'{name}' is no Minari id such as 'mine/hopper/medium-v0': letters, digits, - and _, two or "
            "more before the /"
        ) from None
    return get_dataset_path(name)


def _local_minari() -> list[str]:
    """The ids of the datasets in Minari's store, whole or not; Minari's own list fails with the worst of them."""
    from minari.storage.datasets_root_dir import get_dataset_path

    root, found = get_dataset_path(), []
    for folder, inside, _ in os.walk(root):
        if "data" in inside:
            found.append(Path(folder).relative_to(root).as_posix())
            inside.clear()
    return sorted(found)


def _minari_about(name: str, metadata: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """The fields of `About` that Minari's metadata have, how many `episodes` there are, and the first action's number.

    Nothing is made as the file describes it: an environment is its id, and spaces are shapes and bounds.
    """
    from minari import supported_dataset_versions

    spaces: dict[str, dict[str, Any]] = {}
    for which in ("observation_space", "action_space"):
        if which not in metadata:
            raise LegatoError(
                f"'{name}' has no {which}; environments are not made as a file describes them: write the space into "
                "its metadata.json"
            )
        spaces[which] = storage.object_of(metadata[which], which)
    observed, acted = spaces["observation_space"], spaces["action_space"]
    if observed.get("type") != "Box" or not _flat(observed):
        raise LegatoError(f"'{name}' observes {_space(observed)}; flat boxes of numbers are read")
    about: dict[str, Any] = {}
    start = 0
    try:
        if metadata.get("minari_version") not in supported_dataset_versions:
            raise ValueError("its minari_version is not one that is read")
        if metadata.get("data_format", "hdf5") != "hdf5":
            raise ValueError("its data_format is not hdf5")
        about["episodes"] = int(metadata["total_episodes"])
        if metadata.get("env_spec") is not None:
            about["environment"] = _text(np.array(storage.object_of(metadata["env_spec"], "env_spec")["id"]))
        scores = metadata.get("ref_min_score"), metadata.get("ref_max_score")
        if None not in scores:
            about["reference"] = _several(np.array(scores), "ref_min_score or ref_max_score")
        if acted.get("type") == "Discrete":
            known = _about({"choices": np.array(acted["n"]), "start": np.array(acted.get("start", 0))})
            about, start = {**about, **known}, known["start"]
        elif acted.get("type") == "Box" and _flat(acted):
            low, high = (np.array(acted[bound], float) for bound in ("low", "high"))
            if np.isfinite([low, high]).all():
                about |= _about({"low": low, "high": high})
        else:
            raise LegatoError(f"'{name}' has actions in {_space(acted)}; flat boxes and discrete actions are read")
    except (ValueError, TypeError, KeyError, OverflowError) as problem:
        raise LegatoError(f"its metadata.json is malformed: {storage.line(problem)}") from None
    return about, start


METADATA = 10 << 20  # bytes of a metadata.json at most


def _flat(space: dict[str, Any]) -> bool:
    shape = space.get("shape")
    return isinstance(shape, list) and len(shape) == 1


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
    specification = None if about.environment is None else _specification(about.environment)
    folder = _minari_folder(name)
    new = next(path for path in (*reversed(folder.parents), folder) if not path.exists())  # with namespaces above it
    done = False
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
        done = True
    except Exception as problem:
        raise LegatoError(f"the Minari dataset '{name}' could not be written: {storage.line(problem)}") from None
    finally:
        if not done:  # nothing is left that would stand in the way of the next attempt
            shutil.rmtree(new, ignore_errors=True)


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
        raise LegatoError(f"'{environment}' is no name that Minari keeps: {storage.line(problem)}") from None


def _space(space: dict[str, Any]) -> str:
    kind, shape = space.get("type"), space.get("shape")
    shape = f" of shape {tuple(shape)}" if isinstance(shape, list) and len(shape) < 6 else ""
    return storage.line(ValueError(f"{kind}{shape}"))

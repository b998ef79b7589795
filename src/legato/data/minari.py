"""Minari datasets: their metadata and episodes, read without making what a file describes."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from legato.data import hdf5, storage
from legato.data.arrays import about_from, numbers_from, text_from
from legato.data.trajectories import About, Trajectories, from_episodes
from legato.errors import LegatoError, unknown

METADATA = 10 << 20  # bytes of a metadata.json at most

_STEPWISE = ("actions", "rewards", "terminations", "truncations")


def load_minari(name: str, clip_actions: bool, download: bool) -> Trajectories:
    """Trajectories of the Minari dataset of this id (see `formats.load`)."""
    hint = "no file and no local Minari dataset has this name; `download` fetches it"
    try:
        data = minari_folder(name) / "data"
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
        about, start = _about(name, storage.json_object(data / "metadata.json", METADATA))
        episodes = hdf5.episodes(data / "main_data.hdf5", about.pop("episodes"), ("observations", *_STEPWISE))
    except LegatoError as problem:
        raise LegatoError(f"the Minari dataset '{name}' cannot be read: {problem}") from None
    return from_episodes(episodes, About(name, **about), clip_actions=clip_actions, start=start)


def minari_folder(name: str) -> Path:
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


def _about(name: str, metadata: dict[str, Any]) -> tuple[dict[str, Any], int]:
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
            about["environment"] = text_from(np.array(storage.object_of(metadata["env_spec"], "env_spec")["id"]))
        scores = metadata.get("ref_min_score"), metadata.get("ref_max_score")
        if None not in scores:
            about["reference"] = numbers_from(np.array(scores), "ref_min_score or ref_max_score")
        if acted.get("type") == "Discrete":
            known = about_from({"choices": np.array(acted["n"]), "start": np.array(acted.get("start", 0))})
            about, start = {**about, **known}, known["start"]
        elif acted.get("type") == "Box" and _flat(acted):
            low, high = (np.array(acted[bound], float) for bound in ("low", "high"))
            if np.isfinite([low, high]).all():
                about |= about_from({"low": low, "high": high})
        else:
            raise LegatoError(f"'{name}' has actions in {_space(acted)}; flat boxes and discrete actions are read")
    except (ValueError, TypeError, KeyError, OverflowError) as problem:
        raise LegatoError(f"its metadata.json is malformed: {storage.line(problem)}") from None
    return about, start


def _flat(space: dict[str, Any]) -> bool:
    shape = space.get("shape")
    return isinstance(shape, list) and len(shape) == 1


def save_minari(data: Trajectories, name: str) -> None:
    """Write trajectories to a new Minari dataset of this id (see `formats.save`)."""
    import gymnasium
    import minari
    from minari.data_collector import EpisodeBuffer

    about = data.about
    if data.final_observations is None:
        raise LegatoError(
            f"Minari keeps the observation after an episode's last step, which {about.name} does not have"
        )
    if data.rewards is None:
        raise LegatoError(f"Minari keeps rewards, which {about.name} does not have")
    if about.shape is not None:
        raise LegatoError(f"Minari keeps images as JPEG, which would change those of {about.name}: write another kind")
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
        seen: Any = np.vstack([data.observations[at], data.final_observations[i]])
        buffers.append(EpisodeBuffer(id=None, observations=seen, infos={}, **steps))
    specification = None if about.environment is None else _specification(about.environment)
    folder = minari_folder(name)
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

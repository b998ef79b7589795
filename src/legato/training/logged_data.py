"""The logged data of a run: read, held against algorithm and environment, and found again by who resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete

from legato.algorithms import entries, entry
from legato.data import bounds, dataset_statistics, formats, sets
from legato.data import trajectories as logs
from legato.data.arrays import warn_of_length
from legato.data.spec import Spec
from legato.data.trajectories import Trajectories, fingerprint
from legato.envs import describe, episode_limit, make, try_environment
from legato.errors import LegatoError
from legato.training.run import Run
from legato.training.settings import OfflineSettings, environment_config


def split_holdout(settings: OfflineSettings, data: Trajectories) -> tuple[Trajectories, Trajectories | None]:
    """The episodes that a run learns from, and those that it holds out. Raises `LegatoError` where one has none."""
    if not settings.holdout:
        return data, None
    return sets.split(data, 1 - settings.holdout, settings.seed)


def load_dataset(run: Run, dataset: str | None = None, data: Trajectories | None = None) -> Trajectories:
    """The data that a run learnt from: from where it was then, whatever the current folder, or where it is now.

    Raises `LegatoError` where it is not there any more or is not what it was.
    """
    return load_parts(run, dataset, data)[0]


def load_parts(
    run: Run, dataset: str | None = None, data: Trajectories | None = None
) -> tuple[Trajectories, Trajectories | None]:
    """The same, and what it held out."""
    settings = run.settings
    assert isinstance(settings, OfflineSettings)
    known = run.data or {}
    if data is None:
        kept = known.get("path")
        source = dataset or (kept if kept and Path(kept).exists() else None)
        try:
            data = read(settings, source)
        except LegatoError as problem:
            if source is not None or Path(settings.dataset).exists():
                raise
            raise LegatoError(f"{problem}; `dataset` says where it is now") from problem
    data, held = split_holdout(settings, data)
    _, data = check(run.algorithm, run.config, settings, data, run.spec)
    if fingerprint(data) != known.get("fingerprint", fingerprint(data)):
        if dataset is not None:
            raise LegatoError(f"'{dataset}' is not the dataset that '{run.place}' began with")
        what = f"'{settings.dataset}' is not what it was when '{run.place}' began"
        raise LegatoError(f"{what}; train anew, or name with `dataset` where that is now")
    return data, held


def read(settings: OfflineSettings, source: str | Path | None = None) -> Trajectories:
    """The dataset of a run, or another `source` for it. Whole numbers are choices where the run's environment says so.

    Raises `LegatoError` as `formats.load` does, and for numbers that the environment does not take.
    """
    data = formats.load(
        settings.dataset if source is None else source,
        clip_actions=settings.clip_actions,
        download=settings.download and source is None,
        environment=settings.env or None,
    )
    if data.discrete or not settings.env or not (data.actions == np.rint(data.actions)).all():
        return data
    environment = make(environment_config(settings))
    space = environment.action_space
    environment.close()
    return bounds.as_choices(data, int(space.n), int(space.start)) if isinstance(space, Discrete) else data


def check(
    algorithm: str, config: Any, settings: OfflineSettings, data: Trajectories, spec: Spec | None = None
) -> tuple[Spec, Trajectories]:
    """The spec, and the data as it is learnt from. Raises `LegatoError` when data, algorithm and environment do not
    fit.

    With the `spec` of a run that has begun its environment is not made again.
    """
    about, size, limit = data.about, data.observations.shape[1], None
    found = entry(algorithm)
    module, told = found.load(), found.command(config)
    if about.shape is not None and not found.images:
        able = ", ".join(name for name, other in entries("offline").items() if other.images)
        raise LegatoError(f"{about.name} holds images, of which '{algorithm}' does not learn; {able} does")
    if settings.holdout and told == "goal":
        raise LegatoError("a policy with goals needs one, which held-out episodes do not name: leave holdout out")
    if settings.env and told == "goal":
        raise LegatoError("a policy with goals is measured with goals of its own: leave `env` out")
    if settings.env:
        if spec is None:
            environment = make(environment_config(settings))
            spec = describe(environment, settings.env, user=algorithm, discrete=True, images=about.shape is not None)
            limit = episode_limit(environment)
            if settings.env != about.environment and settings.max_episode_steps is None:
                warn_of_length(data, settings.env, environment.spec)
            try_environment(environment, settings.env)
        for what, here, there in (
            ("observations of so many numbers", size, spec.observation_size),
            ("the shape of images", about.shape, spec.shape),
            ("discrete actions", about.choices, spec.choices),
            ("actions of so many numbers", 1 if data.discrete else data.actions.shape[1], spec.action_size),
        ):
            if here != there:
                raise LegatoError(f"{about.name} and '{settings.env}' differ in {what}: {here} and {there}")
        if not data.discrete:
            data = bounds.check_bounds(data, spec.low, spec.high, settings.clip_actions)
    elif about.choices is not None:
        spec = Spec.discrete(size, about.choices).with_images(about.shape)
    elif about.low is None or about.high is None:
        raise LegatoError(
            f"{about.name} does not say how its actions are bounded; name its environment with `env`, or import it "
            "with `low` and `high` (arrays 'low' and 'high' in the file), or `choices` for discrete actions"
        )
    else:
        spec = Spec(size, about.low, about.high).with_images(about.shape)
    if spec.choices is not None and not found.discrete:
        instead = ", ".join(name for name, other in entries("offline").items() if other.discrete)
        raise LegatoError(f"discrete actions of {about.name} are not supported by {algorithm}: learn with {instead}")
    if settings.stream == "always" and "prepare" in found.offers:
        raise LegatoError(f"'{algorithm}' prepares its data on the device: leave out stream")
    if settings.targets and told == "return" and data.rewards is not None:
        earned = logs.returns(data, module.batches(config).discount)
        dataset_statistics.warn_of_targets(settings.targets, float(earned.min()), float(earned.max()))
    return spec, module.select_data(config, data, limit)

"""The experiment: the model of a run, and what stands beside it, held against logged episodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import numpy as np

from legato.algorithms import entries, entry
from legato.algorithms.protocol import TrajectorySampler
from legato.envs import Env, EnvironmentConfig
from legato.envs.matching import choose_environment
from legato.errors import LegatoError
from legato.evaluation import video
from legato.evaluation.prediction.likelihood_curve import HistogramBins, measure, references
from legato.evaluation.prediction.models import fit_baseline, of_data, of_ensemble, of_model
from legato.evaluation.prediction.report import PredictionReport, draw
from legato.loading import load
from legato.policy import guard_computation
from legato.training import logged_data
from legato.training.progress import Progress
from legato.training.run import Run, Which, write_text
from legato.training.settings import OfflineSettings


@guard_computation
def predict(
    run: Run | str | Path,
    *,
    dataset: str | None = None,
    which: Which = "last",
    seed: int | None = None,
    episodes: int = 200,
    steps: int = 100,
    samples: int = 200,
    context: int | None = None,
    ensemble: bool = True,
    updates: int = 12_000,
    out: str | Path | None = None,
    film: str | Path | None = None,
    env: Env | None = None,
    quiet: bool = False,
) -> PredictionReport:
    """How far ahead the model of a Trajectory Transformer run predicts what episodes do from their beginning.

    `samples` trajectories of `steps` steps are sampled from the beginnings of the first `episodes` of a `dataset`, and
    these held against them (see `evaluation.prediction`). It should be one that the run did not learn from; without
    one the episodes are those of the training data. The model reads `context` steps, by default as many as it was made
    for. A probabilistic `ensemble` is fitted to the run's data by so many `updates`, and measured beside it.

    Numbers and figure are kept in `out`, by default the run's folder. `film` shows the first real episode, and what
    each model made of its beginning, in `env` or where the run's policies belong. Raises `LegatoError` for anything
    that does not fit, before anything is sampled.
    """
    run = run if isinstance(run, Run) else Run(run)
    for name, value in (("episodes", episodes), ("steps", steps), ("samples", samples), ("updates", updates)):
        if value < 1:
            raise LegatoError(f"{name} must be at least 1; {value} was given")
    settings = run.settings
    found = entry(run.algorithm)
    if "trajectories" not in found.offers or not isinstance(settings, OfflineSettings):
        able = " or ".join(name for name, other in entries().items() if "trajectories" in other.offers)
        raise LegatoError(f"'{run.place}' ({run.label}) holds no model of trajectories: train one with {able}")
    sampler: TrajectorySampler = found.function("trajectories")(run.config, load(run.path, seed, which).policy)
    environment: EnvironmentConfig | None = None
    if film is not None:
        film, environment = Path(film), choose_environment(run.environment_config, env)
        video.ready(film, environment)
    learnt = logged_data.load_dataset(run) if ensemble or dataset is None else None
    given = learnt if dataset is None else logged_data.read(settings, dataset)
    assert given is not None
    if given.observations.shape[1] != run.spec.observation_size:
        raise LegatoError(
            f"{given.about.name} has observations of {given.observations.shape[1]} numbers; "
            f"the run was trained on {run.spec.observation_size}"
        )
    real = references(given, steps, episodes)
    starts, bins = real[:, 0], HistogramBins.of(sampler.observed)
    label = run.label if context is None or context == sampler.window else f"{run.label}, context {context}"
    total = samples + (2 * updates if ensemble else 0)
    with Progress(f"{run.label} predicts", total, quiet=quiet, unit="sample or update") as progress:
        found = {label: of_model(sampler, starts, samples, steps, context=context, on_samples=progress.step)}
        if ensemble and learnt is not None:
            baseline = fit_baseline(
                learnt, run.spec, updates=updates, on_updates=lambda done: progress.step(samples + done)
            )
            found["ensemble"] = of_ensemble(baseline, starts, samples, steps)
    measured = [measure(name, s, real[:, 1:], bins) for name, s in found.items()]
    if dataset is not None and learnt is not None:
        measured.append(measure("the data itself", of_data(learnt, steps, samples), real[:, 1:], bins))
    result = PredictionReport(run.environment, tuple(measured), bins.oracle, len(real), samples, dataset is not None)
    folder = run.path if out is None else Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "prediction.json", json.dumps(result.to_json(), indent=2) + "\n")
    draw(result, folder / "prediction.png")
    if film is not None:
        motions = {"real": real[0], **{name: np.concatenate([starts[:1], s.states[0]]) for name, s in found.items()}}
        video.beside(cast(EnvironmentConfig, environment), motions, film)
    return result

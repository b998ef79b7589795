"""`legato predict`: how far ahead a model of trajectories predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from legato.cli.parsing import Positional, call
from legato.errors import plain


def predict(
    run: Annotated[str, Positional],
    dataset: str | None = None,
    which: Literal["last", "best"] = "last",
    seed: int | None = None,
    episodes: int = 200,
    steps: int = 100,
    samples: int = 200,
    context: int | None = None,
    ensemble: bool = True,
    updates: int = 12_000,
    out: Path | None = None,
    film: Path | None = None,
    env: str | None = None,
    quiet: bool = False,
) -> None:
    """Sample trajectories from a Trajectory Transformer run's model and hold real ones against them.

    Prints the log-likelihood of real states, step by step ahead, and draws it. A probabilistic ensemble, fitted to the
    same data, stands beside it.

    Args:
        run: the run folder, of legato train tt
        dataset: episodes that the run did not learn from, of the same behaviour; by default its training data
        which: the model at the end of training, or the one that evaluated best on the way
        seed: which of the run's seeds; by default the first
        episodes: real episodes to hold against the samples, at most
        steps: primitive steps ahead
        samples: trajectories to sample from each model
        context: steps that the model reads, the one being written included; by default all it can; 2: Markovian
        ensemble: fit a probabilistic ensemble to the run's data and measure it too
        updates: of each of its two parts, the model of the environment and that of the policy
        out: folder for prediction.json and prediction.png; by default the run's
        film: a film of real and imagined motion (.gif, or .mp4 with the extra `video`); needs a MuJoCo environment
        env: the environment to film in; by default the run's, of which a module is named again
        quiet: show no progress
    """
    from rich.console import Console

    from legato import api
    from legato.evaluation import prediction

    found = api.predict(
        run,
        dataset=dataset,
        which=which,
        seed=seed,
        episodes=episodes,
        steps=steps,
        samples=samples,
        context=context,
        ensemble=ensemble,
        updates=updates,
        out=out,
        film=film,
        env=env,
        quiet=quiet,
    )
    Console().print(prediction.table(found))
    print(plain(f"kept in {run if out is None else out}/prediction.json and prediction.png"))
    if film is not None:
        print(plain(film))


def run(args: list[str]) -> None:
    call(predict, args, "legato predict")

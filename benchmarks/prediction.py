"""How far ahead do models predict? The Trajectory Transformer, its Markovian variant and a probabilistic ensemble.

    python benchmarks/prediction.py --dataset DATA [--masked] [--markov] [--seeds 1] [--keep FOLDER] [--out FILE]

A tenth of the episodes is held out; of the others all models learn, and all begin where a held-out episode began. The
curve is that of `legato.evaluation.prediction` (Janner et al. 2021, section 4.1). With `--masked` every number of every
observation is hidden by a coin of its own, in the data and in what a model sees of its own samples. What is held
against them are the real, complete states in the same bins: masks are independent of the environment, so a number that
is seen is distributed as all are, and both tables have the same unit and the same bound. The transformer samples masks
as well, so it samples twice as many trajectories then: a histogram of fewer numbers has more empty bins.

* TT: window as asked, states and actions sampled token by token, uniform bins
* TT, context cut: the same network that is shown the step before only
* TT, Markovian (with `--markov`): a network trained on windows of two steps, on as many tokens
* ensemble: 5 perceptrons of the dynamics, 5 of the behaviour that fills its actions in
* ensemble, real actions: the same, but doing what each held-out episode did; more than the others are told
* the data itself: the training episodes in the place of samples, what a perfect model would come to
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import numpy as np

import legato
from legato.algorithms.trajectory_transformer.config import TT
from legato.algorithms.trajectory_transformer.sampler import Sampler, trajectories
from legato.data import formats, masking, sets
from legato.data.spec import Spec
from legato.data.trajectories import Trajectories
from legato.evaluation import figures, prediction
from legato.evaluation.prediction import HistogramBins, Prediction, Samples
from legato.training import offline
from legato.training.run import Run, write_text
from legato.training.settings import OfflineSettings

STEPS = prediction.SHOWN


def config_of(window: int, options: argparse.Namespace) -> TT:
    """A model of states and actions alone; windows of other lengths come in batches of as many tokens."""
    return TT(
        edges="uniform",
        returns=False,
        search="likelihood",
        penalty=None,
        window=window,
        context=2,
        layers=options.layers,
        size=options.size,
        heads=options.size // 32,
        batch_size=options.batch * options.window // window,
        optimiser=options.optimiser,
        cosine_embeddings=options.cosine_embeddings,
        learning_rate=options.learning_rate or {"muon": 5e-3, "adamw": 1e-3}[options.optimiser],
        weight_decay=0.01 if options.optimiser == "muon" else 0.1,
        warmup=100,
        anneal_over=-1,
        dropout=0.0,
        action_weight=1.0,
    )


def trained(name: str, config: TT, data: Trajectories, seed: int, options: argparse.Namespace, folder: Path) -> Sampler:
    """The model of a run, trained where it is not there yet."""
    path = folder / f"{name}-{seed}"
    if not (path / "policy").is_dir():
        rarely = {"eval_every": options.updates, "log_every": 100, "checkpoint_every": options.updates}
        settings = OfflineSettings(dataset=data.about.name, updates=options.updates, seed=seed, **rarely)
        began = time.perf_counter()
        offline.start("tt", "cpu", config, settings, path, data=data, quiet=True)
        print(f"{name}, seed {seed}: {options.updates} updates in {time.perf_counter() - began:.0f} s", flush=True)
    return trajectories(config, cast(Any, legato.load(Run(path).path).policy))


def kept(
    data: Trajectories, held_out: Trajectories, seed: int, options: argparse.Namespace, folder: Path
) -> tuple[list[Prediction], float, int]:
    """What `one` found, by the same options, now or when it was kept in the folder."""
    given = {k: v for k, v in vars(options).items() if k not in ("seeds", "keep", "figure")}
    path = folder / f"predictions-{'masked' if options.masked else 'full'}-{seed}.json"
    if path.exists() and (body := json.loads(path.read_text()))["options"] == given:
        found = [Prediction(label, *(np.array(x) for x in rest)) for label, *rest in body["found"]]
        return found, body["oracle"], body["episodes"]
    found, oracle, episodes = one(data, held_out, seed, options, folder)
    rows = [[p.label, p.likelihood.tolist(), p.error.tolist(), p.alive.tolist()] for p in found]
    write_text(path, json.dumps({"options": given, "found": rows, "oracle": float(oracle), "episodes": episodes}))
    return found, oracle, episodes


def one(
    data: Trajectories, held_out: Trajectories, seed: int, options: argparse.Namespace, folder: Path
) -> tuple[list[Prediction], float, int]:
    """All models of one seed, the bound, and how many episodes were held against them."""
    steps, samples = options.steps, options.samples
    real = prediction.references(held_out, steps, options.episodes)
    starts, later = real[:, 0], real[:, 1:]
    length = min(options.steps, later.shape[1])
    low, high = (bound(data.observations, axis=0).astype(np.float64) for bound in (np.min, np.max))
    bins = HistogramBins(low, high, 100)
    seen, mask = masking.hide(data, 0.5, seed) if options.masked else (data, None)
    kind = "masked" if options.masked else "full"

    found: dict[str, Samples] = {}
    full = trained(f"tt-{kind}", config_of(options.window, options), seen, seed, options, folder)
    tokens = samples if mask is None else round(samples / (1 - mask.share))  # as many numbers as others have
    found["TT"] = prediction.of_model(full, starts, tokens, steps, seed=seed, mask=mask)
    found["TT, context cut"] = prediction.of_model(full, starts, tokens, steps, context=2, seed=seed, mask=mask)
    if options.markov:
        markov = trained(f"markov-{kind}", config_of(2, options), seen, seed, options, folder)
        found["TT, Markovian"] = prediction.of_model(markov, starts, tokens, steps, seed=seed, mask=mask)
    began = time.perf_counter()
    bounds = (data.about.low or (), data.about.high or ())
    baseline = prediction.fit_baseline(
        seen, Spec(data.observations.shape[1], *bounds), updates=options.ensemble_updates, seed=seed, mask=mask
    )
    print(f"ensembles, seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)
    long = prediction.at_least(held_out, steps)[: len(real)]
    done = np.stack([held_out.actions[held_out.episode(int(i))][:length] for i in long])
    found["ensemble"] = prediction.of_ensemble(baseline, starts, samples, steps, seed=seed)
    found["ensemble, real actions"] = prediction.of_ensemble(baseline, starts, samples, steps, seed=seed, actions=done)
    found["the data itself"] = prediction.of_data(data, steps, samples)
    return [prediction.measure(name, s, later, bins) for name, s in found.items()], bins.oracle, len(real)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="episodes of one behaviour, from resets")
    parser.add_argument("--masked", action="store_true", help="hide every observed number with probability 0.5")
    parser.add_argument("--markov", action="store_true", help="train a network on windows of two steps as well")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--updates", type=int, default=2_000)
    parser.add_argument("--ensemble-updates", type=int, default=12_000)
    parser.add_argument("--optimiser", choices=("muon", "adamw"), default="muon")
    parser.add_argument("--learning-rate", type=float, default=None)
    parser.add_argument("--cosine-embeddings", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--window", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32, help="windows per update")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--episodes", type=int, default=200, help="held-out episodes, at most")
    parser.add_argument("--keep", type=Path, default=None, help="where models and forecasts stay, to be found again")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()

    data, held_out = sets.split(formats.load(options.dataset), 0.9, seed=0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        seeds = [kept(data, held_out, seed, options, folder) for seed in range(options.seeds)]
    every, (_, oracle, episodes) = [predictions for predictions, _, _ in seeds], seeds[0]

    what = "half of every state hidden" if options.masked else "fully observed"
    print(f"\n{options.dataset}, {what}: {len(data)} episodes learnt, {episodes} held out, {options.samples} samples")
    print(f"log-likelihood of held-out states, nats (bins allow {oracle:.1f} at most); in brackets the mean's error\n")
    steps = prediction.shown(options.steps)
    print("| steps ahead | " + " | ".join(map(str, steps)) + " | not ended |\n|" + "---|" * (len(steps) + 2))
    curves = []
    for same in zip(*every, strict=True):
        likelihood = np.stack([p.likelihood for p in same])
        error, alive = np.mean([p.error for p in same], axis=0), np.mean([p.alive for p in same], axis=0)
        cells = [f"{likelihood[:, t - 1].mean():.1f} ({error[t - 1]:.2f})" for t in steps]
        print(f"| {same[0].label} | " + " | ".join(cells) + f" | {100 * alive[-1]:.0f}% |")
        curves.append(figures.Curve(same[0].label, np.arange(1, options.steps + 1), likelihood))
    named = {curve.label: curve.returns.mean(axis=0) for curve in curves}
    lead = named["TT"][9:] - named["ensemble"][9:]
    if len(lead):
        least = f"{lead.min():+.1f} at least (step {10 + int(lead.argmin())})"
        print(f"from step 10 on, TT less the ensemble: {least}, {lead.mean():+.1f} on average")
    if options.out is not None:
        title = f"{data.about.environment}: predicted states, {what}"
        print(figures.prediction_curve(curves, options.out, title=title, oracle=oracle, episodes=episodes))


if __name__ == "__main__":
    main()

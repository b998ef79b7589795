"""Surrogates of a plant that is a periodic field: how far they see, and what their convolutions cost.

python benchmarks/surrogates.py [--parts accuracy convolutions] [--updates 2000]
    [--recurrent-updates 500] [--jets 4]

`accuracy`: the circulant ensemble of `model=circulant`, fitted to 40 episodes of 400 random actions (16,000 steps) of
`legato/KuramotoSivashinsky-v0`, against 16 other random episodes: 608 pieces of 30 steps, in which it is given the
actions and the first field; the convolutional LSTMs of `model=convlstm`, fitted to the same steps by sequences, also
the four fields before it, where the episode has as many. The normalised root mean square error after n steps is

    NRMSE = sqrt(mean (u^ - u)^2) / sqrt(mean (u - <u>)^2),   over pieces and points, <u> over both,

so 100 % is the error of the mean field. Beside it persistence (u stays as it is), and the linear model about u = 0 with
its jets, exp(0.25 l), both without learning. Seconds are of CPU time, compilation included.

`convolutions`: of 3 members, 128 rows, 64 points, 16 channels in and out, kernel 7: milliseconds of CPU time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from legato.envs.tasks.pde import KuramotoSivashinsky, controllers, spectral
from legato.models import ensemble, ensemble_fit, recurrent_ensemble, recurrent_fit
from legato.models.ensemble_fit import FitOptions
from legato.nn.circulant import PeriodicConvolution

HORIZON, EVERY = 30, 10  # steps of a piece, and between the starts of two
SHOWN = (1, 5, 30)
Predict = Callable[[Any, Any, Any], Any]
"""fields, actions and a memory -> the next fields and the memory"""
Begin = Callable[[Any, Any, Any, Any], Any]
"""the fields and actions before, which of these there are, and fields -> a memory"""


def random_episodes(environment: KuramotoSivashinsky, episodes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Fields `[episodes, steps + 1, points]` and uniform actions `[episodes, steps, jets]`."""
    rng, plant = np.random.default_rng(seed), environment.plant
    modes = spectral.to_modes(np, plant, environment.draw_fields(rng, episodes))
    actions = rng.uniform(-1, 1, (episodes, environment.horizon, len(plant.jets)))
    fields = [spectral.to_field(np, plant, modes)]
    for step in range(environment.horizon):
        modes, _ = environment.transition(np, modes, actions[:, step])
        fields.append(spectral.to_field(np, plant, modes))
    return np.stack(fields, axis=1).astype(np.float32), actions.astype(np.float32)


def errors(predict: Predict, begin: Begin, fields: np.ndarray, actions: np.ndarray) -> list[float]:
    """NRMSE after `SHOWN` steps."""
    starts = np.arange(0, actions.shape[1] - HORIZON + 1, EVERY)

    def at(part: np.ndarray, step: int) -> np.ndarray:
        return part[:, np.maximum(starts + step, 0)].reshape(-1, part.shape[-1])

    found, field, before = [], at(fields, 0), range(1 - recurrent_fit.FRAMES, 0)
    shown = np.stack([np.tile(starts + step >= 0, len(fields)) for step in before]).astype(np.float32)
    history = [np.stack([at(part, step) for step in before]) for part in (fields, actions)]
    memory = begin(history[0], history[1], shown, field)
    for step in range(HORIZON):
        field, memory = predict(field, at(actions, step), memory)
        field = np.asarray(field)
        if step + 1 in SHOWN:
            true = at(fields, step + 1)
            found.append(float(np.sqrt(((field - true) ** 2).mean() / true.var())))
    return found


def linear(environment: KuramotoSivashinsky) -> Predict:
    """The equation without its quadratic term."""
    plant = environment.plant
    rates, _ = controllers.linear_model(plant)
    rates = np.concatenate([rates[:1], rates[1::2]])
    drive = np.where(rates == 0, plant.interval, np.expm1(plant.interval * rates) / np.where(rates == 0, 1, rates))

    def predict(field: Any, action: Any, memory: Any) -> Any:
        v = np.exp(plant.interval * rates) * spectral.to_modes(np, plant, field)
        return spectral.to_field(np, plant, v + drive * spectral.force(plant, action)), memory

    return predict


def accuracy(jets: int, updates: int, recurrent_updates: int) -> None:
    environment = KuramotoSivashinsky(jets=jets)
    fields, actions = random_episodes(environment, 40, seed=1)
    others = random_episodes(environment, 16, seed=2)
    before, after = (part.reshape(-1, fields.shape[-1]) for part in (fields[:, :-1], fields[:, 1:]))
    x, y = jnp.asarray(np.concatenate([before, actions.reshape(-1, jets)], axis=1)), jnp.asarray(after - before)
    print(f"\n| {jets} jets | " + " | ".join(f"{step} steps" for step in SHOWN) + " | CPU s |\n|---|---|---|---|---|")

    def row(name: str, predict: Predict, seconds: float | None, begin: Begin = lambda *before: ()) -> None:
        cells = [f"{100 * error:.3g} %" for error in errors(predict, begin, *others)]
        print(f"| {name} | " + " | ".join(cells) + f" | {'' if seconds is None else round(seconds)} |", flush=True)

    row("persistence", lambda field, action, memory: (field, memory), None)
    row("linear model", linear(environment), None)
    forcing: Any = environment.grid_forcing
    for members in (1, 3):
        start = time.process_time()
        model = ensemble.init_field(environment.plant.points, jets, forcing, members=members, key=jax.random.key(0))
        options = FitOptions(batch_size=256, learning_rate=3e-3, epoch=250, most=updates, held_out=0.1)
        model, _ = ensemble_fit.refit(model, x, y, len(x), options, members, jax.random.key(1))
        seconds = time.process_time() - start

        @eqx.filter_jit
        def predict(field: Any, action: Any, memory: Any, model: Any = model) -> Any:
            return field + model(jnp.concatenate([field, action], axis=-1))[0].mean(axis=0), memory

        row(f"circulant, {members} member{'s' * (members > 1)}", predict, seconds)
    rows = (jnp.asarray(part.reshape(-1, part.shape[-1])) for part in (fields[:, :-1], actions, fields[:, 1:]))
    series = recurrent_fit.link_rows(*rows, jnp.ones(len(x)), len(x), len(x) - 1, 1)
    for members in (1, 3):
        start = time.process_time()
        recurrent = recurrent_ensemble.init(
            environment.plant.points, jets, forcing, members=members, key=jax.random.key(0)
        )
        options = FitOptions(batch_size=64, learning_rate=3e-3, epoch=125, most=recurrent_updates, held_out=0.1)
        recurrent, _ = recurrent_fit.refit(recurrent, series, len(x), 1, options, members, jax.random.key(1))
        seconds = time.process_time() - start

        @eqx.filter_jit
        def advance(field: Any, action: Any, memory: Any, recurrent: Any = recurrent) -> Any:
            change, memory = recurrent.advance(memory, field, action)
            return field + change.mean(axis=0), memory

        begin: Begin = eqx.filter_jit(lambda *before, recurrent=recurrent: recurrent.warm_up(*before))
        row(f"convlstm, {members} member{'s' * (members > 1)}", advance, seconds, begin)


def shifted_copies(layer: PeriodicConvolution, x: Any) -> Any:
    kernel, inputs, outputs = layer.weight.shape
    copies = [jnp.roll(x, kernel // 2 - j, axis=-2) for j in range(kernel)]
    return jnp.concatenate(copies, axis=-1) @ layer.weight.reshape(kernel * inputs, outputs) + layer.bias


def wrapped_convolution(layer: PeriodicConvolution, x: Any) -> Any:
    reach = len(layer.weight) // 2
    padded = jnp.concatenate([x[..., -reach:, :], x, x[..., :reach, :]], axis=-2)
    y = jax.lax.conv_general_dilated(padded, layer.weight, (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC"))
    return y + layer.bias


def convolutions() -> None:
    layers = jax.vmap(lambda key: PeriodicConvolution(7, 16, 16, key=key))(jax.random.split(jax.random.key(0), 3))
    x = jax.random.normal(jax.random.key(1), (3, 128, 64, 16))
    ways: Sequence[tuple[str, Any]] = (
        ("products in Fourier space", lambda layer, x: layer(x)),
        ("shifted copies, one product", shifted_copies),
        ("lax.conv of wrapped rows", wrapped_convolution),
    )
    print("\n| | forward | gradient | difference |\n|---|---|---|---|")
    reference = jax.vmap(ways[0][1])(layers, x)
    for name, way in ways:
        forward = jax.jit(jax.vmap(way))
        gradient = jax.jit(jax.grad(lambda part, way=way: (jax.nn.silu(jax.vmap(way)(*part)) ** 2).sum()))
        apart = float(jnp.abs(forward(layers, x) - reference).max())
        jax.block_until_ready(gradient((layers, x)))
        cells = []
        for run in (lambda forward=forward: forward(layers, x), lambda gradient=gradient: gradient((layers, x))):
            start = time.process_time()
            for _ in range(20):
                jax.block_until_ready(run())
            cells.append(f"{1000 * (time.process_time() - start) / 20:.1f}")
        print(f"| {name} | " + " | ".join(cells) + f" | {apart:.0e} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--parts", nargs="+", choices=("accuracy", "convolutions"), default=["accuracy", "convolutions"]
    )
    parser.add_argument("--updates", type=int, default=2_000)
    parser.add_argument("--recurrent-updates", type=int, default=500)
    parser.add_argument("--jets", type=int, default=4)
    options = parser.parse_args()
    if "accuracy" in options.parts:
        accuracy(options.jets, options.updates, options.recurrent_updates)
    if "convolutions" in options.parts:
        convolutions()


if __name__ == "__main__":
    main()

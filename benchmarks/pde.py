"""The plants that are partial differential equations: what is known of them, their controllers' returns, and speed.

python benchmarks/pde.py [--parts rank returns solver rewards speed] [--episodes 64] [--picture FILE]

`rank`: how jets drive the modes of u = 0 that grow, by singular values. `returns`: of controllers, whole episodes side
by side. `solver`: its convergence, and the statistics of the attractor. `rewards`: how far means over a step are from
exact ones, and the known rewards. `speed`: control steps per second of CPU time. By default all of them, or with
`--picture` only the drawing of an episode with four jets that damp, and of one with eight and the linear controller.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from legato.envs.tasks.pde import KuramotoSivashinsky, attractor, controllers, spectral
from legato.envs.tasks.pde.burgers import Burgers, burgers
from legato.envs.tasks.pde.kuramoto_sivashinsky import kuramoto_sivashinsky
from legato.envs.tasks.pde.starts import lyapunov_exponent
from legato.evaluation.figures.space_time import space_time

JETS: dict[str, dict[str, Any]] = {
    "4, equispaced": {"jets": 4},
    "4, the first one half": {"jets": 4, "periodic_jets": False},
    "4, at 0, .19, .46, .77": {"jets": [0, 0.19, 0.46, 0.77]},
    "5, equispaced": {"jets": 5},
    "8, equispaced": {"jets": 8},
}


def rank() -> None:
    print("\n| jets | mode 1 | mode 2 | mode 3 |\n|---|---|---|---|")
    for name, options in JETS.items():
        _, drive = controllers.linear_model(KuramotoSivashinsky(**options).plant)
        values = [np.linalg.svd(drive[2 * n - 1 : 2 * n + 1], compute_uv=False) for n in (1, 2, 3)]
        print(f"| {name} | " + " | ".join(f"{a:.4f} {b:.4f}" for a, b in values) + " |")


def returns(episodes: int) -> None:
    rng = np.random.default_rng(1)

    def random(environment: Any, observation: np.ndarray) -> np.ndarray:
        return rng.uniform(-1, 1, (len(observation), len(environment.plant.jets)))

    print("\n| Kuramoto-Sivashinsky | l2 | dissipation | calm at the end |\n|---|---|---|---|")
    lqr, damping = controllers.lqr, controllers.damping
    rows: list[tuple[str, str, controllers.Controller]] = [("zero", "4, equispaced", controllers.zero)]
    rows += [("random", "4, equispaced", random), *[("damping", name, damping) for name in JETS]]
    rows += [("LQR, cost 0.1", name, lqr) for name in ("5, equispaced", "8, equispaced")]
    rows += [("LQR, cost 0.01", "8, equispaced", partial(lqr, cost=0.01))]
    for name, jets, controller in rows:
        cells, calm = [], 0.0
        for reward in ("l2", "dissipation"):
            environment = KuramotoSivashinsky(reward, **JETS[jets])
            found, last = controllers.play_batch(environment, controller, episodes)
            cells.append(spread(found))
            calm = float(((last**2).mean(axis=-1) < 1e-2).mean())
        print(f"| {name}; {jets} | {cells[0]} | {cells[1]} | {calm:.0%} |")

    print("\n| Burgers | return |\n|---|---|")
    for name, controller in (
        ("zero", controllers.zero),
        ("random", random),
        ("always 1", lambda environment, observation: np.ones((len(observation), 2))),
        ("proportional, gain 1", controllers.proportional),
        ("proportional, gain 5", partial(controllers.proportional, gain=5.0)),
    ):
        print(f"| {name} | {spread(controllers.play_batch(Burgers(), controller, episodes)[0], 2)} |")


def spread(values: np.ndarray, digits: int = 1) -> str:
    """Mean, standard deviation over episodes, and standard error of the mean."""
    deviation = values.std(ddof=1)
    error = deviation / np.sqrt(len(values))
    return f"{values.mean():.{digits}f} ± {deviation:.{digits}f} (s.e. {error:.{digits}f})"


def solver() -> None:
    plants: dict[str, tuple[Callable[..., spectral.Plant], np.ndarray, float, Sequence[int], int]] = {
        "Kuramoto-Sivashinsky, t = 5": (kuramoto_sivashinsky, attractor(22.0, 64)[:64], 5.0, (50, 100, 200), 400),
        "Burgers, t = 5": (burgers, Burgers().draw_fields(np.random.default_rng(0), 64), 5.0, (100, 200, 400), 1600),
    }
    print("\n| plant | dt | relative L2 error |\n|---|---|---|")
    for name, (make, fields, duration, counts, best) in plants.items():
        found = {}
        for count in (*counts, best):
            plant = make(dt=duration / count, substeps=count)
            action = np.full(len(plant.jets), 0.5)
            start = spectral.to_modes(np, plant, fields.astype(float))
            end = spectral.advance(np, plant, start, spectral.force(plant, action))[-1]
            found[count] = spectral.to_field(np, plant, end)
        for count in counts:
            error = np.linalg.norm(found[count] - found[best]) / np.linalg.norm(found[best])
            print(f"| {name} | {duration / count:g} | {error:.1e} |")

    plant = kuramoto_sivashinsky(substeps=20)
    modes, squares, energy = spectral.to_modes(np, plant, attractor(22.0, 64)[:512].astype(float)), [], []
    for _ in range(100):
        path = spectral.advance(np, plant, modes, np.zeros(plant.modes))
        modes = path[-1]
        squares.append(spectral.mean_squares(plant, path[::5]).mean(axis=(0, 1)))
        energy.append((np.abs(modes) ** 2).mean(axis=0))
    energy = np.mean(energy, axis=0)[1:]
    print("\n<u^2>, <u_x^2>, <u_xx^2>:", *np.mean(squares, axis=0).round(3))
    print("energy of modes 1 to 6, %:", *(100 * energy / energy.sum())[:6].round(1))
    exponent = lyapunov_exponent(kuramoto_sivashinsky(dt=0.1, substeps=10), attractor(22.0, 64)[:128], 300)
    print(f"largest Lyapunov exponent: {exponent:.4f}")


def rewards() -> None:
    print("\n| mean absolute error of a reward | l2 | dissipation |\n|---|---|---|")
    errors: dict[str, list[float]] = {"5 sub-steps": [], "known_reward": [], "at the end only": [], "(mean reward)": []}
    for reward in ("l2", "dissipation"):
        plant, fine = KuramotoSivashinsky(reward), KuramotoSivashinsky(reward, dt=0.0025, substeps=100)
        known: Any = plant.known_reward
        rng, found = np.random.default_rng(0), []
        modes = spectral.to_modes(np, plant.plant, plant.draw_fields(rng, 64))
        for _ in range(40):
            action = rng.uniform(-1, 1, (64, 4))
            before = spectral.to_field(np, plant.plant, modes)
            exact = fine.transition(np, modes, action)[1]["reward"]
            modes, told = plant.transition(np, modes, action)
            after = spectral.to_field(np, plant.plant, modes)
            guesses = told["reward"], known(before, action, after), known(after, action, after)
            found.append([*(np.abs(guess - exact).mean() for guess in guesses), exact.mean()])
        for name, value in zip(errors, np.mean(found, axis=0), strict=True):
            errors[name].append(value)
    for name, values in errors.items():
        print(f"| {name} | " + " | ".join(f"{value:.2g}" for value in values) + " |")


def speed() -> None:
    print("\n| control steps per second of CPU time | |\n|---|---|")
    start = time.process_time()
    attractor.cache_clear()
    states = attractor(22.0, 64)
    print(f"| (seconds for a bank of {len(states)} states) | {time.process_time() - start:.2f} |")
    for environment, steps in ((KuramotoSivashinsky(), 400), (KuramotoSivashinsky(jets=8), 400), (Burgers(), 60)):
        name = f"{type(environment).__name__}, {len(environment.plant.jets)} jets"
        environment.reset(seed=0)
        actions = np.random.default_rng(0).uniform(-1, 1, (steps, len(environment.plant.jets)))
        start = time.process_time()
        for action in actions:
            environment.step(action)
        print(f"| {name}, a single one | {steps / (time.process_time() - start):,.0f} |")
        for count in (64, 256):
            start = time.process_time()
            controllers.play_batch(environment, controllers.zero, count)
            print(f"| {name}, {count} side by side | {count * steps / (time.process_time() - start):,.0f} |")


def draw(out: Path) -> None:
    """Two drawings, with `-4` and `-8` in their names."""
    for jets, controller in ((4, controllers.damping), (8, controllers.lqr)):
        environment, total = KuramotoSivashinsky(jets=jets), 0.0
        observation, over = environment.reset(seed=4)[0], False
        while not over:
            observation, reward, _, over, _ = environment.step(controller(environment, observation))
            total += reward
        title = f"{jets} jets, {'damping' if jets == 4 else 'linear-quadratic regulator'}"
        path = out.with_stem(f"{out.stem}-{jets}")
        print(space_time(environment.picture(), path, title=title, note=f"return {total:.1f}"))


def main() -> None:
    parts = {"rank": rank, "returns": returns, "solver": solver, "rewards": rewards, "speed": speed}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    if options.picture:
        draw(options.picture)
        return
    for name in options.parts:
        parts[name](*([options.episodes] if name == "returns" else []))


if __name__ == "__main__":
    main()

"""`legato demo`: the first command a stranger runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from legato.cli.parsing import call
from legato.errors import plain

LINE_UP: tuple[tuple[str, dict[str, Any]], ...] = (("srl", {"horizon": 8}), ("sac", {}), ("sac", {"action_repeat": 4}))


def demo(out: Path | None = None, steps: int = 8_000, seed: int = 0) -> None:
    """Train SRL-8, SAC and SAC-4 on Pendulum-v1, then let each decide ever more rarely and compare.

    Args:
        out: the new folder for runs and figure; by default the first free runs/demo-N
        steps: primitive environment steps of training, for each of the three
        seed: the seed of all three
    """
    from legato import api
    from legato.errors import LegatoError
    from legato.evaluation import report
    from legato.evaluation.sweep_figures import draw

    folder = out if out is not None else _next_free_folder()
    if folder.exists():
        raise LegatoError(f"'{folder}' exists and is not overwritten; choose another --out")
    evaluations = []
    for algorithm, options in LINE_UP:
        name = "-".join([algorithm, *map(str, options.values())])
        run = api.train(algorithm, "Pendulum-v1", steps=steps, seed=seed, out=folder / name, **options)
        evaluations.append(api.evaluate(run, clocks=False))
    figure = draw(evaluations, folder / "curve.png")
    report.show(evaluations)
    print(plain(f"figure    {figure}"))
    print(plain(f"policies  {folder}/*/policy, for example:"))
    print(f"          python -c \"import legato; print(legato.load('{folder}/srl-8').card)\"")
    print(f"next      legato play {folder}/srl-8 --every 8 --out swing.gif   (needs pip install 'legato[classic]')")


def _next_free_folder() -> Path:
    n = 1
    while (path := Path("runs") / f"demo-{n}").exists():
        n += 1
    return path


def run(args: list[str]) -> None:
    call(demo, args, "legato demo")

"""Evaluations as figures: curves of one or several, and those that a run keeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from legato.evaluation.sweeps import Evaluation, Sweep


def draw(
    evaluations: Sequence[Evaluation], path: str | Path, sweep: Literal["asl", "intervals", "delay"] = "asl"
) -> Path:
    """Return against action sequence length, longest random interval or delay, one line per evaluation that has it."""
    from legato.evaluation.figures import asl_curve, delay_curve, interval_curve

    first = evaluations[0]
    swept = [(e, getattr(e, sweep)) for e in evaluations if getattr(e, sweep) is not None]
    curves = [_curve(e, found, score=sweep == "asl") for e, found in swept]
    scale: dict[str, Any] = {"step_seconds": first.step_seconds}
    if sweep == "asl":
        title = f"{first.environment}: what rarer decisions cost"
        known = next(((e.asl.x, e.optimum) for e in evaluations if e.optimum), None)
        return asl_curve(curves, path, title=title, reference=first.reference, optimum=known, **scale)
    figure, what = {
        "intervals": (interval_curve, "decisions at random intervals"),
        "delay": (delay_curve, "decisions that come late"),
    }[sweep]
    return figure(curves, path, title=f"{first.environment}: {what}", **scale)


def draw_all(evaluation: Evaluation, folder: Path) -> None:
    """Every figure that an evaluation has numbers for, in a run's folder of figures."""
    from legato.evaluation.figures import Curve, prompt_curve

    folder.mkdir(exist_ok=True)
    if len(evaluation.asl.x) > 1:
        draw([evaluation], folder / f"asl-{evaluation.which}.png")
    for sweep in ("intervals", "delay"):
        if getattr(evaluation, sweep) is not None:
            draw([evaluation], folder / f"{sweep}-{evaluation.which}.png", sweep)
    if (found := evaluation.prompts) is not None and len(found.asked) > 1:
        prompt_curve(
            [Curve(evaluation.label, np.array(found.asked), found.means)],
            folder / f"prompts-{evaluation.which}.png",
            title=f"{evaluation.environment}: the return asked for and achieved",
            data=found.data,
            target=found.target,
        )


def _curve(evaluation: Evaluation, sweep: Sweep, score: bool = False) -> Any:
    from legato.evaluation.figures import Curve

    fas = evaluation.fas if score else None
    return Curve(evaluation.label, np.array(sweep.x), sweep.means, evaluation.trained_length, fas)
